"""Clients' stores on servers that die, are busy, or cannot be reached."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.backend import PASSWORD, Backend
from tests.support.services import Service, postgres_server, redis_server
from tests.support.waiting import eventually
from unbroken import ConfigurationError, Session, StoreBusy, StoreUnavailable
from unbroken.client.stores.postgres import PostgresStore
from unbroken.client.stores.redis import RedisStore
from unbroken.testing import ManualClock


@pytest.fixture(params=["redis", "postgres"])
def mortal(request: pytest.FixtureRequest) -> Iterator[tuple[Service, Callable[[], Any]]]:
    """A server that this test may kill, and a store in it."""
    starting = redis_server if request.param == "redis" else postgres_server
    kind = RedisStore if request.param == "redis" else PostgresStore
    with starting() as service:
        yield service, lambda: kind(service.url, "mortal")


def test_a_dead_store_is_told_at_once_and_a_good_token_goes_on(
    mortal: tuple[Service, Callable[[], Any]], server: Backend
) -> None:
    service, make = mortal
    clock, store = ManualClock(), make()
    session = Session(server.url, store, clock=clock)
    session.login("ada", PASSWORD)
    service.stop(signal.SIGKILL)
    assert session.token(), "a token in good time needs no store"
    clock.advance(1700)
    assert session.token(), "nor does an ageing one"
    clock.advance(100)
    began = time.monotonic()
    with pytest.raises(StoreUnavailable):
        session.token()
    assert time.monotonic() - began < 10
    service.start()
    eventually(store.load, StoreUnavailable)
    clock.advance(60)
    assert session.token(), "and when it is back, refresh works"
    assert server.refreshes == 1
    assert server.alarms() == 0


def test_a_busy_lock_and_an_unreachable_lock_raise_different_errors(mortal: tuple[Service, Callable[[], Any]]) -> None:
    service, make = mortal
    store, other = make(), make()
    with store.lock(1), pytest.raises(StoreBusy), other.lock(0.1):
        pass
    service.stop(signal.SIGKILL)
    with pytest.raises(StoreUnavailable), other.lock(0.1):
        pass


def test_an_unreachable_store_shows_no_password() -> None:
    for store in (
        RedisStore("redis://:hush@127.0.0.1:9/0"),
        PostgresStore("postgresql://ada:hush@127.0.0.1:9/db"),
    ):
        with pytest.raises(StoreUnavailable) as caught:
            store.load()
        assert "hush" not in f"{caught.value}{caught.value.__cause__}{store!r}"


@pytest.mark.parametrize(
    "make", [lambda: RedisStore("http://127.0.0.1"), lambda: PostgresStore("nonsense with spaces")]
)
def test_a_malformed_url_is_refused_when_the_store_is_made(make: Callable[[], object]) -> None:
    with pytest.raises(ConfigurationError):
        make()
