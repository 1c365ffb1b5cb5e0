"""Stores of several machines see when the connection of a lock's holder ends: it is dead, or has lost that only.

Each store is opened as if on two machines: without a lock file that both of them see.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis

from tests.support.processes import fresh_processes
from tests.support.services import Service
from tests.support.waiting import until
from unbroken import StoreBusy
from unbroken.client.stores import lease as lease_module
from unbroken.client.stores.lease import LEASE_SECONDS, seconds_after_connection
from unbroken.client.stores.postgres import PostgresStore
from unbroken.client.stores.redis import RedisStore

KINDS = ("redis", "redis-client", "postgres")
SOON = LEASE_SECONDS * 0.8  # the lease alone takes longer than that, less a heartbeat


def opened(kind: str, url: str, name: str) -> Any:
    """The store, as a process of another machine opens it."""
    place = redis.Redis.from_url(url) if kind == "redis-client" else url
    store: Any = PostgresStore(url, name) if kind == "postgres" else RedisStore(place, name)
    if kind != "postgres":
        store._redis.connection_pool.connection_kwargs["client_name"] = client_name(store)
    store._lease_lock._machine_lock = None
    return store


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


@pytest.fixture
def url(kind: str, request: pytest.FixtureRequest) -> str:
    service: Service = request.getfixturevalue("postgres" if kind == "postgres" else "redis")
    return service.url


@pytest.fixture
def stores(kind: str, url: str, tmp_path: Path) -> Iterator[tuple[Any, Any]]:
    """The store of two machines."""
    both = opened(kind, url, tmp_path.name), opened(kind, url, tmp_path.name)
    yield both
    for each in both:
        each.close()


def holds(kind: str, url: str, name: str, ready: Any, forks: bool) -> None:
    """A process that holds the lock until it is killed; with *forks* it has a child that goes on."""
    store = opened(kind, url, name)
    with store.lock(5):
        if forks and os.fork() == 0:
            time.sleep(6)
            os._exit(0)
        ready.set()
        time.sleep(60)


def seconds_to_lock(store: Any) -> float:
    began = time.monotonic()
    with store.lock(10):
        return time.monotonic() - began


def cut_connections(kind: str, url: str, store: Any) -> None:
    """End the connections of the machine of *store* to its server, from the server's side."""
    if kind == "postgres":
        with psycopg.connect(url, autocommit=True) as admin:
            admin.execute("SELECT pg_terminate_backend(%s)", (store._connection.info.backend_pid,))
        return
    with redis.Redis.from_url(url, decode_responses=True) as admin:
        for client in admin.client_list():
            if client["name"] == client_name(store):
                admin.client_kill_filter(_id=client["id"])


def client_name(store: Any) -> str:
    """What Redis shows of the connections of *store*."""
    return f"machine-{id(store)}"


@pytest.mark.parametrize("forks", [False, True])
def test_the_lock_of_a_process_that_was_killed_on_another_machine_is_free_before_its_lease_ends(
    kind: str, url: str, tmp_path: Path, forks: bool
) -> None:
    if forks and (kind == "redis-client" or not hasattr(os, "fork")):
        pytest.skip("a client of the user's keeps its connections in a child")
    context, store = fresh_processes(), opened(kind, url, tmp_path.name)
    took = []
    for _ in range(3):
        ready = context.Event()
        holder = context.Process(target=holds, args=(kind, url, tmp_path.name, ready, forks))
        holder.start()
        assert ready.wait(30)
        assert holder.pid is not None
        os.kill(holder.pid, signal.SIGKILL)
        took.append(seconds_to_lock(store))
        holder.join(10)
    store.close()
    assert sorted(took)[1] < SOON, took


def test_a_holder_that_lives_and_has_lost_its_connection_keeps_the_lock(
    kind: str, url: str, stores: tuple[Any, Any]
) -> None:
    """Also when it happens again and again, and somebody waits all the time."""
    holder, other = stores
    with holder.lock(5) as lease:
        for _ in range(2):
            cut_connections(kind, url, holder)
            with pytest.raises(StoreBusy), other.lock(0.9):
                pass
            assert lease.is_held()
    assert seconds_to_lock(other) < 0.5


def test_a_holder_that_has_lost_its_connection_and_its_heartbeat_does_not_send(
    kind: str, url: str, stores: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_module, "BEATS_PER_LEASE", 0.001)
    holder, other = stores
    with holder.lock(5) as lease:
        assert lease.is_held()
        cut_connections(kind, url, holder)
        with other.lock(SOON):
            assert not lease.is_held()
        assert not lease.is_held(), "another has had it"


def test_a_store_that_sees_no_connections_has_the_lease_alone(kind: str, request: pytest.FixtureRequest) -> None:
    with opened_without_rights(kind, request) as (holder, other):
        assert holder.take_lease("dead")
        getattr(holder, "connect_holder", lambda _: None)("dead")
        holder.close()
        assert seconds_to_lock(other) > SOON
        with holder.lock(5) as lease:
            with pytest.raises(StoreBusy), other.lock(2.5):
                pass
            assert lease.is_held()
        assert seconds_to_lock(other) < 0.5


@contextlib.contextmanager
def opened_without_rights(kind: str, request: pytest.FixtureRequest) -> Iterator[tuple[Any, Any]]:
    """The stores of a user who may not ask for connections."""
    user, password = f"u{secrets.token_hex(4)}", secrets.token_hex(8)
    service: Service = request.getfixturevalue("postgres" if kind == "postgres" else "redis")
    with contextlib.ExitStack() as stack:
        url = (postgres_user if kind == "postgres" else redis_user)(service.url, user, password, stack)
        both = opened(kind, url, user), opened(kind, url, user)
        for each in both:
            stack.callback(each.close)
        yield both


def redis_user(url: str, user: str, password: str, stack: contextlib.ExitStack) -> str:
    admin = stack.enter_context(redis.Redis.from_url(url))
    admin.execute_command("ACL", "SETUSER", user, "on", f">{password}", "~*", "resetchannels", "+@all", "-@pubsub")
    stack.callback(admin.acl_deluser, user)
    return url.replace("://", f"://{user}:{password}@")


def postgres_user(url: str, user: str, password: str, stack: contextlib.ExitStack) -> str:
    """A database of its own, where the user may not see other connections."""
    admin = stack.enter_context(psycopg.connect(url, autocommit=True))
    admin.execute(f"CREATE ROLE {user} LOGIN PASSWORD '{password}'")
    admin.execute(f"CREATE DATABASE {user} OWNER {user}")
    place = url.rpartition("/")[0] + f"/{user}"
    with psycopg.connect(place, autocommit=True) as inside:
        inside.execute("REVOKE ALL ON pg_stat_activity FROM PUBLIC")
        inside.execute(f"GRANT CREATE ON SCHEMA public TO {user}")
    return "postgresql://" + f"{user}:{password}@" + place.rpartition("@")[2]


def test_a_lease_is_cut_to_a_time_in_which_its_holder_extends_it_twice() -> None:
    assert 2 * LEASE_SECONDS / 6 < seconds_after_connection(LEASE_SECONDS) < 1.0


def test_connections_end_with_the_lock(kind: str, url: str, stores: tuple[Any, Any]) -> None:
    """Nothing is left open for a lock that nobody holds."""
    if kind == "postgres":
        return  # it has one connection for everything

    holder, _ = stores
    with redis.Redis.from_url(url) as admin:

        def subscribers() -> int:
            return len(admin.pubsub_channels(f"{holder._lock}:*"))

        for _ in range(3):
            with holder.lock(5):
                assert subscribers() == 1
            until(lambda: subscribers() == 0)
