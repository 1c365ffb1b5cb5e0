"""What is simulated in the world of foreign servers, and what must hold at every end.

A session may be lost only where its newest tokens are: with a connection that broke, or with a process that died,
between the server's response and the store of a server that gives nothing twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tests.simulation.explore import Explorer, Program, Report, Step
from tests.simulation.foreign_world import (
    LOCK_LOST,
    Budget,
    ForeignPort,
    ForeignWorld,
    Machine,
    Nature,
    Server,
    first_record,
    serial_of,
)
from unbroken.client.core import refresh_rules as rules
from unbroken.client.core.events import SessionEnded
from unbroken.client.core.token_store import EMPTY, StoredSession
from unbroken.errors import SessionOver, TryLater

Check = Callable[[ForeignWorld, list[Step]], Iterable[str]]


def client(refreshes: int, *, needed: bool = True) -> Program:
    """Refreshes so often in a row; what must be tried later is not."""

    async def live_on(port: ForeignPort) -> str:
        tokens = first_record().tokens
        assert tokens is not None
        for _ in range(refreshes):
            tokens = await rules.refresh(port, tokens, needed=needed)
        return "served"

    return live_on


def program(refreshes: int) -> Program:
    """Refreshes so often in a row by credentials alone, whatever else is in the store."""

    async def live_on(port: ForeignPort) -> str:
        tokens = first_record(None).tokens
        assert tokens is not None
        for _ in range(refreshes):
            tokens = await rules.refresh(port, tokens)
        return "served"

    return live_on


async def begins(port: ForeignPort) -> str:
    """Needs tokens for the first time, and again after it was told to try later."""
    for _ in range(2):
        try:
            await rules.begin(port)
        except TryLater:
            continue
        return "served"
    return "gave up"


async def logs_out(port: ForeignPort) -> str:
    await rules.log_out(port)
    return "logged out"


async def comes_back(port: ForeignPort) -> str:
    """Refreshes what is in the store, also after it was told to try later or to log in again."""
    for _ in range(3):
        record = await port.load()
        if record.tokens is None:
            continue
        try:
            await rules.refresh(port, record.tokens)
        except (TryLater, SessionOver):
            continue
        return "served"
    return "gave up"


@dataclass(frozen=True)
class ForeignScenario:
    """Programs in a world, with what must hold at each end. ``kind`` is what the dialect says of the server.

    ``sleeps_with_response``: a machine may also sleep, or miss a heartbeat, while tokens are on their way to it.
    ``sees_connections``: the store sees when a connection ends; a dead holder of the lock is waited for then.
    """

    name: str
    nature: Nature
    kind: str
    programs: tuple[Program, ...]
    check: Check
    budget: Budget = Budget()
    one_machine: bool = False
    sleeps: tuple[str, ...] = ("stopped", "suspended")
    sleeps_with_response: bool = True
    jump_seconds: float = 5.0
    sees_connections: bool = False
    full: bool = False
    record: StoredSession = first_record()

    def run(self, *, stop_at_first: bool = False) -> Report:
        world = ForeignWorld(
            Server(self.nature),
            self.record,
            self.budget,
            (Machine(),) * len(self.programs),
            one_machine=self.one_machine,
            jump_seconds=self.jump_seconds,
            ways_to_sleep=self.sleeps,
            sleeps_with_response=self.sleeps_with_response,
            sees_connections=self.sees_connections,
        )

        def port(who: int, start: float) -> ForeignPort:
            return ForeignPort(who, start, self.kind, one_machine=self.one_machine)

        explorer = Explorer(world, list(self.programs), port, self.check, most=6_000_000)
        return explorer.run(stop_at_first=stop_at_first)


# ---- what must hold --------------------------------------------------------------------------------------------------


def kept(world: ForeignWorld, steps: list[Step]) -> Iterable[str]:
    """No session is lost that could be kept, and one that is lost is told of once."""
    if world.lost_for_good:
        yield from told_once(steps)
        return
    if world.server.reused:
        yield "a used token came again"
    if world.server.nature == "strict" and world.server.current is not None:
        yield from found_alive(world, steps)
    for step in steps:
        if step.end and step.end.how == "error" and not isinstance(step.end.value, TryLater):
            yield f"a session was lost that could be kept: {step.end.value!r}"


def served(world: ForeignWorld, steps: list[Step]) -> Iterable[str]:
    """Everybody got new tokens, and nothing had to be tried later."""
    yield from kept(world, steps)
    for step in steps:
        if step.end and step.end.how == "error":
            yield f"not everybody was served: {step.end.value!r}"


def finished(world: ForeignWorld, steps: list[Step]) -> Iterable[str]:
    """What a process began that is dead, the next one finishes."""
    yield from kept(world, steps)
    if any(step.end and isinstance(step.end.value, TryLater) for step in steps):
        yield "what a dead process began was not finished"


def finished_by_holders(world: ForeignWorld, steps: list[Step]) -> Iterable[str]:
    """The same where a holder that lives can lose its lock: it sends nothing and tries later, and another finishes."""
    yield from kept(world, steps)
    ends = [step.end for step in steps if step.end and step.end.how != "crash"]
    waiting = [str(end.value) for end in ends if isinstance(end.value, TryLater)]
    if any(LOCK_LOST not in said for said in waiting) or len(waiting) == len(ends):
        yield "what a dead process began was not finished"


def found_alive(world: ForeignWorld, steps: list[Step]) -> Iterable[str]:
    """Whatever somebody was told meanwhile: in the end the store has the tokens that the server takes."""
    tokens = world.record.tokens
    crashed = any(step.end and step.end.how == "crash" for step in steps)
    if not crashed and not world.lost_for_good and (tokens is None or serial_of(tokens) != world.server.current):
        yield "the good tokens are not in the store"


def not_ended_early(world: ForeignWorld, steps: list[Step]) -> Iterable[str]:
    """While the access token can be used, a strict server is given no reason to end the session."""
    if world.server.reused:
        yield "the session was ended while its access token could be used"
    yield from kept(world, steps)


def logged_in_once(world: ForeignWorld, steps: list[Step]) -> Iterable[str]:
    """All share what one has got: nobody logs in beside another, however often responses get lost."""
    yield from served(world, steps)
    lost = 2 - world.budget.lost + 1 - world.budget.crashes
    if world.server.logins > 2 + lost:
        yield f"there were {world.server.logins} logins where two tokens were needed"


def not_logged_in_again(world: ForeignWorld, steps: list[Step]) -> Iterable[str]:
    """A logout is the last word: no login by credentials that was under way writes after it."""
    left = any(step.end and step.end.value == "logged out" for step in steps)
    if left and world.record.tokens is not None:
        yield "somebody was logged in again after a logout"
    for step in steps:
        if step.end and step.end.how == "error" and not isinstance(step.end.value, (SessionOver, TryLater)):
            yield f"an unexpected error: {step.end.value!r}"


def refused_once(world: ForeignWorld, steps: list[Step]) -> Iterable[str]:
    """Credentials that are refused are sent once, and everybody hears why."""
    if world.server.logins > 1:
        yield "credentials that were refused were sent again"
    for step in steps:
        if step.end and not (isinstance(step.end.value, SessionOver) and step.end.value.reason == "invalid_client"):
            yield f"somebody does not know why: {step.end.value!r}"


def told_once(steps: list[Step]) -> Iterable[str]:
    if sum(isinstance(event, SessionEnded) for step in steps for event in step.events) > 1:
        yield "the end of one session was told twice"


TWO = (client(1), client(2))
FOREIGN_SCENARIOS = (
    ForeignScenario("late, strict", "strict", "strict", TWO, kept, Budget(lost=1)),
    ForeignScenario("late, strict, and not known to be", "strict", "learn", TWO, kept, Budget(lost=1)),
    ForeignScenario("late, forgiving", "forgiving", "learn", TWO, served, Budget(lost=2)),
    ForeignScenario("late, idempotent", "idempotent", "idempotent", TWO, served, Budget(lost=2)),
    ForeignScenario("late, idempotent, learnt", "idempotent", "learn", (client(2), client(2)), served, Budget(lost=2)),
    ForeignScenario("a death, strict", "strict", "strict", TWO, finished, Budget(crashes=1, lost=1), one_machine=True),
    ForeignScenario("a death elsewhere, strict", "strict", "strict", TWO, kept, Budget(crashes=1)),
    ForeignScenario("a death, forgiving", "forgiving", "learn", TWO, kept, Budget(crashes=1, lost=1, seconds=2)),
    ForeignScenario("a background refresh, strict", "strict", "strict", (client(1, needed=False),) * 2, not_ended_early,
                    Budget(lost=1, crashes=1)),
    ForeignScenario("a sleep, strict", "strict", "strict", TWO, kept, Budget(seconds=3, sleeps=1)),
    ForeignScenario("a sleep on one machine", "strict", "learn", TWO, kept, Budget(seconds=3, sleeps=1),
                    one_machine=True),
    ForeignScenario("a sleep before the request", "strict", "learn", TWO, kept, Budget(seconds=3, sleeps=1),
                    sleeps_with_response=False),
    ForeignScenario("a sleep, forgiving", "forgiving", "learn", TWO, kept, Budget(seconds=3, sleeps=1)),
    ForeignScenario("a sleep, idempotent", "idempotent", "idempotent", TWO, kept, Budget(seconds=3, sleeps=1)),
    ForeignScenario("a sleep, refusing", "refusing", "learn", (client(1), client(1), comes_back), found_alive,
                    Budget(seconds=2, sleeps=1), sleeps=("stopped",)),
    ForeignScenario("a lost heartbeat", "strict", "strict", TWO, kept, Budget(seconds=4, beats=3)),
    ForeignScenario("a lost heartbeat, forgiving", "forgiving", "learn", TWO, kept, Budget(seconds=4, beats=3)),
    ForeignScenario("a death elsewhere, seen", "forgiving", "learn", TWO, finished, Budget(crashes=1),
                    sees_connections=True),
    ForeignScenario("a lost connection", "strict", "learn", TWO, kept, Budget(seconds=3, cuts=2),
                    sees_connections=True),
    ForeignScenario("a lost connection, a lost beat", "strict", "learn", TWO, kept, Budget(seconds=3, beats=2, cuts=1),
                    sees_connections=True, sleeps_with_response=False),
    ForeignScenario("a lost connection, a sleep", "strict", "learn", TWO, kept, Budget(seconds=3, sleeps=1, cuts=1),
                    sees_connections=True, sleeps_with_response=False),
    ForeignScenario("a lost connection, a clock jump", "strict", "learn", TWO, kept,
                    Budget(seconds=2, cuts=1, jumps=1), sees_connections=True),
    ForeignScenario("clock jumps", "strict", "learn", TWO, kept, Budget(seconds=3, jumps=2)),
    ForeignScenario("a long clock jump", "strict", "strict", TWO, kept, Budget(seconds=1, jumps=1), jump_seconds=9e3),
    ForeignScenario("a clock jump in a sleep", "strict", "learn", TWO, kept, Budget(seconds=3, sleeps=1, jumps=1),
                    sleeps=("stopped",), sleeps_with_response=False),
    ForeignScenario("a restored server", "strict", "learn", (client(3), client(2)), served, Budget(restores=1)),
    ForeignScenario("a restored server, losses", "idempotent", "idempotent", TWO, served, Budget(restores=1, lost=2)),
    ForeignScenario("a restored server, a sleep", "idempotent", "idempotent", TWO, kept,
                    Budget(restores=1, seconds=3, sleeps=1), sleeps=("stopped",)),
    ForeignScenario("a restored server, deaths", "idempotent", "idempotent", TWO, kept, Budget(restores=2, crashes=1)),
    ForeignScenario("refreshed by credentials", "credentials", "credentials", (program(1), program(2)), logged_in_once,
                    Budget(lost=2, crashes=1), record=first_record(None)),
    ForeignScenario("credentials and a sleep", "credentials", "credentials", (program(1), program(2)), kept,
                    Budget(seconds=3, sleeps=1), record=first_record(None)),
    ForeignScenario("a first login", "credentials", "credentials", (begins, begins), logged_in_once,
                    Budget(lost=2, crashes=1), record=EMPTY),
    ForeignScenario("a first login and a logout", "credentials", "credentials", (begins, begins, logs_out),
                    not_logged_in_again, Budget(lost=1), record=EMPTY),
    ForeignScenario("refused credentials", "wrong credentials", "credentials", (begins, begins, begins), refused_once,
                    record=EMPTY),
    ForeignScenario("three, a sleep, strict", "strict", "strict", (*TWO, client(1)), kept,
                    Budget(seconds=3, sleeps=1), full=True),
    ForeignScenario("two sleeps and jumps", "strict", "learn", TWO, kept, Budget(seconds=4, sleeps=2, jumps=1),
                    sleeps=("stopped",), sleeps_with_response=False, full=True),
    ForeignScenario("a sleep, a lost beat, a death", "forgiving", "learn", TWO, kept,
                    Budget(seconds=3, sleeps=1, beats=2, crashes=1), full=True),
    ForeignScenario("a death elsewhere, all lost", "forgiving", "learn", (*TWO, client(1)), finished_by_holders,
                    Budget(crashes=1, cuts=1, seconds=2, beats=1), sees_connections=True, full=True),
    ForeignScenario("a restored server, a long sleep", "idempotent", "idempotent", TWO, kept,
                    Budget(restores=1, seconds=6, sleeps=1), full=True),
)  # fmt: skip
