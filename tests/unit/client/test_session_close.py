"""The end of a session object: its worker threads have ended, and its store has no connection."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from tests.support.services import Service
from tests.support.token_endpoint import URL, TokenEndpoint, logged_in_at
from unbroken import HttpRequest, HttpResponse, MemoryStore, Session
from unbroken.client.stores.postgres import PostgresStore
from unbroken.client.stores.redis import RedisStore
from unbroken.events import RefreshFinished
from unbroken.testing import ManualClock


class ClosingStore(MemoryStore):
    """A store that counts how often it was closed."""

    closed = 0

    def close(self) -> None:
        self.closed += 1


def refresh_threads() -> set[threading.Thread]:
    return {one for one in threading.enumerate() if one.name == "unbroken-refresh"}


@pytest.mark.parametrize("style", ["sync", "async"])
def test_close_waits_for_a_background_refresh_and_its_events(
    style: str, endpoint: TokenEndpoint, clock: ManualClock
) -> None:
    release, events, store = threading.Event(), [], ClosingStore()

    def slow(request: HttpRequest, timeout: float) -> HttpResponse:
        if "refresh" in request.url:
            assert release.wait(20)
        return endpoint(request, timeout)

    session = logged_in_at(slow, clock, store, on_event=events.append)  # type: ignore[arg-type]
    of_others = refresh_threads()  # sessions of other tests may still refresh
    clock.advance(1750)
    assert session.token() == "A1"  # ageing: a refresh runs in the background
    [refreshing] = refresh_threads() - of_others
    threading.Timer(0.05, release.set).start()
    _close(session, style)
    assert not refreshing.is_alive()
    assert isinstance(events[-1], RefreshFinished)
    assert (session.token(), store.closed) == ("A2", 1)


def _close(session: Session, style: str) -> None:
    if style == "sync":
        with session:
            pass
        return
    import anyio

    async def run() -> None:
        async with session as same:
            assert same is session

    anyio.run(run)


def test_a_listener_may_close_the_session(endpoint: TokenEndpoint, clock: ManualClock) -> None:
    session = logged_in_at(endpoint, clock)
    closed = threading.Event()

    def close(_: object) -> None:
        session.close()
        closed.set()

    session.add_listener(close)
    clock.advance(1800)
    assert session.token() == "A2"
    assert closed.wait(20)


@pytest.mark.anyio
async def test_stores_with_connections_are_context_managers_and_can_be_used_again(
    redis: Service, postgres: Service
) -> None:
    stores: list[Any] = [RedisStore(redis.url, "closing"), PostgresStore(postgres.url, "closing")]
    for store in stores:
        with store as same:
            assert same.load().tokens is None
        async with store as same:
            assert same.load().tokens is None
        store.close()
        await store.aclose()
        assert store.load().tokens is None
        store.close()


def test_a_store_over_a_client_of_redis_py_leaves_that_client_open(redis: Service) -> None:
    import redis as redis_py

    client = redis_py.Redis.from_url(redis.url)
    connection = client.connection_pool.get_connection()
    client.connection_pool.release(connection)
    with RedisStore(client, "closing"):
        pass
    assert connection._sock is not None, "the connection of the user's client is still open"
    client.close()


def test_a_session_of_a_url_closes_at_the_end_of_its_block() -> None:
    with Session(URL) as session:
        assert session.status.state == "over"
