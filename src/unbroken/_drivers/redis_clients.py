"""Either of redis-py's clients, as what ``RedisBind`` needs of it; and one that listens.

1. An answer that is an error of the server is an answer; what is raised is a broken connection.
2. What the tasks of an event loop ask at the same time goes out together: that halves what a question costs.
3. A client of an event loop is closed when the loop ends, because a loop ends its asynchronous generators.
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

from unbroken._drivers.redis_errors import translate_error

__all__ = ["BlockingClient", "Command", "LoopClient", "RedisClient", "Subscriber"]

Command = tuple[Any, ...]
CONNECTIONS = 2  # connections of an event loop that are in use at once, but for what waits for the disk
TOGETHER = 64  # questions at most that go out together


class RedisClient(Protocol):
    """Either of redis-py's clients, as what ``RedisBind`` needs of it."""

    async def put(self, commands: Sequence[Command]) -> list[Any]:
        """The answers, errors of the server among them. Raises what redis-py raises for a broken connection."""

    async def drop(self) -> None:
        """Lets go of connections that nobody uses: they may lead to a server that is a replica now."""


class BlockingClient:
    """The blocking client, whose coroutines never suspend."""

    def __init__(self, client: Any) -> None:
        self.redis = client

    async def put(self, commands: Sequence[Command]) -> list[Any]:
        if len(commands) == 1:
            try:
                return [self.redis.execute_command(*commands[0])]
            except redis.ResponseError as error:
                return [error]
        pipeline = self.redis.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        return list(pipeline.execute(raise_on_error=False))

    async def drop(self) -> None:
        if isinstance(self.redis, redis.Redis):
            self.redis.connection_pool.disconnect(inuse_connections=False)


class LoopClient:
    """The client of one event loop. What its tasks ask at the same time goes out together, on one of a few connections;
    who stops waiting leaves the others' answers alone. The loop closes it, because it ends asynchronous generators.
    """

    def __init__(self, client: Any, forget: Callable[[], object]) -> None:
        self.redis, self._forget = client, forget
        self._waiting: deque[_PendingCommands] = deque()
        self._lanes: set[asyncio.Task[None] | None] = set()
        self._guard: AsyncGenerator[None] | None = None

    async def put(self, commands: Sequence[Command]) -> list[Any]:
        if self._guard is None:
            self._guard = self._until_the_end()
            await anext(self._guard)
        if commands[-1][0] == "WAITAOF":
            return await self._sent(commands)  # it takes long: nobody waits for it but who asks
        loop = asyncio.get_running_loop()
        question = _PendingCommands(commands, loop.create_future())
        self._waiting.append(question)
        if len(self._lanes) < CONNECTIONS:
            lane = loop.create_task(self._work())
            self._lanes.add(lane)
            lane.add_done_callback(self._lanes.discard)  # also if it never began
        return await question.answers

    async def _work(self) -> None:
        try:
            while self._waiting:
                await self._ask([self._waiting.popleft() for _ in range(min(len(self._waiting), TOGETHER))])
        finally:
            self._lanes.discard(asyncio.current_task())

    async def _ask(self, together: Sequence[_PendingCommands]) -> None:
        try:
            answers = iter(await self._sent([command for one in together for command in one.commands]))
        except Exception as error:  # noqa: BLE001  # it belongs to those who wait
            failed = [*together]
            if isinstance(error, redis.TimeoutError):
                failed += self._waiting  # they have waited as long, and would once more
                self._waiting.clear()
            for one in failed:
                if not one.answers.done():
                    one.answers.set_exception(error)
            return
        except BaseException:
            for one in together:
                one.answers.cancel()
            raise
        for one in together:
            mine = list(islice(answers, len(one.commands)))
            if not one.answers.done():
                one.answers.set_result(mine)

    async def _sent(self, commands: Sequence[Command]) -> list[Any]:
        if len(commands) == 1:
            try:
                return [await self.redis.execute_command(*commands[0])]
            except redis.ResponseError as error:
                return [error]
        pipeline = self.redis.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        return list(await pipeline.execute(raise_on_error=False))

    async def drop(self) -> None:
        if isinstance(self.redis, redis.asyncio.Redis):
            await self.redis.connection_pool.disconnect(inuse_connections=False)

    async def end(self) -> None:
        self._forget()
        if self._guard is not None:
            await self._guard.aclose()

    async def _until_the_end(self) -> AsyncGenerator[None]:
        try:
            yield
        finally:
            self._forget()
            await self.redis.aclose()


class _PendingCommands(NamedTuple):
    """Commands of one task, and where it waits for the answers."""

    commands: Sequence[Command]
    answers: asyncio.Future[list[Any]]


class Subscriber:
    """Waits for what is published on one channel; on a connection of its own."""

    def __init__(self, make: Callable[[], Any], channel: str) -> None:
        self._make, self._channel = make, channel
        self._turn, self._closed = threading.Lock(), threading.Event()
        self._client: Any = None
        self._heard: Any = None

    def wait(self, timeout: float) -> None:
        """Returns when something was published, or after *timeout* seconds. Raises StoreUnavailable."""
        ends = time.monotonic() + timeout
        with self._turn, translate_error():
            try:
                if self._heard is None:
                    self._connect()  # what was published before is not heard: so it returns at once
                    return
                while (left := ends - time.monotonic()) > 0 and not self._closed.is_set():
                    if self._heard.get_message(timeout=min(left, 0.1)):
                        break
                while self._heard.get_message(timeout=0.0):
                    pass  # several announcements are one piece of news
            except BaseException:
                self._let_go()
                raise

    def close(self) -> None:
        """Ends a ``wait`` that another thread is in, and lets go of the connection."""
        self._closed.set()
        with self._turn:
            self._let_go()

    def _connect(self) -> None:
        self._client = self._make()
        self._heard = self._client.pubsub(ignore_subscribe_messages=False)
        self._heard.subscribe(self._channel)
        if not self._heard.get_message(timeout=2.0):
            raise redis.TimeoutError

    def _let_go(self) -> None:
        heard, client, self._heard, self._client = self._heard, self._client, None, None
        if heard is not None:
            heard.close()
        if client is not None:
            client.close()
