"""What a second reading of the stores, and of what keeps them company, has found: each test is one defect."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from weakref import WeakMethod

import psycopg
import pytest

from tests.support.services import Service
from unbroken._drivers import postgres_connection as sql_connection
from unbroken._drivers.postgres import PostgresDriver
from unbroken._sync import run_sync
from unbroken.errors import ConfigurationError
from unbroken.server import MemorySessionStore, Sessions, freshness, open_store
from unbroken.server.core.rotation import PresentedToken, SessionRow
from unbroken.server.http.endpoints import Endpoints
from unbroken.server.http.messages import Request
from unbroken.server.stores import SessionStore
from unbroken.server.stores import postgres as postgres_module
from unbroken.server.stores.encrypted_keys import encrypted_keys, new_key
from unbroken.server.stores.postgres import PostgresSessionStore
from unbroken.server.worker_pool import WorkerPool

FORK = "ignore:This process:DeprecationWarning"  # later Pythons warn of forks of threads: that is what is tested
NOW = 100.0


@pytest.fixture
def url(postgres: Service) -> Iterator[str]:
    """The URL of an empty database."""
    with psycopg.connect(postgres.url, autocommit=True) as db:
        db.execute("CREATE DATABASE of_second_look")
    yield postgres.url.removesuffix("postgres") + "of_second_look"
    with psycopg.connect(postgres.url, autocommit=True) as db:
        db.execute("DROP DATABASE of_second_look WITH (FORCE)")


@pytest.fixture
def nodes(url: str) -> Iterator[tuple[PostgresSessionStore, PostgresSessionStore]]:
    """Two nodes on one database, of which the first has made more connections."""
    here, there = PostgresSessionStore(url), PostgresSessionStore(url)
    run_sync(here.health())
    here.close()
    yield here, there
    here.close()
    there.close()


def row(sid: str = "sid", **fields: Any) -> SessionRow:
    return replace(SessionRow(sid.encode(), sid, "ada", 1.0, 1.0, 1000.0, 5000.0), **fields)


def ended(store: SessionStore, sid: str) -> None:
    run_sync(store.insert(row(sid)))
    run_sync(store.revoke(NOW, "revoked", NOW + 9, sid=sid))


def all_told(store: SessionStore, cursor: int) -> tuple[int, set[str]]:
    cursor, told = run_sync(store.revocations(cursor))
    return cursor, {sid for sid, _ in told}


# ---- the cursor of revocations in PostgreSQL -------------------------------------------------------------------------


def test_a_cursor_of_one_node_is_good_on_another(nodes: tuple[PostgresSessionStore, PostgresSessionStore]) -> None:
    here, there = nodes
    ended(here, "first")
    cursor, told = all_told(here, 0)
    assert told == {"first"}
    ended(here, "second")
    assert "second" in all_told(there, cursor)[1]
    ends = time.monotonic() + 10  # somebody may be at work in the server
    while (told := all_told(there, cursor)[1]) and time.monotonic() < ends:
        cursor = all_told(here, cursor)[0]
    assert told == set()


def test_a_cursor_of_another_server_or_of_a_later_state_tells_everything_once_more(
    nodes: tuple[PostgresSessionStore, PostgresSessionStore],
) -> None:
    here, _ = nodes
    ended(here, "first")
    cursor, _ = all_told(here, 0)
    of_another = cursor ^ 1
    of_later = cursor + 1_000_000 * postgres_module.STARTS
    for _ in range(2):
        assert all_told(here, of_another)[1] == all_told(here, of_later)[1] == {"first"}


def test_the_list_of_revocations_can_be_followed_over_http(
    nodes: tuple[PostgresSessionStore, PostgresSessionStore],
) -> None:
    sessions = Sessions(nodes[0])
    endpoints = Endpoints(sessions, lambda _name, _password: None)
    token = sessions.create("service", scope="introspect").access_token

    def feed(after: int) -> Any:
        headers = {"authorization": f"Bearer {token}"}
        request = Request("GET", "/auth/revocations", headers, query=f"after={after}")
        return endpoints.handle_blocking(request)

    cursor, _ = sessions.revocations()
    assert cursor < 2**53  # as others read JSON
    assert feed(cursor).status == 200
    sessions.close()


# ---- PostgreSQL: races, settings, cancellation -----------------------------------------------------------------------


def test_the_loser_of_a_rotation_is_told_so_however_the_database_isolates(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as db:
        db.execute("ALTER DATABASE of_second_look SET default_transaction_isolation = 'repeatable read'")
    store = PostgresSessionStore(url)
    run_sync(store.insert(row()))
    answers: list[bool] = []
    with psycopg.connect(url) as other:
        other.execute("UPDATE unbroken_session SET g = 1")
        loser = threading.Thread(
            target=lambda: answers.append(run_sync(store.rotate(b"sid", PresentedToken(0, 0), NOW, 9.0)))
        )
        loser.start()
        wait_for_a_lock(url)
        other.commit()
        loser.join(10)
    assert answers == [False]
    store.close()


def wait_for_a_lock(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as db:
        for _ in range(1000):
            if db.execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchone():
                return
            time.sleep(0.01)
    raise AssertionError("nobody waits")


def test_a_transaction_whose_client_is_gone_holds_no_lock_for_ever(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bounded = sql_connection.CONFIGURE.replace(f"'{sql_connection.IDLE_SECONDS}s'", "'0.2s'")
    monkeypatch.setattr(sql_connection, "CONFIGURE", bounded)
    store = PostgresSessionStore(url)
    with store._sql._blocking_pool(store._sql._held()).connection() as gone:
        gone.execute("BEGIN")
        gone.execute("SELECT pg_advisory_xact_lock(%s)", (postgres_module.KEYS_LOCK,))
        other = PostgresDriver(url)
        run_sync(other.rows("SELECT pg_advisory_xact_lock(%s)", (postgres_module.KEYS_LOCK,)))
        other.close()
        with pytest.raises(psycopg.errors.IdleInTransactionSessionTimeout):
            gone.execute("COMMIT")
    store.close()


def test_who_is_cancelled_does_not_wait_for_a_server_that_hangs(url: str) -> None:
    async def leaves(store: PostgresSessionStore) -> float:
        await store.health()
        with psycopg.connect(url, autocommit=True) as db:
            found = db.execute("SELECT pid FROM pg_stat_activity WHERE application_name = 'unbroken'").fetchall()
        for (pid,) in found:
            os.kill(pid, signal.SIGSTOP)
        try:
            asking = asyncio.create_task(store.health())
            await asyncio.sleep(0.1)
            asking.cancel()
            since = time.monotonic()
            await asyncio.wait([asking])
            return time.monotonic() - since
        finally:
            for (pid,) in found:
                os.kill(pid, signal.SIGCONT)
            await store.health()
            await store.aclose()

    assert asyncio.run(leaves(PostgresSessionStore(url))) < 3.0


# ---- every store -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["memory", "sqlite", "postgres", "redis"])
def test_a_session_that_is_renamed_while_its_refresh_is_decided_keeps_its_name(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    where = {"memory": "memory:", "sqlite": f"sqlite:///{tmp_path}/store.db"}.get(kind)
    if where is None:
        where = request.getfixturevalue("url") if kind == "postgres" else request.getfixturevalue("redis").url
    store = open_store(where)
    before = row(f"renamed in {kind}", generation=1, rotated_at=2.0, promoted_branch=0)
    run_sync(store.insert(before))
    assert run_sync(store.compare_and_set(before, replace(before, label="kitchen"), 0.0))
    run_sync(store.compare_and_set(before, replace(before, branch=1), 0.0))
    after = run_sync(store.read(before.key))
    assert after is not None
    assert after.label == "kitchen"
    store.close()


def test_a_sealed_secret_that_was_opened_once_cannot_take_another_keys_place() -> None:
    store = MemorySessionStore()
    sealed = encrypted_keys(store, new_key())
    Sessions(sealed).rotate_keys(publish_ahead=0.0)
    first, second = (key for key in run_sync(store.keys()) if key.use == "mac")
    run_sync(sealed.keys())
    run_sync(store.save_keys([replace(second, secret=first.secret)]))
    with pytest.raises(ConfigurationError, match="sealed with another"):
        run_sync(sealed.keys())


# ---- the listener ----------------------------------------------------------------------------------------------------


class Announcing(MemorySessionStore):
    """A store in memory that offers notifications."""

    def notifications(self) -> Any:
        return Silence()


class Silence:
    """Notifications of nothing."""

    def __init__(self) -> None:
        self.closed = threading.Event()

    def wait(self, timeout: float) -> None:
        self.closed.wait(timeout)

    def close(self) -> None:
        self.closed.set()


def test_a_node_that_can_have_no_thread_for_its_listener_works_and_tries_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    sessions = Sessions(Announcing())
    with monkeypatch.context() as patched, caplog.at_level(logging.WARNING, "unbroken"):
        patched.setattr(freshness.threading.Thread, "start", start)
        for _ in range(3):
            sessions._freshness.fresh_until = 0.0
            assert sessions.verify(sessions.create("ada").access_token).subject == "ada"
    assert [one.getMessage() for one in caplog.records] == [
        "cannot listen for revocations, polling instead: can't start new thread"
    ]
    sessions._freshness.fresh_until = 0.0
    sessions.create("ada")
    assert sessions._freshness.listener._thread is not None
    sessions.close()


def test_a_listener_that_is_collected_within_its_own_thread_waits_for_no_lock_of_its_own() -> None:
    stops = threading.Event()

    class Collecting(Silence):
        """Its ``wait`` is where the last who wants to know is collected."""

        def __init__(self) -> None:
            super().__init__()
            self.turn, self.listener = threading.Lock(), None

        def wait(self, timeout: float) -> None:
            with self.turn:
                super().wait(timeout)
                if self.listener is not None:
                    self.listener.stop()
                    stops.set()

        def close(self) -> None:
            if not self.turn.acquire(timeout=5):
                raise AssertionError("held by the thread that waits for it")
            self.turn.release()
            super().close()

    class Cache:
        async def refresh_now(self) -> None:
            """Nothing."""

    notifications, cache = Collecting(), Cache()
    listener: Any = freshness._ListenerThread(notifications, WeakMethod(cache.refresh_now))
    notifications.listener = listener
    assert stops.wait(4)
    del cache
    listener._thread.join(4)
    assert not listener._thread.is_alive()
    assert notifications.closed.is_set()


# ---- forks -----------------------------------------------------------------------------------------------------------


class Slow(MemorySessionStore):
    """A store that somebody is just asking."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()

    async def revocations(self, after: int) -> tuple[int, list[tuple[str, float]]]:
        self.asked.set()
        self.go_on.wait(20)
        return await super().revocations(after)


def forked(work: Callable[[], bool]) -> int:
    """The id of a child that ends well if *work* gives True."""
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if work() else 1)
        finally:
            os._exit(2)
    return child


def ends_well(child: int) -> bool:
    ends = time.monotonic() + 15
    while time.monotonic() < ends:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status == 0
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


@pytest.mark.filterwarnings(FORK)
def test_a_child_that_is_forked_while_a_thread_asks_the_store_does_not_wait_for_that_thread() -> None:
    store = Slow()
    sessions = Sessions(store)
    token = sessions.create("ada").access_token
    watch = sessions._freshness
    watch.fresh_until = float("-inf")
    store.go_on.clear()
    store.asked.clear()
    asks = threading.Thread(target=sessions.verify, args=(token,))
    asks.start()
    assert store.asked.wait(10)
    [asking] = watch._running_polls.values()
    watch._running_polls[threading.get_ident(), True] = (
        asking  # as it is if the child's next thread gets that one's number
    )

    def in_child() -> bool:
        store.go_on = threading.Event()
        store.go_on.set()
        return sessions.verify(token).subject == "ada"

    with watch._lock:  # and another one is just learning something
        child = forked(in_child)
    well = ends_well(child)
    store.go_on.set()
    asks.join(10)
    assert well


@pytest.mark.filterwarnings(FORK)
def test_a_child_that_is_forked_while_its_pools_are_full_has_them_to_itself() -> None:
    lane, inside, leave = WorkerPool(1), threading.Event(), threading.Event()

    def stays() -> None:
        inside.set()
        leave.wait(20)

    stands = threading.Thread(target=lambda: run_sync(lane.run(stays)))
    stands.start()
    assert inside.wait(10)
    child = forked(lambda: run_sync(lane.run(lambda: True)))
    well = ends_well(child)
    leave.set()
    stands.join(10)
    assert well
