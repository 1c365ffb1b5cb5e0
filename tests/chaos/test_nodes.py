"""Two nodes over one store: whoever presents one token to both of them holds one session, and its next token."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from tests.chaos.clients import reuse_alarms
from tests.chaos.conftest import Pair
from tests.chaos.parties import at_once, log_in, refresh, send_and_hang_up, whoami
from unbroken.server import open_store
from unbroken.server.core.rotation import SessionRow
from unbroken.server.stores import SessionStore

TABS = 64


@pytest.fixture
def row_of(pair: Pair) -> Callable[[str], SessionRow]:
    """The newest row of a subject."""
    from unbroken._concurrency import run_sync

    store: SessionStore = open_store(pair.store)
    yield lambda subject: run_sync(store.sessions(subject))[0]
    store.close()


@pytest.mark.parametrize("coordinated", [False, True], ids=["foreign", "ours"])
def test_two_refreshes_of_one_token_at_once_have_one_successor(pair: Pair, coordinated: bool) -> None:
    """Every time, a hundred times; what is presented next is that successor."""
    before = reuse_alarms(pair.store)
    tokens = log_in(pair.urls[0], coordinated=coordinated)
    for n in range(1, 101):
        attempt = f"attempt {n}" if coordinated else ""
        both = at_once(*(partial(refresh, url, tokens["refresh_token"], attempt) for url in pair.urls))
        assert [status for status, _ in both] == [200, 200], both
        assert {told["refresh_token"] for _, told in both} == {both[0][1]["refresh_token"]}
        tokens = both[0][1]
        assert tokens["refresh_seq"] == n
    assert [whoami(url, told["access_token"])[0] for url, (_, told) in zip(pair.urls, both, strict=True)] == [200, 200]
    assert reuse_alarms(pair.store) == before


def test_sixty_four_tabs_refresh_at_once_and_share_one_session(pair: Pair) -> None:
    before = reuse_alarms(pair.store)
    tokens = log_in(pair.urls[0])
    for seq in (1, 2, 3):
        tabs = [partial(refresh, pair.urls[n % 2], tokens["refresh_token"]) for n in range(TABS)]
        responses = at_once(*tabs)
        assert [status for status, _ in responses] == [200] * TABS
        assert {told["refresh_seq"] for _, told in responses} == {seq}
        assert len({told["refresh_token"] for _, told in responses}) == 1
        tokens = responses[-1][1]
    assert reuse_alarms(pair.store) == before


@pytest.mark.parametrize("seconds", [0.0, 11.0, 3600.0], ids=["at-once", "after-11-s", "after-an-hour"])
@pytest.mark.parametrize("coordinated", [False, True], ids=["foreign", "ours"])
def test_a_response_that_was_lost_is_asked_for_again(
    pair: Pair, row_of: Callable[[str], SessionRow], coordinated: bool, seconds: float
) -> None:
    """At the other node. Ours asks under the same idempotency key, others know none."""
    before = reuse_alarms(pair.store)
    here, there = pair.urls
    name = f"late by {seconds}, {coordinated}"
    tokens, attempt = log_in(here, name, coordinated=coordinated), "the attempt" if coordinated else ""
    send_and_hang_up(here, tokens["refresh_token"], attempt, lambda: row_of(name).generation == 1)
    pair.tick(seconds)
    status, again = refresh(there, tokens["refresh_token"], attempt)
    assert (status, again["refresh_seq"]) == (200, 1), again
    for url in (here, there, here):
        assert whoami(url, again["access_token"])[0] == 200
        status, again = refresh(url, again["refresh_token"], f"after {again['refresh_seq']}" if coordinated else "")
        assert status == 200, again
    assert again["refresh_seq"] == 4
    assert reuse_alarms(pair.store) == before
