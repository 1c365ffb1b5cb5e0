"""The world of the simulation: server, store, lock, network, clock and thief as one immutable value.

The server runs the shipped ``present``; the programs run the shipped rules. Everything that can go wrong is a move
within a budget that bounds a search: a request or a response is lost, repeated or late, a process dies, a server
comes back with an older row, a lease is lost, time passes, somebody copies the client's store.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from tests.simulation.explore import Base, Op, ask
from unbroken.client.core.refresh_rules import GrantRejected, Indeterminate, RefreshOutcome, ServerKind
from unbroken.client.core.token_store import StoredSession
from unbroken.server.core import rotation
from unbroken.server.core.rotation import Policy, PresentedToken, SessionRow, Verdict
from unbroken.tokens import TokenResponse, Tokens

START = 1000.0
POLICY = Policy(access_ttl=60.0, refresh_ttl=1e6, max_age=1e7, grace=10.0)
LONG = 3600.0  # what a tick adds: longer than the grace and than an access token lives

NONCE_REQUIRED = Indeterminate("use_dpop_nonce")
LEASES_ARE_CHECKED = True  # what the port promises: a refresh is sent only while the lock is certainly held
REPETITIONS_ARE_CHECKED = True  # and sent again for a nonce only while it is
PROOFS_ARE_SPENT = True  # what the server promises: a proof of possession is good once (``proofs/replays.py``)


class Budget(NamedTuple):
    """How often each thing may still happen."""

    lost: int = 0  # a request or a response is lost
    repeated: int = 0  # a proxy delivers a request once more, while it is still the newest refresh
    crashes: int = 0
    restores: int = 0  # the server's store forgets its newest writes of a rotation
    leases: int = 0  # the holder of the lock loses it, and does not know
    set_backs: int = 0  # the clients' store is restored to an earlier record
    ticks: int = 0
    doubts: int = 0  # a save happens, and its response says that it did not
    nonces: int = 0  # the server wants a nonce in the proof, and carries nothing out
    copied: int = 0  # an attacker copies a whole request, with its proof, or takes it away


@dataclass(frozen=True)
class World:
    """Everything outside the programs. ``rows`` are the server's sessions, by number; 0 is the first user's."""

    rows: tuple[SessionRow, ...]
    record: StoredSession
    budget: Budget
    clock: float = START
    holder: int | None = None
    records: tuple[StoredSession, ...] = ()  # the last record of each earlier generation of the clients' store
    older: tuple[SessionRow, ...] = ()  # earlier states of row 0, oldest first
    repeatable: tuple[PresentedToken, ...] = ()  # refreshes that a proxy may deliver again
    refreshes: int = 0
    verdicts: tuple[Verdict, ...] = ()
    revokes_lost: int = 0
    stolen: StoredSession | None = None
    given: tuple[frozenset[str], frozenset[str]] = (frozenset(), frozenset())  # to the victim, to the thief
    rounds: tuple[int, bool, bool] = (0, False, False)  # see ``_count``
    thieves: bool = False
    parties: tuple[str, ...] = ()  # of the programs, in their order; without any, nothing is known of them
    keys: tuple[bytes | None, ...] = ()  # that the programs can prove, in their order; without any, none can
    copies: tuple[tuple[PresentedToken, bool], ...] = ()  # an attacker's requests, and whether their proof was used
    policy: Policy = POLICY
    problem: str = ""
    known: dict[Any, Any] = field(default_factory=dict)  # the parts of all worlds of a search

    def __post_init__(self) -> None:
        vars(self).update(self._known(vars(self)))

    def key(self) -> Hashable:
        """Equal parts of the worlds of one search are the same objects, so that their ids are enough."""
        return tuple(map(id, vars(self).values()))

    def but(self, **changes: Any) -> World:
        """This world with *changes*: what ``dataclasses.replace`` gives, ten times as fast."""
        made = object.__new__(World)
        vars(made).update(vars(self) | self._known(changes))
        return made

    def _known(self, parts: dict[str, Any]) -> dict[str, Any]:
        return {name: self.known.setdefault(part, part) for name, part in parts.items() if name != "known"}

    def now(self) -> float:
        return self.clock

    # ---- what a call can lead to -------------------------------------------------------------------------------

    def outcomes(self, who: int, op: Op) -> Iterable[tuple[str, World, Any]]:
        return getattr(self, f"_do_{op[0]}")(who, *op[1:])

    def _do_lock(self, who: int) -> Iterable[tuple[str, World, Any]]:
        if self.holder is None:
            yield "takes the lock", self.but(holder=who), None

    def _do_release(self, who: int) -> Iterable[tuple[str, World, Any]]:
        yield "releases the lock", self.but(holder=None if self.holder == who else self.holder), None

    def _do_load(self, who: int) -> Iterable[tuple[str, World, Any]]:
        yield "loads", self, self.record

    def _do_save(self, who: int, record: StoredSession, expected: StoredSession) -> Iterable[tuple[str, World, Any]]:
        if not self.record.same(expected):
            yield "loses the compare-and-set", self, False
            return
        yield "saves", self._saved(record), True
        if self.budget.doubts:
            yield "saves, and is told that it did not", self._saved(record)._spend("doubts"), False

    def _do_overwrite(self, who: int, record: StoredSession) -> Iterable[tuple[str, World, Any]]:
        """For clients that are not ours."""
        records = (*self.records, self.record) if self.budget.set_backs else self.records
        yield "overwrites the store", self.but(record=record, records=records), None

    def _do_refresh(self, who: int, tokens: Tokens, attempt: str | None) -> Iterable[tuple[str, World, Any]]:
        """Our client sends a refresh, while it holds the lock."""
        if attempt is not None and self.holder != who and LEASES_ARE_CHECKED:
            yield "does not send: the lock is lost", self, Indeterminate("the lock was lost", may_retry=False)
            return
        if self.budget.nonces:
            yield "is asked for a nonce", self._spend("nonces"), NONCE_REQUIRED
        yield from self._do_send_refresh(who, tokens, attempt)

    def _do_send_refresh(
        self, who: int, tokens: Tokens, attempt: str | None, party: str | None = None
    ) -> Iterable[tuple[str, World, Any]]:
        """The request arrives and is answered; the response arrives by ``_do_arrive``, later or never."""
        party = self._party(who) if party is None else party
        after, response = self._presented(who, tokens.refresh_token or "", attempt, party, honest=True)
        yield f"presents {tokens.refresh_token}", after._count(response, honest=True), response
        if self.budget.repeated:
            copy = self._presented_token(who, tokens.refresh_token or "", attempt, party)[1]
            again = after.but(repeatable=(*after.repeatable, copy))
            yield "presents, and a proxy keeps a copy", again._spend("repeated"), response
        lost = Indeterminate("lost", lost=True)
        if self.budget.copied:
            copy = self._presented_token(who, tokens.refresh_token or "", attempt, party)[1]
            used, unused = (*after.copies, (copy, True)), (*self.copies, (copy, False))
            yield "presents, and an attacker has a copy", after.but(copies=used)._spend("copied"), response
            yield "sends a request that an attacker takes", self.but(copies=unused)._spend("copied"), lost
        if self.budget.lost:
            yield "sends a request that is lost", self._spend("lost"), lost
            yield "presents, and the response is lost", after._spend("lost"), lost

    def _do_arrive(self, who: int) -> Iterable[tuple[str, World, Any]]:
        yield "gets the response", self, None

    def _do_revoke(self, who: int, tokens: Tokens) -> Iterable[tuple[str, World, Any]]:
        number = _token(tokens.refresh_token or "", None)[0]
        row = self.rows[number]
        ended = row if row.revoked_at else replace(row, revoked_at=self.clock, revoked_why="logged_out")
        yield "revokes", self._with_row(number, ended), True
        if self.budget.lost:
            yield (
                "sends a revocation that is lost",
                self._spend("lost").but(revokes_lost=self.revokes_lost + 1),
                False,
            )

    def _do_send(self, who: int, tokens: Tokens, epoch: int) -> Iterable[tuple[str, World, Any]]:
        """A request to the API by somebody who began under *epoch*: whether the access token was good."""
        if tokens.epoch != epoch:
            yield "sends for another login", self.but(problem="a request of one login was sent for another"), True
            return
        number = _token(tokens.access_token, None)[0]
        dead = rotation.why_inactive(self.rows[number], self.clock) is not None
        good = not dead and self.clock < tokens.received_at + POLICY.access_ttl
        yield "sends", self._used(tokens) if good else self, good

    def _do_steal(self, who: int) -> Iterable[tuple[str, World, Any]]:
        yield "copies the store", self.but(stolen=self.record), self.record

    def _do_misuse(self, who: int, refresh_token: str, attempt: str | None) -> Iterable[tuple[str, World, Any]]:
        """The thief presents a token."""
        after, response = self._presented(who, refresh_token, attempt, self._party(who), honest=False)
        yield f"misuses {refresh_token}", after._count(response, honest=False), response

    # ---- what can happen by itself -----------------------------------------------------------------------------

    def happenings(self, doing: list[Op | None]) -> Iterable[tuple[str, World]]:
        if not any(doing):
            return
        if self.budget.ticks:
            yield "an hour passes", self._spend("ticks").but(clock=self.clock + LONG)
        if self.budget.leases and self.holder is not None and _may_lose_lease(doing[self.holder]):
            yield "the lease is lost", self._spend("leases").but(holder=None)
        if self.budget.set_backs and self.record.tokens is not None:
            for record in self.records[-1:]:  # one that is two generations old looks like a thief's, to everybody
                yield (
                    f"the clients' store is back at version {record.version}",
                    self._spend("set_backs").but(record=record, records=()),
                )
        if self.budget.restores and self.rows[0].revoked_at is None:
            for row in self.older:
                yield (
                    f"the server's store is back at g={row.generation}",
                    self._spend("restores").but(rows=(row, *self.rows[1:])),
                )
        for copy in self.copies:
            token, was_used = copy
            rest = tuple(other for other in self.copies if other is not copy)
            if not (PROOFS_ARE_SPENT if was_used else token.generation < self.rows[0].generation - 1):
                yield "the attacker sends his copy", self._decide(0, token)[0].but(copies=rest)
        for token in self.repeatable:
            if token.generation >= self.rows[0].generation - 1:
                rest = tuple(other for other in self.repeatable if other is not token)
                yield "the proxy delivers its copy", self._decide(0, token)[0].but(repeatable=rest)

    def crashed(self, who: int) -> World | None:
        if not self.budget.crashes:
            return None
        return self._spend("crashes").but(holder=None if self.holder == who else self.holder)

    # ---- the server --------------------------------------------------------------------------------------------

    def _party(self, who: int) -> str:
        return self.parties[who] if self.parties else ""

    def _presented_token(self, who: int, text: str, attempt: str | None, party: str) -> tuple[int, PresentedToken]:
        number, token = _token(text, attempt, party)
        return number, token._replace(jkt=self.keys[who] if self.keys else None)

    def _presented(
        self, who: int, text: str, attempt: str | None, party: str, *, honest: bool
    ) -> tuple[World, RefreshOutcome]:
        number, token = self._presented_token(who, text, attempt, party)
        world, verdict, row = self._decide(number, token)
        world = world.but(refreshes=self.refreshes + 1)
        if verdict is Verdict.UNPROVEN:
            return world, GrantRejected("wrong_key")
        if verdict in (Verdict.DEAD, Verdict.REUSED):
            return world, GrantRejected(rotation.why_inactive(row, self.clock) or "reuse")
        response = granted(number, row)
        if (
            not honest
            and verdict in (Verdict.BRANCHED, Verdict.CONVERGED)
            and self.rows[number].first_used_branch is not None
        ):
            return world.but(problem="a thief was served after the victim had used newer tokens"), response
        return world, response

    def _decide(self, number: int, token: PresentedToken) -> tuple[World, Verdict, SessionRow]:
        before = self.rows[number]
        row, verdict = rotation.present(before, token, self.clock, self.policy)
        older = (*self.older, before) if number == 0 and row is not before else self.older
        return self._with_row(number, row).but(older=older, verdicts=(*self.verdicts, verdict)), verdict, row

    def _used(self, tokens: Tokens) -> World:
        """The first use of an access token settles its branch."""
        number, place = _token(tokens.access_token, None)
        row = self.rows[number]
        if row.generation != place.generation or row.first_used_branch is not None:
            return self
        return self._with_row(number, replace(row, first_used_branch=place.branch))

    def _with_row(self, number: int, row: SessionRow) -> World:
        return self.but(rows=(*self.rows[:number], row, *self.rows[number + 1 :]))

    # ---- bookkeeping -------------------------------------------------------------------------------------------

    def _saved(self, record: StoredSession) -> World:
        before, after = self.record.tokens, record.tokens
        backwards = (
            before and after and before.epoch == after.epoch and (before.refresh_seq or 0) > (after.refresh_seq or 0)
        )
        records = (*self.records, self.record) if self.budget.set_backs and after != before else self.records
        problem = "the store went back to older tokens" if backwards else self.problem
        return self.but(record=record, records=records, problem=problem)

    def _count(self, response: RefreshOutcome, *, honest: bool) -> World:
        """Counts the rounds since the theft in which victim and thief both were given tokens they had not had."""
        if not self.thieves or not isinstance(response, TokenResponse):
            return self
        mine, text = (0 if honest else 1), response.refresh_token or ""
        new = text not in self.given[mine]
        given = (self.given[0] | {text}, self.given[1]) if honest else (self.given[0], self.given[1] | {text})
        if self.stolen is None or not new:
            return self.but(given=given)
        count, victim, thief = self.rounds
        victim, thief = victim or honest, thief or not honest
        return self.but(given=given, rounds=(count + 1, False, False) if victim and thief else (count, victim, thief))

    def _spend(self, what: str) -> World:
        return self.but(budget=self.budget._replace(**{what: getattr(self.budget, what) - 1}))


class Port(Base):
    """The port of the rules, simulated: every call suspends."""

    async def load(self) -> StoredSession:
        return await ask("load")

    async def save(self, record: StoredSession, expected: StoredSession) -> bool:
        return await ask("save", record, expected)

    async def send_refresh(self, tokens: Tokens, attempt: str | None) -> RefreshOutcome:
        response = await ask("refresh", tokens, attempt)
        await ask("arrive")
        if response == NONCE_REQUIRED:  # the port sends it again, with another proof
            response = await ask("refresh" if REPETITIONS_ARE_CHECKED else "send_refresh", tokens, attempt)
            await ask("arrive")
        return response

    def can_refresh(self, tokens: Tokens) -> bool:
        return bool(tokens.refresh_token)

    def server_kind(self, tokens: Tokens) -> ServerKind:
        return "idempotent"

    def lock_holder(self) -> str:
        return ""

    async def revoke(self, tokens: Tokens) -> bool:
        return await ask("revoke", tokens)

    async def pause(self, seconds: float) -> None:
        """Costs no step: whatever can happen meanwhile can happen before the next call."""

    def lock(self) -> _Lock:
        return _Lock()


class _Lock:
    async def __aenter__(self) -> None:
        await ask("lock")

    async def __aexit__(self, *_: object) -> None:
        await ask("release")


def _may_lose_lease(op: Op | None) -> bool:
    """At any time: a holder may be stopped for longer than its lease. It asks before it sends."""
    return op is not None


def new_row(number: int = 0, *, coordinated: bool = True, g: int = 0, jkt: bytes | None = None) -> SessionRow:
    """A session at the server; *jkt* is the key that it is bound to."""
    about: dict[str, Any] = {"coordinated": coordinated, "generation": g, "jkt": jkt}
    return SessionRow(bytes([number]), f"sid {number}", f"user {number}", START, START, 1e9, 1e9, **about)


def granted(number: int, row: SessionRow) -> TokenResponse:
    """What the server responds: tokens that say in clear where they stand."""
    place = f"{number}/{row.generation}/{row.branch}"
    return TokenResponse(f"A {place}", f"R {place}", POLICY.access_ttl, 1e6, row.generation)


def stored(number: int, row: SessionRow, epoch: int, *, received_at: float = START) -> StoredSession:
    """A client's store that holds the newest tokens of *row*."""
    one = granted(number, row)
    tokens = Tokens(
        one.access_token, one.refresh_token, 60.0, received_at, 1e6, row.generation, version=epoch, epoch=epoch
    )
    return StoredSession(epoch, epoch, tokens)


def _token(text: str, attempt: str | None, party: str = "") -> tuple[int, PresentedToken]:
    number, g, b = (int(part) for part in text[2:].split("/"))
    return number, PresentedToken(g, b, attempt.encode() if attempt else None, party)
