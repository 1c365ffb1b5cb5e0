"""Run SQL in PostgreSQL: one coroutine for blocking code, for asyncio and for trio.

1. ``in_sync_context`` decides how an operation waits. Within ``run_sync`` it uses the pool of all threads and never
   suspends. Under asyncio it uses the pool of the running loop. Under trio, which psycopg does not support, it runs
   in a worker thread with the pool of all threads.
2. Each wait has a time limit: for a connection, for a free place in the pool, for the server's response.
3. A statement is sent once: only the caller knows whether it may be repeated. A connection that the server has closed
   is detected before its use, so a restart of the server fails no later operation.
4. A cancelled task returns at once. Its statement goes on to its end or its time limit, and then frees its connection.
5. Pools belong to a process: a forked child opens its own, and leaves the parent's alone.
6. The first operation of a process runs ``prepare`` before its statement. Operations that wait for it share its
   failure; the next operation tries again.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import psycopg
from psycopg_pool import PoolTimeout

from unbroken._concurrency import in_sync_context, run_sync
from unbroken._drivers.event_loops import asyncio_loop, in_worker_thread
from unbroken._drivers.postgres_clients import BlockingClient, LoopClient, PostgresClient, run_to_end
from unbroken._drivers.postgres_connection import (
    RESPONSE_SECONDS,
    BlockingConnection,
    LastFailure,
    is_stale,
    parse_url,
    translate_error,
)
from unbroken.errors import UnbrokenError

__all__ = ["PostgresDriver", "Statement"]

Statement = tuple[str, Any]  # SQL and its values
POOL_WAIT_SECONDS = 3.0
POOL_WAIT_SLICE_SECONDS = 0.25  # a waiter looks this often whether connections can be opened at all


@dataclass
class _ProcessState:
    """What one process holds (rule 5)."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    blocking: BlockingClient | None = None
    loops: dict[asyncio.AbstractEventLoop, LoopClient] = field(default_factory=dict)
    preparing: threading.Lock = field(default_factory=threading.Lock)
    preparation: LastFailure = field(default_factory=LastFailure)


class PostgresDriver:
    """The database at *url*, which is anything that libpq reads; a URL may contain ``?pool_size=20``.

    That is the limit of connections for all threads, and for each event loop. *prepare* runs once before the first
    statement (rule 6), and may block. Connects at first use. Raises ConfigurationError for a malformed URL.
    """

    def __init__(self, url: str, *, prepare: Callable[[PostgresDriver], None] | None = None) -> None:
        self._conninfo, self.name, self._pool_size = parse_url(url)
        self._prepare = prepare  # None as soon as it has succeeded
        # A parent's state stays here: its connections, if collected in a child, would write to the shared sockets.
        self._by_pid: dict[int, _ProcessState] = {}
        weakref.finalize(self, _close, self._by_pid)  # runs also before the interpreter ends

    def __repr__(self) -> str:
        return f"<PostgresDriver {self.name}>"

    # ---- operations ----------------------------------------------------------------------------------------------

    async def rows(self, statement: str, values: Any = ()) -> list[Any]:
        """Return the rows of one statement, committed on its own. Raise our errors (``postgres_connection``)."""
        return await self.transaction([(statement, values)])

    async def transaction(self, statements: Sequence[Statement]) -> list[Any]:
        """Return the rows of the last of *statements*, which run in one transaction. Raise our errors."""
        if self._prepare is not None:
            await self._prepare_first()
        try:
            if in_sync_context():  # rule 1
                return await self._execute(self._blocking_client, statements)
            loop = asyncio_loop()
            if loop is not None:
                return await run_to_end(self._execute(partial(self._loop_client, loop), statements))  # rule 4
        except (psycopg.Error, UnicodeError) as error:
            raise translate_error(error, self.name) from error
        return await in_worker_thread(lambda: run_sync(self.transaction(statements)))

    async def _execute(self, client_of: Callable[[], PostgresClient], statements: Sequence[Statement]) -> list[Any]:
        client = client_of()
        connection = await _acquire(client)
        try:
            if len(statements) == 1:
                return await client.execute(connection, *statements[0])
            return await _execute_transaction(client, connection, statements)
        except psycopg.errors.ReadOnlySqlTransaction:
            await client.disconnect(connection)  # the server became a replica: a new connection finds the primary
            raise
        finally:
            await client.release(connection)

    # ---- first use -----------------------------------------------------------------------------------------------

    async def _prepare_first(self) -> None:
        if in_sync_context():
            self._prepare_once()
        else:
            await in_worker_thread(self._prepare_once)

    def _prepare_once(self) -> None:
        process, started = self._process(), time.monotonic()
        with process.preparing:
            if self._prepare is None:
                return
            failure = process.preparation
            if failure.failed_at > started and isinstance(failure.error, UnbrokenError):
                raise failure.error.copy() from failure.error.__cause__
            try:
                self._prepare(self)
            except UnbrokenError as error:
                failure.record(error)
                raise
            self._prepare = None

    # ---- connections ---------------------------------------------------------------------------------------------

    def connection(self, *, response_seconds: float = RESPONSE_SECONDS) -> psycopg.Connection[Any]:
        """Return a blocking, autocommitting connection outside of the pools, which the caller closes.

        Raise StoreUnavailable or ConfigurationError.
        """
        try:
            made = BlockingConnection.connect(self._conninfo, autocommit=True, failure=LastFailure())
        except psycopg.Error as error:
            raise translate_error(error, self.name) from error
        made.response_seconds = response_seconds
        return made

    def translate_error(self, error: psycopg.Error) -> UnbrokenError:
        """Return our error for an *error* of a ``connection``."""
        return translate_error(error, self.name)

    def _blocking_client(self) -> BlockingClient:
        process = self._process()
        if process.blocking is None:
            with process.lock:
                if process.blocking is None:
                    process.blocking = BlockingClient(self._conninfo, self._pool_size)
        return process.blocking

    def _loop_client(self, loop: asyncio.AbstractEventLoop) -> LoopClient:
        process = self._process()
        client = process.loops.get(loop)
        if client is None:
            client = LoopClient(self._conninfo, self._pool_size)
            with process.lock:
                for ended in [other for other in process.loops if other.is_closed()]:
                    del process.loops[ended]
                process.loops[loop] = client
        return client

    def _process(self) -> _ProcessState:
        pid = os.getpid()
        return self._by_pid.get(pid) or self._by_pid.setdefault(pid, _ProcessState())

    # ---- the end -------------------------------------------------------------------------------------------------

    async def aclose(self) -> None:
        """Close the running loop's pool, then the others as ``close`` does."""
        if in_sync_context():
            return self.close()
        loop = asyncio_loop()
        if loop is not None and (client := self._process().loops.pop(loop, None)):
            await client.aclose()
        return await in_worker_thread(self.close)

    def close(self) -> None:
        """Close the pools of this process; a later operation opens new ones."""
        _close(self._by_pid)


def _close(by_pid: dict[int, _ProcessState]) -> None:
    process = by_pid.get(os.getpid())  # rule 5
    if process is None:
        return
    with process.lock:
        blocking, process.blocking = process.blocking, None
        loops, process.loops = process.loops, {}
    if blocking is not None:
        blocking.close()
    for loop, client in loops.items():
        if loop.is_running():  # a loop that has ended leaves only sockets, which close when they are collected
            asyncio.run_coroutine_threadsafe(client.aclose(), loop)


async def _acquire(client: PostgresClient) -> Any:
    """Return a connection that is not stale (rule 3), within ``POOL_WAIT_SECONDS``. Raise psycopg's errors."""
    started = time.monotonic()
    _raise_connect_failure(client, since=started - POOL_WAIT_SLICE_SECONDS)
    while True:
        try:
            connection = await client.acquire(POOL_WAIT_SLICE_SECONDS)
        except PoolTimeout as timeout:
            _raise_connect_failure(client, since=started)
            if time.monotonic() - started > POOL_WAIT_SECONDS:
                raise psycopg.OperationalError(f"all connections are busy for {POOL_WAIT_SECONDS:g} s") from timeout
            continue
        if not is_stale(connection):
            return connection
        await client.disconnect(connection)
        await client.release(connection)


def _raise_connect_failure(client: PostgresClient, *, since: float) -> None:
    """Raise the failure of an attempt to connect after *since*, if the pool has no connection at all."""
    failure = client.failure
    if failure.failed_at > since and failure.error is not None and client.size() == 0:
        raise psycopg.OperationalError(str(failure.error)) from failure.error


async def _execute_transaction(client: PostgresClient, connection: Any, statements: Sequence[Statement]) -> list[Any]:
    try:
        await client.execute(connection, "BEGIN")
        rows: list[Any] = []
        for statement, values in statements:
            rows = await client.execute(connection, statement, values)
        await client.execute(connection, "COMMIT")
        return rows
    except BaseException:
        await client.disconnect(connection)  # the server rolls back
        raise
