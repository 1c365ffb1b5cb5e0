"""Both of redis-py's clients behind one asynchronous interface, and a client that subscribes to a channel.

1. A response may be an error of the server: it is returned. A broken connection is raised.
2. The coroutines of ``BlockingClient`` never suspend, so ``run_sync`` can drive them.
3. Commands of several tasks of one event loop share a pipeline, which halves the cost of a command.
4. The client of an event loop ends with the loop, also if nothing closed it.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from itertools import islice
from typing import Any, NamedTuple, Protocol

import redis
import redis.asyncio

from unbroken._drivers.redis_errors import translating_errors

__all__ = ["BlockingClient", "Command", "LoopClient", "RedisClient", "Subscriber"]

Command = tuple[Any, ...]
MAX_SENDERS = 2  # pipelines of one event loop that are in flight at once; WAITAOF is sent apart from them
MAX_BATCHES = 64  # batches of commands in one pipeline
SUBSCRIBE_SECONDS = 2.0
POLL_SECONDS = 0.1  # a subscriber looks this often whether it was closed


class RedisClient(Protocol):
    """A client of one server or cluster, as ``RedisDriver`` uses it."""

    async def send(self, commands: Sequence[Command]) -> list[Any]:
        """Return the responses in order (rule 1). Raise what redis-py raises for a broken connection."""

    async def disconnect_idle(self) -> None:
        """Close idle connections: they may lead to a server that is a replica now."""


class BlockingClient:
    """The client of all threads (rule 2)."""

    def __init__(self, client: Any) -> None:
        self.redis = client

    async def send(self, commands: Sequence[Command]) -> list[Any]:
        if len(commands) == 1:
            try:
                return [self.redis.execute_command(*commands[0])]
            except redis.ResponseError as error:
                return [error]
        pipeline = self.redis.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        return list(pipeline.execute(raise_on_error=False))

    async def disconnect_idle(self) -> None:
        if isinstance(self.redis, redis.Redis):
            self.redis.connection_pool.disconnect(inuse_connections=False)


class LoopClient:
    """The client of one event loop of asyncio (rules 3 and 4). *forget* runs when it ends.

    A task that is cancelled while it waits does not disturb the others in its pipeline.
    """

    def __init__(self, client: Any, forget: Callable[[], object]) -> None:
        self.redis, self._forget = client, forget
        self._waiting: deque[_Batch] = deque()
        self._senders: set[asyncio.Task[None] | None] = set()
        self._closer: AsyncGenerator[None] | None = None

    async def send(self, commands: Sequence[Command]) -> list[Any]:
        if self._closer is None:
            self._closer = self._close_with_loop()
            await anext(self._closer)
        if commands[-1][0] == "WAITAOF":
            return await self._send_pipeline(commands)  # slow: nothing else waits for it
        loop = asyncio.get_running_loop()
        batch = _Batch(commands, loop.create_future())
        self._waiting.append(batch)
        if len(self._senders) < MAX_SENDERS:
            sender = loop.create_task(self._send_waiting())
            self._senders.add(sender)
            sender.add_done_callback(self._senders.discard)  # also if the task is cancelled before its first step
        return await batch.responses

    async def disconnect_idle(self) -> None:
        if isinstance(self.redis, redis.asyncio.Redis):
            await self.redis.connection_pool.disconnect(inuse_connections=False)

    async def aclose(self) -> None:
        """Close all connections."""
        self._forget()
        if self._closer is not None:
            await self._closer.aclose()

    async def _send_waiting(self) -> None:
        try:
            while self._waiting:
                await self._send_batches([self._waiting.popleft() for _ in range(min(len(self._waiting), MAX_BATCHES))])
        finally:
            self._senders.discard(asyncio.current_task())

    async def _send_batches(self, batches: Sequence[_Batch]) -> None:
        try:
            responses = iter(await self._send_pipeline([command for one in batches for command in one.commands]))
        except Exception as error:  # noqa: BLE001  # each task that waits raises it
            failed = [*batches]
            if isinstance(error, redis.TimeoutError):
                failed += self._waiting  # they have waited as long, and would wait as long again
                self._waiting.clear()
            for one in failed:
                if not one.responses.done():
                    one.responses.set_exception(error)
            return
        except BaseException:
            for one in batches:
                one.responses.cancel()
            raise
        for one in batches:
            own = list(islice(responses, len(one.commands)))
            if not one.responses.done():
                one.responses.set_result(own)

    async def _send_pipeline(self, commands: Sequence[Command]) -> list[Any]:
        if len(commands) == 1:
            try:
                return [await self.redis.execute_command(*commands[0])]
            except redis.ResponseError as error:
                return [error]
        pipeline = self.redis.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        return list(await pipeline.execute(raise_on_error=False))

    async def _close_with_loop(self) -> AsyncGenerator[None]:
        try:
            yield  # an event loop that ends closes its asynchronous generators, so ``finally`` runs (rule 4)
        finally:
            self._forget()
            await self.redis.aclose()


class _Batch(NamedTuple):
    """The commands of one task, and the future of their responses."""

    commands: Sequence[Command]
    responses: asyncio.Future[list[Any]]


class Subscriber:
    """Wait for messages of one channel, on a connection of its own."""

    def __init__(self, connect: Callable[[], Any], channel: str) -> None:
        self._connect, self._channel = connect, channel
        self._lock = threading.Lock()  # guards _client and _pubsub; held by the thread that waits
        self._closed = threading.Event()
        self._client: Any = None
        self._pubsub: Any = None

    def wait(self, timeout: float) -> None:
        """Return after a message, or after *timeout* seconds. Raise StoreUnavailable.

        The first call, and each call after a failure, subscribes and returns at once: earlier messages are lost, so
        the caller must read the store.
        """
        ends_at = time.monotonic() + timeout
        with self._lock, translating_errors():
            try:
                if self._pubsub is None:
                    self._subscribe()
                    return
                while (left := ends_at - time.monotonic()) > 0 and not self._closed.is_set():
                    if self._pubsub.get_message(timeout=min(left, POLL_SECONDS)):
                        break
                while self._pubsub.get_message(timeout=0.0):
                    pass  # several messages are one reason to read the store
            except BaseException:
                self._disconnect()
                raise

    def close(self) -> None:
        """End a ``wait`` in another thread, and close the connection."""
        self._closed.set()
        with self._lock:
            self._disconnect()

    def _subscribe(self) -> None:
        self._client = self._connect()
        self._pubsub = self._client.pubsub(ignore_subscribe_messages=False)
        self._pubsub.subscribe(self._channel)
        if not self._pubsub.get_message(timeout=SUBSCRIBE_SECONDS):
            raise redis.TimeoutError

    def _disconnect(self) -> None:
        pubsub, client, self._pubsub, self._client = self._pubsub, self._client, None, None
        if pubsub is not None:
            pubsub.close()
        if client is not None:
            client.close()
