"""What is particular to PostgreSQL as a client's store."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from tests.support.services import Service
from unbroken import StoreUnavailable
from unbroken.client.core.token_store import EMPTY
from unbroken.client.stores.postgres import PostgresStore


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
        os.kill(ours, signal.SIGSTOP)  # it lives, and does not respond
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
