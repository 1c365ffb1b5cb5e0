"""Markers: one time per key in the store, for single use, for pending logins, and for known devices.

A marker moves in one atomic step and may be deleted when it is past. The rate limit counts with markers too
(``login.rate_limit``). Keys are SHA-256 hashes, so the store contains no names and no addresses.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Protocol

from unbroken.server.core.rotation import SessionRow

__all__ = [
    "DEVICE_TOKEN_SECONDS",
    "MFA_TOKEN_SECONDS",
    "MarkerStore",
    "device_forgotten_since",
    "devices_key",
    "forget_devices",
    "mark_once",
    "marker_key",
    "new_device",
    "revoked_since",
    "void_pending_logins",
    "was_voided_since",
]

MFA_TOKEN_SECONDS = 300.0  # from the right password to the code that follows
DEVICE_TOKEN_SECONDS = 400 * 86400.0  # no device token lives longer; browsers keep no cookie for longer
KNOWN_DEVICE_SECONDS = 365 * 86400.0  # a device is known for so long, or up to twice as long
CLOCK_TOLERANCE_SECONDS = 0.001  # stores round times differently
MARK_TOLERANCE_SECONDS = 1.0  # stores round times differently, and hosts' clocks differ


class MarkerStore(Protocol):
    """The part of a ``SessionStore`` that keeps markers."""

    blocking: bool

    async def advance_marker(self, key: bytes, now: float, step: float, max_ahead: float) -> float:
        """Set the marker *key* to min(max(marker, *now*) + *step*, *now* + *max_ahead*) atomically; return it."""

    async def read_markers(self, keys: Sequence[bytes]) -> list[float]:
        """Return the marker of each key, in order; 0.0 where there is no marker."""

    async def clear_markers(self, keys: Sequence[bytes]) -> None:
        """Delete the markers of *keys*."""


def marker_key(kind: bytes, *parts: bytes) -> bytes:
    """Return the key of *parts*, which differs for another kind and for other parts."""
    return hashlib.sha256(b"unbroken\0" + b"".join(len(part).to_bytes(4) + part for part in (kind, *parts))).digest()


async def mark_once(store: MarkerStore, key: bytes, now: float, seconds: float) -> bool:
    """Return whether *key* is marked for the first time in *seconds*, or in up to twice as many. One atomic step."""
    marker = await store.advance_marker(key, now, seconds, 2.0 * seconds)
    return marker <= now + seconds + MARK_TOLERANCE_SECONDS


async def new_device(store: MarkerStore, row: SessionRow, device: str, now: float) -> bool:
    """Return whether *row* is the first login of its subject, at its issuer, with its client from such a device."""
    parts = (part.encode("utf-8", "replace") for part in (row.issuer, row.subject, row.client_id, device))
    return await mark_once(store, marker_key(b"device", *parts), now, KNOWN_DEVICE_SECONDS)


async def void_pending_logins(store: MarkerStore, subject: str, now: float) -> None:
    """Make void the logins of *subject* that wait for their MFA code."""
    await store.advance_marker(_pending_logins_key(subject), now, MFA_TOKEN_SECONDS, MFA_TOKEN_SECONDS)


async def was_voided_since(store: MarkerStore, subject: str, started_at: float) -> bool:
    """Return whether ``void_pending_logins`` has made void a login of *subject* that started at *started_at*."""
    [marker] = await store.read_markers([_pending_logins_key(subject)])
    return started_at <= marker - MFA_TOKEN_SECONDS


async def revoked_since(store: MarkerStore, subject: str, started_at: float) -> bool:
    """Return whether all sessions of *subject* were revoked after *started_at*.

    A revocation at the same time counts as earlier: a user may revoke all sessions and log in again at once.
    """
    [marker] = await store.read_markers([_pending_logins_key(subject)])
    return started_at < marker - MFA_TOKEN_SECONDS - CLOCK_TOLERANCE_SECONDS


async def forget_devices(store: MarkerStore, subject: str, now: float) -> None:
    """Make void all device tokens of *subject* that were issued before *now*."""
    key = devices_key(subject.encode("utf-8", "replace"))
    await store.advance_marker(key, now, DEVICE_TOKEN_SECONDS, DEVICE_TOKEN_SECONDS)


async def device_forgotten_since(store: MarkerStore, devices: bytes, issued_at: float) -> bool:
    """Return whether the device tokens with the key *devices* were made void after *issued_at*.

    At the same time counts as before: a user may change the password and log in again at once.
    """
    [marker] = await store.read_markers([devices])
    return issued_at < marker - DEVICE_TOKEN_SECONDS - CLOCK_TOLERANCE_SECONDS


def devices_key(subject: bytes) -> bytes:
    """Return the key of all devices of *subject*."""
    return marker_key(b"devices", subject)


def _pending_logins_key(subject: str) -> bytes:
    return marker_key(b"pending logins", subject.encode("utf-8", "replace"))
