"""Our client against servers that never heard of it, unmodified, each a process: one refresh an expiry, no alarm."""

from __future__ import annotations

import time

import anyio
import httpx2
import pytest

from tests.interop.servers.conftest import PAST, Running
from unbroken import Session, SessionOver, Tokens
from unbroken._time import Clock
from unbroken.httpx2 import SessionAuth

REQUESTS = 100
EXPIRIES = 10


class Watch:
    """The client's clock; ``ahead`` moves it."""

    def __init__(self) -> None:
        self.ahead = 0.0
        self.clock = Clock(lambda: time.time() + self.ahead, lambda: time.monotonic() + self.ahead)

    def expire(self) -> None:
        """By this clock, every access token of the foreign servers is past its end."""
        self.ahead += PAST


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def session(server: Running, watch: Watch) -> Session:
    """A session that is logged in at the foreign server."""
    made = Session(server.dialect, clock=watch.clock)
    server.log_in(made)
    return made


def stored(session: Session) -> Tokens:
    """The tokens it holds now."""
    tokens = session.store.load().tokens
    assert tokens is not None
    return tokens


def another(server: Running, tokens: Tokens) -> Session:
    """Somebody else who holds *tokens*, and whose clock says that they have to be refreshed."""
    watch = Watch()
    other = Session(server.dialect, clock=watch.clock)
    other.import_tokens(tokens)
    watch.expire()
    return other


async def ask(server: Running, session: Session, requests: int) -> list[tuple[int, str]]:
    """Status and user of so many concurrent requests."""
    responses: list[tuple[int, str]] = []
    async with httpx2.AsyncClient(auth=SessionAuth(session), timeout=60) as client:

        async def one() -> None:
            response = await client.get(server.me)
            responses.append((response.status_code, response.json().get("sub")))

        async with anyio.create_task_group() as group:
            for _ in range(requests):
                group.start_soon(one)
    return responses


@pytest.mark.anyio
async def test_ten_expiries_under_a_hundred_requests_cost_one_refresh_each(
    server: Running, session: Session, watch: Watch
) -> None:
    start, held = server.count()["refreshes"], {stored(session).refresh_token}
    for expiry in range(1, EXPIRIES + 1):
        announced = expiry % 2 == 0  # else the client hears of it by a challenge, each request for itself
        before = server.count()
        server.expire()
        if announced:
            watch.expire()
        assert await ask(server, session, REQUESTS) == [(200, "ada")] * REQUESTS
        after = server.count()
        assert after["refreshes"] - start == expiry
        assert (after["challenges"] == before["challenges"]) is announced
        held.add(stored(session).refresh_token)
    server.expire()
    assert await ask(server, session, 1) == [(200, "ada")], "the session still refreshes: nobody revoked its family"
    assert len(held) == EXPIRIES + 1, "the server rotates"


def test_an_old_refresh_token_is_refused(server: Running, session: Session, watch: Watch) -> None:
    old = stored(session)
    for _ in range(2):
        watch.expire()
        session.token()
    before = server.count()["refreshes"]
    with pytest.raises(SessionOver):
        another(server, old).token()
    assert server.count()["refreshes"] == before + 1, "it was the server who refused"
    watch.expire()
    newest = stored(session)
    if server.foreign.ends_the_family:
        with pytest.raises(SessionOver):
            session.token()
    else:
        assert session.token() != newest.access_token


def test_a_logout_ends_the_session_at_the_server_too(server: Running, session: Session) -> None:
    old = stored(session)
    assert session.logout()
    with pytest.raises(SessionOver):
        another(server, old).token()
