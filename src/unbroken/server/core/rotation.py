"""What presenting a refresh token does to its session: the server's heart, one pure function.

A session is one row for ever. It knows the place (g, b) of the newest token it issued: generation and branch. A token
is genuine by its MAC, so every older place is recognised without being stored. The rules, in the order they are tried:

    R0  dead      row revoked or expired                               refuse
    R1h heal      g > row.g: the store has lost writes                 take (g, b) for current, then R1
    R1  rotate    g = row.g, and seen is null or b                     row := (g+1, 0)
    R2  converge  g one of the last two generations, by its promoted   answer the newest token again; nothing written
                  branch, less than ``grace`` seconds ago
    R3  retry     g = row.g − 1, promoted branch, same attempt id      answer the newest token again; nothing written
    R4  branch    g = row.g − 1, promoted branch, seen is null         b := row.b + 1
    R5  reuse     anything else                                        revoke: two parties hold this session

The *promoted* branch of a generation is the one whose token was exchanged for the next generation. R2 forgives
clients that cannot agree among themselves (tabs with cookies, foreign clients); R3 and R4 forgive answers that got
lost; R1h forgives a store that was restored from an older state. A thief is forgiven by none of them for long: his
branch and his victim's cannot both be the promoted one (RFC 9700 §4.14.2).

Nothing here reads a clock, draws a random number or does I/O. A store may carry out R1 as one conditional write, if
it changes exactly what ``rotate`` below changes; every other rule is a compare-and-set of the row ``present`` returns.

What R1 makes of a row that nobody has read: half of it follows from the token, the statement gives the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, NamedTuple

__all__ = [
    "REST",
    "Generation",
    "Policy",
    "PresentedToken",
    "SessionRow",
    "Verdict",
    "present",
    "row_after",
    "why_inactive",
]


class Generation(NamedTuple):
    """Where a refresh token stands in its session."""

    number: int
    branch: int


class PresentedToken(NamedTuple):
    """A genuine refresh token as it arrives: its place, and the hash of the attempt id that came with it."""

    generation: int
    branch: int
    idempotency_hash: bytes | None = None


@dataclass(frozen=True, slots=True)
class Policy:
    """How long things live, in seconds. ``grace`` is the window of R2; coordinated sessions have none."""

    access_ttl: float = 30 * 60.0
    refresh_ttl: float = 7 * 86400.0
    max_age: float = 90 * 86400.0
    grace: float = 10.0


@dataclass(frozen=True, slots=True)
class SessionRow:
    """One session as the server keeps it. Times are seconds since the Unix epoch."""

    key: bytes  # SHA-256 of the random part of its refresh tokens; the part itself is stored nowhere
    sid: str
    subject: str
    created_at: float
    used_at: float
    idle_expires_at: float
    expires_at: float
    client_id: str = ""
    scope: str = ""
    coordinated: bool = False  # declared at login: the client shares attempt ids, so R2 is switched off
    generation: int = 0
    branch: int = 0
    rotated_at: float | None = None  # when generation g−1 was first presented, and by which branch
    promoted_branch: int | None = None
    previous_rotated_at: float | None = None  # the same for generation g−2
    previous_promoted_branch: int | None = None
    idempotency_hash: bytes | None = None  # hash of the attempt id that made the newest branch
    first_used_branch: int | None = None  # the branch of generation g whose access token was used first
    revoked_at: float | None = None
    revoked_why: str | None = None
    evidence: str | None = None  # of a reuse: which place was presented, and which was the newest
    label: str = ""
    ip: str = ""
    user_agent: str = ""


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
    """The row after *token* was presented at *now*, and the verdict. An unchanged row is the same object."""
    if why_inactive(row, now):
        return row, Verdict.DEAD
    if token.generation > row.generation:
        return rotate(heal(row, token), token, now, policy), Verdict.HEALED
    if token.generation == row.generation and row.first_used_branch in (None, token.branch):
        return rotate(row, token, now, policy), Verdict.ROTATED
    if converges(row, token, now, policy):
        return row, Verdict.CONVERGED
    if token.generation == row.generation - 1 and token.branch == row.promoted_branch:
        if token.idempotency_hash is not None and token.idempotency_hash == row.idempotency_hash:
            return row, Verdict.RETRIED
        if row.first_used_branch is None:
            return replace(
                row, branch=row.branch + 1, idempotency_hash=token.idempotency_hash, used_at=now
            ), Verdict.BRANCHED
    return revoke(row, token, now), Verdict.REUSED


def why_inactive(row: SessionRow, now: float) -> str | None:
    """Why nothing can be had from *row* at *now*: its revocation's reason or ``expired``; None while it lives."""
    if row.revoked_at is not None:
        return row.revoked_why or "revoked"
    return "expired" if now >= min(row.idle_expires_at, row.expires_at) else None


def rotate(row: SessionRow, token: PresentedToken, now: float, policy: Policy) -> SessionRow:
    """R1: the next generation, made by branch ``token.b`` at *now*."""
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
        idle_expires_at=min(now + policy.refresh_ttl, row.expires_at),
    )


def heal(row: SessionRow, token: PresentedToken) -> SessionRow:
    """R1h: the store forgot generations that were issued; what it knew of the ones before is out of date too."""
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
    """R2: whether *token* is one of the last two promoted ones, presented less than ``grace`` seconds ago.

    Or as many seconds ahead: two servers' clocks may differ, but not by more than is forgiven anyway.
    """
    grace = 0.0 if row.coordinated else policy.grace
    if grace == 0.0:
        return False
    ring = {
        row.generation - 1: (row.rotated_at, row.promoted_branch),
        row.generation - 2: (row.previous_rotated_at, row.previous_promoted_branch),
    }
    at, branch = ring.get(token.generation, (None, None))
    return at is not None and branch == token.branch and abs(now - at) < grace


def revoke(row: SessionRow, token: PresentedToken, now: float) -> SessionRow:
    """R5: the session ends, and the row keeps what showed that two parties held it."""
    evidence = f"presented ({token.generation},{token.branch}) when ({row.generation},{row.branch}) was the newest"
    return replace(row, revoked_at=now, revoked_why="reuse", evidence=evidence)


# In this order, what ``row_after`` is given.
REST = "sid, subject, created_at, expires_at, client_id, scope, coordinated, previous_rotated_at, previous_promoted_branch, label, ip, user_agent"


def row_after(key: bytes, token: PresentedToken, now: float, refresh_ttl: float, rest: Sequence[Any]) -> SessionRow:
    """The row that ``rotation.rotate`` gives, out of the ``REST`` of it."""
    (
        sid,
        subject,
        created_at,
        expires_at,
        client_id,
        scope,
        coordinated,
        previous_rotated_at,
        previous_promoted_branch,
        label,
        ip,
        user_agent,
    ) = rest
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
