"""What presenting a refresh token does to its session: the rules of rotation, in one pure function, ``present``.

A session is one row, however often it is refreshed; others call its refresh tokens a *token family*. The row knows the
generation and the branch of the newest token it issued. A token is genuine by its MAC, so every older one is recognised
without being stored: that is the detection of reuse. A refresh makes the next generation; a refresh whose response got
lost makes another *branch* of the same generation. The *promoted* branch of a generation is the one whose token was
refreshed into the next generation. The rules, in the order they are tried:

    R0k unproven  the row is bound to a key (``jkt``), and the request   refuse; nothing is written: without the key a
                  has not proven that it has this key                    thief learns nothing and ends nothing
    R0  dead      the row is revoked or expired                          refuse
    R1h heal      token.generation > row.generation: the store lost      take the token's generation and branch for
                  writes                                                 current, then R1
    R1  rotate    token.generation = row.generation, and the access      generation + 1, branch 0
                  token of this branch was used first, or none was;
                  in coordinated mode then only the newest branch
    R2  converge  one of the last two generations, by its promoted       the newest token again; nothing is written
                  branch, refreshed less than ``grace`` seconds ago
    R3  retry     the generation before, by its promoted branch, with    the newest token again; nothing is written
                  the idempotency key that made the newest token,
                  and not the generation before as well
    R4  branch    the generation before, by its promoted branch, and     branch + 1
                  no access token of the newest generation was used
    R5  shared    R2 to R4 in standard mode, for another party, after    as R6
                  ``max_shared_generations`` in a row that were
    R6  reuse     anything else                                          revoke: two parties hold this session

R2 forgives clients that cannot agree among themselves (tabs with cookies, foreign clients); R3 and R4 forgive responses
that got lost; R1h forgives a store that was restored from an older state. None of them forgives a thief for long: the
thief's branch and the user's cannot both be the promoted one (RFC 9700 §4.14.2). Only within the grace could a thief
who knows when to come get the user's own tokens, again and again: R5 finds one who is another *party* (``party.py``).
The first such response in a generation writes that the generation is *shared*.

Nothing here reads a clock, draws a random number or does I/O. A store may carry out R1 as one conditional write, if
it changes exactly what ``rotate`` changes; every other rule is a compare-and-set of the row that ``present`` returns.
Such a write returns the ``SessionFacts`` of the row, of which new tokens are made, so that R1 needs no read before it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import Literal, NamedTuple

from unbroken._time import Duration, to_seconds
from unbroken.errors import ConfigurationError
from unbroken.server.core.party import Relation, compare_parties

__all__ = [
    "FIRST_PARTY",
    "Generation",
    "Policy",
    "PresentedToken",
    "SessionBinding",
    "SessionFacts",
    "SessionRow",
    "Verdict",
    "evidence_of",
    "has_key",
    "hour_of",
    "is_suspicious",
    "may_rotate",
    "present",
    "rotate",
    "why_inactive",
]

SECONDS_OF_HOUR = 3600.0


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
    party: str = ""  # of the request (``party.party_of``); empty if it is unknown
    jkt: bytes | None = None  # the thumbprint of the key that the request has proven to have; None without a proof
    scope: bytes | None = None  # of the access token that it gets (``TokenScope.encode``); None: it cannot change


@dataclass(frozen=True, slots=True, init=False)
class Policy:
    """How long tokens and sessions live: seconds, or a ``timedelta``; and what a sign of a second holder leads to.

    ``access_ttl`` is the life of an access token; ``refresh_ttl`` the idle expiry, from the latest refresh; ``max_age``
    the absolute expiry, from the login; ``grace`` the window of R2, which coordinated sessions do not have.
    ``max_sessions_per_subject``: a login beyond so many ends the session that was used least recently; None: no limit.

    ``max_shared_generations``: so many generations in a row of a standard session may go to two parties; if the next
    one does too, that is reuse. 0: the first one is. None: none ever is.
    ``on_suspicion``: ``report`` emits ``ReuseSuspected``; ``revoke`` takes every suspicion for reuse.

    Raise ConfigurationError, naming the field, for a value that is not a duration, not finite, or not above zero
    (``grace`` may be zero), and if ``access_ttl`` exceeds ``max_age`` or ``grace`` exceeds ``refresh_ttl``.
    """

    access_ttl: float
    refresh_ttl: float
    max_age: float
    grace: float
    max_sessions_per_subject: int | None
    max_shared_generations: int | None
    on_suspicion: Literal["report", "revoke"]

    def __init__(
        self,
        access_ttl: Duration = 30 * 60.0,
        refresh_ttl: Duration = 7 * 86400.0,
        max_age: Duration = 90 * 86400.0,
        grace: Duration = 10.0,
        max_sessions_per_subject: int | None = 1000,
        max_shared_generations: int | None = 4,
        on_suspicion: Literal["report", "revoke"] = "report",
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
        if max_shared_generations is not None and not _is_count(max_shared_generations):
            raise ConfigurationError("max_shared_generations must be a number of generations, 0 or more, or None")
        if on_suspicion not in ("report", "revoke"):
            raise ConfigurationError("on_suspicion must be 'report' or 'revoke'")
        object.__setattr__(self, "max_shared_generations", max_shared_generations)
        object.__setattr__(self, "on_suspicion", on_suspicion)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


class SessionFacts(NamedTuple):
    """What never changes of a session, as far as its tokens need it. A row is six times as slow to make."""

    key: bytes
    sid: str
    subject: str
    expires_at: float
    client_id: str
    scope: str
    issuer: str
    audience: str
    jkt: bytes | None

    def is_of(self, issuer: str, audience: str) -> bool:
        """Return whether these are the facts of a session that ``SessionRow.is_of`` issuer and audience."""
        return not self.issuer or (self.issuer, self.audience) == (issuer, audience)


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
    idempotency_key_repeated: bool = False  # that key made the generation before, too
    presenter: str = ""  # the party that the newest branch was made for; empty if it is unknown
    shared: bool = False  # the tokens of this generation also went to another party
    shared_streak: int = 0  # how many generations in a row, before this one, were
    used_earlier_at: float | None = None  # the last use before the hour of ``used_at``; None if there was none
    revoked_at: float | None = None
    revoked_why: str | None = None
    evidence: str | None = None  # of a reuse: which generation and branch was presented, and which was the newest
    label: str = ""
    ip: str = ""
    user_agent: str = ""
    jkt: bytes | None = None  # RFC 7638 thumbprint of the key that the session is bound to; None: it is not bound
    stamp: bytes | None = None  # the hash of its subject's security stamp at the login; None: there was none
    newest_scope: bytes | None = None  # of the access token of the newest branch; a repetition gets no more

    @property
    def binding(self) -> SessionBinding:
        """Where its refresh tokens are good."""
        return SessionBinding(self.client_id, self.issuer, self.audience)

    def is_of(self, issuer: str, audience: str) -> bool:
        """Return whether this session belongs to *issuer* and *audience*; so does one that belongs to none yet."""
        return not self.issuer or (self.issuer, self.audience) == (issuer, audience)

    @property
    def facts(self) -> SessionFacts:
        """What never changes of it."""
        return SessionFacts(*(getattr(self, name) for name in SessionFacts._fields))

    def bound(self, issuer: str, audience: str) -> SessionRow:
        """Return this row, bound to *issuer* and *audience* if it belongs to none yet."""
        return self if self.issuer else replace(self, issuer=issuer, audience=audience)


class Verdict(Enum):
    """What became of a presented token. Only UNPROVEN, DEAD and REUSED refuse it."""

    UNPROVEN = "unproven"
    DEAD = "dead"
    ROTATED = "rotated"
    HEALED = "healed"
    CONVERGED = "converged"
    RETRIED = "retried"
    BRANCHED = "branched"
    REUSED = "reused"


def present(row: SessionRow, token: PresentedToken, now: float, policy: Policy) -> tuple[SessionRow, Verdict]:
    """Return the row after *token* was presented at *now*, and the verdict. An unchanged row is the same object."""
    if not has_key(row, token):
        return row, Verdict.UNPROVEN  # R0k
    if why_inactive(row, now):
        return row, Verdict.DEAD  # R0
    if token.generation > row.generation:
        return rotate(heal(row, token), token, now, policy), Verdict.HEALED  # R1h
    if may_rotate(row, token):
        return rotate(row, token, now, policy), Verdict.ROTATED  # R1
    if converges(row, token, now, policy):
        return give_again(row, token, now, policy, Verdict.CONVERGED)  # R2
    if token.generation == row.generation - 1 and token.branch == row.promoted_branch:
        if is_retry(row, token):
            return give_again(row, token, now, policy, Verdict.RETRIED)  # R3
        if row.first_used_branch is None:
            return give_again(row, token, now, policy, Verdict.BRANCHED)  # R4
    return revoke(row, token, now), Verdict.REUSED  # R6


def has_key(row: SessionRow | SessionFacts, token: PresentedToken) -> bool:
    """R0k: return whether *token* came with a proof of the key of *row*; True if the row is bound to none."""
    return row.jkt is None or row.jkt == token.jkt


def why_inactive(row: SessionRow, now: float) -> str | None:
    """Return why *row* gives no tokens at *now*: the reason of its revocation, or ``expired``; None if it does."""
    if row.revoked_at is not None:
        return row.revoked_why or "revoked"
    return "expired" if now >= min(row.idle_expires_at, row.expires_at) else None


def may_rotate(row: SessionRow, token: PresentedToken) -> bool:
    """R1: return whether *token* makes the next generation.

    Clients that share nothing may hold different branches, and the first of them to come goes on. A coordinated client
    stores each token that it gets, so it comes with the newest branch, or with the one that it used.
    """
    if token.generation != row.generation:
        return False
    if row.first_used_branch is not None:
        return token.branch == row.first_used_branch
    return token.branch == row.branch or not row.coordinated


def rotate(row: SessionRow, token: PresentedToken, now: float, policy: Policy) -> SessionRow:
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
        idempotency_key_repeated=is_same_key(row, token),
        first_used_branch=None,
        presenter=token.party,
        newest_scope=token.scope,
        shared=False,
        shared_streak=next_streak(row, now, policy),
        used_earlier_at=row.used_at if row.used_at < hour_of(now) else row.used_earlier_at,
        used_at=now,
        idle_expires_at=min(now + policy.refresh_ttl, row.expires_at),
    )


def next_streak(row: SessionRow, now: float, policy: Policy) -> int:
    """R5: return how many generations in a row two parties shared, once that of *row* is over.

    A generation that lives shorter than the grace tells nothing, because the other party may still come: two refreshes
    within the grace do not reset the count.
    """
    if row.shared:
        return row.shared_streak + 1
    is_young = row.rotated_at is not None and abs(now - row.rotated_at) < policy.grace
    return row.shared_streak if is_young else 0


def hour_of(now: float) -> float:
    """Return when the hour of *now* began. ``SessionInfo.for_user`` shows no use of the current hour."""
    return now // SECONDS_OF_HOUR * SECONDS_OF_HOUR


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
        idempotency_key_repeated=False,
        first_used_branch=None,
        shared=False,
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


def is_same_key(row: SessionRow, token: PresentedToken) -> bool:
    """Return whether *token* came with the idempotency key that made the newest token of *row*."""
    return token.idempotency_hash is not None and token.idempotency_hash == row.idempotency_hash


def is_retry(row: SessionRow, token: PresentedToken) -> bool:
    """R3: return whether *token* came with the key of this generation, which did not make the one before as well."""
    return is_same_key(row, token) and not row.idempotency_key_repeated


def give_again(
    row: SessionRow, token: PresentedToken, now: float, policy: Policy, verdict: Verdict
) -> tuple[SessionRow, Verdict]:
    """R2 to R4: return the row for a used token that still gets tokens; R5 and R6: for one that does not."""
    relation = compare_parties(token.party, row.presenter)
    is_shared = relation is Relation.OTHER and not row.coordinated
    if policy.on_suspicion == "revoke" and is_suspicious(row, token, verdict) and relation is not Relation.DUAL_STACK:
        return revoke(row, token, now), Verdict.REUSED
    if is_shared and policy.max_shared_generations is not None and row.shared_streak >= policy.max_shared_generations:
        return revoke(row, token, now), Verdict.REUSED  # R5
    after = branch(row, token, now) if verdict is Verdict.BRANCHED else row
    return (replace(after, shared=True) if is_shared and not row.shared else after), verdict


def is_suspicious(row: SessionRow, token: PresentedToken, verdict: Verdict) -> bool:
    """Return whether *verdict* is a sign of a second holder: a branch, or the newest token for another party."""
    if verdict in (Verdict.CONVERGED, Verdict.RETRIED):
        return compare_parties(token.party, row.presenter) is not Relation.SAME
    return verdict is Verdict.BRANCHED


def branch(row: SessionRow, token: PresentedToken, now: float) -> SessionRow:
    """R4: return the row with another branch of its newest generation."""
    return replace(
        row,
        branch=row.branch + 1,
        idempotency_hash=token.idempotency_hash,
        idempotency_key_repeated=row.idempotency_key_repeated and is_same_key(row, token),
        presenter=token.party,
        newest_scope=token.scope,
        used_earlier_at=row.used_at if row.used_at < hour_of(now) else row.used_earlier_at,
        used_at=now,
    )


def revoke(row: SessionRow, token: PresentedToken, now: float) -> SessionRow:
    """R6: return the row revoked, with the evidence that two parties hold the session."""
    return replace(row, revoked_at=now, revoked_why="reuse", evidence=evidence_of(row, token))


def evidence_of(row: SessionRow, token: PresentedToken) -> str:
    """Return what shows, or suggests, that two parties hold the session of *row*."""
    said = f"presented ({token.generation},{token.branch}) when ({row.generation},{row.branch}) was the newest"
    if token.party or row.presenter:
        said += f"; it came from {token.party or 'an unknown party'}, the newest was for {row.presenter or 'one'}"
    return f"{said}; {row.shared_streak} generations before were shared" if row.shared_streak else said
