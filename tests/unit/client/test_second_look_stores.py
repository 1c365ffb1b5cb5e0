"""A second look at the stores: leases, folders, and a database that is asleep. Each test was once a defect."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.support.services import Service
from unbroken import StoreUnavailable
from unbroken.client.core.record import EMPTY, StoredSession
from unbroken.client.stores.keyring import KeyringStore
from unbroken.client.stores.lease import LeaseLock
from unbroken.client.stores.postgres import PostgresStore
from unbroken.client.stores.sqlite import SqliteStore


class Lock:
    """A lock that is lent; *fail* is what the next question is carried out for, and not answered."""

    lease = 20.0

    def __init__(self) -> None:
        self.holder: str | None = None
        self.fail = ""

    def take_lease(self, holder: str) -> bool:
        free = self.holder in (None, holder)
        self.holder = holder if free else self.holder
        self._may_fail("take")
        return free

    def extend_lease(self, holder: str) -> bool:
        return self.holder == holder

    def release_lease(self, holder: str) -> None:
        self._may_fail("give back")
        self.holder = None if self.holder == holder else self.holder

    def _may_fail(self, what: str) -> None:
        if self.fail == what:
            self.fail = ""
            raise StoreUnavailable("no answer")


# ---- leases ----------------------------------------------------------------------------------------------------------


def test_a_loan_whose_answer_was_lost_is_taken_up_again() -> None:
    lock = Lock()
    lender = LeaseLock(lock)
    lock.fail = "take"
    with pytest.raises(StoreUnavailable), lender.acquire(0.0):
        pass
    assert lock.holder is not None
    with lender.acquire(0.0) as lease:
        assert lease.is_held(1.0)
    assert lock.holder is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_does_not_ask_under_its_parents_name() -> None:
    lock = Lock()
    lender = LeaseLock(lock)
    lock.fail = "give back"
    with lender.acquire(0.0):
        pass
    parents = lock.holder
    child = os.fork()
    if child == 0:
        os._exit(lender._name() == parents)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert lender._name() == parents


def test_whoever_could_not_give_a_sqlite_lease_back_takes_it_up_again(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "tokens.db")
    assert store.take_lease("me")
    assert store.take_lease("me")
    assert not store.take_lease("you")


# ---- folders ---------------------------------------------------------------------------------------------------------


def test_a_program_that_changes_its_folder_keeps_its_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sqlite, secrets = SqliteStore("tokens.db"), KeyringStore("a service", locks="locks")
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    assert sqlite.save(StoredSession(1, 1, None), EMPTY)
    assert sqlite.load().version == 1
    with secrets.lock(1.0):
        assert (tmp_path / "locks").is_dir()
    assert list((tmp_path / "other").iterdir()) == []


# ---- PostgreSQL ------------------------------------------------------------------------------------------------------


def test_threads_that_begin_at_once_share_one_connection(postgres: Service) -> None:
    store, began = PostgresStore(postgres.url, "at once"), threading.Barrier(16)

    def load() -> None:
        began.wait(10)
        store.load()

    with _watching(postgres) as watch:
        before = len(_others(watch))
        threads = [threading.Thread(target=load) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert len(_others(watch)) == before + 1
        store.close()


def test_a_database_that_is_asleep_is_told_in_time(postgres: Service) -> None:
    store = PostgresStore(postgres.url, "asleep", timeout=2.0)
    with _watching(postgres) as watch:
        before = _others(watch)
        store.load()
        [ours] = _others(watch) - before
        os.kill(ours, signal.SIGSTOP)  # it lives, and does not answer
        try:
            began = time.monotonic()
            with pytest.raises(StoreUnavailable):
                store.load()
            assert time.monotonic() - began < 10
            assert store.load() == EMPTY, "a new connection serves"
        finally:
            os.kill(ours, signal.SIGCONT)
            store.close()


@contextmanager
def _watching(service: Service) -> Iterator[Any]:
    connection = psycopg.connect(service.url, autocommit=True)
    try:
        yield connection
    finally:
        connection.close()


def _others(watch: Any) -> set[int]:
    """The processes that serve all other connections."""
    asked = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    return {pid for (pid,) in watch.execute(asked).fetchall()}
