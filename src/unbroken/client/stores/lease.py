"""A lock that is lent for a while: for stores whose holders may die, or lose the network, without a word.

1. A lease ends by itself, so that nobody waits for the dead. It outlives the exchange it is taken for.
2. Its holder asks before each request whether it will certainly last for it: by the monotonic *and* the wall clock,
   counted from before it was asked for, since one of them stands still while the machine sleeps.
3. Whoever asks again for what he holds gets it: an answer may have been lost.
4. A busy lock and a lock that cannot be reached are two things: StoreBusy and StoreUnavailable.
"""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from unbroken.client.record import Lease
from unbroken.errors import StoreBusy, StoreUnavailable

__all__ = ["LEASE", "lent"]

LEASE = 60.0  # seconds; a renewal takes at most three exchanges of ten


class _Until:
    """A lease that was asked for just now."""

    def __init__(self, lasting: float) -> None:
        self._mono, self._wall = time.monotonic() + lasting, time.time() + lasting

    def holds(self, seconds: float) -> bool:
        return time.monotonic() + seconds < self._mono and time.time() + seconds < self._wall


@contextmanager
def lent(
    take: Callable[[str], bool], give_back: Callable[[str], object], *, timeout: float, lasting: float
) -> Iterator[Lease]:
    """Holds the lock that ``take(holder)`` gets if nobody has it. Raises StoreBusy after *timeout* seconds."""
    holder, ends, pause = secrets.token_hex(8), time.monotonic() + timeout, 0.004
    while True:
        lease = _Until(lasting)
        if take(holder):
            break
        if time.monotonic() >= ends:
            raise StoreBusy(f"the renewal lock stayed busy for {timeout:g} seconds")
        time.sleep(pause * (0.5 + random.random()))  # noqa: S311  # spreads load only
        pause = min(pause * 1.5, 0.1)
    try:
        yield lease
    finally:
        with suppress(StoreUnavailable):  # then it ends by itself
            give_back(holder)
