"""Times that a store keeps under keys: the guard counts with them, and whatever happens once is marked by them.

A mark is one time for each key, moved in one atomic step, and forgotten when it is past. Keys are SHA-256 of what they
stand for: no names and no addresses are in the table.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Protocol

__all__ = [
    "MarkerStore",
    "mark_once",
    "marker_key",
    "new_device",
    "revoked_since",
    "void_pending_logins",
    "was_voided_since",
]

MFA_TOKEN_SECONDS = 300.0  # seconds between a right password and the code that follows
CLOCK_TOLERANCE_SECONDS = 0.001  # seconds
KNOWN_DEVICE_SECONDS = 365 * 86400.0  # seconds since the first login from there, or twice as many


class MarkerStore(Protocol):
    """What is needed of a store."""

    blocking: bool

    async def advance_marker(self, key: bytes, now: float, every: float, most: float) -> float:
        """Moves the time kept under *key* to min(max(it, now) + every, now + most); the new value."""

    async def read_markers(self, keys: Sequence[bytes]) -> list[float]:
        """What is kept under each of *keys*; 0.0 where nothing is."""

    async def clear_markers(self, keys: Sequence[bytes]) -> None:
        """Forgets *keys*."""


def marker_key(kind: bytes, *parts: bytes) -> bytes:
    """The key for *parts*: no other kind, and no other parts, give the same."""
    return hashlib.sha256(b"unbroken\0" + b"".join(len(part).to_bytes(4) + part for part in (kind, *parts))).digest()


async def mark_once(store: MarkerStore, key: bytes, now: float, life: float) -> bool:
    """Whether *key* comes for the first time in *life* seconds, or in twice as many at most. One atomic step.

    A second of that life is given away: stores and clocks do not agree on the last digits.
    """
    return await store.advance_marker(key, now, life, 2.0 * life) <= now + life + 1.0


async def new_device(store: MarkerStore, subject: str, client_id: str, device: str, now: float) -> bool:
    """Whether *subject* logs in by this client from such a device for the first time."""
    parts = (part.encode("utf-8", "replace") for part in (subject, client_id, device))
    return await mark_once(store, marker_key(b"device", *parts), now, KNOWN_DEVICE_SECONDS)


async def void_pending_logins(store: MarkerStore, subject: str, now: float) -> None:
    """Ends the logins of *subject* that wait for a second step."""
    await store.advance_marker(_pending_logins_key(subject), now, MFA_TOKEN_SECONDS, MFA_TOKEN_SECONDS)


async def was_voided_since(store: MarkerStore, subject: str, began: float) -> bool:
    """Whether a login of *subject* that began then was ended by ``void_steps`` since."""
    [kept] = await store.read_markers([_pending_logins_key(subject)])
    return began <= kept - MFA_TOKEN_SECONDS


async def revoked_since(store: MarkerStore, subject: str, began: float) -> bool:
    """Whether all sessions of *subject* were ended after *began*. At one and the same time of day counts as before:
    whoever ends all sessions and logs in again is welcome. Stores do not agree on the last digits.
    """
    [kept] = await store.read_markers([_pending_logins_key(subject)])
    return began < kept - MFA_TOKEN_SECONDS - CLOCK_TOLERANCE_SECONDS


def _pending_logins_key(subject: str) -> bytes:
    return marker_key(b"steps", subject.encode("utf-8", "replace"))
