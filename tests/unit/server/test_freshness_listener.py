"""The thread that listens to a store's notifications: what one node revokes is dead on another at once."""

from __future__ import annotations

import gc
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from weakref import WeakMethod

import psycopg
import pytest

from tests.support.waiting import until
from unbroken.errors import InvalidToken, StoreUnavailable
from unbroken.server import MemorySessionStore, Sessions, freshness, open_store
from unbroken.server.freshness import RevocationListener

FOR_EVER = 3600.0
FORK = "ignore::DeprecationWarning:__main__"  # later Pythons warn of forks of threads: that is what is tested
# Nobody asks in it: both processes can only have heard what was revoked. The child hears of one session, then ends,
# and the parent still hears of the other, which another node has revoked.
IN_A_CHILD = """
import os, sys, time
from unbroken.errors import InvalidToken
from unbroken.server import Sessions, freshness as watch, open_store
watch.POLL_SECONDS = 3600.0
here, there = (Sessions(open_store(sys.argv[1]), issuer='https://id.example.com') for _ in range(2))
ada, bob = (here.create(name).access_token for name in ("ada", "bob"))
def hears(token):
    for _ in range(3000):
        try: here.verify(token)
        except InvalidToken as error: return error.reason
        time.sleep(0.01)
hears_of, tells = os.pipe()
there.verify(ada)
if os.fork() == 0:
    here._freshness.fresh_until = 0.0  # as it would be after a while
    here.verify(ada)
    os.write(tells, b"ready")
    print("child", hears(ada), flush=True)
    here.close()
    sys.exit(0)
os.read(hears_of, 5)
there.logout(access_token=ada)
print("status", os.wait()[1])
there.logout(access_token=bob)
print("parent", hears(bob))
here.close()
there.close()
"""


@pytest.fixture
def url(database: str) -> str:
    """The URL of an empty database."""
    return database


@pytest.fixture
def nodes(url: str) -> Iterator[tuple[Sessions, Sessions]]:
    """Two nodes on one database."""
    here, there = Sessions(open_store(url)), Sessions(open_store(url))
    yield here, there
    here.close()
    there.close()


@pytest.fixture
def nobody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was learnt stays fresh: no request asks the store."""
    monkeypatch.setattr(freshness, "POLL_SECONDS", FOR_EVER)


@pytest.fixture
def no_routine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread looks only when it has heard something."""
    monkeypatch.setattr(freshness, "LISTENER_POLL_SECONDS", FOR_EVER)


def is_dead(sessions: Sessions, token: str) -> bool:
    try:
        sessions.verify(token)
    except InvalidToken as error:
        return error.reason == "revoked"
    return False


def listening(url: str) -> list[int]:
    """The server's processes that serve those who listen."""
    with psycopg.connect(url, autocommit=True) as db:
        found = db.execute(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%%'"
        )
        return [pid for (pid,) in found]


earlier: set[threading.Thread] = set()  # of other tests, whose sessions are not collected yet


@pytest.fixture(autouse=True)
def _note_earlier_threads() -> None:
    earlier.clear()
    earlier.update(threading.enumerate())


def threads() -> int:
    """How many listeners this test has started that still run."""
    ours = set(threading.enumerate()) - earlier
    return sum(thread.name == "unbroken revocation listener" for thread in ours)


# ---- what is announced -----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("nobody_asks", "no_routine")
def test_a_revocation_reaches_another_node(nodes: tuple[Sessions, Sessions], url: str) -> None:
    here, there = nodes
    granted = [here.create("ada") for _ in range(3)]
    for one in granted:
        there.verify(one.access_token)
    until(lambda: len(listening(url)) == 2)
    here.logout(access_token=granted[0].access_token)
    until(lambda: is_dead(there, granted[0].access_token))
    here.refresh(granted[1].refresh_token or "", idempotency_key="one")
    here.verify(here.refresh(granted[1].refresh_token or "", idempotency_key="two").access_token)
    here.revoke_subject("ada")
    until(lambda: is_dead(there, granted[1].access_token) and is_dead(there, granted[2].access_token))


@pytest.mark.usefixtures("nobody_asks", "no_routine")
def test_a_reuse_reaches_another_node(nodes: tuple[Sessions, Sessions], url: str) -> None:
    here, there = nodes
    first = here.create("ada", coordinated=True)
    there.verify(first.access_token)
    until(lambda: len(listening(url)) == 2)
    second = here.refresh(first.refresh_token or "", idempotency_key="one")
    here.refresh(second.refresh_token or "", idempotency_key="two")
    with pytest.raises(Exception, match="used twice"):
        here.refresh(first.refresh_token or "", idempotency_key="thief")
    until(lambda: is_dead(there, first.access_token))


@pytest.mark.usefixtures("nobody_asks", "no_routine")
def test_a_new_key_reaches_another_node(nodes: tuple[Sessions, Sessions], url: str) -> None:
    here, there = nodes
    there.verify(here.create("ada").access_token)
    until(lambda: len(listening(url)) == 2)
    records = here.rotate_keys()
    until(lambda: list(there._freshness.keyring.records) == records)


@pytest.mark.usefixtures("nobody_asks", "no_routine")
def test_many_notifications_cause_few_polls(
    nodes: tuple[Sessions, Sessions], url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = nodes
    tokens = [here.create("ada").access_token for _ in range(100)]
    there.verify(tokens[0])
    until(lambda: len(listening(url)) == 2)
    monkeypatch.setattr(freshness, "COALESCE_SECONDS", 0.2)
    begun = there._freshness._polls_started
    for token in tokens:
        here.logout(access_token=token)
    until(lambda: all(is_dead(there, token) for token in tokens))
    assert there._freshness._polls_started - begun < 50


# ---- what breaks -----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("nobody_asks")
def test_a_listener_whose_connection_was_killed_polls_and_listens_again(
    nodes: tuple[Sessions, Sessions], url: str, caplog: pytest.LogCaptureFixture
) -> None:
    here, there = nodes
    granted = here.create("ada")
    there.verify(granted.access_token)
    until(lambda: len(listening(url)) == 2)
    with psycopg.connect(url, autocommit=True) as db:
        for pid in listening(url):
            db.execute("SELECT pg_terminate_backend(%s, 10000)", (pid,))
    here.logout(access_token=granted.access_token)
    until(lambda: is_dead(there, granted.access_token))
    until(lambda: len(listening(url)) == 2)
    said = [record.getMessage() for record in caplog.records if "sends no notifications" in record.getMessage()]
    assert said, "the operator can see it"
    assert len(said) <= 2, "once a node"


@pytest.mark.usefixtures("nobody_asks")
def test_a_listener_whose_connection_hangs_polls(nodes: tuple[Sessions, Sessions], url: str) -> None:
    here, there = nodes
    granted = here.create("ada")
    there.verify(granted.access_token)
    until(lambda: len(listening(url)) == 2)
    stopped = listening(url)
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)  # children of the server that was started for these tests
    try:
        here.logout(access_token=granted.access_token)
        until(lambda: is_dead(there, granted.access_token))
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)


def test_a_node_without_a_listener_polls(
    nodes: tuple[Sessions, Sessions], url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = nodes
    monkeypatch.setattr(freshness.RevocationListener, "start", lambda listener: None)
    granted = here.create("ada")
    there.verify(granted.access_token)
    assert threads() == 0
    here.logout(access_token=granted.access_token)
    until(lambda: is_dead(there, granted.access_token))


class Announcing(MemorySessionStore):
    """A store whose notifications are what a test says."""

    def __init__(self, wait: Callable[[float], None]) -> None:
        super().__init__()
        self.waits, self.closed = wait, 0

    def notifications(self) -> Any:
        return self

    def wait(self, timeout: float) -> None:
        self.waits(timeout)

    def close(self) -> None:
        self.closed += 1


def test_whatever_fails_in_the_listener_its_thread_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(freshness, "LISTENER_POLL_SECONDS", 0.001)
    failures = [StoreUnavailable("gone"), OSError("odd"), KeyError("odd")]
    heard = threading.Event()

    def wait(timeout: float) -> None:
        if failures:
            raise failures.pop(0)
        heard.set()
        time.sleep(0.001)

    store = Announcing(wait)
    sessions = Sessions(store)
    with caplog.at_level(logging.INFO, "unbroken"):
        sessions.create("ada")
        assert heard.wait(20)
        until(lambda: "the store sends notifications again" in caplog.messages)
    assert sum("sends no notifications" in message for message in caplog.messages) == 1
    sessions.close()
    assert threads() == 0
    assert store.closed >= 1


def test_while_listening_fails_a_node_polls_as_often_as_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(freshness, "LISTENER_POLL_SECONDS", 0.01)
    attempts = 0

    def wait(timeout: float) -> None:
        nonlocal attempts
        attempts += 1
        raise StoreUnavailable("gone")

    sessions = Sessions(Announcing(wait))
    sessions.create("ada")
    until(lambda: sessions._freshness._polls_started > 60)
    assert attempts < 20
    sessions.close()


# ---- its life --------------------------------------------------------------------------------------------------------


def test_no_thread_listens_to_a_store_without_notifications() -> None:
    sessions = Sessions(MemorySessionStore())
    sessions.verify(sessions.create("ada").access_token)
    assert threads() == 0


def test_the_listener_starts_with_the_first_request_and_stops_with_the_sessions(url: str) -> None:
    sessions = Sessions(open_store(url))
    assert threads() == 0
    for _ in range(3):
        sessions.create("ada")
    assert threads() == 1
    until(lambda: len(listening(url)) == 1)
    sessions.close()
    assert threads() == 0
    until(lambda: listening(url) == [])
    sessions.create("ada")
    assert threads() == 1, "who uses it again begins again"
    sessions.close()
    sessions.close()


@pytest.mark.anyio
async def test_aclose_stops_the_listener_and_closes_all_connections(url: str) -> None:
    sessions = Sessions(open_store(url))
    granted = await sessions.acreate("ada")
    await sessions.averify(granted.access_token)
    assert threads() == 1
    await sessions.aclose()
    assert threads() == 0
    with psycopg.connect(url, autocommit=True) as db:
        others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        until(lambda: db.execute(others).fetchone() == (0,))
    assert (await sessions.arefresh(granted.refresh_token or "")).refresh_seq == 1
    await sessions.aclose()


def test_the_listener_ends_with_its_last_subscriber(url: str) -> None:
    sessions = Sessions(open_store(url))
    sessions.create("ada")
    assert threads() == 1
    del sessions
    gc.collect()
    until(lambda: threads() == 0)


def test_a_child_process_listens_by_itself(url: str) -> None:
    command = [sys.executable, "-X", "dev", "-W", FORK, "-c", IN_A_CHILD, url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    assert (done.stdout.splitlines(), done.stderr) == (["child revoked", "status 0", "parent revoked"], "")


def test_starting_the_listener_twice_starts_one_thread() -> None:
    made = []

    class Cache:
        async def refresh_now(self) -> None:
            pass

    def subscribe() -> Any:
        made.append(Announcing(time.sleep))
        return made[-1]

    cache = Cache()
    listener = RevocationListener(subscribe, cache.refresh_now)
    for _ in range(2):
        listener.start()
    listener.stop()
    listener.stop()
    assert len(made) == 1


class Silent(MemorySessionStore):
    """A store that can be listened to, and announces nothing."""

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

    sessions = Sessions(Silent(), issuer="https://id.example.com")
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
