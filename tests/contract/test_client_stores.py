"""What every store of the client must do. A further store joins by its name in ``STORES``."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from unbroken import FileStore, MemoryStore, StoreBusy, Tokens
from unbroken.client.record import EMPTY, Record

STORES: dict[str, Callable[[Path], Any]] = {
    "memory": lambda folder: MemoryStore(),
    "file": lambda folder: FileStore(folder / "tokens.json"),
}
TOKENS = Tokens("access", "refresh", 1800.0, 1000.5, 6e5, 3, "read", "Bearer", version=7, epoch=2)
RECORD = Record(7, 2, TOKENS)


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    return STORES[request.param](tmp_path)


def test_nothing_is_there_at_first(store: Any) -> None:
    assert store.load() == EMPTY


def test_a_record_comes_back_as_it_went_in(store: Any) -> None:
    for record in (RECORD, replace(RECORD, attempt="id"), Record(8, 3, None, over="logged_out")):
        assert store.save(record, store.load()) is True
        assert store.load() == record


def test_only_who_knows_the_record_replaces_it(store: Any) -> None:
    assert store.save(RECORD, EMPTY) is True
    assert store.save(Record(9, 9), EMPTY) is False
    assert store.save(replace(RECORD, attempt="mine"), RECORD) is True
    assert store.save(replace(RECORD, attempt="yours"), RECORD) is False, "an attempt was begun meanwhile"
    assert store.load().attempt == "mine"


def test_one_of_many_wins_the_compare_and_set(store: Any) -> None:
    store.save(RECORD, EMPTY)
    with ThreadPoolExecutor(16) as pool:
        won = list(pool.map(lambda n: store.save(replace(RECORD, version=8 + n), RECORD), range(16)))
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
        assert time.monotonic() - began < 2
    with store.lock(1):
        pass


def test_a_lock_is_freed_by_an_error(store: Any) -> None:
    with pytest.raises(ValueError, match="oops"), store.lock(1):
        raise ValueError("oops")
    with store.lock(0.1):
        pass


def test_a_record_can_be_written_while_somebody_renews(store: Any) -> None:
    with store.lock(1):
        assert store.save(RECORD, EMPTY) is True
