"""Times that a store keeps under keys: the guard counts with them, and whatever happens once is marked by them.

A mark is one time for each key, moved in one atomic step, and forgotten when it is past. Keys are SHA-256 of what they
stand for: no names and no addresses are in the table.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol, TypeVar

from unbroken._sync import is_blocking, run_once
from unbroken.server.worker_pool import STORE

__all__ = [
    "Marks",
    "began_too_early",
    "ended_since",
    "first_time",
    "in_its_place",
    "key_of",
    "new_device",
    "void_steps",
]

T = TypeVar("T")
STEP_LIFE = 300.0  # seconds between a right password and the code that follows
LAST_DIGITS = 0.001  # seconds
DEVICE_REMEMBERED = 365 * 86400.0  # seconds since the first login from there, or twice as many


class Marks(Protocol):
    """What is needed of a store."""

    blocking: bool

    async def strike(self, key: bytes, now: float, every: float, most: float) -> float:
        """Moves the time kept under *key* to min(max(it, now) + every, now + most); the new value."""

    async def struck(self, keys: Sequence[bytes]) -> list[float]:
        """What is kept under each of *keys*; 0.0 where nothing is."""

    async def forgive(self, keys: Sequence[bytes]) -> None:
        """Forgets *keys*."""


def key_of(kind: bytes, *parts: bytes) -> bytes:
    """The key for *parts*: no other kind, and no other parts, give the same."""
    return hashlib.sha256(b"unbroken\0" + b"".join(len(part).to_bytes(4) + part for part in (kind, *parts))).digest()


async def first_time(store: Marks, key: bytes, now: float, life: float) -> bool:
    """Whether *key* comes for the first time in *life* seconds, or in twice as many at most. One atomic step.

    A second of that life is given away: stores and clocks do not agree on the last digits.
    """
    return await store.strike(key, now, life, 2.0 * life) <= now + life + 1.0


async def new_device(store: Marks, subject: str, client_id: str, device: str, now: float) -> bool:
    """Whether *subject* logs in by this client from such a device for the first time."""
    parts = (part.encode("utf-8", "replace") for part in (subject, client_id, device))
    return await first_time(store, key_of(b"device", *parts), now, DEVICE_REMEMBERED)


async def void_steps(store: Marks, subject: str, now: float) -> None:
    """Ends the logins of *subject* that wait for a second step."""
    await store.strike(_steps(subject), now, STEP_LIFE, STEP_LIFE)


async def began_too_early(store: Marks, subject: str, began: float) -> bool:
    """Whether a login of *subject* that began then was ended by ``void_steps`` since."""
    [kept] = await store.struck([_steps(subject)])
    return began <= kept - STEP_LIFE


async def ended_since(store: Marks, subject: str, began: float) -> bool:
    """Whether all sessions of *subject* were ended after *began*. At one and the same time of day counts as before:
    whoever ends all sessions and logs in again is welcome. Stores do not agree on the last digits.
    """
    [kept] = await store.struck([_steps(subject)])
    return began < kept - STEP_LIFE - LAST_DIGITS


async def in_its_place(store: Marks, flow: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """What *flow* gives; in a thread where the store blocks and there is an event loop."""
    if not store.blocking or is_blocking():
        return await flow()
    return await STORE.run(lambda: run_once(flow()))


def _steps(subject: str) -> bytes:
    return key_of(b"steps", subject.encode("utf-8", "replace"))
