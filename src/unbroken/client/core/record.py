"""What a token store keeps, and what a store must be able to do.

Rules of this file:

1. One record is the whole truth of a session: the tokens, which login they belong to, and a renewal that was begun.
2. A record is replaced, never changed; it is replaced only by somebody who knows the record it replaces.
3. ``version`` grows with every change of the tokens, ``epoch`` with every login and logout. Both start from the clock
   at a login, so that a store that was deleted and made anew never repeats an old number.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from unbroken.tokens import Tokens

__all__ = ["EMPTY", "PERMANENT_LEASE", "Lease", "StoredSession", "TokenStore"]


@dataclass(frozen=True, slots=True)
class StoredSession:
    """One session as a store keeps it. ``attempt`` is the id of a renewal that was begun and not finished."""

    version: int = 0
    epoch: int = 0
    tokens: Tokens | None = None
    idempotency_key: str | None = None
    over: str = ""  # without tokens: why there are none

    def same(self, other: StoredSession) -> bool:
        """Whether *other* is this very record: what a compare-and-set compares."""
        return (self.version, self.epoch, self.idempotency_key) == (other.version, other.epoch, other.idempotency_key)

    @property
    def stamp(self) -> str:
        """What a compare-and-set compares, as one text; no secret."""
        return f"{self.version}.{self.epoch}.{self.idempotency_key or ''}"


EMPTY = StoredSession(over="not_logged_in")


class Lease(Protocol):
    """A lock that is held; one that others may take over after a while knows how long."""

    def is_held(self, seconds: float) -> bool:
        """Whether it will certainly be held for *seconds* more."""


class _PermanentLease:
    def is_held(self, seconds: float) -> bool:  # noqa: ARG002  # however long
        return True


PERMANENT_LEASE: Lease = _PermanentLease()


class TokenStore(Protocol):
    """Where the tokens of one session live. Every method blocks, and may be called from any thread.

    Each raises StoreUnavailable when the store cannot be reached, read or written.
    """

    def load(self) -> StoredSession:
        """The record as it stands now; ``EMPTY`` when there is none."""

    def save(self, record: StoredSession, expected: StoredSession) -> bool:
        """Replaces *expected* by *record* in one step, durably; False, nothing written, if it is another one now."""

    def lock(self, timeout: float) -> AbstractContextManager[Lease | None]:
        """Held by one renewal at a time among all who share the store; None is a lease that cannot be lost.

        Raises StoreBusy if others hold it for *timeout* seconds, StoreUnavailable if the store cannot be reached.
        """
