"""Before a request is sent."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.contract.adapters.api import Api, burst, used
from tests.support.adapters import Client
from tests.support.waiting import until
from unbroken import (
    Session,
    SessionOver,
    TryLater,
)
from unbroken.testing import ManualClock


def test_a_good_token_is_attached_once_and_nothing_else_happens(server: Api, client: Client, session: Session) -> None:
    assert client.request("GET", server.url + "/echo").json["sub"] == "ada"
    assert used(server) == [session.token()]
    assert server.refreshes == 0


def test_requests_park_while_an_expired_token_is_refreshed(
    server: Api, client: Client, clock: ManualClock, pool: ThreadPoolExecutor
) -> None:
    old = client.request("GET", server.url + "/echo") and used(server).pop()
    clock.advance(1800)
    server.slow_next(0.2)
    responses = burst(pool, lambda: client.request("GET", server.url + "/echo"), 6)
    assert [response.status for response in responses] == [200] * 6
    assert server.refreshes == 1
    assert old not in used(server)[1:], "nothing was sent with the old token"


def test_a_refresh_that_fails_is_one_error_for_each_that_waits_and_nothing_is_sent(
    server: Api, client: Client, clock: ManualClock, pool: ThreadPoolExecutor
) -> None:
    clock.advance(1800)
    for _ in range(3):
        server.fail_next(503)
    responses = burst(pool, lambda: client.request("GET", server.url + "/echo"), 3)
    assert [type(response) for response in responses] == [TryLater] * 3
    assert len({id(response) for response in responses}) == 3, "each has its own"
    assert server.seen == []
    assert server.refreshes == 3, "one refresh, tried three times"


def test_without_a_login_nothing_is_sent(server: Api, connect: Callable[[Session], Client]) -> None:
    client = connect(Session(server.url))
    with pytest.raises(SessionOver, match="no one is logged in"):
        client.request("GET", server.url + "/echo")
    assert (server.seen, server.refreshes) == ([], 0)


def test_after_a_logout_nothing_is_sent(server: Api, client: Client, session: Session) -> None:
    client.request("GET", server.url + "/echo")
    session.logout()
    with pytest.raises(SessionOver, match="logged out"):
        client.request("GET", server.url + "/echo")
    assert len(server.seen) == 1


def test_an_ageing_token_is_refreshed_in_the_background(
    server: Api, client: Client, session: Session, clock: ManualClock
) -> None:
    old = session.token()
    clock.advance(1700)
    server.hold_next()
    assert client.request("GET", server.url + "/echo").status == 200, "the request did not wait"
    assert used(server) == [old]
    server.opened.set()
    until(lambda: session.token() != old)
    client.request("GET", server.url + "/echo")
    assert server.refreshes == 1


def test_in_the_background_a_failure_does_no_harm(server: Api, client: Client, clock: ManualClock) -> None:
    clock.advance(1700)
    for _ in range(3):
        server.fail_next(500)
    for _ in range(5):
        assert client.request("GET", server.url + "/echo").status == 200
    until(lambda: server.refreshes == 3)


def test_short_lived_tokens_do_not_loop(server: Api, connect: Callable[[Session], Client]) -> None:
    session = Session(server.url)
    granted = server.sessions.create("ada", coordinated=True)
    session.import_tokens({**granted.to_response(), "expires_in": 1})
    client = connect(session)
    ends = time.monotonic() + 1.5
    while time.monotonic() < ends:
        assert client.request("GET", server.url + "/echo").status == 200
        time.sleep(0.02)
    assert server.refreshes <= 3
