"""A thief has copied the tokens: whoever comes first, it is found out, and his access tokens are dead everywhere.

The two present their newest token in turn, each at a node of their own, with more than the grace between them: nobody
else can be told from one who has lost a response. They are found out when one of them presents what the other one's has
replaced; that is in the third cycle at the latest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

import pytest

from tests.chaos.conftest import Pair
from tests.chaos.parties import Answer, Dead, at_once, log_in, refresh, whoami
from unbroken.server import Sessions, open_store

CYCLES = 3
LATER = 11.0  # seconds: the grace is over


@dataclass
class Party:
    """Victim or thief: their node, their newest tokens, and whether they send idempotency keys."""

    url: str
    token: str
    attempts: str = ""  # the beginning of their idempotency keys; empty: they send none
    copied: str = ""  # the id to be sent with the first request
    given: list[str] = field(default_factory=list)  # access tokens
    _numbers: count[int] = field(default_factory=count)

    def present(self, token: str = "") -> Answer:
        """Presents *token*, or the newest, and takes what is given for it."""
        attempt = self.copied or (self.attempts and f"{self.attempts} {next(self._numbers)}")
        self.copied = ""
        status, told = response = refresh(self.url, token or self.token, attempt)
        if status == 200:
            self.token = told["refresh_token"]
            self.given.append(told["access_token"])
        return response


Tick = Callable[[float], None]
Order = Callable[[Party, Party, Tick], list[Answer]]


def thief_first(victim: Party, thief: Party, tick: Tick) -> list[Answer]:
    first = thief.present()
    tick(LATER)
    return [first, victim.present()]


def victim_first(victim: Party, thief: Party, tick: Tick) -> list[Answer]:
    first = victim.present()
    tick(LATER)
    return [first, thief.present()]


def simultaneously(victim: Party, thief: Party, _: Tick) -> list[Answer]:
    return at_once(victim.present, thief.present)


def old_generation(victim: Party, thief: Party, tick: Tick) -> list[Answer]:
    responses = []
    for _ in range(3):
        responses.append(victim.present())
        tick(LATER)
    return [*responses, thief.present()]


def during_grace(victim: Party, thief: Party, _: Tick) -> list[Answer]:
    return [victim.present(), thief.present()]


# Whether the session is coordinated; the idempotency keys of the victim, and of the thief.
KINDS = {
    "foreign": (False, "", ""),
    "foreign, a thief with idempotency keys": (False, "", "thief"),
    "ours, a thief without idempotency keys": (True, "victim", ""),
    "ours, a thief with idempotency keys": (True, "victim", "thief"),
    "ours, a thief who has copied the idempotency key": (True, "victim", "copied"),
}


@pytest.mark.parametrize("order", [thief_first, victim_first, simultaneously, old_generation, during_grace])
def test_a_thief_is_found_out_and_dead_on_every_node_within_a_second(pair: Pair, order: Order) -> None:
    with Dead(pair.urls) as dead:
        for kind in KINDS:
            for thief_begins in (False, True):
                name = f"{order.__name__}, {kind}, {thief_begins}"
                victim, thief = parties(pair, kind, name)
                found = find_out(pair, order, victim, thief, thief_begins=thief_begins)
                dead.soon([victim.given[-1], thief.given[-1]])
                assert found, f"not found out: {name}"
                assert why_ended(pair, name) == "reuse"
                assert victim.present()[0] == thief.present()[0] == 400


def parties(pair: Pair, kind: str, name: str) -> tuple[Party, Party]:
    coordinated, of_victim, of_thief = KINDS[kind]
    tokens = log_in(pair.urls[0], name, coordinated=coordinated)
    copied = f"{of_victim} 0" if of_thief == "copied" else ""
    both = (
        Party(pair.urls[0], tokens["refresh_token"], of_victim),
        Party(pair.urls[1], tokens["refresh_token"], of_thief, copied),
    )
    for party in both:
        assert whoami(party.url, tokens["access_token"])[0] == 200
        party.given.append(tokens["access_token"])
    return both


def find_out(pair: Pair, order: Order, victim: Party, thief: Party, *, thief_begins: bool) -> bool:
    """Whether a reuse was found: in the given order first, then in turn."""
    responses = order(victim, thief, pair.tick)
    for _ in range(CYCLES):
        if any(refused(response) for response in responses):
            return True
        responses = []
        for party in (thief, victim) if thief_begins else (victim, thief):
            pair.tick(LATER)
            responses.append(party.present())
            if refused(responses[-1]):
                break
    return any(refused(response) for response in responses)


def refused(response: Answer) -> bool:
    """Whether it says that two have used one token; any other refusal is a fault."""
    status, told = response
    assert status == 200 or told.get("reason") == "reuse", told
    return status != 200


def why_ended(pair: Pair, subject: str) -> str | None:
    sessions = Sessions(open_store(pair.store))
    try:
        [info] = sessions.list_sessions(subject, include_revoked=True)
        return info.revoked_why
    finally:
        sessions.close()
