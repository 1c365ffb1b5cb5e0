"""Everything that a session can be through in a day."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest

from tests.support.backend import Backend
from tests.support.requests_of_adapters import tokens_after_challenge, tokens_for_request
from unbroken import RefreshStorm, Session
from unbroken.httpx2 import SessionAuth

__all__ = ["a_lively_day"]


def a_lively_day(server: Backend, session: Session) -> None:
    """Two refreshes, a sibling's refresh, waiters, replays, a failure and a storm."""
    with httpx2.Client(auth=SessionAuth(session), timeout=20) as client, ThreadPoolExecutor(8) as pool:
        server.expire()
        server.slow_next(0.2)
        assert set(pool.map(lambda _: client.get(server.url + "/echo").status_code, range(8))) == {200}
        server.expire()
        assert client.post(server.url + "/echo", content=iter([b"once"])).status_code == 401
        sent = tokens_for_request(session)
        server.expire()
        Session(server.url, session.store).newer_token(sent.tokens.access_token)
        assert client.get(server.url + "/echo").status_code == 200
        tokens_after_challenge(session, sent, "a late one")
        server.expire()
        with pytest.raises(RefreshStorm):
            client.get(server.url + "/echo")
