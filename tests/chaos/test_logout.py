"""A logout at one node races a refresh at the other: whoever wins, nothing of the session is alive afterwards."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor

from tests.chaos.clients import reuse_alarms
from tests.chaos.conftest import Pair
from tests.chaos.node import ask
from tests.chaos.parties import Dead, at_once, log_in, refresh, whoami

TOGETHER = 25
LONGEST_START = 0.004  # seconds that either of them may have


def test_a_session_that_was_logged_out_is_never_alive_again(pair: Pair, full: bool) -> None:
    before, chance = reuse_alarms(pair.store), random.Random(pair.store.partition(":")[0])
    won = 0
    for _ in range(0, 1000 if full else 100, TOGETHER):
        with Dead(pair.urls) as dead, ThreadPoolExecutor(4) as pool:
            seeds = [chance.random() for _ in range(TOGETHER)]
            won += sum(pool.map(lambda seed, dead=dead: race(pair, dead, random.Random(seed)), seeds))
    assert won, "some of the refreshes were in time"
    assert reuse_alarms(pair.store) == before


def race(pair: Pair, dead: Dead, chance: random.Random) -> bool:
    """Logs in, and races; whether the refresh was in time. Fails if any token of the session is good afterwards."""
    here, there = chance.sample(pair.urls, 2)
    coordinated = chance.random() < 0.7
    tokens = log_in(here, f"racer {chance.random()}", coordinated=coordinated)
    old, attempt = tokens["refresh_token"], "the attempt" if coordinated else ""
    mine = [tokens]
    if chance.random() < 0.5:  # then it is another rule that races: this response was lost, they say
        status, told = refresh(here, old, attempt)
        assert status == 200, told
        mine.append(told)
        attempt = attempt and "another attempt"
    assert whoami(there, mine[-1]["access_token"])[0] == 200
    with_body = chance.random() < 0.5
    starts = [chance.uniform(0.0, LONGEST_START), 0.0]
    chance.shuffle(starts)

    def log_out() -> tuple[int, dict[str, object]]:
        threading.Event().wait(starts[0])
        if with_body:
            return ask(here, "POST", "/auth/logout", {"refresh_token": old})
        return ask(here, "POST", "/auth/logout", authorization=f"Bearer {tokens['access_token']}")

    def refresh_there() -> tuple[int, dict[str, object]]:
        threading.Event().wait(starts[1])
        return refresh(there, old, attempt)

    (ended, _), (status, told) = at_once(log_out, refresh_there)
    assert ended == 204
    assert status == 200 or told["reason"] == "logged_out", told
    mine += [told] if status == 200 else []
    dead.soon([str(each["access_token"]) for each in mine])
    for each in mine:
        for url in pair.urls:
            for again in ("", "the attempt", "another attempt"):
                refused, why = refresh(url, str(each["refresh_token"]), again)
                assert (refused, why["reason"]) == (400, "logged_out"), why
    return status == 200
