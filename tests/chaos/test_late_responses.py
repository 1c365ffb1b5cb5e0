"""A response that comes late is still a response: slow servers, processes that sleep, connections that break."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.foreign_server import ForeignServer
from tests.support.waiting import eventually, until
from unbroken import FileStore, Session, SessionOver, TryLater, oauth2
from unbroken.client.core.events import SessionEnded
from unbroken.client.stores.postgres import PostgresStore
from unbroken.client.stores.redis import RedisStore
from unbroken.client.stores.sqlite import SqliteStore

STORES = ("file", "sqlite", "redis", "postgres")
LEASED = ("redis", "postgres")
LIMIT_SECONDS, LATE_SECONDS = 0.4, 1.6


@pytest.fixture
def open_store(tmp_path: Path, request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Opens a store of a kind."""
    stores: dict[str, Callable[[], Any]] = {
        "file": lambda: FileStore(tmp_path / "t.json"),
        "sqlite": lambda: SqliteStore(tmp_path / "t.db"),
        "redis": lambda: RedisStore(request.getfixturevalue("redis").url, tmp_path.name),
        "postgres": lambda: PostgresStore(request.getfixturevalue("postgres").url, tmp_path.name),
    }
    return lambda kind: stores[kind]()


@pytest.fixture
def is_full(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--chaos-full"))


@contextmanager
def another_machine(store: Any) -> Iterator[None]:
    """*store* sees none of the lock files here."""
    before, store._lease_lock._machine_lock = store._lease_lock._machine_lock, None
    try:
        yield
    finally:
        store._lease_lock._machine_lock = before


def session_of(url: str, store: Any, kind: str = "learn", **settings: Any) -> Session:
    dialect = oauth2(url + "/token", repeated_refresh=kind)  # type: ignore[arg-type]
    return Session(dialect, store, refresh_timeout=LIMIT_SECONDS, **settings)


def refreshes(url: str, store: Any, kind: str, token: str, queue: Any) -> None:
    """A process that needs a newer token than *token*, and says what it got."""
    try:
        queue.put(session_of(url, store, kind).newer_token(token))
    except (SessionOver, TryLater) as error:
        queue.put(error)


@contextmanager
def process(*arguments: Any) -> Iterator[tuple[Any, Any]]:
    """A process that ``refreshes``, and the queue where it says what it got."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    started = context.Process(target=refreshes, args=(*arguments, queue))
    started.start()
    try:
        yield started, queue
    finally:
        os.kill(started.pid, signal.SIGCONT) if started.is_alive() else None
        started.join(30)


@pytest.mark.parametrize("kind", ["learn", "strict"])
@pytest.mark.parametrize("name", STORES)
def test_a_response_after_the_time_limit_serves_both_processes(
    name: str, kind: str, open_store: Callable[..., Any], is_full: bool
) -> None:
    if kind == "strict" and name != "postgres" and not is_full:
        pytest.skip("one store of four: --chaos-full has them all")
    with ForeignServer("strict", seconds=LATE_SECONDS) as server:
        store = open_store(name)
        session = session_of(server.url, store, kind)
        session.import_tokens(server.first)
        with process(server.url, open_store(name), kind, "A0") as (_, queue):
            assert session.newer_token("A0") == "A1"
            assert queue.get(timeout=20) == "A1"
        assert (server.presented, server.reused) == (["R0"], 0)
        assert server.accepts(session.token())


def test_a_request_that_waits_no_longer_does_not_end_the_refresh() -> None:
    with ForeignServer("strict", seconds=LATE_SECONDS) as server:
        session = session_of(server.url, None, wait_timeout=0.2)
        session.import_tokens(server.first)
        for _ in range(3):
            with pytest.raises(TryLater):
                session.newer_token("A0")
        until(lambda: session.token() == "A1")
        assert (server.presented, server.reused) == (["R0"], 0)


def test_a_refresh_that_nobody_waits_for_any_more_is_not_begun_anew() -> None:
    with ForeignServer("strict", seconds=LATE_SECONDS) as server:
        session = session_of(server.url, None)
        session._coordinator._limit = -4.5  # the flight is given up half a second after it began
        session.import_tokens(server.first)
        with pytest.raises(TryLater, match="not ready"):
            session.newer_token("A0")
        for _ in range(5):
            began = time.monotonic()
            with pytest.raises(TryLater, match="has not responded"):
                session.newer_token("A0")
            assert time.monotonic() - began < 0.3
            assert session.status.refreshing
        until(lambda: session.token() == "A1")
        assert (server.presented, server.reused) == (["R0"], 0)


@pytest.mark.parametrize("name", STORES)
def test_a_process_that_sleeps_for_longer_than_its_lease_on_this_machine(
    name: str, open_store: Callable[..., Any], is_full: bool
) -> None:
    """The others wait for it: its lock file proves that it lives."""
    if name in ("sqlite", "postgres") and not is_full:
        pytest.skip("two stores of four: --chaos-full has them all")
    with ForeignServer("strict", seconds=0.3) as server:
        session = session_of(server.url, store := open_store(name))
        session.import_tokens(server.first)
        with process(server.url, open_store(name), "learn", "A0") as (sleeper, queue):
            assert server.rotated.wait(20)
            os.kill(sleeper.pid, signal.SIGSTOP)
            with pytest.raises(TryLater):  # the lock is busy
                Session(session.dialect, store, refresh_timeout=LIMIT_SECONDS, wait_timeout=2.1).newer_token("A0")
            os.kill(sleeper.pid, signal.SIGCONT)
            assert queue.get(timeout=20) == "A1"
        assert session.newer_token("A0") == "A1"
        assert (server.presented, server.reused) == (["R0"], 0)


@pytest.mark.parametrize("name", LEASED)
def test_a_machine_that_sleeps_for_longer_than_its_lease_at_a_strict_server(
    name: str, open_store: Callable[..., Any], is_full: bool
) -> None:
    """Nobody presents the token again while the response may still come: none is lost, which is the least possible."""
    if name == "postgres" and not is_full:
        pytest.skip("one store of two: --chaos-full has both")
    with ForeignServer("strict", seconds=0.3) as server, ExitStack() as stack:
        store = open_store(name)
        stack.enter_context(another_machine(store))
        session = session_of(server.url, store, "strict")
        session.import_tokens(server.first)
        with process(server.url, open_store(name), "strict", "A0") as (sleeper, queue):
            assert server.rotated.wait(20)
            os.kill(sleeper.pid, signal.SIGSTOP)
            time.sleep(2.0)  # its lease is over
            with pytest.raises(TryLater, match="another machine"):
                session.newer_token("A0")
            os.kill(sleeper.pid, signal.SIGCONT)
            assert queue.get(timeout=20) == "A1"
        assert eventually(lambda: session.newer_token("A0"), TryLater) == "A1"
        assert (server.presented, server.reused) == (["R0"], 0)


@pytest.mark.parametrize("name", LEASED)
def test_a_machine_that_sleeps_at_a_server_that_is_not_known_to_be_strict(
    name: str, open_store: Callable[..., Any], is_full: bool
) -> None:
    """It is taken for dead, as a forgiving server needs it: the session is lost, and each is told so once, and why."""
    if name == "postgres" and not is_full:
        pytest.skip("one store of two: --chaos-full has both")
    with ForeignServer("strict", seconds=0.3) as server, ExitStack() as stack:
        store, ended = open_store(name), []
        stack.enter_context(another_machine(store))
        session = session_of(server.url, store, on_event=ended.append, on_session_over=ended.append)
        session.import_tokens(server.first)
        with process(server.url, open_store(name), "learn", "A0") as (sleeper, queue):
            assert server.rotated.wait(20)
            os.kill(sleeper.pid, signal.SIGSTOP)
            with pytest.raises(SessionOver, match=r"this token was used.*an earlier request"):
                session.newer_token("A0")
            os.kill(sleeper.pid, signal.SIGCONT)
            assert isinstance(told := queue.get(timeout=20), SessionOver)
            assert told.reason == "invalid_grant"
        assert sum(isinstance(event, SessionEnded) for event in ended) == 1
        assert ended.count("invalid_grant") == 1
        assert server.reused == 2, "the repetition, and one trial of the tokens that came late"


@pytest.mark.parametrize("name", LEASED)
def test_tokens_that_come_after_the_end_are_tried_and_kept(name: str, open_store: Callable[..., Any]) -> None:
    """A server that only refuses: the sleeper's tokens have outlived the refusal."""
    with ForeignServer("refusing", seconds=0.3) as server, ExitStack() as stack:
        store = open_store(name)
        stack.enter_context(another_machine(store))
        session = session_of(server.url, store)
        session.import_tokens(server.first)
        with process(server.url, open_store(name), "learn", "A0") as (sleeper, queue):
            assert server.rotated.wait(20)
            os.kill(sleeper.pid, signal.SIGSTOP)
            with pytest.raises(SessionOver):
                session.newer_token("A0")
            os.kill(sleeper.pid, signal.SIGCONT)
            assert queue.get(timeout=20) == "A2"
        assert session.token() == "A2", "the session goes on without a login"
        assert server.accepts("A2")


@pytest.mark.parametrize("kind", ["learn", "strict"])
def test_a_connection_that_breaks_before_the_refresh_is_carried_out_loses_nothing(kind: str) -> None:
    with ForeignServer("strict") as server:
        session = session_of(server.url, None, kind)
        session.import_tokens(server.first)
        server.hang_up = ["before"]
        assert session.newer_token("A0") == "A1"
        assert server.reused == 0


@pytest.mark.parametrize("kind", ["learn", "strict"])
def test_a_connection_that_breaks_after_it_ends_the_session_once_and_says_why(kind: str) -> None:
    with ForeignServer("strict") as server:
        ended: list[Any] = []
        session = session_of(server.url, None, kind, on_event=ended.append, on_session_over=ended.append)
        session.import_tokens(server.first)
        server.hang_up = ["after"]
        with pytest.raises(SessionOver, match=r"error 'invalid_grant': this token was used.*its response was lost"):
            session.newer_token("A0")
        with pytest.raises(SessionOver):
            session.token()
        assert sum(isinstance(event, SessionEnded) for event in ended) == 1
        assert ended.count("invalid_grant") == 1


def test_a_connection_that_breaks_after_it_is_made_good_by_a_forgiving_server() -> None:
    with ForeignServer("forgiving") as server:
        session = session_of(server.url, None)
        session.import_tokens(server.first)
        server.hang_up = ["after"]
        assert server.accepts(session.newer_token("A0"))


def test_a_strict_server_is_not_given_a_used_token_while_the_access_token_can_be_used() -> None:
    with ForeignServer("strict") as server:
        session = session_of(server.url, None, "strict")
        session.import_tokens(server.first | {"expires_in": 8})
        server.hang_up = ["after"]
        until(lambda: session.token() == "A0" and bool(server.presented), "a background refresh", 9.0)
        for _ in range(20):
            assert session.token() == "A0"
        assert (server.presented, server.ended) == (["R0"], False)


@pytest.mark.parametrize("name", STORES)
def test_a_restored_server_that_counts_from_an_older_number_is_believed(
    name: str, open_store: Callable[..., Any]
) -> None:
    with ForeignServer("strict") as server:
        server.number = 100
        session, other = (session_of(server.url, open_store(name), window=None) for _ in range(2))
        session.import_tokens(server.first)
        for turn in range(12):
            if turn in (4, 8):
                server.number = 2  # a backup
            assert server.accepts(token := session.newer_token(f"A{server.generation}"))
            assert other.newer_token(f"A{server.generation - 1}") == token
        assert (server.reused, server.number) == (0, 6)
