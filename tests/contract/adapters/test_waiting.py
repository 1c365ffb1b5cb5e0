"""Nobody is hostage to a refresh, nor to a login or a logout meanwhile."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.contract.adapters.api import Api, parked, sha
from tests.support.adapters import Client
from tests.support.waiting import until
from unbroken import (
    MemoryStore,
    Session,
    SessionOver,
    TryLater,
)
from unbroken.testing import ManualClock
from unbroken.testing.server import PASSWORD


def test_a_request_that_needs_no_session_is_not_held_up(server: Api, client: Client, pool: ThreadPoolExecutor) -> None:
    server.expire()
    server.hold_next()
    waiting = pool.submit(lambda: client.request("GET", server.url + "/echo"))
    until(lambda: server.refreshes == 1)
    assert client.request("GET", server.url + "/open").json == {"open": True}
    assert not waiting.done()
    server.opened.set()
    assert waiting.result(10).status == 200


def test_a_waiter_may_give_up_before_the_refresh_does(server: Api, clock: ManualClock, connect: Any) -> None:
    session = server.login(clock=clock, wait_timeout=0.1)
    client = connect(session)
    clock.advance(1800)
    server.hold_next()
    with pytest.raises(TryLater):
        client.request("GET", server.url + "/echo")
    server.opened.set()
    until(lambda: not session.status.refreshing)
    assert client.request("GET", server.url + "/echo").status == 200
    assert server.refreshes == 1


def test_a_refresh_that_hangs_is_given_up(server: Api, clock: ManualClock, connect: Any) -> None:
    store = server.login(clock=clock).store
    client = connect(Session(server.url, store, clock=clock, refresh_timeout=0.2))
    clock.advance(1800)
    server.hold_next(3)
    with pytest.raises(TryLater):
        client.request("GET", server.url + "/echo")
    assert not server.opened.is_set(), "the server has not responded yet"
    server.opened.set()


# ---- logging in and out meanwhile ------------------------------------------------------------------------------------


def test_a_logout_wins_over_a_refresh_under_way(server: Api, connect: Any, pool: ThreadPoolExecutor) -> None:
    store = MemoryStore()
    session = Session(server.url, store)
    session.login("ada", PASSWORD)
    client = connect(session)
    server.expire()
    server.hold_next()
    waiting = [pool.submit(lambda: client.request("GET", server.url + "/echo")) for _ in range(3)]
    until(lambda: server.refreshes == 1)
    session.logout()
    server.opened.set()
    for one in waiting:
        with pytest.raises(SessionOver):
            one.result(10)
    until(lambda: not session.status.refreshing)
    assert store.load().tokens is None
    assert server.sessions.list_sessions("ada") == []
    assert len(server.seen) <= 3, "nothing was sent again"


def test_what_waits_for_one_user_is_never_sent_for_the_next(
    server: Api, client: Client, session: Session, pool: ThreadPoolExecutor
) -> None:
    server.expire()
    server.hold_next()
    waiting = pool.submit(lambda: client.request("POST", server.url + "/echo", content=b"pay"))
    until(lambda: server.refreshes == 1)
    session.login("bob", PASSWORD)
    server.opened.set()
    with pytest.raises(SessionOver, match="another login"):
        waiting.result(10)
    assert client.request("GET", server.url + "/echo").json["sub"] == "bob"
    assert server.bodies == [sha(b"")]


def test_a_challenge_that_arrives_after_a_logout_refreshes_nothing(
    server: Api, client: Client, session: Session, pool: ThreadPoolExecutor
) -> None:
    server.expire()
    late = parked(pool, server, lambda: client.request("GET", server.url + "/late"))
    session.logout()
    server.opened.set()
    with pytest.raises(SessionOver, match="logged out"):
        late.result(10)
    assert server.refreshes == 0
