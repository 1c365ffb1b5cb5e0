"""What every store of the client must do. A further store joins by its name in ``STORES``."""

from __future__ import annotations

import pickle
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import keyring
import pytest
from keyrings.alt.file import PlaintextKeyring

from unbroken import FileStore, MemoryStore, StoreBusy, Tokens
from unbroken.client.core.token_store import EMPTY, StoredSession
from unbroken.client.stores import lease as lease_module
from unbroken.client.stores.codec import new_key
from unbroken.client.stores.keyring import KeyringStore
from unbroken.client.stores.lease import MAX_PAUSE_SECONDS
from unbroken.client.stores.postgres import PostgresStore
from unbroken.client.stores.redis import RedisStore
from unbroken.client.stores.sqlite import SqliteStore

Ask = Callable[[str], Any]  # the services, by name
KEY = new_key()
STORES: dict[str, Callable[[Path, Ask], Any]] = {
    "memory": lambda folder, ask: MemoryStore(),
    "file": lambda folder, ask: FileStore(folder / "tokens.json"),
    "encrypted file": lambda folder, ask: FileStore(folder / "tokens.json", key=KEY),
    "sqlite": lambda folder, ask: SqliteStore(folder / "tokens.db"),
    "encrypted sqlite": lambda folder, ask: SqliteStore(folder / "tokens.db", key=KEY),
    "redis": lambda folder, ask: RedisStore(ask("redis").url, folder.name),
    "encrypted redis": lambda folder, ask: RedisStore(ask("redis").url, folder.name, key=KEY),
    "postgres": lambda folder, ask: PostgresStore(ask("postgres").url, folder.name),
    "encrypted postgres": lambda folder, ask: PostgresStore(ask("postgres").url, folder.name, key=KEY),
    "keyring": lambda folder, ask: KeyringStore("unbroken tests", folder.name, locks=folder),
}
TOKENS = Tokens("access", "refresh", 1800.0, 1000.5, 6e5, 3, "read", "Bearer", version=7, epoch=2)
RECORD = StoredSession(7, 2, TOKENS)


@pytest.fixture(autouse=True)
def secrets_in_a_file(tmp_path: Path) -> Iterator[None]:
    """``keyring`` with one of its own backends, a file: there is no desktop here that keeps secrets."""
    before, backend = keyring.get_keyring(), PlaintextKeyring()
    backend.file_path = str(tmp_path / "secrets")
    keyring.set_keyring(backend)
    yield
    keyring.set_keyring(before)


@pytest.fixture(params=STORES)
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Any]:
    """Makes the store once more: as another process would."""
    return lambda: STORES[request.param](tmp_path, request.getfixturevalue)


@pytest.fixture
def store(make: Callable[[], Any]) -> Iterator[Any]:
    made = make()
    yield made
    getattr(made, "close", lambda: None)()


def test_a_new_store_loads_the_empty_record(store: Any) -> None:
    assert store.load() == EMPTY


def test_a_record_is_loaded_as_it_was_saved(store: Any) -> None:
    for record in (RECORD, replace(RECORD, idempotency_key="id"), StoredSession(8, 3, None, over="logged_out")):
        assert store.save(record, store.load()) is True
        assert store.load() == record


def test_a_record_is_replaced_only_by_a_writer_that_has_read_it(store: Any) -> None:
    assert store.save(RECORD, EMPTY) is True
    assert store.save(StoredSession(9, 9), EMPTY) is False
    assert store.save(replace(RECORD, idempotency_key="mine"), RECORD) is True
    assert store.save(replace(RECORD, idempotency_key="yours"), RECORD) is False, "an attempt was begun meanwhile"
    assert store.load().idempotency_key == "mine"


def test_one_of_many_wins_the_compare_and_set(store: Any) -> None:
    store.save(RECORD, EMPTY)
    with ThreadPoolExecutor(16) as pool:
        won = list(pool.map(lambda n: store.save(replace(RECORD, idempotency_key=f"id {n}"), RECORD), range(16)))
    assert sum(won) == 1


def test_the_lock_is_held_by_one_at_a_time(store: Any) -> None:
    inside, most = [], []

    def work() -> None:
        with store.lock(20):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.005)
            inside.pop()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 8


def test_a_busy_lock_is_given_up_in_time(store: Any) -> None:
    with store.lock(1):
        began = time.monotonic()
        with pytest.raises(StoreBusy, match="busy"), store.lock(0.1):
            pytest.fail("two hold the lock")
        assert time.monotonic() - began < 10
    with store.lock(1):
        pass


def test_a_lock_is_freed_by_an_error(store: Any) -> None:
    with pytest.raises(ValueError, match="oops"), store.lock(1):
        raise ValueError("oops")
    with store.lock(0.1):
        pass


def test_a_record_can_be_written_during_a_refresh(store: Any) -> None:
    with store.lock(1):
        assert store.save(RECORD, EMPTY) is True


def test_two_store_objects_share_one_record(make: Callable[[], Any], store: Any) -> None:
    if isinstance(store, MemoryStore):
        return  # it is its process's own
    store.save(RECORD, EMPTY)
    other = make()
    assert other.load() == RECORD
    assert other.save(replace(RECORD, idempotency_key="theirs"), RECORD) is True
    assert store.load().idempotency_key == "theirs"
    getattr(other, "close", lambda: None)()


def test_a_read_during_a_write_sees_one_record_or_the_next(make: Callable[[], Any], store: Any) -> None:
    other = store if isinstance(store, MemoryStore) else make()
    records = [RECORD, *(replace(RECORD, idempotency_key=f"id {number}") for number in range(40))]
    store.save(RECORD, EMPTY)

    def write() -> bool:
        return all(store.save(new, old) for old, new in pairwise(records))

    with ThreadPoolExecutor(1) as pool:
        writing, seen = pool.submit(write), [other.load()]
        while not writing.done():
            seen.append(other.load())
    assert writing.result() is True
    positions = [records.index(record) for record in [*seen, other.load()]]
    assert positions == sorted(positions), "nothing is seen again that was replaced"
    assert positions[-1] == 40
    if other is not store:
        getattr(other, "close", lambda: None)()


@pytest.fixture
def other_machine(make: Callable[[], Any], store: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The same store, as a process of another machine opens it: without the lock file. None if locks cannot be lost."""
    if not hasattr(store, "lease"):
        yield None
        return
    other = make()
    store._lease_lock._machine_lock = other._lease_lock._machine_lock = None
    yield other
    getattr(other, "close", lambda: None)()


def test_the_lease_of_a_dead_machine_is_free_within_two_seconds(store: Any, other_machine: Any) -> None:
    if other_machine is None:
        return  # its lock dies with its process
    assert store.take_lease("dead")
    began = time.monotonic()
    with other_machine.lock(30):
        took = time.monotonic() - began
    assert store.lease * 0.9 < took
    assert store.lease + MAX_PAUSE_SECONDS < 2.0


def test_a_lease_is_kept_alive_for_its_holder(store: Any, other_machine: Any) -> None:
    if other_machine is None:
        return
    store.lease = 1.0
    with store.lock(1) as lease:
        with pytest.raises(StoreBusy), other_machine.lock(3.0):
            pass
        assert lease.is_held()
    with other_machine.lock(1):
        pass


def test_a_holder_that_was_stopped_for_longer_than_its_lease_has_lost_it(
    store: Any, other_machine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if other_machine is None:
        return
    store.lease = 0.3
    monkeypatch.setattr(lease_module, "BEATS_PER_LEASE", 0.001)  # its heartbeat is stopped too
    with store.lock(1) as lease:
        with other_machine.lock(5):
            assert not lease.is_held()
        assert not lease.is_held(), "another holder has had it meanwhile"
    with store.lock(1):
        pass


def test_a_lost_lease_is_not_taken_from_the_next_holder(
    store: Any, other_machine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if other_machine is None:
        return
    store.lease, other_machine.lease = 0.2, 30.0
    monkeypatch.setattr(lease_module, "BEATS_PER_LEASE", 0.001)
    late = store.lock(1)
    late.__enter__()
    with other_machine.lock(5):
        late.__exit__(None, None, None)
        with pytest.raises(StoreBusy), store.lock(0.1):
            pass


def test_long_and_odd_texts_come_back(store: Any) -> None:
    tokens = replace(TOKENS, access_token="a" * 20000, refresh_token="{'\"\\%s:x}")
    assert store.save(StoredSession(7, 2, tokens), EMPTY) is True
    assert store.load().tokens == tokens


def test_a_store_can_be_pickled_or_says_why_not(store: Any) -> None:
    if isinstance(store, MemoryStore):
        with pytest.raises(TypeError, match="FileStore"):
            pickle.dumps(store)
        return
    store.save(RECORD, EMPTY)
    other = pickle.loads(pickle.dumps(store))
    assert other.load() == RECORD
    getattr(other, "close", lambda: None)()
