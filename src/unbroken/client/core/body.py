"""May this body be sent again? Decided before it is sent the first time, for nothing can be learnt afterwards.

1. Bytes and texts can be sent again as they are.
2. A seekable file or stream is wound back to where it stood, which need not be its beginning.
3. A list or another collection of Python's own gives a new iterator each time. An iterator, a generator or a pipe is
   spent once: it is never sent twice, and never sent empty.
4. What is not known is spent once: also an object that looks like a collection, such as a wrapper that shows progress.

A body that was read in part, or to its end, and is put back: whoever reads it next finds it as it came.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from inspect import iscoroutinefunction
from typing import Any

__all__ = ["BodyBuffer", "ReplayedStream", "Rewind", "rewinder"]

Rewind = Callable[[], object]
COLLECTIONS = (list, tuple, dict, set, frozenset, deque)


def _nothing_to_rewind() -> None:
    """Nothing has to be done."""


def rewinder(body: object) -> Rewind | None:
    """What makes *body* ready to be sent once more; None when it can be sent only once."""
    if body is None or isinstance(body, (bytes, str, bytearray, memoryview)):
        return _nothing_to_rewind
    if hasattr(body, "aread") or iscoroutinefunction(getattr(body, "read", None)):
        return None  # to wind it back would need an event loop, here and now
    if hasattr(body, "read"):
        return _seek_back(body)
    return _nothing_to_rewind if type(body) in COLLECTIONS else None


def _seek_back(file: Any) -> Rewind | None:
    try:
        if not file.seekable():
            return None
        start = file.tell()
    except (AttributeError, OSError, ValueError):
        return None
    return (lambda: file.seek(start)) if isinstance(start, int) else None


class BodyBuffer:
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


class ReplayedStream:
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
