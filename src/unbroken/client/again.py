"""A body that was read in part, or to its end, and is put back: whoever reads it next finds it as it came."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

__all__ = ["Again", "Pieces"]


class Pieces:
    """What was ``taken`` of a body: up to *most* bytes, and the piece in which they end."""

    def __init__(self, most: int | None) -> None:
        self.most = most
        self.taken: list[bytes] = []
        self._size = 0

    def take(self, piece: bytes) -> bool:
        """Keeps *piece*; whether there may be more."""
        self.taken.append(piece)
        self._size += len(piece)
        return self.most is None or self._size <= self.most


class Again:
    """A stream, blocking or not: the pieces that were *taken*, then the *rest* of the *old* one, which it closes."""

    def __init__(self, taken: list[bytes], rest: Any = None, old: Any = None) -> None:
        self._taken, self._rest, self._old = taken, rest, old

    def __iter__(self) -> Iterator[bytes]:
        yield from self._taken
        yield from self._rest or ()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._taken:
            yield piece
        if self._rest is not None:
            async for piece in self._rest:
                yield piece

    @property
    def elapsed(self) -> Any:
        """What the old stream says of its time, which httpx2 asks its streams for."""
        return getattr(self._old, "elapsed", None)

    def close(self) -> None:
        """Closes what it stands for."""
        if self._old is not None:
            self._old.close()

    async def aclose(self) -> None:
        """Closes what it stands for."""
        if hasattr(self._rest, "aclose"):
            await self._rest.aclose()
        if self._old is not None:
            await self._old.aclose()
