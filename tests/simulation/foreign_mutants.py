"""Planted mistakes about late responses, leases and restored servers; the simulation must catch every one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

from tests.simulation import foreign_world
from tests.simulation.mutants import Mutant, saves_over_anything
from unbroken.client.core import refresh_rules as rules
from unbroken.client.core.events import LateTokensDiscarded
from unbroken.client.core.refresh_rules import Indeterminate, Port, ServerKind
from unbroken.client.core.token_store import StoredSession
from unbroken.client.stores import lease
from unbroken.client.stores.lease import Clocks
from unbroken.errors import SessionOver, TryLater
from unbroken.tokens import TokenResponse, Tokens

shipped_save = rules._save_response
Plant = Callable[[], AbstractContextManager[Any]]


def _in_rules(name: str, wrong: object) -> Plant:
    return lambda: patch.object(rules, name, wrong)


def _in_world(name: str, wrong: object) -> Plant:
    return lambda: patch.object(foreign_world, name, wrong)


def _in_lease_module(name: str, wrong: object) -> Plant:
    return lambda: patch.object(lease, name, wrong)


def _in_lease(wrong: Callable[[Clocks, Clocks], bool]) -> Plant:
    return _in_lease_module("lasts", wrong)


def waits_for_no_server(kind: ServerKind, refresh_timeout: float) -> float:
    return refresh_timeout


async def drops_what_comes_after_the_end(
    port: Port, record: StoredSession, seen: Tokens, response: TokenResponse, tries: int
) -> Tokens:
    try:
        return await shipped_save(port, record, seen, response, tries)
    except rules._EndedMeanwhile:
        port.emit(LateTokensDiscarded(seen.version))
        raise SessionOver((await port.load()).over) from None


def repeats_what_others_began(port: Port, record: StoredSession, seen: Tokens, needed: bool) -> None:
    """Takes every holder whose lease is over for dead."""
    if rules._can_wait(port, seen, needed):
        raise rules.RepetitionCanWait("later")


def repeats_nothing(port: Port, record: StoredSession, seen: Tokens, needed: bool) -> None:
    if port.server_kind(seen) == "strict":
        raise TryLater("a refresh that has begun is left alone")


def never_waits(port: Port, tokens: Tokens, needed: bool) -> bool:
    return False


async def forgets_what_has_begun(
    port: Port, record: StoredSession, seen: Tokens, outcome: Indeterminate, needed: bool, may_have_arrived: bool
) -> None:
    await port.save(StoredSession(record.version, record.epoch, seen), record)


def believes_numbers_alone(fresh: Tokens, stored: Tokens, seen: Tokens) -> bool:
    return (fresh.refresh_seq or 0) > (stored.refresh_seq or 0)


def refuses_lower_numbers(response: TokenResponse, seen: Tokens) -> bool:
    return (response.refresh_seq or 0) > (seen.refresh_seq or 0)


async def logs_in_beside_others(port: Port, seen: Tokens) -> tuple[StoredSession, bool]:
    """Takes what is in the store for older, as if each process had a login of its own."""
    return replace(await port.load(), tokens=seen, version=seen.version, epoch=seen.epoch), False


async def begins_whatever_was(port: Port) -> tuple[Tokens, bool]:
    """Logs in where there are no tokens, also after a logout, and after a refusal."""
    async with port.lock():
        record = await port.load()
        if record.tokens is not None:
            return record.tokens, False
        sent = await rules._send_with_retries(port, rules.NO_TOKENS, port.new_idempotency_key())
        match sent.outcome:
            case TokenResponse() as response:
                return await rules._save_first(port, record, response), True
            case rules.GrantRejected(reason):
                raise SessionOver(reason)
        raise TryLater("later")


async def saves_a_first_login_over_anything(port: Port, record: StoredSession, response: TokenResponse) -> Tokens:
    return await rules.log_in(port, response)


def compares_the_monotonic_clock(ends: Clocks, now: Clocks) -> bool:
    return now.monotonic < ends.monotonic


def compares_the_wall_clock(ends: Clocks, now: Clocks) -> bool:
    return now.wall < ends.wall


def ends_with_its_connection(lease_seconds: float) -> float:
    return 0.0


def is_believed_to_the_end(lease_seconds: float) -> float:
    return lease_seconds


LATE = ("late, strict", "late, strict, and not known to be")
EARLY_SLEEP, RESTORED_SLEEP = ("a sleep before the request",), ("a restored server, a sleep",)
BACKGROUND = ("a background refresh, strict",)

FOREIGN_MUTANTS = (
    Mutant("a strict server is asked after a time limit", _in_rules("response_seconds", waits_for_no_server), LATE),
    Mutant(
        "tokens that come after the end are dropped",
        _in_rules("_save_response", drops_what_comes_after_the_end),
        ("a sleep, refusing",),
    ),
    Mutant(
        "tokens that come without the lock are dropped", _in_world("LATE_RESPONSES_COUNT", False), ("a sleep, strict",)
    ),
    Mutant(
        "a machine that sleeps is taken for dead",
        _in_rules("_check_may_repeat", repeats_what_others_began),
        ("a sleep, strict", "a lost heartbeat"),
    ),
    Mutant("nobody finishes for the dead", _in_rules("_check_may_repeat", repeats_nothing), ("a death, strict",)),
    Mutant("a background refresh is repeated", _in_rules("_can_wait", never_waits), BACKGROUND),
    Mutant("a refresh that has begun is forgotten", _in_rules("_keep_for_later", forgets_what_has_begun), BACKGROUND),
    Mutant("an older response wins by its number", _in_rules("_is_newer", believes_numbers_alone), RESTORED_SLEEP),
    Mutant("a late response overwrites newer tokens", _in_rules("_save_response", saves_over_anything), RESTORED_SLEEP),
    Mutant("lower numbers are refused", _in_rules("is_progress", refuses_lower_numbers), ("a restored server",)),
    Mutant(
        "everybody has a login of its own",
        _in_rules("_start_refresh", logs_in_beside_others),
        ("refreshed by credentials",),
    ),
    Mutant(
        "refused credentials are sent again", _in_rules("begin", begins_whatever_was), ("refused credentials",)
    ),
    Mutant("a login begins after a logout", _in_rules("begin", begins_whatever_was), ("a first login and a logout",)),
    Mutant(
        "a first login overwrites a logout",
        _in_rules("_save_first", saves_a_first_login_over_anything),
        ("a first login and a logout",),
    ),
    Mutant("a lease is not checked before sending", _in_world("LEASES_ARE_CHECKED", False), EARLY_SLEEP),
    Mutant("the heartbeat goes on after a sleep", _in_world("OTHERS_END_A_LEASE", False), EARLY_SLEEP),
    Mutant("a lease ends with its connection", _in_world("seconds_after_connection", ends_with_its_connection),
           ("a lost connection",)),
    Mutant("a lease is believed to its end", _in_lease_module("seconds_after_connection", is_believed_to_the_end),
           ("a lost connection, a lost beat",)),
    Mutant("nobody sees that the connection of the dead has ended", _in_world("ENDED_CONNECTIONS_ARE_SEEN", False),
           ("a death elsewhere, seen",)),
    Mutant("a lease stands still in a sleep", _in_lease(compares_the_monotonic_clock), EARLY_SLEEP),
    Mutant("a lease believes the wall clock", _in_lease(compares_the_wall_clock), ("a clock jump in a sleep",)),
)  # fmt: skip
