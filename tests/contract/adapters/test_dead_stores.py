"""A store that cannot do its work: what still goes on, what does not, and how soon that is told."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from tests.contract.adapters.api import Api, burst
from tests.support.adapters import Client
from tests.support.waiting import until
from unbroken import MemoryStore, Session, StoreUnavailable
from unbroken.client.core.token_store import StoredSession
from unbroken.events import ClientEvent, RefreshFailed
from unbroken.testing import ManualClock
from unbroken.testing.server import PASSWORD

SOON = 8.0  # seconds; a refresh that cannot be made is told without any of its timeouts


class Mortal(MemoryStore):
    """A store of which one part, or all of it, may fail."""

    def __init__(self) -> None:
        super().__init__()
        self.dead: tuple[str, ...] = ()

    def load(self) -> StoredSession:
        self._alive("load")
        return super().load()

    def save(self, record: StoredSession, expected: StoredSession) -> bool:
        self._alive("save")
        return super().save(record, expected)

    @contextmanager
    def lock(self, timeout: float) -> Iterator[None]:
        self._alive("lock")
        with super().lock(timeout):
            yield

    def _alive(self, part: str) -> None:
        if part in self.dead:
            raise StoreUnavailable("the store is gone")


@pytest.fixture
def store() -> Mortal:
    return Mortal()


@pytest.fixture
def events() -> list[ClientEvent]:
    return []


@pytest.fixture
def session(server: Api, store: Mortal, clock: ManualClock, events: list[ClientEvent]) -> Session:
    return server.login(store=store, clock=clock, on_event=events.append)


@pytest.fixture(params=["lock", "load", "save", "lock load save"])
def dies(request: pytest.FixtureRequest, store: Mortal, session: Session) -> Callable[[], None]:
    """The store dies after the login: a part of it, or the whole."""
    assert session.store is store

    def die() -> None:
        store.dead = tuple(request.param.split())

    return die


def fail_soon(server: Api, client: Client, pool: ThreadPoolExecutor) -> None:
    """Five requests at once get the documented error, each its own, and no refresh is made."""
    began = time.monotonic()
    responses = burst(pool, lambda: client.request("GET", server.url + "/echo"), 5)
    assert time.monotonic() - began < SOON
    assert [type(response) for response in responses] == [StoreUnavailable] * 5
    assert len({id(response) for response in responses}) == 5, "each has its own"
    assert server.refreshes == 0, "no refresh token is spent that could not be replaced"


def test_with_a_good_token_no_request_reads_the_store(server: Api, client: Client, dies: Callable[[], None]) -> None:
    dies()
    for _ in range(3):
        assert client.request("GET", server.url + "/echo").status == 200
    assert server.refreshes == 0


def test_an_ageing_token_is_used_until_it_expires_while_the_store_is_down(
    server: Api, client: Client, dies: Callable[[], None], clock: ManualClock, events: list[ClientEvent]
) -> None:
    dies()
    clock.advance(1700)
    for _ in range(3):
        assert client.request("GET", server.url + "/echo").status == 200
    until(lambda: any(isinstance(event, RefreshFailed) for event in events))
    assert client.request("GET", server.url + "/echo").status == 200, "what failed behind it is nobody's error"
    assert server.refreshes == 0


def test_an_expired_token_with_a_dead_store_fails_soon_and_sends_nothing(
    server: Api,
    client: Client,
    dies: Callable[[], None],
    clock: ManualClock,
    store: Mortal,
    pool: ThreadPoolExecutor,
) -> None:
    dies()
    clock.advance(1800)
    fail_soon(server, client, pool)
    assert server.seen == []
    store.dead = ()
    clock.advance(31)
    assert client.request("GET", server.url + "/echo").status == 200, "and when it is back, all goes on"
    assert (server.refreshes, server.alarms()) == (1, 0)


def test_a_challenged_request_with_a_dead_store_fails_soon_and_is_sent_once(
    server: Api,
    client: Client,
    dies: Callable[[], None],
    clock: ManualClock,
    store: Mortal,
    pool: ThreadPoolExecutor,
) -> None:
    dies()
    server.expire()
    fail_soon(server, client, pool)
    assert len(server.seen) == 5
    store.dead = ()
    clock.advance(31)
    assert client.request("GET", server.url + "/echo").status == 200
    assert (server.refreshes, server.alarms()) == (1, 0)


def test_a_store_that_is_dead_from_the_beginning_is_an_error_soon(
    server: Api, connect: Callable[[Session], Client], store: Mortal, pool: ThreadPoolExecutor
) -> None:
    client = connect(Session(server.url, store))
    store.dead = ("load",)
    fail_soon(server, client, pool)
    assert server.seen == []
    store.dead = ()
    Session(server.url, store).login("ada", PASSWORD)
    assert client.request("GET", server.url + "/echo").status == 200
