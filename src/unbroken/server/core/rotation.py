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

__all__ = ["REST", "Place", "Policy", "Presented", "Row", "Verdict", "present", "row_after", "why_dead"]


class Place(NamedTuple):
    """Where a refresh token stands in its session."""

    g: int
    b: int


class Presented(NamedTuple):
    """A genuine refresh token as it arrives: its place, and the hash of the attempt id that came with it."""

    g: int
    b: int
    attempt: bytes | None = None


@dataclass(frozen=True, slots=True)
class Policy:
    """How long things live, in seconds. ``grace`` is the window of R2; coordinated sessions have none."""

    access_ttl: float = 30 * 60.0
    refresh_ttl: float = 7 * 86400.0
    max_age: float = 90 * 86400.0
    grace: float = 10.0


@dataclass(frozen=True, slots=True)
class Row:
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
    g: int = 0
    b: int = 0
    at1: float | None = None  # when generation g−1 was first presented, and by which branch
    b1: int | None = None
    at2: float | None = None  # the same for generation g−2
    b2: int | None = None
    attempt: bytes | None = None  # hash of the attempt id that made the newest branch
    seen: int | None = None  # the branch of generation g whose access token was used first
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


def present(row: Row, token: Presented, now: float, policy: Policy) -> tuple[Row, Verdict]:
    """The row after *token* was presented at *now*, and the verdict. An unchanged row is the same object."""
    if why_dead(row, now):
        return row, Verdict.DEAD
    if token.g > row.g:
        return rotate(heal(row, token), token, now, policy), Verdict.HEALED
    if token.g == row.g and row.seen in (None, token.b):
        return rotate(row, token, now, policy), Verdict.ROTATED
    if converges(row, token, now, policy):
        return row, Verdict.CONVERGED
    if token.g == row.g - 1 and token.b == row.b1:
        if token.attempt is not None and token.attempt == row.attempt:
            return row, Verdict.RETRIED
        if row.seen is None:
            return replace(row, b=row.b + 1, attempt=token.attempt, used_at=now), Verdict.BRANCHED
    return revoke(row, token, now), Verdict.REUSED


def why_dead(row: Row, now: float) -> str | None:
    """Why nothing can be had from *row* at *now*: its revocation's reason or ``expired``; None while it lives."""
    if row.revoked_at is not None:
        return row.revoked_why or "revoked"
    return "expired" if now >= min(row.idle_expires_at, row.expires_at) else None


def rotate(row: Row, token: Presented, now: float, policy: Policy) -> Row:
    """R1: the next generation, made by branch ``token.b`` at *now*."""
    return replace(
        row,
        g=row.g + 1,
        b=0,
        at1=now,
        b1=token.b,
        at2=row.at1,
        b2=row.b1,
        attempt=token.attempt,
        seen=None,
        used_at=now,
        idle_expires_at=min(now + policy.refresh_ttl, row.expires_at),
    )


def heal(row: Row, token: Presented) -> Row:
    """R1h: the store forgot generations that were issued; what it knew of the ones before is out of date too."""
    return replace(row, g=token.g, b=token.b, at1=None, b1=None, at2=None, b2=None, attempt=None, seen=None)


def converges(row: Row, token: Presented, now: float, policy: Policy) -> bool:
    """R2: whether *token* is one of the last two promoted ones, presented less than ``grace`` seconds ago.

    Or as many seconds ahead: two servers' clocks may differ, but not by more than is forgiven anyway.
    """
    grace = 0.0 if row.coordinated else policy.grace
    if grace == 0.0:
        return False
    ring = {row.g - 1: (row.at1, row.b1), row.g - 2: (row.at2, row.b2)}
    at, branch = ring.get(token.g, (None, None))
    return at is not None and branch == token.b and abs(now - at) < grace


def revoke(row: Row, token: Presented, now: float) -> Row:
    """R5: the session ends, and the row keeps what showed that two parties held it."""
    evidence = f"presented ({token.g},{token.b}) when ({row.g},{row.b}) was the newest"
    return replace(row, revoked_at=now, revoked_why="reuse", evidence=evidence)


# In this order, what ``row_after`` is given.
REST = "sid, subject, created_at, expires_at, client_id, scope, coordinated, at2, b2, label, ip, user_agent"


def row_after(key: bytes, token: Presented, now: float, refresh_ttl: float, rest: Sequence[Any]) -> Row:
    """The row that ``rotation.rotate`` gives, out of the ``REST`` of it."""
    sid, subject, created_at, expires_at, client_id, scope, coordinated, at2, b2, label, ip, user_agent = rest
    return Row(
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
        g=token.g + 1,
        b=0,
        at1=now,
        b1=token.b,
        at2=at2,
        b2=b2,
        attempt=token.attempt,
        label=label,
        ip=ip,
        user_agent=user_agent,
    )
