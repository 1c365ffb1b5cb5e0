"""What is simulated: programs over the shipped rules, a world, and what must hold at every end."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from tests.simulation.explore import Explorer, Program, Report, Step, ask
from tests.simulation.world import POLICY, START, Budget, Port, World, granted, new_row, stored
from unbroken.client.core import refresh_rules as rules
from unbroken.client.core.refresh_rules import GrantRejected, Indeterminate
from unbroken.client.core.token_store import StoredSession
from unbroken.errors import SessionOver, TryLater
from unbroken.server.core.party import party_of
from unbroken.server.core.rotation import Policy, Verdict
from unbroken.tokens import TokenResponse, Tokens

# ---- programs --------------------------------------------------------------------------------------------------------


async def request(port: Port) -> str:
    """One request of the user who is logged in now: sent, refreshed for if challenged, sent again."""
    tokens = _there(await port.load())
    if await ask("send", tokens, tokens.epoch):
        return "served"
    fresh = await rules.refresh(port, tokens)
    return "served" if await ask("send", fresh, tokens.epoch) else "challenged again"


async def parked(port: Port) -> str:
    """A request that the first user made before anything else happened."""
    tokens = FIRST.tokens
    assert tokens is not None
    fresh = await rules.refresh(port, tokens)
    return "served" if await ask("send", fresh, tokens.epoch) else "challenged again"


async def parked_twice(port: Port) -> str:
    """Two refreshes in a row, by one process."""
    tokens = FIRST.tokens
    assert tokens is not None
    for _ in range(2):
        before, tokens = tokens, await rules.refresh(port, tokens)
        if (tokens.refresh_seq or 0) <= (before.refresh_seq or 0):
            return "went back"
    return "served" if await ask("send", tokens, tokens.epoch) else "challenged again"


async def logout(port: Port) -> str:
    tokens, _, told = await rules.log_out(port)
    return f"logged out {'with' if tokens else 'without'} tokens, told {told}"


async def other_login(port: Port) -> str:
    await rules.log_in(port, granted(1, new_row(1)))
    return "logged in"


async def logout_and_login(port: Port) -> str:
    await rules.log_out(port)
    return await other_login(port)


async def foreign_tab(port: Port) -> str:
    """A client of somebody else: no lock, no idempotency key; the strictly newer response wins in the shared store."""
    record = await port.load()
    tokens = _there(record)
    response: Any = Indeterminate("not yet")
    for _ in range(3):
        response = await port.send_refresh(tokens, None)
        if not isinstance(response, Indeterminate):
            break
    if isinstance(response, GrantRejected):
        raise SessionOver(response.reason)
    if isinstance(response, Indeterminate):
        raise TryLater("lost")
    now = await port.load()
    if (_there(now).refresh_seq or 0) < (response.refresh_seq or 0):
        await ask("overwrite", _kept(response, now))
    return "served"


def foreign_client(times: int, *parties: str, key: str | None = None) -> Program:
    """A client of somebody else, alone with its store; it refreshes *times* times, with *key* if it sends one.

    Each request, and each retry, comes from the next of *parties*, over and over.
    """

    async def live_on(port: Port) -> str:
        sender = itertools.cycle(parties or (None,))
        for _ in range(times):
            tokens, response = _there(await port.load()), Indeterminate("not yet")
            for _ in range(3):
                response = await ask("send_refresh", tokens, key, next(sender))
                await ask("arrive")
                if not isinstance(response, Indeterminate):
                    break
            if isinstance(response, Indeterminate):
                raise TryLater("lost")
            if isinstance(response, GrantRejected):
                raise SessionOver(response.reason)
            await ask("overwrite", _kept(response, await port.load()))
        return "served"

    return live_on


def thief(times: int, *, with_attempt: bool = False, key: str | None = None) -> Program:
    """Copies the store, and goes on with what he found, with the victim's idempotency key or with his own.

    *key*: the one that the victim always sends.
    """

    async def steal(port: Port) -> str:
        record: StoredSession = await ask("steal")
        if record.tokens is None:
            return "found nothing"
        refresh_token = record.tokens.refresh_token
        for turn in range(times):
            own = record.idempotency_key if with_attempt and turn == 0 else port.new_idempotency_key()
            attempt = key or own
            response = await ask("misuse", refresh_token, attempt)
            if not isinstance(response, TokenResponse):
                return "refused"
            refresh_token = response.refresh_token
        return "goes on"

    return steal


def thief_without_the_key(times: int) -> Program:
    """Copies the store again and again, and tries each token with the victim's idempotency key and with his own."""

    async def steal(port: Port) -> str:
        for _ in range(times):
            record: StoredSession = await ask("steal")
            for attempt in (record.idempotency_key, port.new_idempotency_key()):
                if record.tokens is not None:
                    await ask("misuse", record.tokens.refresh_token, attempt)
        return "refused"

    return steal


def victim(times: int, *, uses: bool = False) -> Program:
    """Refreshes *times* times, whatever happens; *uses*: each time the new access token is seen by the server."""

    async def live_on(port: Port) -> str:
        for _ in range(times):
            fresh = await rules.refresh(port, _there(await port.load()))
            if uses:
                await ask("send", fresh, fresh.epoch)
        return "goes on"

    return live_on


# ---- scenarios -------------------------------------------------------------------------------------------------------

Check = Callable[[World, list[Step]], Iterable[str]]
FIRST = stored(0, new_row(), epoch=7)
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:{0}) Gecko/20100101 Firefox/{0}"
HOME, ELSEWHERE = party_of("203.0.113.7", FIREFOX.format("140.0")), party_of("198.51.100.9", "curl/8.16")
UPDATED, HOME_IPV6 = (party_of(ip, FIREFOX.format("141.0")) for ip in ("203.0.113.8", "2001:db8::7"))
USERS_KEY, THIEFS_KEY = b"user", b"thief"
SHARES_TWO, SHARES_ONE, SHARES_NONE = (replace(POLICY, max_shared_generations=count) for count in (2, 1, 0))


@dataclass(frozen=True)
class Scenario:
    """Programs in a world, with what must hold at each end. ``full``: only in the full run."""

    name: str
    programs: tuple[Program, ...]
    check: Check
    budget: Budget = Budget()
    coordinated: bool = True
    full: bool = False
    parties: tuple[str, ...] = ()  # of the programs
    policy: Policy = POLICY
    keys: tuple[bytes | None, ...] = ()  # of the programs; the session is bound to that of the first

    def run(self, *, stop_at_first: bool = False) -> Report:
        rows = (new_row(coordinated=self.coordinated, jkt=self.keys[0] if self.keys else None), new_row(1))
        about: dict[str, Any] = {"parties": self.parties, "policy": self.policy, "keys": self.keys}
        world = World(rows, FIRST, self.budget, thieves=self.check in THEFTS, **about)
        return Explorer(world, list(self.programs), Port, self.check, most=6_000_000).run(stop_at_first=stop_at_first)


def honest(world: World, steps: list[Step]) -> Iterable[str]:
    """Nobody stole, logged out or logged in: nobody may be told that the session is over."""
    for step in steps:
        if step.end and step.end.how == "error" and not isinstance(step.end.value, TryLater):
            yield f"an honest client was told {_told(step)}"
        if step.end and step.end.value == "went back":
            yield "a refresh gave older tokens than it was asked to refresh"
        if step.end and step.end.value == "challenged again" and not world.clock > START:
            yield "a fresh token was challenged"
    if Verdict.REUSED in world.verdicts:
        yield "an honest client raised a reuse alarm"


def one_refresh(world: World, steps: list[Step]) -> Iterable[str]:
    """Nothing went wrong: all are served by one refresh."""
    yield from honest(world, steps)
    if any(step.end and step.end.value != "served" for step in steps):
        yield "not everybody was served"
    if world.refreshes != 1:
        yield f"{world.refreshes} refreshs in one generation"


def same_result(world: World, steps: list[Step]) -> Iterable[str]:
    """Whoever finishes a refresh that another began gets the same tokens: no branch is ever made."""
    yield from honest(world, steps)
    if Verdict.BRANCHED in world.verdicts:
        yield "a refresh that was finished by another had another result"


def healed(world: World, steps: list[Step]) -> Iterable[str]:
    """The server's store went back, and nobody noticed."""
    yield from honest(world, steps)
    if any(step.end and step.end.how == "error" for step in steps):
        yield "a restored store was noticed by a client"


def after_logout(world: World, steps: list[Step]) -> Iterable[str]:
    """The session is gone, at both ends; whoever waited was told so and nothing else."""
    crashed = any(step.end and step.end.how == "crash" for step in steps)
    if world.record.tokens is not None and not crashed:
        yield "the store has tokens after a logout"
    late = sum(_told(step) == "logged_out" and _was_granted(step) for step in steps)  # each has tokens to revoke
    if world.rows[0].revoked_at is None and not crashed and world.revokes_lost < 1 + late:
        yield "the session is alive at the server after a logout"
    for step in steps:
        if step.end and step.end.how == "error" and _told(step) not in ("logged_out", "TryLater"):
            yield f"after a logout a waiter was told {_told(step)}"


def after_other_login(world: World, steps: list[Step]) -> Iterable[str]:
    """The second user's tokens stand; the first user's waiters were told that they are gone."""
    crashed = any(step.end and step.end.how == "crash" for step in steps)
    if not crashed and (world.record.tokens is None or not world.record.tokens.access_token.startswith("A 1/")):
        yield "the second login's tokens were lost"
    for step in steps:
        if step.end and step.end.how == "error" and _told(step) not in ("other_login", "logged_out", "TryLater"):
            yield f"after another login a waiter was told {_told(step)}"


def found_out(world: World, steps: list[Step]) -> Iterable[str]:
    """A thief and a victim who both go on do not live beside each other for three rounds."""
    if world.rounds[0] >= 3 and Verdict.REUSED not in world.verdicts:
        yield "thief and victim live on side by side"
    ends = [step.end.value for step in steps if step.end]
    if "refused" not in ends and any(_told(step) == "reuse" for step in steps) and world.rows[0].revoked_at is None:
        yield "the victim was shut out, and the thief was not"


def found_out_elsewhere(world: World, steps: list[Step]) -> Iterable[str]:
    """A thief of another party who follows the user is found at the first generation that they may not share."""
    if world.rounds[0] > (world.policy.max_shared_generations or 0) and Verdict.REUSED not in world.verdicts:
        yield "a thief elsewhere follows the user"


def worth_nothing(world: World, steps: list[Step]) -> Iterable[str]:
    """Whoever has the tokens of a bound session and not its key gets nothing, and nobody notices him."""
    yield from honest(world, steps)
    if any(isinstance(response, TokenResponse) for _, response in steps[-1].responses):
        yield "a thief without the key was given tokens"
    if world.rows[0].revoked_at is not None:
        yield "a thief without the key has ended the session"


def undisturbed(world: World, steps: list[Step]) -> Iterable[str]:
    """The last program has another key: it is told so, and the others, who have the right one, go on."""
    *others, lacks_key = steps
    yield from same_result(world, others)
    if world.record.tokens is None or world.rows[0].revoked_at is not None:
        yield "a process with another key has ended the session"
    if _told(lacks_key) not in ("wrong_key", "TryLater", "") or _was_granted(lacks_key):
        yield f"a process with another key was told {_told(lacks_key)}"


def _was_granted(step: Step) -> bool:
    return any(isinstance(response, TokenResponse) for _, response in step.responses)


def _told(step: Step) -> str:
    error = step.end.value if step.end and step.end.how == "error" else None
    return error.reason if isinstance(error, SessionOver) else type(error).__name__ if error else ""


def _there(record: StoredSession) -> Tokens:
    if record.tokens is None:
        raise SessionOver(record.over)
    return record.tokens


def _kept(response: TokenResponse, now: StoredSession) -> StoredSession:
    tokens = rules.tokens_from_response(response, START, now.version + 1, now.epoch)
    return StoredSession(tokens.version, tokens.epoch, tokens)


THEFTS = (found_out, found_out_elsewhere)
SCENARIOS = (
    Scenario("two at once", (parked, parked), one_refresh),
    Scenario("three at once", (parked, parked, parked), one_refresh),
    Scenario("four at once", (parked,) * 4, one_refresh),
    Scenario("two, losses", (parked, parked), same_result, Budget(lost=3, ticks=2)),
    Scenario("two, crashes and losses", (parked, parked_twice), same_result, Budget(crashes=1, lost=2, ticks=1)),
    Scenario("three, two crashes", (parked, parked, parked_twice), same_result, Budget(crashes=2)),
    Scenario("three, losses and a crash", (parked,) * 3, same_result, Budget(crashes=1, lost=1)),
    Scenario("requests that are confirmed, a copy", (request, parked), honest, Budget(ticks=1, repeated=1)),
    Scenario("requests, a copy and a loss", (request, request), honest, Budget(lost=1, ticks=1, repeated=1)),
    Scenario("a lost lease", (parked, parked), honest, Budget(leases=1)),
    Scenario("a lost lease, twice refreshed", (parked, parked_twice), honest, Budget(leases=1)),
    Scenario("two lost leases", (parked, parked, parked), honest, Budget(leases=2)),
    Scenario("a store set back", (parked, parked_twice), honest, Budget(set_backs=1)),
    Scenario("a store set back, a loss", (parked_twice,), honest, Budget(set_backs=1, lost=1)),
    Scenario("two, saves in doubt", (parked, parked), one_refresh, Budget(doubts=2)),
    Scenario("saves in doubt, losses", (parked, parked_twice), same_result, Budget(doubts=2, lost=1, crashes=1)),
    Scenario("two restores", (parked_twice, parked_twice), healed, Budget(restores=2)),
    Scenario("a restore, a loss, a crash", (parked, parked_twice), honest, Budget(restores=1, lost=1, crashes=1)),
    Scenario("a logout", (parked, parked, logout), after_logout, Budget(crashes=1)),
    Scenario("a logout, losses", (parked, logout), after_logout, Budget(lost=2)),
    Scenario("a logout, saves in doubt", (parked, logout), after_logout, Budget(doubts=2)),
    Scenario("a logout, a lost lease", (parked, parked, logout), after_logout, Budget(leases=1)),
    Scenario("another login", (parked, request, other_login), after_other_login, Budget(crashes=1)),
    Scenario("another login, a loss", (parked, request, other_login), after_other_login, Budget(lost=1)),
    Scenario("another login, saves in doubt", (parked, request, other_login), after_other_login, Budget(doubts=2)),
    Scenario("a logout and another login", (parked, logout_and_login), after_other_login, Budget(lost=1)),
    Scenario("a foreign client, lost responses", (foreign_tab,), honest, Budget(lost=3, ticks=3), coordinated=False),
    Scenario("three foreign tabs within the grace", (foreign_tab,) * 3, honest, coordinated=False),
    Scenario("a thief with the idempotency key", (victim(4), thief(4, with_attempt=True)), found_out, Budget(ticks=1)),
    Scenario("a thief with his own", (victim(4), thief(4, with_attempt=False)), found_out, Budget(ticks=1)),
    Scenario("a thief after use", (victim(3, uses=True), thief(4, with_attempt=False)), found_out, Budget(ticks=1)),
    Scenario("a thief, losses", (victim(4), thief(4, with_attempt=True)), found_out, Budget(lost=1)),
    Scenario(
        "a thief elsewhere, within the grace",
        (foreign_client(5), thief(6)),
        found_out_elsewhere,
        coordinated=False,
        parties=(HOME, ELSEWHERE),
        policy=SHARES_TWO,
    ),
    Scenario(
        "a thief elsewhere, an hour later",
        (foreign_client(3), thief(3)),
        found_out_elsewhere,
        Budget(ticks=2),
        coordinated=False,
        parties=(HOME, ELSEWHERE),
        policy=SHARES_ONE,
    ),
    Scenario(
        "a thief elsewhere, with a constant key",
        (foreign_client(3, key="always"), thief(3, key="always")),
        found_out_elsewhere,
        Budget(ticks=2),
        coordinated=False,
        parties=(HOME, ELSEWHERE),
        policy=SHARES_ONE,
    ),
    Scenario(
        "a thief at home, with a constant key",
        (foreign_client(4, key="always"), thief(4, key="always")),
        found_out,
        coordinated=False,
        policy=replace(POLICY, grace=0.0),
    ),
    Scenario(
        "a phone that changes networks",
        (foreign_client(2, HOME, ELSEWHERE),),
        honest,
        Budget(lost=2, ticks=1, repeated=1),
        coordinated=False,
    ),
    Scenario(
        "tabs of a phone that changes networks",
        (foreign_tab, foreign_tab),
        honest,
        Budget(lost=2, ticks=1),
        coordinated=False,
        parties=(HOME, ELSEWHERE),
    ),
    Scenario(
        "tabs of a program that updates itself, over IPv4 and IPv6",
        (foreign_tab, foreign_tab, foreign_tab),
        honest,
        coordinated=False,
        parties=(HOME, HOME_IPV6, UPDATED),
        policy=SHARES_NONE,
    ),
    Scenario(
        "a foreign client with a constant key",
        (foreign_client(2, key="always"),),
        honest,
        Budget(lost=2, ticks=2),
        coordinated=False,
    ),
    Scenario(
        "a foreign client whose store goes back in time",
        (foreign_client(3, HOME, ELSEWHERE),),
        honest,
        Budget(set_backs=1, ticks=2, lost=1),
        coordinated=False,
    ),
    Scenario(
        "a bound session, a thief without the key",
        (victim(3), thief_without_the_key(2)),
        worth_nothing,
        Budget(lost=1),
        keys=(USERS_KEY, None),
    ),
    Scenario(
        "a bound session, a thief with a key of his own, a restore",
        (victim(3), thief_without_the_key(2)),
        worth_nothing,
        Budget(restores=1),
        keys=(USERS_KEY, THIEFS_KEY),
    ),
    Scenario(
        "a bound session of a foreign client, a thief elsewhere without the key",
        (foreign_client(3), thief_without_the_key(2)),
        worth_nothing,
        Budget(ticks=1),
        coordinated=False,
        parties=(HOME, ELSEWHERE),
        policy=replace(SHARES_NONE, on_suspicion="revoke"),
        keys=(USERS_KEY, THIEFS_KEY),
    ),
    Scenario(
        "a bound session, an attacker who copies requests",
        (victim(2), victim(2)),
        honest,
        Budget(copied=2),
        keys=(USERS_KEY, USERS_KEY),
    ),
    Scenario(
        "a bound session of a foreign client, an attacker who copies requests",
        (foreign_client(4),),
        honest,
        Budget(copied=2, ticks=1),
        coordinated=False,
        keys=(USERS_KEY,),
    ),
    Scenario(
        "a bound session, nonces and a lost lease",
        (parked, parked_twice),
        honest,
        Budget(leases=1, nonces=2),
        keys=(USERS_KEY, USERS_KEY),
    ),
    Scenario(
        "a bound session, a process with another key on the same store",
        (parked_twice, parked),
        undisturbed,
        Budget(lost=2, ticks=1),
        keys=(USERS_KEY, THIEFS_KEY),
    ),
    Scenario(
        "a bound session, a process with another key and a crash",
        (parked, parked, parked),
        undisturbed,
        Budget(crashes=1, lost=1),
        keys=(USERS_KEY, USERS_KEY, THIEFS_KEY),
    ),
    Scenario(
        "a bound session, a thief with the key",
        (victim(4), thief(4, with_attempt=True)),
        found_out,
        keys=(USERS_KEY, USERS_KEY),
    ),
    Scenario(
        "a bound session of a foreign client, a thief elsewhere with the key",
        (foreign_client(5), thief(6)),
        found_out_elsewhere,
        coordinated=False,
        parties=(HOME, ELSEWHERE),
        policy=SHARES_TWO,
        keys=(USERS_KEY, USERS_KEY),
    ),
    Scenario("four, losses and a crash", (parked,) * 4, same_result, Budget(crashes=1, lost=1), full=True),
    Scenario(
        "four, a loss, a crash, a restore",
        (parked, parked_twice, parked, request),
        honest,
        Budget(1, 0, 1, 1),
        full=True,
    ),
    Scenario("three, a bit of everything", (parked, parked_twice, parked), honest, Budget(1, 0, 1, 1, 0, 0), full=True),
    Scenario(
        "three and a logout, everything", (parked, parked, logout), after_logout, Budget(1, 0, 1, 0, 1, 0), full=True
    ),
    Scenario(
        "three and another login", (parked,) * 3 + (other_login,), after_other_login, Budget(1, 0, 0, 0, 1), full=True
    ),
    Scenario("a thief for long", (victim(7), thief(7, with_attempt=True)), found_out, Budget(lost=2), full=True),
)
