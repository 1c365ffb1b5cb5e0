"""The record that a token store keeps. Pure.

1. One record is the whole truth of a session: its tokens, the login that they belong to, and a refresh under way.
2. A record is replaced as a whole, and only by a client that knows the record it replaces (compare-and-set).
3. ``version`` grows with every change of the tokens, ``epoch`` with every login and logout. A login starts both from
   the clock, so that a store that was deleted and made anew never repeats an old number.
"""

from __future__ import annotations

from dataclasses import dataclass

from unbroken.tokens import Tokens

__all__ = ["EMPTY", "StoredSession"]


@dataclass(frozen=True, slots=True)
class StoredSession:
    """One session as a store keeps it.

    ``idempotency_key`` is that of a refresh that has begun and not ended; ``over`` says why there are no tokens.
    ``device_token`` goes along with the next login: the server does not count it with the logins of strangers. It
    outlives the session.
    """

    version: int = 0
    epoch: int = 0
    tokens: Tokens | None = None
    idempotency_key: str | None = None
    over: str = ""
    device_token: str = ""

    def same(self, other: StoredSession) -> bool:
        """Return whether *other* is this record: what a compare-and-set compares (rule 2)."""
        return (self.version, self.epoch, self.idempotency_key) == (other.version, other.epoch, other.idempotency_key)

    @property
    def stamp(self) -> str:
        """What ``same`` compares, as one text without a secret; for stores that compare in a database."""
        return f"{self.version}.{self.epoch}.{self.idempotency_key or ''}"


EMPTY = StoredSession(over="not_logged_in")
