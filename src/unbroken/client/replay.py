"""May this body be sent again? Decided before it is sent the first time, for nothing can be learnt afterwards.

1. Bytes and texts can be sent again as they are.
2. A seekable file or stream is wound back to where it stood, which need not be its beginning.
3. A list or another collection of Python's own gives a new iterator each time. An iterator, a generator or a pipe is
   spent once: it is never sent twice, and never sent empty.
4. What is not known is spent once: also an object that looks like a collection, such as a wrapper that shows progress.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from inspect import iscoroutinefunction
from typing import Any

__all__ = ["Rewind", "rewinder"]

Rewind = Callable[[], object]
COLLECTIONS = (list, tuple, dict, set, frozenset, deque)


def _as_it_is() -> None:
    """Nothing has to be done."""


def rewinder(body: object) -> Rewind | None:
    """What makes *body* ready to be sent once more; None when it can be sent only once."""
    if body is None or isinstance(body, (bytes, str, bytearray, memoryview)):
        return _as_it_is
    if hasattr(body, "aread") or iscoroutinefunction(getattr(body, "read", None)):
        return None  # to wind it back would need an event loop, here and now
    if hasattr(body, "read"):
        return _wind_back(body)
    return _as_it_is if type(body) in COLLECTIONS else None


def _wind_back(file: Any) -> Rewind | None:
    try:
        if not file.seekable():
            return None
        start = file.tell()
    except (AttributeError, OSError, ValueError):
        return None
    return (lambda: file.seek(start)) if isinstance(start, int) else None
