"""Each adapter in a child that was forked in the middle of a refresh: it joins the refresh of its parent."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import httpx2
import pytest

import unbroken.httpx
import unbroken.httpx2
from tests.contract.adapters.api import Api
from tests.support.adapters import Client
from tests.support.backend import PASSWORD
from tests.support.processes import ends_well, fork
from tests.support.waiting import until
from unbroken import FileStore, Session, unbroken_server

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="the system cannot fork"),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
]

SOON = 2.0


@pytest.fixture
def session(server: Api, tmp_path: Path) -> Session:
    """A session that processes can share, with a token that its server rejects."""
    made = Session(unbroken_server(server.url), FileStore(tmp_path / "t.json"))
    made.login("ada", PASSWORD)
    server.expire()
    return made


def test_a_child_joins_the_refresh_of_its_parent(
    server: Api, session: Session, connect: Callable[[Session], Client]
) -> None:
    answers: list[int] = []
    client = connect(session)
    parent = threading.Thread(target=lambda: answers.append(client.request("GET", server.url + "/echo").status))
    server.hold_next()
    parent.start()
    until(lambda: server.refreshes == 1, "the refresh arrives at the server")

    def gets_an_answer() -> bool:
        began = time.monotonic()
        status = connect(session).request("GET", server.url + "/echo").status
        return status == 200 and time.monotonic() - began < SOON

    child = fork(gets_an_answer)
    time.sleep(0.1)  # the child waits
    server.opened.set()
    parent.join()
    assert ends_well(child)
    assert (answers, server.refreshes, server.alarms()) == ([200], 1, 0)


@pytest.mark.parametrize("library", ["httpx", "httpx2"])
def test_a_transport_of_ours_connects_anew_in_a_child(library: str, server: Api, session: Session) -> None:
    ours, theirs = {"httpx": (unbroken.httpx, httpx), "httpx2": (unbroken.httpx2, httpx2)}[library]
    with theirs.Client(transport=ours.SessionTransport(session)) as client:
        assert client.get(server.url + "/echo").status_code == 200
        pools: list[object] = [client._transport._transport]

        def has_its_own_connections() -> bool:
            return client.get(server.url + "/echo").status_code == 200 and client._transport._transport not in pools

        child = fork(has_its_own_connections)
        assert client.get(server.url + "/echo").status_code == 200
        assert ends_well(child)
        assert client.get(server.url + "/echo").status_code == 200
        assert client._transport._transport in pools
