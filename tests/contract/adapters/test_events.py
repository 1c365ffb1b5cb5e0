"""What is told, what is not, and all libraries at once."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest

from tests.contract.adapters.api import Api
from tests.support.adapters import MORE_ADAPTERS, Client
from tests.support.waiting import until
from unbroken import (
    Leeway,
    Session,
    TryLater,
)
from unbroken.events import ClientEvent, RefreshJoined, RequestNotReplayed, RequestReplayed
from unbroken.testing import ManualClock
from unbroken.testing.server import PASSWORD


def test_events_tell_of_waiting_and_of_replays(server: Api, connect: Any, pool: ThreadPoolExecutor) -> None:
    events: list[ClientEvent] = []
    session = Session(server.url, on_event=events.append)
    session.login("ada", PASSWORD)
    client = connect(session)
    server.expire()
    server.hold_next()
    waiting = [pool.submit(client.request, "GET", server.url + "/echo") for _ in range(5)]
    until(lambda: sum(isinstance(event, RefreshJoined) for event in events) == 4)
    server.opened.set()
    assert {one.result(10).status for one in waiting} == {200}
    server.expire()
    client.request("POST", server.url + "/echo", content=iter([b"a"]))
    kinds = [type(event) for event in events]
    assert kinds.count(RequestReplayed) == 5
    assert kinds.count(RefreshJoined) == 4
    assert kinds.count(RequestNotReplayed) == 1


def test_no_secret_is_logged_or_shown(
    server: Api, client: Client, session: Session, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    stored = session.store.load().tokens
    assert stored is not None
    secrets = [stored.access_token, stored.refresh_token or "-"]
    with caplog.at_level(logging.DEBUG, "unbroken"):
        server.expire()
        for _ in range(3):
            server.fail_next(500)
        with pytest.raises(TryLater) as caught:
            client.request("GET", server.url + "/echo")
        clock.advance(31)
        client.request("GET", server.url + "/echo")
    shown = caplog.text + repr(session) + repr(caught.value) + repr(caught.value.__cause__)
    assert not [secret for secret in secrets if secret in shown]


def test_all_libraries_at_once_share_one_refresh(server: Api, pool: ThreadPoolExecutor) -> None:
    session = server.login(leeway=Leeway())
    with ExitStack() as opened:
        clients = [opened.enter_context(connect(session)) for connect in MORE_ADAPTERS.values()]
        server.expire()
        waiting = [pool.submit(one.request, "GET", server.url + "/echo") for one in clients for _ in range(10)]
        assert {one.result(20).status for one in waiting} == {200}
    assert (server.refreshes, server.alarms()) == (1, 0)
