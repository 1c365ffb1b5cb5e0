"""Children that are made in the middle of a refresh, over every client store: at once right in both processes.

The server is strict and foreign: a refresh token that is sent a second time ends the session for everybody.
"""

from __future__ import annotations

import multiprocessing
import os
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing import forkserver
from pathlib import Path
from typing import Any, Self

import keyring
import pytest
import redis
from keyrings.alt.file import PlaintextKeyring

from tests.support.processes import ends_well, fork, result_of_fork
from tests.support.single_use_server import Login, SingleUseServer, single_use_server
from tests.support.waiting import until
from unbroken import FileStore, MemoryStore, Session, StoreUnavailable, oauth2
from unbroken.client.core.token_store import StoredSession
from unbroken.client.stores.keyring import KeyringStore
from unbroken.client.stores.postgres import PostgresStore
from unbroken.client.stores.redis import RedisStore
from unbroken.client.stores.sqlite import SqliteStore
from unbroken.tokens import Tokens

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="the system cannot fork"),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
]

DELAY = 0.3  # of the server's response to a refresh
SOON = DELAY + 1.0
LONG_DELAY = 2.0
SHARED = ("file", "sqlite", "keyring", "redis", "redis-client", "postgres")


@pytest.fixture(scope="module")
def strict() -> Iterator[SingleUseServer]:
    with single_use_server() as running:
        yield running


@pytest.fixture
def open_store(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Opens a store of a kind, empty."""
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyrings.alt.file.PlaintextKeyring")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    before, url = keyring.get_keyring(), lambda kind: request.getfixturevalue(kind).url
    keyring.set_keyring(PlaintextKeyring())
    stores: dict[str, Callable[[], Any]] = {
        "file": lambda: FileStore(tmp_path / "t.json"),
        "sqlite": lambda: SqliteStore(tmp_path / "t.db"),
        "keyring": lambda: KeyringStore("unbroken tests", "forks", locks=tmp_path),
        "redis": lambda: RedisStore(url("redis"), tmp_path.name),
        "redis-client": lambda: RedisStore(redis.Redis.from_url(url("redis")), tmp_path.name),
        "postgres": lambda: PostgresStore(url("postgres"), tmp_path.name),
    }
    yield lambda kind: stores[kind]()
    keyring.set_keyring(before)


class UnderWay:
    """A session of *login* over *store* in the middle of a refresh, which a thread of this process has begun."""

    def __init__(self, login: Login, store: Any) -> None:
        self.session = Session(login.dialect, store, window=None)
        self.session.import_tokens(login.tokens)
        self.old, self._login = login.tokens.access_token, login
        self._thread = threading.Thread(target=self.session.newer_token, args=(self.old,))

    def __enter__(self) -> Self:
        self._thread.start()
        until(lambda: self._login.counted()[0] == 1, "the refresh arrives at the server")
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join()

    def goes_on_in_a_child(self) -> bool:
        return goes_on(self.session, self.old)


def goes_on(session: Session, old: str, delay: float = DELAY) -> bool:
    """Whether this process soon has the tokens of the refresh under way, and then refreshes them itself."""
    began = time.monotonic()
    new = session.newer_token(old)
    newer = session.newer_token(new)
    return len({old, new, newer}) == 3 and time.monotonic() - began < 2 * delay + 1.0


def sockets() -> set[int]:
    """The sockets that this process has open."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            about = os.stat(f"/proc/self/fd/{name}")
        except OSError:
            continue  # that of this listing
        found |= {about.st_ino} if stat.S_ISSOCK(about.st_mode) else set()
    return found


@pytest.mark.parametrize("kind", SHARED)
def test_both_processes_go_on_after_a_fork(kind: str, open_store: Any, strict: SingleUseServer) -> None:
    login = strict.login(delay=DELAY)
    with UnderWay(login, open_store(kind)) as refresh:
        child = fork(refresh.goes_on_in_a_child)
    assert ends_well(child)
    assert goes_on(refresh.session, refresh.old)
    assert login.counted() == (2, 0), "one of the parent and one of the child; each has those of the other"


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="this system does not list open files so")
@pytest.mark.parametrize("kind", [kind for kind in SHARED if kind != "redis-client"])
def test_a_child_has_no_socket_of_its_parent(kind: str, open_store: Any, strict: SingleUseServer) -> None:
    before, login = sockets(), strict.login(delay=DELAY)
    with UnderWay(login, open_store(kind)) as refresh:
        ours = sockets() - before
        assert ours, "that of the refresh, and perhaps one of the store"
        children = [
            fork(lambda: not sockets() & ours),
            fork(lambda: refresh.goes_on_in_a_child() and not sockets() & ours),
        ]
    assert all(map(ends_well, children))
    assert goes_on(refresh.session, refresh.session.token()), "the connections of the parent still work"
    assert login.counted()[1] == 0


@pytest.fixture
def sockets_of_multiprocessing(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A folder for them: one of its own would be deleted by multiprocessing after the folder of the run is gone."""
    with tempfile.TemporaryDirectory(prefix="f-") as folder:
        monkeypatch.setitem(vars(multiprocessing.current_process())["_config"], "tempdir", folder)
        yield
        vars(forkserver)["_forkserver"]._stop()


@pytest.mark.usefixtures("sockets_of_multiprocessing")
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_other_ways_to_make_a_process(method: str, open_store: Any, strict: SingleUseServer) -> None:
    """Each process has all stores: to start one takes longer than to try one."""
    context: Any = multiprocessing.get_context(method)
    kinds = ("file", "sqlite", "keyring", "redis", "postgres")
    logins = {kind: strict.login(delay=DELAY) for kind in kinds}
    go_on, sent = context.Event(), context.Queue()
    stores = {kind: open_store(kind) for kind in kinds}
    process = context.Process(target=go_on_with_all, args=(strict.url, stores, go_on, sent))
    process.start()
    assert sent.get(timeout=120) == "ready"
    for kind in kinds:
        with UnderWay(logins[kind], stores[kind]) as refresh:
            sent_by_us = (kind, refresh.old)
            go_on.set()
            assert sent.get(timeout=120) == "waits"
            assert sent.get(timeout=120) == "ready", sent_by_us
    process.join(10)
    assert process.exitcode == 0
    assert [login.counted() for login in logins.values()] == [(2, 0)] * len(kinds)


def go_on_with_all(url: str, stores: dict[str, Any], go_on: Any, sent: Any) -> None:
    sent.put("ready")
    for store in stores.values():
        go_on.wait(30)
        go_on.clear()
        sent.put("waits")
        session = Session(oauth2(url + "/token"), store, window=None)
        assert goes_on(session, session.token())
        sent.put("ready")


# ---- forks at any moment ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SHARED)
def test_a_fork_at_any_moment_leaves_no_lock_behind(kind: str, open_store: Any, request: pytest.FixtureRequest) -> None:
    """Other threads of the parent are inside the store, and inside the libraries below it, all the time."""
    store, ended = open_store(kind), threading.Event()

    def use(times: int = 2) -> bool:
        for _ in range(times):
            with store.lock(10.0):
                record = store.load()
                version = record.version + 1
                assert store.save(StoredSession(version, 1, Tokens("a", "r", version=version)), record)
        return True

    def go_on() -> None:
        while not ended.is_set():
            store.load()
            use(1)
            time.sleep(0.02)  # the lock is not fair

    threads = [threading.Thread(target=go_on) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(150 if request.config.getoption("--chaos-full") else 6):
            assert ends_well(fork(use))
    finally:
        ended.set()
        for thread in threads:
            thread.join()


# ---- a memory store --------------------------------------------------------------------------------------------------


def test_a_child_of_a_memory_store_uses_the_token_and_leaves_the_refresh_to_its_parent(strict: SingleUseServer) -> None:
    login = strict.login(delay=LONG_DELAY)  # the refresh is under way until both children have ended
    with UnderWay(login, MemoryStore()) as refresh:
        assert result_of_fork(refresh.session.token) == refresh.old
        said = result_of_fork(lambda: why_not(refresh.session, refresh.old))
    assert "FileStore" in said
    assert goes_on(refresh.session, refresh.session.token(), LONG_DELAY)
    assert login.counted() == (3, 0)


def why_not(session: Session, old: str) -> str:
    try:
        return session.newer_token(old)
    except StoreUnavailable as error:
        return str(error)
