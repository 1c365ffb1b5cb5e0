"""The driver of PostgreSQL: what happens at first use, and who shares a failure.

Modules: _drivers/postgres_clients.py, _drivers/postgres_connection.py, _drivers/event_loops.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
import psycopg
import pytest

from tests.support.services import Service, free_port
from unbroken._concurrency import run_sync
from unbroken._drivers.postgres import PostgresDriver
from unbroken.errors import ConfigurationError, StoreUnavailable
from unbroken.server import Sessions, open_store
from unbroken.server.stores import postgres_schema

Run = Callable[[Callable[[], Any]], Any]
STYLES: dict[str, Run] = {
    "blocking": lambda work: run_sync(work()),
    "asyncio": lambda work: anyio.run(work, backend="asyncio"),
    "trio": lambda work: anyio.run(work, backend="trio"),
}


@pytest.fixture(params=STYLES)
def run(request: pytest.FixtureRequest) -> Run:
    return STYLES[request.param]


@pytest.fixture
def url(database: str) -> str:
    """The URL of an empty database."""
    return database


def tables(url: str) -> int:
    with psycopg.connect(url) as db:
        found = db.execute("SELECT count(*) FROM pg_class WHERE relname LIKE 'unbroken%' AND relkind = 'r'").fetchone()
    assert found is not None
    return int(found[0])


def test_opening_a_store_connects_to_nothing() -> None:
    store = open_store(f"postgresql://ada:secret@127.0.0.1:{free_port()}/shop")
    sessions = Sessions(store)
    with pytest.raises(StoreUnavailable, match="does not respond"):
        sessions.create("ada")
    sessions.close()


def test_the_tables_are_made_at_first_use(url: str, run: Run) -> None:
    store = open_store(url)
    assert tables(url) == 0
    run(store.health)
    assert tables(url) == len(("schema", "session", "revocation", "key", "account", "marker"))
    store.close()


def test_a_server_that_was_down_at_first_use_is_used_when_it_is_up(postgres: Service, url: str, run: Run) -> None:
    driver = PostgresDriver(url, prepare=postgres_schema.create_or_check)
    conninfo, driver._conninfo = driver._conninfo, f"host=127.0.0.1 port={free_port()}"
    with pytest.raises(StoreUnavailable):
        run(lambda: driver.rows("SELECT 1"))
    driver._conninfo = conninfo
    driver.close()
    assert run(lambda: driver.rows("SELECT number > 0 FROM unbroken_schema")) == [(True,)]
    driver.close()


def test_the_preparation_runs_once_for_threads_and_tasks(url: str) -> None:
    calls = []

    def prepare(_: PostgresDriver) -> None:
        calls.append(threading.get_ident())
        time.sleep(0.1)

    driver = PostgresDriver(url, prepare=prepare)

    async def many() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(16):
                group.start_soon(driver.rows, "SELECT 1")
        await driver.aclose()

    with ThreadPoolExecutor(4) as pool:
        threads = [pool.submit(lambda: run_sync(driver.rows("SELECT 1"))) for _ in range(4)]
        asyncio.run(many())
        assert [one.result(20) for one in threads] == [[(1,)]] * 4
    assert len(calls) == 1
    driver.close()


def test_those_who_wait_for_a_preparation_share_its_failure_and_the_next_one_tries_again(url: str) -> None:
    calls, waiting = [], 12

    def prepare(_: PostgresDriver) -> None:
        calls.append(1)
        time.sleep(0.3)
        if len(calls) == 1:
            raise ConfigurationError("the tables are too old")

    driver = PostgresDriver(url, prepare=prepare)
    errors = []

    async def ask() -> None:
        try:
            await driver.rows("SELECT 1")
        except ConfigurationError as error:
            errors.append(error)

    async def many() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(waiting):
                group.start_soon(ask)
        await driver.aclose()

    asyncio.run(many())
    assert len(calls) == 1
    assert len({id(error) for error in errors}) == waiting, "each raises an error of its own"
    assert {str(error) for error in errors} == {"the tables are too old"}
    assert run_sync(driver.rows("SELECT 1")) == [(1,)]
    assert len(calls) == 2
    driver.close()


def test_statements_of_a_transaction_are_committed_together_or_not_at_all(url: str, run: Run) -> None:
    driver = PostgresDriver(url)

    async def both() -> Any:
        await driver.rows("CREATE TABLE numbers (n int)")
        with contextlib.suppress(ConfigurationError):
            await driver.transaction([("INSERT INTO numbers VALUES (1)", ()), ("SELECT * FROM missing", ())])
        assert await driver.rows("SELECT n FROM numbers") == []
        added = await driver.transaction([("INSERT INTO numbers VALUES (2)", ()), ("SELECT n FROM numbers", ())])
        await driver.rows("DROP TABLE numbers")
        await driver.aclose()
        return added

    assert run(both) == [(2,)]


def test_a_task_of_trio_that_is_cancelled_leaves_at_once(url: str) -> None:
    driver = PostgresDriver(url)

    async def leaves() -> float:
        started = anyio.current_time()
        with anyio.move_on_after(0.1):
            await driver.rows("SELECT pg_sleep(2)")
        return anyio.current_time() - started

    assert anyio.run(leaves, backend="trio") < 1.5
    driver.close()
