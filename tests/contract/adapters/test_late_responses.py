"""A strict server that responds after the time limit of a request: it is asked once, and nobody is logged out."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.contract.adapters.api import burst
from tests.support.foreign_server import ForeignServer
from tests.support.waiting import until
from unbroken import Session, TryLater, oauth2


def test_many_requests_wait_for_one_late_response(connect: Callable[[Session], Any], pool: ThreadPoolExecutor) -> None:
    with ForeignServer("strict", seconds=0.35) as server:
        session = Session(oauth2(server.url + "/token"), refresh_timeout=0.1)
        session.import_tokens(server.first | {"access_token": "rejected"})
        client = connect(session)
        answers = burst(pool, lambda: client.request("GET", server.url + "/echo"), 20)
        assert {answer.status for answer in answers} == {200}
        assert (server.presented, server.reused) == (["R0"], 0)


def test_a_request_with_less_patience_is_told_to_try_later(connect: Callable[[Session], Any]) -> None:
    with ForeignServer("strict", seconds=0.35) as server:
        session = Session(oauth2(server.url + "/token"), refresh_timeout=0.1, wait_timeout=0.05)
        session.import_tokens(server.first | {"access_token": "rejected"})
        client = connect(session)
        with pytest.raises(TryLater):
            client.request("GET", server.url + "/echo")
        until(lambda: not session.status.refreshing)
        assert client.request("GET", server.url + "/echo").status == 200
        assert (server.presented, server.reused) == (["R0"], 0)
