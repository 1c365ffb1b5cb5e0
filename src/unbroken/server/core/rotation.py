"""What presenting a refresh token does to its session: the server's heart, one pure function.

A session is one row, however often it is refreshed. The row knows the generation and the branch of the newest token it
issued. A token is genuine by its MAC, so every older one is recognised without being stored. A refresh makes the next
generation; a refresh whose response got lost makes another *branch* of the same generation. The *promoted* branch of a
generation is the one whose token was refreshed into the next generation. The rules, in the order they are tried:

    R0  dead      the row is revoked or expired                          refuse
    R1h heal      token.generation > row.generation: the store lost      take the token's generation and branch for
                  writes                                                 current, then R1
    R1  rotate    token.generation = row.generation, and no access       generation + 1, branch 0
                  token of it was used first, or that of this branch
    R2  converge  one of the last two generations, by its promoted       the newest token again; nothing is written
                  branch, refreshed less than ``grace`` seconds ago
    R3  retry     the generation before, by its promoted branch, with    the newest token again; nothing is written
                  the idempotency key that made the newest token
    R4  branch    the generation before, by its promoted branch, and     branch + 1
                  no access token of the newest generation was used
    R5  reuse     anything else                                          revoke: two parties hold this session

R2 forgives clients that cannot agree among themselves (tabs with cookies, foreign clients); R3 and R4 forgive responses
that got lost; R1h forgives a store that was restored from an older state. None of them forgives a thief for long: his
branch and his victim's cannot both be the promoted one (RFC 9700 §4.14.2).

Nothing here reads a clock, draws a random number or does I/O. A store may carry out R1 as one conditional write, if
it changes exactly what ``rotate`` changes; every other rule is a compare-and-set of the row that ``present`` returns.
Such a write returns ``RETURNED_COLUMNS``: the token gives the other half of the row (``rotated_row``), so that R1 needs
no read before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, NamedTuple

from unbroken._durations import Duration, to_seconds
from unbroken.errors import ConfigurationError

__all__ = [
    "FIRST_PARTY",
    "RETURNED_COLUMNS",
    "Generation",
    "Policy",
    "PresentedToken",
    "SessionBinding",
    "SessionRow",
    "Verdict",
    "present",
    "rotated_row",
    "why_inactive",
]


FIRST_PARTY = "first-party"  # the client id of the server's own pages and programs


class SessionBinding(NamedTuple):
    """Where the refresh tokens of a session are good: for this client, at this issuer, for this audience."""

    client_id: str
    issuer: str
    audience: str


class Generation(NamedTuple):
    """Where a refresh token stands in its session."""

    number: int
    branch: int


class PresentedToken(NamedTuple):
    """A genuine refresh token as it arrives, with the hash of the idempotency key of its request."""

    generation: int
    branch: int
    idempotency_hash: bytes | None = None


@dataclass(frozen=True, slots=True, init=False)
class Policy:
    """How long tokens and sessions live: seconds, or a ``timedelta``.

    ``access_ttl`` is the life of an access token; ``refresh_ttl`` the idle expiry, from the latest refresh; ``max_age``
    the absolute expiry, from the login; ``grace`` the window of R2, which coordinated sessions do not have.
    ``max_sessions_per_subject``: a login beyond so many ends the session that was used least recently; None: no limit.

    Raises ConfigurationError, naming the field, for a value that is not a duration, not finite, or not above zero
    (``grace`` may be zero), and if ``access_ttl`` exceeds ``max_age`` or ``grace`` exceeds ``refresh_ttl``.
    """

    access_ttl: float
    refresh_ttl: float
    max_age: float
    grace: float
    max_sessions_per_subject: int | None

    def __init__(
        self,
        access_ttl: Duration = 30 * 60.0,
        refresh_ttl: Duration = 7 * 86400.0,
        max_age: Duration = 90 * 86400.0,
        grace: Duration = 10.0,
        max_sessions_per_subject: int | None = 1000,
    ) -> None:
        given = {"access_ttl": access_ttl, "refresh_ttl": refresh_ttl, "max_age": max_age, "grace": grace}
        for name, value in given.items():
            object.__setattr__(self, name, to_seconds(name, value, above_zero=name != "grace"))
        for shorter, longer in (("access_ttl", "max_age"), ("grace", "refresh_ttl")):
            if (one := getattr(self, shorter)) > (other := getattr(self, longer)):
                raise ConfigurationError(f"{shorter} ({one:g} s) must not exceed {longer} ({other:g} s)")
        most = max_sessions_per_subject
        if most is not None and (isinstance(most, bool) or not isinstance(most, int) or most < 1):
            raise ConfigurationError(
                f"max_sessions_per_subject must be a whole number above zero, or None: not {most!r}"
            )
        object.__setattr__(self, "max_sessions_per_subject", most)


@dataclass(frozen=True, slots=True)
class SessionRow:
    """One session as the server stores it. Times are seconds since the Unix epoch."""

    key: bytes  # SHA-256 of the session's secret, which stands in its refresh tokens and is stored nowhere
    sid: str
    subject: str
    created_at: float
    used_at: float
    idle_expires_at: float
    expires_at: float
    client_id: str = ""
    scope: str = ""
    issuer: str = ""  # who issued the session, and for whom; empty in a row that a version before these columns wrote:
    audience: str = ""  # the first refresh fills them in (``bound``)
    coordinated: bool = False  # declared at login: the client stores and shares its idempotency keys, so R2 is off
    generation: int = 0
    branch: int = 0
    rotated_at: float | None = None  # when the generation before this one was first presented
    promoted_branch: int | None = None  # and by which branch
    previous_rotated_at: float | None = None  # the same for the generation before that
    previous_promoted_branch: int | None = None
    idempotency_hash: bytes | None = None  # of the idempotency key that made the newest token
    first_used_branch: int | None = None  # the branch of this generation whose access token was used first
    revoked_at: float | None = None
    revoked_why: str | None = None
    evidence: str | None = None  # of a reuse: which generation and branch was presented, and which was the newest
    label: str = ""
    ip: str = ""
    user_agent: str = ""

    @property
    def binding(self) -> SessionBinding:
        """Where its refresh tokens are good."""
        return SessionBinding(self.client_id, self.issuer, self.audience)

    def is_of(self, issuer: str, audience: str) -> bool:
        """Return whether this session belongs to *issuer* and *audience*; so does one that belongs to none yet."""
        return not self.issuer or (self.issuer, self.audience) == (issuer, audience)

    def bound(self, issuer: str, audience: str) -> SessionRow:
        """Return this row, bound to *issuer* and *audience* if it belongs to none yet."""
        return self if self.issuer else replace(self, issuer=issuer, audience=audience)


class Verdict(Enum):
    """What became of a presented token. Only DEAD and REUSED refuse it."""

    DEAD = "dead"
    ROTATED = "rotated"
    HEALED = "healed"
    CONVERGED = "converged"
    RETRIED = "retried"
    BRANCHED = "branched"
    REUSED = "reused"


def present(row: SessionRow, token: PresentedToken, now: float, policy: Policy) -> tuple[SessionRow, Verdict]:
    """Return the row after *token* was presented at *now*, and the verdict. An unchanged row is the same object."""
    if why_inactive(row, now):
        return row, Verdict.DEAD  # R0
    if token.generation > row.generation:
        return rotate(heal(row, token), token, now, policy.refresh_ttl), Verdict.HEALED  # R1h
    if token.generation == row.generation and row.first_used_branch in (None, token.branch):
        return rotate(row, token, now, policy.refresh_ttl), Verdict.ROTATED  # R1
    if converges(row, token, now, policy):
        return row, Verdict.CONVERGED  # R2
    if token.generation == row.generation - 1 and token.branch == row.promoted_branch:
        if token.idempotency_hash is not None and token.idempotency_hash == row.idempotency_hash:
            return row, Verdict.RETRIED  # R3
        if row.first_used_branch is None:
            return branch(row, token, now), Verdict.BRANCHED  # R4
    return revoke(row, token, now), Verdict.REUSED  # R5


def why_inactive(row: SessionRow, now: float) -> str | None:
    """Return why *row* gives no tokens at *now*: the reason of its revocation, or ``expired``; None if it does."""
    if row.revoked_at is not None:
        return row.revoked_why or "revoked"
    return "expired" if now >= min(row.idle_expires_at, row.expires_at) else None


def rotate(row: SessionRow, token: PresentedToken, now: float, refresh_ttl: float) -> SessionRow:
    """R1: return the next generation, into which *token* was refreshed at *now*."""
    return replace(
        row,
        generation=row.generation + 1,
        branch=0,
        rotated_at=now,
        promoted_branch=token.branch,
        previous_rotated_at=row.rotated_at,
        previous_promoted_branch=row.promoted_branch,
        idempotency_hash=token.idempotency_hash,
        first_used_branch=None,
        used_at=now,
        idle_expires_at=min(now + refresh_ttl, row.expires_at),
    )


def heal(row: SessionRow, token: PresentedToken) -> SessionRow:
    """R1h: return the row at the generation and branch of *token*. What the store knew of earlier ones is outdated."""
    return replace(
        row,
        generation=token.generation,
        branch=token.branch,
        rotated_at=None,
        promoted_branch=None,
        previous_rotated_at=None,
        previous_promoted_branch=None,
        idempotency_hash=None,
        first_used_branch=None,
    )


def converges(row: SessionRow, token: PresentedToken, now: float, policy: Policy) -> bool:
    """R2: return whether *token* is one of the last two promoted ones, refreshed less than ``grace`` seconds ago.

    Or as many seconds ahead: the clocks of two servers may differ, but not by more than is forgiven anyway.
    """
    grace = 0.0 if row.coordinated else policy.grace
    if grace == 0.0:
        return False
    promoted = {
        row.generation - 1: (row.rotated_at, row.promoted_branch),
        row.generation - 2: (row.previous_rotated_at, row.previous_promoted_branch),
    }
    at, promoted_branch = promoted.get(token.generation, (None, None))
    return at is not None and promoted_branch == token.branch and abs(now - at) < grace


def branch(row: SessionRow, token: PresentedToken, now: float) -> SessionRow:
    """R4: return the row with another branch of its newest generation."""
    return replace(row, branch=row.branch + 1, idempotency_hash=token.idempotency_hash, used_at=now)


def revoke(row: SessionRow, token: PresentedToken, now: float) -> SessionRow:
    """R5: return the row revoked, with the evidence that two parties hold the session."""
    evidence = f"presented ({token.generation},{token.branch}) when ({row.generation},{row.branch}) was the newest"
    return replace(row, revoked_at=now, revoked_why="reuse", evidence=evidence)


# What a store's R1 returns of the row it changed, in the order that ``rotated_row`` takes.
RETURNED_COLUMNS = (
    "sid, subject, created_at, expires_at, client_id, scope, issuer, audience, coordinated, previous_rotated_at, "
    "previous_promoted_branch, label, ip, user_agent"
)


def rotated_row(
    key: bytes, token: PresentedToken, now: float, refresh_ttl: float, returned: Sequence[Any]
) -> SessionRow:
    """Return the row as ``rotate`` would, from the ``RETURNED_COLUMNS`` of a store's R1."""
    (
        sid,
        subject,
        created_at,
        expires_at,
        client_id,
        scope,
        issuer,
        audience,
        coordinated,
        previous_rotated_at,
        previous_promoted_branch,
        label,
        ip,
        user_agent,
    ) = returned
    return SessionRow(
        key=key,
        sid=sid,
        subject=subject,
        created_at=created_at,
        used_at=now,
        idle_expires_at=min(now + refresh_ttl, expires_at),
        expires_at=expires_at,
        client_id=client_id,
        scope=scope,
        issuer=issuer,
        audience=audience,
        coordinated=bool(coordinated),
        generation=token.generation + 1,
        branch=0,
        rotated_at=now,
        promoted_branch=token.branch,
        previous_rotated_at=previous_rotated_at,
        previous_promoted_branch=previous_promoted_branch,
        idempotency_hash=token.idempotency_hash,
        label=label,
        ip=ip,
        user_agent=user_agent,
    )
