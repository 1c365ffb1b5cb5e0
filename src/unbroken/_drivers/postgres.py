"""PostgreSQL in one async shape over psycopg's two: blocking where ``run_sync`` is at work, awaiting elsewhere.

1. Each operation asks ``in_sync_context``. True: the blocking pool, and nothing suspends. Else, under asyncio: the pool of
   the running loop; under trio, which psycopg does not know: the blocking pool, in a thread.
2. Every wait has an end: for a connection, for a place in the pool, for the server's answer. What does not come in
   time, or breaks, is StoreUnavailable; a text that is none is InvalidRequest; missing tables are ConfigurationError.
3. Statements are sent once, never again on their own: only the caller knows what may be done twice. A connection that
   the server has closed is noticed before it is used, so that a restart fails nobody who comes after it.
4. Whoever is cancelled in an event loop leaves at once. What was asked is answered all the same, or overdue, and then
   its connection is free again.
5. Pools belong to a process: a forked child makes its own, and leaves its parent's alone.
"""

from __future__ import annotations

import asyncio
import functools
import os
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import psycopg
from psycopg_pool import AsyncConnectionPool, ConnectionPool, PoolTimeout

from unbroken._drivers.postgres_connection import (
    CONNECT_SECONDS,
    RESPONSE_SECONDS,
    AsyncConnection,
    BlockingConnection,
    ConnectFailure,
    aconfigure,
    configure,
    is_stale,
    read_url,
    settings,
    translate_error,
)
from unbroken._sync import in_sync_context
from unbroken.errors import UnbrokenError

__all__ = ["PostgresDriver", "Step"]

T = TypeVar("T")
Step = tuple[str, Any]  # a statement and its values
POOL_SECONDS = 3.0  # until a connection is free
POOL_WAIT_SLICE_SECONDS = 0.25  # how long who waits for a connection does not notice that none can be made


@dataclass
class _ProcessPools:
    """What one process holds."""

    luck: ConnectFailure = field(default_factory=ConnectFailure)
    lock: threading.Lock = field(default_factory=threading.Lock)
    blocking: ConnectionPool[BlockingConnection] | None = None
    loops: dict[asyncio.AbstractEventLoop, AsyncConnectionPool[AsyncConnection]] = field(default_factory=dict)


Pool = ConnectionPool[BlockingConnection] | AsyncConnectionPool[AsyncConnection]


class PostgresDriver:
    """The database at *url*, by pools of at most ``pool_size`` connections each: one for all threads, one a loop.

    *url* is anything that libpq reads; a URL may have ``?pool_size=20``. Raises ConfigurationError if it says nothing.
    """

    def __init__(self, url: str) -> None:
        self._conninfo, self.name, self._size = read_url(url)
        self._by_pid: dict[int, _ProcessPools] = {}  # a parent's stays here: collected, it would talk on shared sockets
        weakref.finalize(self, _close, self._by_pid)  # also before the interpreter ends

    def __repr__(self) -> str:
        return f"<Sql {self.name}>"

    async def rows(self, statement: str, values: Any = ()) -> list[Any]:
        """The rows that one statement gives, which is committed by itself."""
        return await self.transaction([(statement, values)])

    async def transaction(self, steps: Sequence[Step]) -> list[Any]:
        """The rows that the last of *steps* gives, all of them in one transaction."""
        try:
            if in_sync_context():
                return self._execute_sync(steps)
            loop = _asyncio_loop()
            if loop is None:
                return await _in_thread(lambda: self._execute_sync(steps))
            asked = _keep_reference(asyncio.ensure_future(self._execute_async(loop, steps)))
            await asyncio.wait((asked,))  # psycopg would wait, for whoever is cancelled, until the server has heard it
            return asked.result()
        except (psycopg.Error, UnicodeError) as error:
            raise self.translate_error(error) from error

    def connection(self, *, answer_seconds: float = RESPONSE_SECONDS) -> psycopg.Connection[Any]:
        """A blocking connection outside of the pool, autocommitting, which the caller closes. Raises StoreUnavailable
        or ConfigurationError.
        """
        try:
            made = BlockingConnection.connect(self._conninfo, autocommit=True, luck=ConnectFailure())
        except psycopg.Error as error:
            raise self.translate_error(error) from error
        made.answer_seconds = answer_seconds
        return made

    async def aclose(self) -> None:
        """Closes the running loop's pool, then as ``close``."""
        loop = None if in_sync_context() else _asyncio_loop()
        if loop is not None and (pool := self._held().loops.pop(loop, None)):
            await pool.close(CONNECT_SECONDS)
        await _in_thread(self.close) if not in_sync_context() else self.close()

    def close(self) -> None:
        """Closes the pools of this process; an operation after it opens another."""
        _close(self._by_pid)

    def translate_error(self, error: psycopg.Error | UnicodeError) -> UnbrokenError:
        """The error to raise for the driver's."""
        return translate_error(error, self.name)

    # ---- blocking ------------------------------------------------------------------------------------------------

    def _execute_sync(self, steps: Sequence[Step]) -> list[Any]:
        held = self._held()
        pool = held.blocking or self._blocking_pool(held)
        connection = self._acquire(pool, held.luck)
        try:
            if len(steps) == 1:
                return _all(connection.execute(*steps[0]))
            with connection.transaction():
                for statement, values in steps:
                    cursor = connection.execute(statement, values)
                return _all(cursor)
        except psycopg.errors.ReadOnlySqlTransaction:
            connection.close()  # the server has become a replica: another connection may find the primary
            raise
        finally:
            pool.putconn(connection)

    def _acquire(self, pool: ConnectionPool[BlockingConnection], luck: ConnectFailure) -> BlockingConnection:
        since = time.monotonic()
        _fail_at_once(pool, luck, since - POOL_WAIT_SLICE_SECONDS)
        while True:
            try:
                connection = pool.getconn(POOL_WAIT_SLICE_SECONDS)
            except PoolTimeout as error:
                _give_up(pool, luck, since, error)
                continue
            if not is_stale(connection):
                return connection
            connection.close()
            pool.putconn(connection)

    def _blocking_pool(self, held: _ProcessPools) -> ConnectionPool[BlockingConnection]:
        with held.lock:
            if held.blocking is None:
                held.blocking = ConnectionPool(
                    self._conninfo,
                    connection_class=BlockingConnection,
                    configure=configure,
                    open=True,
                    **settings(self._size, held.luck),
                )
            return held.blocking

    # ---- awaiting ------------------------------------------------------------------------------------------------

    async def _execute_async(self, loop: asyncio.AbstractEventLoop, steps: Sequence[Step]) -> list[Any]:
        held = self._held()
        pool = held.loops.get(loop) or await self._pool_of(loop, held)
        connection = await self._aacquire(pool, held.luck)
        try:
            if len(steps) == 1:
                return await _aall(await connection.execute(*steps[0]))
            async with connection.transaction():
                for statement, values in steps:
                    cursor = await connection.execute(statement, values)
                return await _aall(cursor)
        except psycopg.errors.ReadOnlySqlTransaction:
            await connection.close()
            raise
        finally:
            await pool.putconn(connection)

    async def _aacquire(self, pool: AsyncConnectionPool[AsyncConnection], luck: ConnectFailure) -> AsyncConnection:
        since = time.monotonic()
        _fail_at_once(pool, luck, since - POOL_WAIT_SLICE_SECONDS)
        while True:
            try:
                connection = await pool.getconn(POOL_WAIT_SLICE_SECONDS)
            except PoolTimeout as error:
                _give_up(pool, luck, since, error)
                continue
            if not is_stale(connection):
                return connection
            await connection.close()
            await pool.putconn(connection)

    async def _pool_of(
        self, loop: asyncio.AbstractEventLoop, held: _ProcessPools
    ) -> AsyncConnectionPool[AsyncConnection]:
        """The new pool of this loop. Nothing here suspends, so that there is one."""
        pool: AsyncConnectionPool[AsyncConnection] = AsyncConnectionPool(
            self._conninfo,
            connection_class=AsyncConnection,
            configure=aconfigure,
            open=False,
            **settings(self._size, held.luck),
        )
        others = asyncio.all_tasks()
        await pool.open()
        _keep_reference(asyncio.ensure_future(_cancel_tasks(asyncio.all_tasks() - others)))
        with held.lock:
            for other in [other for other in held.loops if other.is_closed()]:
                del held.loops[other]
            return held.loops.setdefault(loop, pool)

    def _held(self) -> _ProcessPools:
        pid = os.getpid()
        return self._by_pid.get(pid) or self._by_pid.setdefault(pid, _ProcessPools())


def _close(by_pid: dict[int, _ProcessPools]) -> None:
    """Closes the pools of this process."""
    held = by_pid.get(os.getpid())
    if held is None:
        return
    with held.lock:
        pool, held.blocking = held.blocking, None
        loops, held.loops = held.loops, {}
    if pool is not None:
        pool.close(CONNECT_SECONDS)
    for loop, of_loop in loops.items():
        if loop.is_running():  # of a loop that has ended, nothing is left but sockets, which close by themselves
            asyncio.run_coroutine_threadsafe(of_loop.close(CONNECT_SECONDS), loop)


def _all(cursor: psycopg.Cursor[Any]) -> list[Any]:
    return cursor.fetchall() if cursor.description else []


async def _aall(cursor: psycopg.AsyncCursor[Any]) -> list[Any]:
    return await cursor.fetchall() if cursor.description else []


def _fail_at_once(pool: Pool, luck: ConnectFailure, since: float) -> None:
    """Raises what became of the attempt to connect *since* then, if that has left no connection at all."""
    if luck.failed_at > since and luck.error is not None and pool.get_stats()["pool_size"] == 0:
        raise psycopg.OperationalError(str(luck.error)) from luck.error


def _give_up(pool: Pool, luck: ConnectFailure, since: float, timeout: PoolTimeout) -> None:
    """Raises when nothing can be had, or when that has taken too long."""
    _fail_at_once(pool, luck, since)
    if time.monotonic() - since > POOL_SECONDS:
        raise psycopg.OperationalError(f"all connections were busy for {POOL_SECONDS:g} s") from timeout


async def _cancel_tasks(tasks: set[asyncio.Task[Any]]) -> None:
    """Cancels the tasks of a pool that nobody has closed until they end, when the event loop ends.

    They miss that they are cancelled if they are just then woken, or making a connection: ``asyncio.run`` would wait
    for them for ever.
    """
    try:
        await asyncio.wait(tasks)
    finally:
        while alive := [task for task in tasks if not task.done()]:
            for task in alive:
                task.cancel()
            await asyncio.sleep(0)


def _keep_reference(task: asyncio.Future[T]) -> asyncio.Future[T]:
    """Holds *task* until it is done: the event loop does so only weakly. Nobody need be there to hear how it ended."""
    _kept.add(task)
    task.add_done_callback(_drop_reference)
    return task


def _drop_reference(task: asyncio.Future[Any]) -> None:
    _kept.discard(task)
    if not task.cancelled():
        task.exception()


_kept: set[asyncio.Future[Any]] = set()


def _limiter() -> Any:
    """Of one trio loop: threads that wait for the database do not keep others from theirs."""
    from anyio import CapacityLimiter  # noqa: PLC0415

    limiter = _threads().get(None)
    if limiter is None:
        _threads().set(limiter := CapacityLimiter(40))
    return limiter


@functools.cache
def _threads() -> Any:
    from anyio.lowlevel import RunVar  # noqa: PLC0415

    return RunVar("unbroken sql")


def _asyncio_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


async def _in_thread(work: Callable[[], T]) -> T:
    import anyio.to_thread  # noqa: PLC0415  # blocking use needs no event loop library

    return await anyio.to_thread.run_sync(work, limiter=_limiter())
