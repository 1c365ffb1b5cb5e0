"""Planted mistakes: each is one plausible wrong line in the shipped rules. The simulation must catch every one.

A mutant replaces one function of ``rules`` or ``rotation`` for the time of a search.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

from tests.simulation import world
from unbroken.client.core import refresh_rules as rules
from unbroken.client.core.refresh_rules import GrantRejected, Indeterminate, Port
from unbroken.client.core.token_store import StoredSession
from unbroken.errors import SessionOver
from unbroken.events import SessionEnded, TokensRefreshed
from unbroken.server.core import party, rotation
from unbroken.server.core.rotation import Policy, PresentedToken, SessionRow, Verdict
from unbroken.tokens import TokenResponse, Tokens

shipped_present = rotation.present


@dataclass(frozen=True)
class Mutant:
    """*what* is wrong; *plant* plants it; at least one of the scenarios *caught_by* must find it."""

    what: str
    plant: Callable[[], contextlib.AbstractContextManager[Any]]
    caught_by: tuple[str, ...]


def _in_server(name: str, wrong: Callable[..., Any]) -> Callable[[], contextlib.AbstractContextManager[Any]]:
    return lambda: patch.object(rotation, name, wrong)


def _in_client(name: str, wrong: Any) -> Callable[[], contextlib.AbstractContextManager[Any]]:
    return lambda: patch.object(rules, name, wrong)


def _in_world(name: str, wrong: Any) -> Callable[[], contextlib.AbstractContextManager[Any]]:
    return lambda: patch.object(world, name, wrong)


# ---- the server ------------------------------------------------------------------------------------------------------


def never_heals(row: SessionRow, token: PresentedToken, now: float, policy: Policy) -> tuple[SessionRow, Verdict]:
    if not rotation.why_inactive(row, now) and token.generation > row.generation:
        return rotation.revoke(row, token, now), Verdict.REUSED
    return shipped_present(row, token, now, policy)


def forgets_the_attempt(
    row: SessionRow, token: PresentedToken, now: float, policy: Policy
) -> tuple[SessionRow, Verdict]:
    return shipped_present(row, token._replace(idempotency_hash=None), now, policy)


def never_branches(row: SessionRow, token: PresentedToken, now: float, policy: Policy) -> tuple[SessionRow, Verdict]:
    after, verdict = shipped_present(row, token, now, policy)
    return (rotation.revoke(row, token, now), Verdict.REUSED) if verdict is Verdict.BRANCHED else (after, verdict)


def branches_from_any_branch(
    row: SessionRow, token: PresentedToken, now: float, policy: Policy
) -> tuple[SessionRow, Verdict]:
    promoted = (
        row.promoted_branch
        if token.generation == row.generation - 1 and row.promoted_branch is not None
        else token.branch
    )
    return shipped_present(row, token._replace(branch=promoted), now, policy)


def branches_after_use(
    row: SessionRow, token: PresentedToken, now: float, policy: Policy
) -> tuple[SessionRow, Verdict]:
    return shipped_present(replace(row, first_used_branch=None), token, now, policy)


def always_converges(row: SessionRow, token: PresentedToken, now: float, policy: Policy) -> bool:
    return token.generation in (row.generation - 1, row.generation - 2)


def never_converges(row: SessionRow, token: PresentedToken, now: float, policy: Policy) -> bool:
    return False


def converges_ahead_of_time(row: SessionRow, token: PresentedToken, now: float, policy: Policy) -> bool:
    """Asks only that the grace is not over, on a server whose clock is behind."""
    grace = 0.0 if row.coordinated else policy.grace
    ring = {
        row.generation - 1: (row.rotated_at, row.promoted_branch),
        row.generation - 2: (row.previous_rotated_at, row.previous_promoted_branch),
    }
    at, branch = ring.get(token.generation, (None, None))
    return at is not None and branch == token.branch and (now - 1.0) - at < grace


def includes_the_end(row: SessionRow, token: PresentedToken, now: float, policy: Policy) -> bool:
    """A window of no seconds still has one moment in it."""
    grace = 0.0 if row.coordinated else policy.grace
    ring = {
        row.generation - 1: (row.rotated_at, row.promoted_branch),
        row.generation - 2: (row.previous_rotated_at, row.previous_promoted_branch),
    }
    at, branch = ring.get(token.generation, (None, None))
    return at is not None and branch == token.branch and abs(now - at) <= grace


def only_refuses(row: SessionRow, token: PresentedToken, now: float) -> SessionRow:
    """Reuse is refused and nothing more: the session lives on."""
    return row


def counts_nothing(row: SessionRow, now: float, policy: Policy) -> int:
    return 0


def counts_afresh_at_every_step(row: SessionRow, now: float, policy: Policy) -> int:
    """Resets the count at a generation that nobody else came to, however short it lived."""
    return row.shared_streak + 1 if row.shared else 0


def every_network_is_certain(one: str, other: str) -> party.Relation:
    return party.Relation.SAME if one == other else party.Relation.OTHER


def knows_no_parties(one: str, other: str) -> party.Relation:
    return party.Relation.SAME


def trusts_a_constant_key(row: SessionRow, token: PresentedToken) -> bool:
    return rotation.is_same_key(row, token)


def only_the_newest_goes_on(row: SessionRow, token: PresentedToken) -> bool:
    return token.generation == row.generation and token.branch == row.branch


def heals_nothing(row: SessionRow, token: PresentedToken) -> SessionRow:
    """Goes on from the store's own count, as if the client had not been further."""
    return row


def needs_no_key(row: SessionRow, token: PresentedToken) -> bool:
    return True


def takes_any_key(row: SessionRow, token: PresentedToken) -> bool:
    """Asks for a proof, and not whose."""
    return row.jkt is None or token.jkt is not None


def a_missing_key_is_theft(
    row: SessionRow, token: PresentedToken, now: float, policy: Policy
) -> tuple[SessionRow, Verdict]:
    """Ends the session, as if the token had been used twice."""
    after, verdict = shipped_present(row, token, now, policy)
    return (rotation.revoke(row, token, now), Verdict.REUSED) if verdict is Verdict.UNPROVEN else (after, verdict)


def heals_without_a_key(
    row: SessionRow, token: PresentedToken, now: float, policy: Policy
) -> tuple[SessionRow, Verdict]:
    """Asks for the key only after a restored store was healed."""
    if not rotation.why_inactive(row, now) and token.generation > row.generation:
        return rotation.rotate(rotation.heal(row, token), token, now, policy), Verdict.HEALED
    return shipped_present(row, token, now, policy)


def only_a_rotation_needs_the_key(
    row: SessionRow, token: PresentedToken, now: float, policy: Policy
) -> tuple[SessionRow, Verdict]:
    """A used token is answered, or ends the session, whoever has it."""
    return shipped_present(row if token.generation == row.generation else replace(row, jkt=None), token, now, policy)


# ---- the client ------------------------------------------------------------------------------------------------------


async def no_second_look(port: Port, seen: Tokens, *, needed: bool = True) -> Tokens:
    async with port.lock():
        record = await port.load()
        sent = await rules._send_with_retries(port, seen, record.idempotency_key or port.new_idempotency_key())
        if isinstance(response := sent.outcome, TokenResponse):
            return await rules._save_response(port, record, seen, response, 1)
        raise SessionOver("invalid_grant")


async def looks_before_the_lock(port: Port, seen: Tokens, *, needed: bool = True) -> Tokens:
    record, _ = await rules._start_refresh(port, seen)
    if adopted := rules.newer_than(seen, record):
        return adopted
    async with port.lock():
        sent = await rules._send_with_retries(port, seen, port.new_idempotency_key())
        if isinstance(response := sent.outcome, TokenResponse):
            return await rules._save_response(port, record, seen, response, 1)
        raise SessionOver("invalid_grant")


async def stores_no_attempt(port: Port, seen: Tokens) -> tuple[StoredSession, bool]:
    return replace(await port.load(), idempotency_key=None), False


async def another_attempt_each_try(port: Port, tokens: Tokens, attempt: str, needed: bool = True) -> Any:
    response = await port.send_refresh(tokens, attempt)
    if isinstance(response, Indeterminate):
        response = await port.send_refresh(tokens, port.new_idempotency_key())
    return rules._Sent(response, 2, True)


async def gives_up_at_once(port: Port, tokens: Tokens, attempt: str, needed: bool = True) -> Any:
    response = await port.send_refresh(tokens, attempt)
    return rules._Sent(GrantRejected("invalid_grant") if isinstance(response, Indeterminate) else response, 1, True)


async def uses_before_saving(
    port: Port, record: StoredSession, seen: Tokens, granted: TokenResponse, tries: int
) -> Tokens:
    fresh = rules.tokens_from_response(granted, port.now(), record.version + 1, seen.epoch, seen)
    port.emit(TokensRefreshed(fresh.version))
    return fresh


async def saves_over_anything(
    port: Port, record: StoredSession, seen: Tokens, granted: TokenResponse, tries: int
) -> Tokens:
    fresh = rules.tokens_from_response(granted, port.now(), record.version + 1, seen.epoch, seen)
    while not await port.save(StoredSession(fresh.version, fresh.epoch, fresh), record):
        record = await port.load()
    return fresh


async def keeps_late_tokens_alive(
    port: Port, record: StoredSession, seen: Tokens, granted: TokenResponse, tries: int
) -> Tokens:
    fresh = rules.tokens_from_response(granted, port.now(), record.version + 1, seen.epoch, seen)
    if await port.save(StoredSession(fresh.version, fresh.epoch, fresh), record):
        return fresh
    return rules.newer_than(seen, await port.load()) or fresh


async def ends_without_looking(port: Port, seen: Tokens, reason: str, why: str = "") -> Tokens:
    record = await port.load()
    while not await port.save(StoredSession(record.version + 1, record.epoch, None, over=reason), record):
        record = await port.load()
    port.emit(SessionEnded(seen.version, reason=reason))
    raise SessionOver(reason)


def believes_the_store(seen: Tokens, record: StoredSession) -> Tokens | None:
    if record.tokens is None or record.epoch != seen.epoch:
        raise SessionOver(record.over or "other_login")
    return record.tokens if record.version != seen.version else None


def ignores_the_epoch(seen: Tokens, record: StoredSession) -> Tokens | None:
    if record.tokens is None:
        raise SessionOver(record.over)
    return record.tokens if record.version != seen.version else None


async def logs_out_at_the_server_first(port: Port) -> tuple[Tokens | None, int, bool]:
    record = await port.load()
    told = record.tokens is not None and await port.revoke(record.tokens)
    await port.save(StoredSession(record.version + 1, record.epoch + 1, None, over="logged_out"), record)
    return record.tokens, record.epoch + 1, told


async def forgets_what_it_forgot(port: Port) -> tuple[StoredSession, Tokens | None]:
    """Believes a store that says no: then somebody else must have logged out."""
    while True:
        record = await port.load()
        if await port.save(StoredSession(record.version + 1, record.epoch + 1, None, over="logged_out"), record):
            return record, record.tokens


async def never_releases(port: Port, seen: Tokens, *, needed: bool = True) -> Tokens:
    await port.lock().__aenter__()
    record, _ = await rules._start_refresh(port, seen)
    if adopted := rules.newer_than(seen, record):
        return adopted
    sent = await rules._send_with_retries(port, seen, record.idempotency_key or "")
    assert isinstance(sent.outcome, TokenResponse)
    return await rules._save_response(port, record, seen, sent.outcome, sent.tries)


async def takes_back_what_others_began(port: Port, record: StoredSession, may_have_arrived: bool) -> None:
    await rules._mark_as_not_begun(port, record)


LOSSES, CRASHES = "two, losses", "two, crashes and losses"
DOUBTS = "a logout, saves in doubt"
ELSEWHERE, CONSTANT = "a thief elsewhere, within the grace", "a thief at home, with a constant key"
UPDATES = "tabs of a program that updates itself, over IPv4 and IPv6"
NETWORKS, TABS = "a phone that changes networks", "tabs of a phone that changes networks"
KEYLESS, OTHER_KEY, COPIES = (
    "a bound session, a thief without the key",
    "a bound session, a thief with a key of his own, a restore",
    "a bound session, an attacker who copies requests",
)
LACKS_KEY = (
    "a bound session, a process with another key on the same store",
    "a bound session, a process with another key and a crash",
)
THIEF, THIEF_2 = "a thief with the idempotency key", "a thief with his own"

MUTANTS = (
    Mutant("a restored store is taken for theft", _in_server("present", never_heals), ("two restores",)),
    Mutant("the server ignores idempotency keys", _in_server("present", forgets_the_attempt), (LOSSES, CRASHES)),
    Mutant(
        "a late retry is taken for theft", _in_server("present", never_branches), ("a foreign client, lost responses",)
    ),
    Mutant("a displaced branch may go on", _in_server("present", branches_from_any_branch), (THIEF, THIEF_2)),
    Mutant("used tokens may be branched from", _in_server("present", branches_after_use), ("a thief after use",)),
    Mutant("old tokens always converge", _in_server("converges", always_converges), (THIEF, THIEF_2)),
    Mutant("a clock that is behind forgives", _in_server("converges", converges_ahead_of_time), (THIEF, THIEF_2)),
    Mutant("no grace is a little grace", _in_server("converges", includes_the_end), (THIEF, THIEF_2)),
    Mutant("tabs never converge", _in_server("converges", never_converges), ("three foreign tabs within the grace",)),
    Mutant("reuse is refused and not punished", _in_server("revoke", only_refuses), (THIEF, THIEF_2)),
    Mutant("healing goes on from the old count", _in_server("heal", heals_nothing), ("two restores",)),
    Mutant("shared generations are not counted", _in_server("next_streak", counts_nothing), (ELSEWHERE,)),
    Mutant("two quick steps reset the count", _in_server("next_streak", counts_afresh_at_every_step), (ELSEWHERE,)),
    Mutant("parties are not told apart", _in_server("compare_parties", knows_no_parties), (ELSEWHERE,)),
    Mutant("dual stack is a second holder", _in_server("compare_parties", every_network_is_certain), (UPDATES,)),
    Mutant("a constant key retries for ever", _in_server("is_retry", trusts_a_constant_key), (CONSTANT,)),
    Mutant("foreign siblings may not go on", _in_server("may_rotate", only_the_newest_goes_on), (NETWORKS, TABS)),
    Mutant("a bound session needs no key", _in_server("has_key", needs_no_key), (KEYLESS,)),
    Mutant("any key will do", _in_server("has_key", takes_any_key), (OTHER_KEY,)),
    Mutant("a missing key is taken for theft", _in_server("present", a_missing_key_is_theft), (KEYLESS, OTHER_KEY)),
    Mutant("healing needs no key", _in_server("present", heals_without_a_key), (OTHER_KEY,)),
    Mutant("used tokens need no key", _in_server("present", only_a_rotation_needs_the_key), (KEYLESS,)),
    Mutant("a proof is good twice", _in_world("PROOFS_ARE_SPENT", False), (COPIES,)),
    Mutant(
        "a nonce is answered without the lock",
        _in_world("REPETITIONS_ARE_CHECKED", False),
        ("a bound session, nonces and a lost lease",),
    ),
    Mutant("another key ends the session", _in_client("WRONG_KEY", ""), LACKS_KEY[:1]),
    Mutant(
        "another key forgets what was begun", _in_client("_leave_to_others", takes_back_what_others_began), LACKS_KEY
    ),
    Mutant("no second look under the lock", _in_client("refresh", no_second_look), ("two at once",)),
    Mutant("the look is taken before the lock", _in_client("refresh", looks_before_the_lock), ("two at once",)),
    Mutant("the idempotency key is not stored", _in_client("_start_refresh", stores_no_attempt), (CRASHES,)),
    Mutant(
        "each try has its own idempotency key", _in_client("_send_with_retries", another_attempt_each_try), (LOSSES,)
    ),
    Mutant("no response ends the session", _in_client("_send_with_retries", gives_up_at_once), (LOSSES,)),
    Mutant("tokens are used before they are saved", _in_client("_save_response", uses_before_saving), ("two at once",)),
    Mutant("late tokens overwrite a logout", _in_client("_save_response", saves_over_anything), ("a logout",)),
    Mutant("late tokens stay alive", _in_client("_save_response", keeps_late_tokens_alive), ("a logout, losses",)),
    Mutant(
        "the end is not looked at twice",
        _in_client("_end_session", ends_without_looking),
        ("a logout and another login",),
    ),
    Mutant("a request is sent for another login", _in_client("newer_than", ignores_the_epoch), ("another login",)),
    Mutant("logout forgets last", _in_client("log_out", logs_out_at_the_server_first), ("a logout",)),
    Mutant("a save in doubt is taken for another's", _in_client("_clear_tokens", forgets_what_it_forgot), (DOUBTS,)),
    Mutant("a lost lease goes unnoticed", _in_world("LEASES_ARE_CHECKED", False), ("a lost lease, twice refreshed",)),
    Mutant("a store set back is believed", _in_client("newer_than", believes_the_store), ("a store set back",)),
    Mutant("the lock is never released", _in_client("refresh", never_releases), ("two at once",)),
)


@contextlib.contextmanager
def planted(mutant: Mutant) -> Iterator[None]:
    """The rules with *mutant* in them."""
    with mutant.plant():
        yield
