"""A world with servers of every kind, machines that sleep, clocks that jump, and leases that are kept alive.

The programs run the shipped rules, the lease the shipped comparison of clocks. Each program is a machine of its own,
unless all of them share one lock file. A second is the unit of time: a lease lasts two, and is extended in each, unless
its holder sleeps. The server responds late: whatever happens meanwhile happens before the response is read.

Where the store sees connections, whoever waits for the lock finds out that its holder's has ended: because the holder
is dead, or only the connection. Who waits looks several times a second.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from tests.simulation.explore import Base, Op, ask
from unbroken.client.core import refresh_rules as rules
from unbroken.client.core.refresh_rules import GrantRejected, Indeterminate, RefreshOutcome, ServerKind
from unbroken.client.core.token_store import StoredSession
from unbroken.client.stores import lease
from unbroken.client.stores.lease import Clocks, seconds_after_connection
from unbroken.tokens import TokenResponse, Tokens

START = 10_000.0
LEASE_SECONDS, GRACE_SECONDS, LATE_SECONDS, REFRESH_TIMEOUT_SECONDS = 2.0, 10.0, 60.0, 10.0

LOCK_LOST = "the lock was lost"  # what its holder, who lives, is told before a request

LEASES_ARE_CHECKED = True  # before each request
OTHERS_END_A_LEASE = True  # a lease that another holder has had is not extended
LATE_RESPONSES_COUNT = True  # also without the lock
ENDED_CONNECTIONS_ARE_SEEN = True

# ``refusing`` rejects a used token, and nothing more. The last two give no refresh token, and take credentials or not.
Nature = Literal["idempotent", "forgiving", "strict", "refusing", "credentials", "wrong credentials"]


class Server(NamedTuple):
    """One session at the server. Tokens have serial numbers; ``number`` is what it says as ``refresh_seq``."""

    nature: Nature
    current: int | None = 0  # the serial of the good refresh token; None: a restored server takes any
    previous: int | None = None
    rotated_at: float = 0.0
    key: str | None = None
    number: int = 10
    issued: int = 0
    reused: bool = False
    logins: int = 0

    def present(self, serial: int, key: str, now: float) -> tuple[Server, RefreshOutcome]:
        if self.nature == "wrong credentials":
            return self._replace(logins=self.logins + 1), GrantRejected("invalid_client")
        if self.nature == "credentials":
            after = self._replace(current=self.issued + 1, issued=self.issued + 1, logins=self.logins + 1)
            return after, TokenResponse(f"A {after.current}", None, 60.0)
        if not self.reused and self.current in (None, serial):
            return self._rotate(serial, key, now)
        if not self.reused and serial == self.previous and self._takes_back(key, now):
            return self, self._granted()
        return self._replace(reused=self.reused or self.nature != "refusing"), GrantRejected("invalid_grant")

    def _takes_back(self, key: str, now: float) -> bool:
        if self.nature == "idempotent":
            return key == self.key
        return self.nature == "forgiving" and now - self.rotated_at < GRACE_SECONDS

    def _rotate(self, serial: int, key: str, now: float) -> tuple[Server, RefreshOutcome]:
        serials = {"current": self.issued + 1, "previous": serial, "issued": self.issued + 1}
        after = self._replace(**serials, rotated_at=now, key=key, number=self.number + 1)
        return after, after._granted()

    def _granted(self) -> TokenResponse:
        confirmed = self.nature == "idempotent"
        return TokenResponse(f"A {self.current}", f"R {self.current}", 60.0, None, self.number, idempotent=confirmed)


class Budget(NamedTuple):
    """How often each thing may still happen."""

    seconds: int = 0
    sleeps: int = 0
    jumps: int = 0  # the wall clock of all is set
    beats: int = 0  # a holder that is awake does not extend its lease for a second
    lost: int = 0  # a connection breaks, before the request arrives or after
    crashes: int = 0
    restores: int = 0  # the server counts from an older number
    cuts: int = 0  # the holder loses its connection to the store, and makes another one for its next heartbeat


class Machine(NamedTuple):
    """What one program knows of its lease, and how it sleeps. ``lag``: for how long its monotonic clock stood still."""

    asleep: Literal["", "stopped", "suspended"] = ""
    lag: float = 0.0
    ends: Clocks | None = None  # of its lease; None: it does not hold the lock
    lost: bool = False
    unsaved: int | None = None  # the serial of tokens that were issued to it, and that it has not stored
    dead: bool = False


@dataclass(frozen=True)
class ForeignWorld:
    """Everything outside the programs."""

    server: Server
    record: StoredSession
    budget: Budget
    machines: tuple[Machine, ...]
    one_machine: bool = False
    jump_seconds: float = 5.0
    ways_to_sleep: tuple[str, ...] = ("stopped", "suspended")
    sleeps_with_response: bool = True
    clock: float = START
    ahead: float = 0.0  # of the wall clock, of all machines
    holder: int | None = None
    held_until: float = 0.0
    sees_connections: bool = False
    is_connected: bool = True  # the holder, as far as the store sees it
    lost_for_good: bool = False  # tokens that were issued have died with their process or their connection
    numbered_afresh: bool = False
    problem: str = ""

    def key(self) -> Hashable:
        return self

    def now(self) -> float:
        """The wall clock of the programs: long jumps show, seconds do not, because nothing in the rules is so short."""
        return START + (self.ahead if self.jump_seconds > LEASE_SECONDS * 10 else 0.0)

    def outcomes(self, who: int, op: Op) -> Iterable[tuple[str, ForeignWorld, Any]]:
        return () if self.machines[who].asleep else getattr(self, f"_do_{op[0]}")(who, *op[1:])

    # ---- the lock ----------------------------------------------------------------------------------------------

    def _do_lock(self, who: int) -> Iterable[tuple[str, ForeignWorld, Any]]:
        if self.holder in (None, who) or (not self.one_machine and self.clock >= self.held_until):
            machine = self.machines[who]._replace(ends=self._lease_ends(who), lost=False)
            held_until = self.clock + LEASE_SECONDS
            after = replace(self._with(who, machine), holder=who, held_until=held_until, is_connected=True)
            yield "takes the lock", after, None

    def _do_release(self, who: int) -> Iterable[tuple[str, ForeignWorld, Any]]:
        after = self._with(who, self.machines[who]._replace(ends=None, lost=False))
        yield "releases the lock", replace(after, holder=None if self.holder == who else self.holder), None

    def _clocks(self, who: int) -> Clocks:
        return Clocks(self.clock - self.machines[who].lag, self.clock + self.ahead)

    def _lease_ends(self, who: int) -> Clocks:
        return self._clocks(who).plus(lease.seconds_after_connection(LEASE_SECONDS))

    def _extended(self, who: int) -> tuple[ForeignWorld, bool]:
        machine = self.machines[who]
        if machine.lost or (self.holder != who and OTHERS_END_A_LEASE):
            return self._with(who, machine._replace(lost=True)), False
        after = self._with(who, machine._replace(ends=self._lease_ends(who)))
        return replace(after, holder=who, held_until=self.clock + LEASE_SECONDS, is_connected=True), True

    def _cut_lease(self) -> ForeignWorld:
        """What somebody who waits does, when the connection of the holder has ended."""
        ends = self.clock + seconds_after_connection(LEASE_SECONDS)
        return replace(self, held_until=min(self.held_until, ends)) if ENDED_CONNECTIONS_ARE_SEEN else self

    def _is_held(self, who: int) -> tuple[ForeignWorld, bool]:
        machine = self.machines[who]
        if self.one_machine or not LEASES_ARE_CHECKED:
            return self, True
        if not machine.lost and machine.ends and lease.lasts(machine.ends, self._clocks(who)):
            return self, True
        return self._extended(who)

    # ---- the store ---------------------------------------------------------------------------------------------

    def _do_load(self, who: int) -> Iterable[tuple[str, ForeignWorld, Any]]:
        yield "loads", self, self.record

    def _do_save(self, who: int, record: StoredSession, expected: StoredSession) -> Iterable[Any]:
        if not self.record.same(expected):
            yield "loses the compare-and-set", self, False
            return
        before, after = self.record.tokens, record.tokens
        is_older = before and after and serial_of(before) > serial_of(after)
        problem = "the store went back to older tokens" if is_older else self.problem
        stored = replace(self, record=record, problem=problem)
        machine = self.machines[who]
        if after and serial_of(after) == machine.unsaved:
            stored = stored._with(who, machine._replace(unsaved=None))
        yield "saves", stored, True

    # ---- the server --------------------------------------------------------------------------------------------

    def _do_refresh(self, who: int, tokens: Tokens, key: str, kind: ServerKind) -> Iterable[tuple[str, Any, Any]]:
        world, is_held = self._is_held(who)
        if not is_held:
            yield "does not send: the lock is lost", world, Indeterminate(LOCK_LOST, may_retry=False)
            return
        if self.budget.lost:
            yield "breaks the connection too early", world._spend("lost"), Indeterminate("broken", lost=True)
        server, outcome = world.server.present(serial_of(tokens), key, world.clock)
        after = replace(world, server=server)
        if not isinstance(outcome, TokenResponse):
            yield f"presents {tokens.refresh_token} and is rejected", after, outcome
            return
        if self.budget.lost:
            yield "loses the response", after._spend("lost")._lose(server.current), Indeterminate("broken", lost=True)
        after = after._with(who, after.machines[who]._replace(unsaved=server.current))
        yield f"presents {tokens.refresh_token}", after, outcome

    def _do_arrive(self, who: int, kind: ServerKind) -> Iterable[tuple[str, ForeignWorld, Any]]:
        """The response comes late: whoever has a time limit below that does not get it."""
        if rules.response_seconds(kind, REFRESH_TIMEOUT_SECONDS) >= LATE_SECONDS:
            is_dropped = not (LATE_RESPONSES_COUNT or self._is_held(who)[1])
            yield "gets the response", self, Indeterminate("late", may_retry=False) if is_dropped else None
            return
        yield "gets the response in time", self, None
        if self.machines[who].unsaved is not None and self.budget.lost:
            forgets = self._with(who, self.machines[who]._replace(unsaved=None))
            yield "waits no longer", forgets._spend("lost"), Indeterminate("timeout", lost=True)

    def _do_revoke(self, who: int, tokens: Tokens) -> Iterable[tuple[str, ForeignWorld, Any]]:
        yield "revokes", self, True

    # ---- what can happen by itself -----------------------------------------------------------------------------

    def happenings(self, doing: list[Op | None]) -> Iterable[tuple[str, ForeignWorld]]:
        if not any(doing):
            return
        yield from self._connections(doing)
        if self.budget.seconds:
            yield "a second passes", self._spend("seconds")._second(beats=True)
            if self.budget.beats and all(map(self._may_sleep, self.machines)):
                yield "a second passes without a beat", self._spend("seconds")._spend("beats")._second(beats=False)
        for who, machine in enumerate(self.machines):
            if doing[who] is not None and machine.asleep:
                yield f"{who} wakes", self._with(who, machine._replace(asleep=""))
            elif doing[who] is not None and self.budget.sleeps and self._may_sleep(machine):
                for how in self.ways_to_sleep:
                    yield f"{who} is {how}", self._spend("sleeps")._with(who, machine._replace(asleep=how))
        for seconds in (self.jump_seconds, -self.jump_seconds) if self.budget.jumps else ():
            yield f"the clock jumps by {seconds}", replace(self._spend("jumps"), ahead=self.ahead + seconds)
        if self.budget.restores:
            restored = self.server._replace(current=None, previous=None, number=2)
            yield "the server is restored", replace(self._spend("restores"), server=restored, numbered_afresh=True)

    def _connections(self, doing: list[Op | None]) -> Iterable[tuple[str, ForeignWorld]]:
        if not self.sees_connections or self.holder is None:
            return
        is_dead = self.machines[self.holder].dead
        if self.is_connected and self.budget.cuts:
            yield f"{self.holder} loses its connection", replace(self._spend("cuts"), is_connected=False)
        waits = [op == ("lock",) and not one.asleep for op, one in zip(doing, self.machines, strict=True)]
        if self.is_connected or not any(waits):
            return
        if self._cut_lease() != self:
            yield "who waits sees that the connection has ended", self._cut_lease()
        if is_dead and self.clock < self.held_until:
            after = self._cut_lease()._second(beats=True)
            problem = "somebody waits for the dead" if after.clock < after.held_until else self.problem
            yield "a second passes for who waits", replace(after, problem=problem)

    def _may_sleep(self, machine: Machine) -> bool:
        return self.sleeps_with_response or machine.unsaved is None

    def crashed(self, who: int) -> ForeignWorld | None:
        if not self.budget.crashes:
            return None
        after = self._spend("crashes")._lose(self.machines[who].unsaved)._with(who, Machine(dead=True))
        if self.sees_connections and self.holder == who:
            return replace(after, is_connected=False)
        return replace(after, holder=None if self.holder == who else self.holder)

    def _second(self, *, beats: bool) -> ForeignWorld:
        after = replace(self, clock=self.clock + 1.0)
        for who, machine in enumerate(self.machines):
            if machine.asleep == "suspended":
                after = after._with(who, after.machines[who]._replace(lag=machine.lag + 1.0))
            elif not machine.asleep and machine.ends is not None and beats:
                after, _ = after._extended(who)
        return after

    # ---- bookkeeping -------------------------------------------------------------------------------------------

    def _lose(self, serial: int | None) -> ForeignWorld:
        """Tokens are gone that nobody can get again, unless the server gives them twice."""
        gone = serial is not None and serial == self.server.current and self.server.nature in ("strict", "refusing")
        return replace(self, lost_for_good=self.lost_for_good or gone)

    def _with(self, who: int, machine: Machine) -> ForeignWorld:
        return replace(self, machines=(*self.machines[:who], machine, *self.machines[who + 1 :]))

    def _spend(self, what: str) -> ForeignWorld:
        return replace(self, budget=self.budget._replace(**{what: getattr(self.budget, what) - 1}))


class ForeignPort(Base):
    """The port of the rules for one of several machines, or for one of the processes of a machine."""

    def __init__(self, who: int, start: float, kind: str, *, one_machine: bool) -> None:
        super().__init__(who, start)
        self._kind, self._one_machine = kind, one_machine

    def can_refresh(self, tokens: Tokens) -> bool:
        return bool(tokens.refresh_token) or self._kind == "credentials"

    def server_kind(self, tokens: Tokens) -> ServerKind:
        if self._kind == "credentials":
            return "idempotent"
        if self._kind == "learn":
            return "idempotent" if tokens.idempotent else "forgiving"
        return self._kind  # type: ignore[return-value]

    def lock_holder(self) -> str:
        return "" if self._one_machine else f"machine {self.who}"

    async def load(self) -> StoredSession:
        return await ask("load")

    async def save(self, record: StoredSession, expected: StoredSession) -> bool:
        return await ask("save", record, expected)

    async def send_refresh(self, tokens: Tokens, key: str) -> RefreshOutcome:
        kind = self.server_kind(tokens)
        outcome = await ask("refresh", tokens, key, kind)
        if isinstance(outcome, Indeterminate):
            return outcome
        return await ask("arrive", kind) or outcome

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


def serial_of(tokens: Tokens) -> int:
    return int((tokens.refresh_token or tokens.access_token)[2:] or -1)


def first_record(refresh_token: str | None = "R 0") -> StoredSession:
    """The clients' store after a login."""
    tokens = Tokens("A 0", refresh_token, 3600.0, START, None, 10, version=7, epoch=7)
    return StoredSession(7, 7, tokens)
