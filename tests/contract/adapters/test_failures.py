"""When refresh does not work, and storms."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.contract.adapters.api import Api, burst
from tests.support.adapters import Client
from tests.support.waiting import until
from unbroken import (
    RefreshStorm,
    RefreshWindow,
    Session,
    SessionOver,
    TryLater,
)
from unbroken.testing import ManualClock
from unbroken.testing.server import PASSWORD


def test_after_a_challenge_a_failing_refresh_is_one_error_for_each(
    server: Api, client: Client, pool: ThreadPoolExecutor
) -> None:
    server.expire()
    for _ in range(3):
        server.fail_next(503, headers={"retry-after": "7"})
    responses = burst(pool, lambda: client.request("GET", server.url + "/echo"), 3)
    assert [type(response) for response in responses] == [TryLater] * 3
    assert [response.retry_after for response in responses] == [pytest.approx(7, abs=1)] * 3
    assert len(server.seen) == 3, "nothing was sent a second time"
    assert server.refreshes == 1, "a long Retry-After is the caller's to wait for"


def test_a_request_succeeds_once_the_failing_server_recovers(server: Api, client: Client, clock: ManualClock) -> None:
    server.expire()
    for _ in range(3):
        server.fail_next(500)
    with pytest.raises(TryLater):
        client.request("GET", server.url + "/echo")
    with pytest.raises(TryLater):
        client.request("GET", server.url + "/echo")
    assert server.refreshes == 3, "the second error is the remembered one"
    clock.advance(31)
    assert client.request("GET", server.url + "/echo").status == 200


def test_tokens_that_are_handed_in_after_a_failure_are_used_at_once(
    server: Api, client: Client, session: Session
) -> None:
    server.expire()
    for _ in range(3):
        server.fail_next(500)
    with pytest.raises(TryLater):
        client.request("GET", server.url + "/echo")
    session.login("ada", PASSWORD)
    assert client.request("GET", server.url + "/echo").status == 200
    assert server.refreshes == 3


def test_a_refresh_that_is_refused_with_a_401_does_not_go_in_circles(server: Api, client: Client) -> None:
    server.expire()
    for _ in range(3):
        server.fail_next(401, headers={"www-authenticate": "Bearer"})
    with pytest.raises(TryLater):
        client.request("GET", server.url + "/echo")
    assert (server.refreshes, len(server.seen)) == (3, 1)


def test_a_dead_session_is_told_to_all_who_wait_and_once_to_the_hook(
    server: Api, clock: ManualClock, connect: Any, pool: ThreadPoolExecutor
) -> None:
    over: list[str] = []
    session = server.login(clock=clock, on_session_over=over.append)
    client = connect(session)
    server.expire()
    server.sessions.revoke_subject("ada")
    responses = burst(pool, lambda: client.request("GET", server.url + "/echo"), 10)
    assert [(type(response), response.reason) for response in responses] == [(SessionOver, "revoked")] * 10
    assert server.refreshes == 1
    until(lambda: over == ["revoked"])
    with pytest.raises(SessionOver):
        client.request("GET", server.url + "/echo")
    assert over == ["revoked"]


def test_a_lost_response_is_asked_for_again_unnoticed(server: Api, client: Client, pool: ThreadPoolExecutor) -> None:
    server.expire()
    server.lose_next(2)
    responses = burst(pool, lambda: client.request("GET", server.url + "/echo"), 20)
    assert [response.status for response in responses] == [200] * 20
    assert (server.network.lost, server.alarms()) == (2, 0)


def test_a_hook_that_raises_does_no_harm(server: Api, clock: ManualClock, connect: Any) -> None:
    def raises(_: object) -> None:
        raise ValueError("a hook of the user's own")

    session = server.login(clock=clock)
    session = Session(server.url, session.store, on_tokens_changed=raises, on_event=raises)
    server.expire()
    assert connect(session).request("GET", server.url + "/echo").status == 200


def test_a_hook_may_use_the_same_client(server: Api, clock: ManualClock, connect: Any) -> None:
    heard: list[int] = []

    def calls_back(_: object) -> None:
        heard.append(client.request("GET", server.url + "/echo").status)

    store = server.login(clock=clock).store
    client = connect(Session(server.url, store, on_tokens_changed=calls_back))
    server.expire()
    assert client.request("GET", server.url + "/echo").status == 200
    until(lambda: heard == [200])


# ---- storms ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attempts", [0, 2])
def test_a_storm_ends_in_an_error_for_all(server: Api, connect: Any, pool: ThreadPoolExecutor, attempts: int) -> None:
    session = server.login(window=RefreshWindow(30.0, attempts))
    client = connect(session)
    for _ in range(attempts):
        server.expire()
        assert client.request("GET", server.url + "/echo").status == 200
    server.expire()
    responses = burst(pool, lambda: client.request("GET", server.url + "/echo"), 3)
    assert [type(response) for response in responses] == [RefreshStorm] * 3
    assert server.refreshes == attempts


def test_without_a_window_there_is_no_storm(server: Api, connect: Any) -> None:
    client = connect(server.login(window=None))
    for _ in range(8):
        server.expire()
        assert client.request("GET", server.url + "/echo").status == 200
    assert server.refreshes == 8


def test_a_login_does_not_reset_the_window(server: Api, connect: Any) -> None:
    session = server.login(window=RefreshWindow(30.0, 2))
    client = connect(session)
    for _ in range(2):
        server.expire()
        client.request("GET", server.url + "/echo")
    session.login("ada", PASSWORD)
    server.expire()
    with pytest.raises(RefreshStorm):
        client.request("GET", server.url + "/echo")


def test_the_401_of_an_endpoint_that_rejects_every_token_is_returned(server: Api, client: Client) -> None:
    for _ in range(20):
        assert client.request("GET", server.url + "/never").status == 401
    assert server.refreshes == 1
    assert client.request("GET", server.url + "/echo").status == 200
