"""What a token store keeps, what it must be able to do, and what its locks promise. Pure.

1. One record holds all of a session: its tokens, the login that they belong to, and a refresh under way.
2. A record is replaced as a whole, and only by a client that knows the record it replaces (compare-and-set).
3. ``version`` grows with every change of the tokens, ``epoch`` with every login and logout. A login starts both from
   the clock, so that a store that was deleted and created again never repeats an old number.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from unbroken.tokens import Tokens

__all__ = ["EMPTY", "PERMANENT_LEASE", "Lease", "StoredSession", "TokenStore"]


@dataclass(frozen=True, slots=True)
class StoredSession:
    """One session as a store keeps it.

    ``idempotency_key`` is that of a refresh that has begun and not ended; ``over`` says why there are no tokens.
    ``device_token`` goes along with the next login: the server does not count it with the logins of strangers. It
    outlives the session. ``begun_by`` is the holder of the lock who began that refresh, ``begun_at`` when, in seconds
    since the Unix epoch.
    """

    version: int = 0
    epoch: int = 0
    tokens: Tokens | None = None
    idempotency_key: str | None = None
    over: str = ""
    device_token: str = ""
    begun_by: str = ""
    begun_at: float = 0.0

    def same(self, other: StoredSession) -> bool:
        """Return whether *other* is this record: what a compare-and-set compares (rule 2)."""
        return (self.version, self.epoch, self.idempotency_key) == (other.version, other.epoch, other.idempotency_key)

    @property
    def stamp(self) -> str:
        """What ``same`` compares, as one text without a secret; for stores that compare in a database."""
        return f"{self.version}.{self.epoch}.{self.idempotency_key or ''}"


EMPTY = StoredSession(over="not_logged_in")


class TokenStore(Protocol):
    """Where the tokens of one session live. Every method blocks, and any thread may call it.

    Each method raises StoreUnavailable if the store cannot be reached, read or written.
    """

    def load(self) -> StoredSession:
        """Return the record; ``StoredSession(over="not_logged_in")`` if there is none."""

    def save(self, record: StoredSession, expected: StoredSession) -> bool:
        """Replace *expected* by *record* in one step, durably. Return False, and write nothing, if another is there."""

    def lock(self, timeout: float) -> AbstractContextManager[Lease | None]:
        """Return the lock that one refresh holds at a time among all that share the store.

        Entering it returns a lease, or None for a lock that cannot be lost. It raises StoreBusy if others hold the lock
        for *timeout* seconds.
        """


class Lease(Protocol):
    """A lock that is held, unless its holder was stopped for too long.

    It may have an attribute ``holder``: a name that proves, if a later holder has it too, that this one has released
    the lock or is dead.
    """

    def is_held(self) -> bool:
        """Return whether it is certainly held now. Raise StoreUnavailable if that cannot be learnt."""


class _PermanentLease:
    holder = ""

    def is_held(self) -> bool:
        return True


PERMANENT_LEASE: Lease = _PermanentLease()
