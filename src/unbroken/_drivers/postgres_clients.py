"""Both of psycopg's pools behind one asynchronous interface.

1. The coroutines of ``BlockingClient`` never suspend, so ``run_sync`` can drive them.
2. A pool starts empty and does not reconnect by itself: the next operation connects. So a failure to connect is
   reported to the operation that met it, and to those that waited with it.
3. The pool of an event loop ends with the loop, also if nothing closed it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Protocol, TypeVar

from psycopg_pool import AsyncConnectionPool, ConnectionPool

from unbroken._drivers.postgres_connection import (
    CONNECT_SECONDS,
    AsyncConnection,
    BlockingConnection,
    LastFailure,
    configure,
    configure_async,
)

__all__ = ["BlockingClient", "LoopClient", "PostgresClient", "run_to_end"]

T = TypeVar("T")
CONNECTING_WORKERS = 2


class PostgresClient(Protocol):
    """A pool of connections to one database, as ``PostgresDriver`` uses it."""

    failure: LastFailure  # of connecting

    def size(self) -> int:
        """Return how many connections the pool has, idle or in use."""

    async def acquire(self, timeout: float) -> Any:
        """Return a connection for the caller alone. Raise PoolTimeout after *timeout* seconds."""

    async def execute(self, connection: Any, statement: str, values: Any = None) -> list[Any]:
        """Return the rows of *statement*. Raise psycopg's errors."""

    async def disconnect(self, connection: Any) -> None:
        """Close *connection*, which then must be released."""

    async def release(self, connection: Any) -> None:
        """Give *connection* back to the pool, which drops a closed one."""


class BlockingClient:
    """The pool of all threads (rule 1)."""

    def __init__(self, conninfo: str, max_connections: int) -> None:
        self.failure = LastFailure()
        self._pool: ConnectionPool[BlockingConnection] = ConnectionPool(
            conninfo,
            connection_class=BlockingConnection,
            configure=configure,
            open=True,
            **_pool_settings(max_connections, self.failure),
        )

    def size(self) -> int:
        return self._pool.get_stats()["pool_size"]

    async def acquire(self, timeout: float) -> BlockingConnection:
        return self._pool.getconn(timeout)

    async def execute(self, connection: BlockingConnection, statement: str, values: Any = None) -> list[Any]:
        cursor = connection.execute(statement, values)
        return cursor.fetchall() if cursor.description else []

    async def disconnect(self, connection: BlockingConnection) -> None:
        connection.close()

    async def release(self, connection: BlockingConnection) -> None:
        self._pool.putconn(connection)

    def close(self) -> None:
        """Close the pool; connections in use close when they are released."""
        self._pool.close(CONNECT_SECONDS)


class LoopClient:
    """The pool of one event loop of asyncio."""

    def __init__(self, conninfo: str, max_connections: int) -> None:
        self.failure = LastFailure()
        self._opened = False
        self._pool: AsyncConnectionPool[AsyncConnection] = AsyncConnectionPool(
            conninfo,
            connection_class=AsyncConnection,
            configure=configure_async,
            open=False,
            **_pool_settings(max_connections, self.failure),
        )

    def size(self) -> int:
        return self._pool.get_stats()["pool_size"]

    async def acquire(self, timeout: float) -> AsyncConnection:
        if not self._opened:
            self._opened = True
            await self._open()
        return await self._pool.getconn(timeout)

    async def execute(self, connection: AsyncConnection, statement: str, values: Any = None) -> list[Any]:
        cursor = await connection.execute(statement, values)
        return await cursor.fetchall() if cursor.description else []

    async def disconnect(self, connection: AsyncConnection) -> None:
        await connection.close()

    async def release(self, connection: AsyncConnection) -> None:
        await self._pool.putconn(connection)

    async def aclose(self) -> None:
        """Close the pool; connections in use close when they are released."""
        await self._pool.close(CONNECT_SECONDS)

    async def _open(self) -> None:
        """Open the pool, which suspends nowhere, and arrange the end of the tasks that it starts (rule 3)."""
        others = asyncio.all_tasks()
        await self._pool.open()
        _keep(asyncio.ensure_future(_cancel_with_loop(asyncio.all_tasks() - others)))


def _pool_settings(max_connections: int, failure: LastFailure) -> dict[str, Any]:
    return {
        "kwargs": {"autocommit": True, "failure": failure},
        "min_size": 0,
        "max_size": max_connections,
        "reconnect_timeout": 0.0,  # rule 2
        "num_workers": CONNECTING_WORKERS,
    }


async def _cancel_with_loop(tasks: set[asyncio.Task[Any]]) -> None:
    """Wait for a pool's *tasks*. When the event loop ends, cancel them until each has ended.

    Such a task misses its cancellation if it wakes up, or opens a connection, at that moment. Without this,
    ``asyncio.run`` would wait for it without end.
    """
    try:
        await asyncio.wait(tasks)
    finally:
        while alive := [task for task in tasks if not task.done()]:
            for task in alive:
                task.cancel()
            await asyncio.sleep(0)


async def run_to_end(work: Coroutine[Any, Any, T]) -> T:
    """Return the result of *work*, which goes on to its end if the caller is cancelled.

    psycopg makes a cancelled task wait until the server has confirmed the cancellation; with this it returns at once.
    """
    task = _keep(asyncio.ensure_future(work))
    await asyncio.wait((task,))
    return task.result()


_running: set[asyncio.Future[Any]] = set()  # an event loop holds its tasks only by weak references


def _keep(task: asyncio.Future[T]) -> asyncio.Future[T]:
    _running.add(task)
    task.add_done_callback(_drop)
    return task


def _drop(task: asyncio.Future[Any]) -> None:
    _running.discard(task)
    if not task.cancelled():
        task.exception()  # marks it as seen: the caller may have been cancelled
