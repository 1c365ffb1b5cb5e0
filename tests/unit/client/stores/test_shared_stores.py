"""Stores that several processes and hosts share: dead ones, busy ones, sealed ones, and many processes at once."""

from __future__ import annotations

import multiprocessing
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keyring
import pytest
from keyrings.alt.file import PlaintextKeyring

from tests.support.backend import PASSWORD, Backend
from tests.support.services import Service, postgres_server, redis_server
from unbroken import ConfigurationError, FileStore, Session, StoreBusy, StoreUnavailable, unbroken_server
from unbroken.client.core.record import EMPTY, StoredSession
from unbroken.client.stores.codec import key_from_environment, key_from_keyring, new_key
from unbroken.client.stores.keyring import KeyringStore
from unbroken.client.stores.postgres import PostgresStore
from unbroken.client.stores.redis import RedisStore
from unbroken.client.stores.sqlite import SqliteStore
from unbroken.testing import LoopbackServer, ManualClock
from unbroken.tokens import Tokens

TOKENS = Tokens("the access token", "the refresh token", 60.0, 1000.0, version=7, epoch=2)
RECORD = StoredSession(7, 2, TOKENS)


# ---- dead, and busy --------------------------------------------------------------------------------------------------


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
    _until(lambda: _answers(store))
    clock.advance(60)
    assert session.token(), "and when it is back, renewal works"
    assert server.exchanges == 1
    assert server.alarms() == 0


def test_a_busy_lock_is_another_thing_than_a_dead_one(mortal: tuple[Service, Callable[[], Any]]) -> None:
    service, make = mortal
    store, other = make(), make()
    with store.lock(1), pytest.raises(StoreBusy), other.lock(0.1):
        pass
    service.stop(signal.SIGKILL)
    with pytest.raises(StoreUnavailable), other.lock(0.1):
        pass


def _answers(store: Any) -> bool:
    try:
        store.load()
    except StoreUnavailable:
        return False
    return True


def _until(condition: Callable[[], bool]) -> None:
    ends = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < ends, "it does not come back"
        time.sleep(0.05)


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
def test_a_url_that_is_none_is_told_when_the_store_is_made(make: Callable[[], object]) -> None:
    with pytest.raises(ConfigurationError):
        make()


def test_a_lease_must_outlive_a_renewal(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="lease of 10 seconds"):
        Session("https://api.example", SqliteStore(tmp_path / "t.db", lease=10.0))


# ---- sealed ----------------------------------------------------------------------------------------------------------


def test_a_sealed_file_holds_no_token_in_clear(tmp_path: Path) -> None:
    FileStore(tmp_path / "t", key=new_key()).save(RECORD, EMPTY)
    written = (tmp_path / "t").read_bytes()
    assert b"token" not in written.removeprefix(b"unbroken-encrypted:")


def test_another_key_opens_nothing_and_harms_nothing(tmp_path: Path) -> None:
    key = new_key()
    FileStore(tmp_path / "t", key=key).save(RECORD, EMPTY)
    for wrong in (None, new_key()):
        with pytest.raises(ConfigurationError, match="sealed"):
            FileStore(tmp_path / "t", key=wrong).load()
    assert FileStore(tmp_path / "t", key=key).load() == RECORD


def test_keys_can_be_changed_and_what_lay_unsealed_is_sealed_next_time(tmp_path: Path) -> None:
    old, new = new_key(), new_key()
    FileStore(tmp_path / "t").save(RECORD, EMPTY)
    with_old = FileStore(tmp_path / "t", key=old)
    assert with_old.load() == RECORD
    assert with_old.save(StoredSession(8, 3, None, over="logged_out"), RECORD)
    with_both = FileStore(tmp_path / "t", key=[new, old])
    assert with_both.save(RECORD, with_both.load())
    assert FileStore(tmp_path / "t", key=new).load() == RECORD


def test_a_key_that_is_none_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="make one with"):
        FileStore(tmp_path / "t", key="password")


def test_keys_come_from_the_environment_or_the_keyring(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="UNBROKEN_STORE_KEY"):
        key_from_environment()
    monkeypatch.setenv("UNBROKEN_STORE_KEY", "one, two")
    assert key_from_environment() == ["one", "two"]
    before, kept = keyring.get_keyring(), PlaintextKeyring()
    kept.file_path = str(tmp_path / "secrets")
    keyring.set_keyring(kept)
    try:
        key = key_from_keyring("unbroken tests")
        assert key_from_keyring("unbroken tests") == key
        assert FileStore(tmp_path / "t", key=key).load() == EMPTY
    finally:
        keyring.set_keyring(before)


def test_a_sqlite_store_is_for_its_owner_alone_and_says_when_it_is_none(tmp_path: Path) -> None:
    SqliteStore(tmp_path / "t.db")
    assert (tmp_path / "t.db").stat().st_mode & 0o777 == 0o600
    (tmp_path / "text").write_text("this is no database, only a text that is long enough to be read as its header" * 9)
    with pytest.raises(StoreUnavailable, match="cannot be used"):
        SqliteStore(tmp_path / "text")
    with sqlite3.connect(tmp_path / "t.db") as database:
        database.execute("UPDATE unbroken_tokens SET data = 'junk'")
    database.close()
    with pytest.raises(StoreUnavailable, match="log in again"):
        SqliteStore(tmp_path / "t.db").load()


# ---- many processes --------------------------------------------------------------------------------------------------


def worker(url: str, store: Any, seconds: float, queue: Any) -> None:
    session = Session(unbroken_server(url), store)
    calls, failures, ends = 0, 0, time.monotonic() + seconds
    while time.monotonic() < ends:
        calls += 1
        try:
            session.token()
        except Exception:  # noqa: BLE001  # every one counts
            failures += 1
        time.sleep(0.005)
    queue.put((calls, failures))


@pytest.fixture
def secrets_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """``keyring`` with a file for this process and those that it starts: there is no desktop that keeps secrets."""
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyrings.alt.file.PlaintextKeyring")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    before = keyring.get_keyring()
    keyring.set_keyring(PlaintextKeyring())
    yield
    keyring.set_keyring(before)


@pytest.mark.usefixtures("secrets_in_a_file")
@pytest.mark.parametrize("kind", ["file", "sqlite", "keyring", "redis", "postgres"])
def test_four_processes_make_one_exchange_a_generation(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    stores: dict[str, Callable[[], Any]] = {
        "file": lambda: FileStore(tmp_path / "t.json"),
        "sqlite": lambda: SqliteStore(tmp_path / "t.db"),
        "keyring": lambda: KeyringStore("unbroken tests", "fleet", locks=tmp_path),
        "redis": lambda: RedisStore(request.getfixturevalue("redis").url, "fleet"),
        "postgres": lambda: PostgresStore(request.getfixturevalue("postgres").url, "fleet"),
    }
    store, context = stores[kind](), multiprocessing.get_context("spawn")
    with LoopbackServer(access_ttl=1.0) as server:
        Session(unbroken_server(server.url), store).login("ada", PASSWORD)
        queue = context.Queue()
        workers = [context.Process(target=worker, args=(server.url, store, 3.0, queue)) for _ in range(4)]
        for process in workers:
            process.start()
        seen = [queue.get(timeout=30) for _ in workers]
        for process in workers:
            process.join(10)
        tokens = store.load().tokens
        assert [failures for _, failures in seen] == [0, 0, 0, 0]
        assert tokens.refresh_seq == server.exchanges, "each exchange made a generation, and there was no other"
        assert server.exchanges >= 2
        assert server.alarms() == 0
