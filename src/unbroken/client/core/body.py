"""Bodies: which request body may be sent again, and how a response body that was read is put back. Pure.

A request body is judged before it is sent the first time, because nothing can be learnt from a body that is spent.

1. Bytes and text can be sent again as they are.
2. A seekable file is wound back to where it stood, which need not be its beginning.
3. A list or another built-in collection gives a new iterator each time. An iterator, a generator or a pipe is spent
   once: it is never sent twice, and never sent empty.
4. An object of unknown kind counts as spent once, also one that looks like a collection, such as a wrapper that shows
   progress.

A response body is read to look for a challenge in it, or because the response is a challenge.

5. What was read of it is put back, with the unread rest behind it, so that the caller reads it from its beginning.
6. It is read up to a number of bytes and of seconds: a server may send without end, or a byte a second.
7. A challenge that goes on beyond them is cut there: the connection is closed, and the caller finds the beginning,
   decoded and without the headers of its coding and length.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from inspect import iscoroutinefunction
from typing import Any

__all__ = ["CODING_HEADERS", "BodyBuffer", "ReplayedStream", "Rewind", "rewinder"]

Rewind = Callable[[], object]
MAX_READ_SECONDS = 5.0
CODING_HEADERS = ("content-encoding", "content-length")  # which a body that was cut no longer has (rule 7)
BUILT_IN_COLLECTIONS = (list, tuple, dict, set, frozenset, deque)


def rewinder(body: object) -> Rewind | None:
    """Return a function that makes *body* ready to be sent once more; None if it can be sent only once."""
    if body is None or isinstance(body, (bytes, str, bytearray, memoryview)):
        return _nothing_to_rewind  # rule 1
    if hasattr(body, "aread") or iscoroutinefunction(getattr(body, "read", None)):
        return None  # winding it back would need an event loop, here and now
    if hasattr(body, "read"):
        return _seek_back(body)
    return _nothing_to_rewind if type(body) in BUILT_IN_COLLECTIONS else None  # rules 3 and 4


def _nothing_to_rewind() -> None:
    """Do nothing."""


def _seek_back(file: Any) -> Rewind | None:
    try:
        if not file.seekable():
            return None
        start = file.tell()
    except (AttributeError, OSError, ValueError):
        return None
    return (lambda: file.seek(start)) if isinstance(start, int) else None  # rule 2


class BodyBuffer:
    """Collects the ``pieces`` of a body, up to *max_bytes* and the piece in which they end (rule 6).

    *clock* returns seconds, from a clock that never jumps.
    """

    def __init__(self, max_bytes: int, clock: Callable[[], float]) -> None:
        self.max_bytes = max_bytes
        self.pieces: list[bytes] = []
        self._size, self._clock, self._ends = 0, clock, clock() + MAX_READ_SECONDS

    def add(self, piece: bytes) -> bool:
        """Add *piece*. Return whether to read on."""
        self.pieces.append(piece)
        self._size += len(piece)
        return self._size <= self.max_bytes and self._clock() < self._ends


class ReplayedStream:
    """A response stream, sync or async: the *pieces* that were read, then the *rest* of the *original* (rule 5).

    Closing it closes the original.
    """

    def __init__(self, pieces: list[bytes], rest: Any = None, original: Any = None) -> None:
        self._pieces, self._rest, self._original = pieces, rest, original

    def __iter__(self) -> Iterator[bytes]:
        yield from self._pieces
        yield from self._rest or ()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            yield piece
        if self._rest is not None:
            async for piece in self._rest:
                yield piece

    @property
    def elapsed(self) -> Any:
        """The time that the original took; httpx2 asks its streams for it."""
        return getattr(self._original, "elapsed", None)

    def close(self) -> None:
        """Close the original."""
        if self._original is not None:
            self._original.close()

    async def aclose(self) -> None:
        """Close the original, and its iterator first, which an async generator does not do by itself."""
        if hasattr(self._rest, "aclose"):
            await self._rest.aclose()
        if self._original is not None:
            await self._original.aclose()
