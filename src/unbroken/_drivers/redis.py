"""Redis (or Valkey) in one async shape over redis-py's two: blocking where ``run_sync`` is at work, awaiting elsewhere.

1. A question is one command, or several that go out together and are answered together, in the order they were asked.
2. Each question asks ``in_sync_context``. True: the blocking client, and nothing suspends. Else, under asyncio: the client
   of the running loop, closed when the loop ends; under trio, which redis-py does not know: the blocking client, in a
   thread.
3. Every wait has an end: *timeout* seconds for a connection, for a place in the pool, for each answer. What does not
   come in time, or breaks, is StoreUnavailable; what only a person can mend is ConfigurationError.
4. A question whose connection broke is asked once more, unless it says ``once``: then it may not be asked twice.
5. Clients belong to a process: a forked child makes its own, and leaves its parent's alone.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import redis
import redis.asyncio
import redis.cluster
from redis.backoff import NoBackoff
from redis.exceptions import NoPermissionError, NoScriptError, ReadOnlyError
from redis.retry import Retry

from unbroken._drivers.redis_clients import BlockingClient, Command, LoopClient, RedisClient, Subscriber
from unbroken._drivers.redis_errors import DEFINITE, ServerInfo, translate_error
from unbroken._sync import in_sync_context, run_sync
from unbroken.errors import ConfigurationError, StoreUnavailable

__all__ = ["Command", "RedisDriver", "Subscriber", "script"]

WIDTH = 32  # connections at most, of one event loop or of all threads
_sources: dict[str, str] = {}


def script(source: str) -> str:
    """The name of the Lua script *source*, for EVALSHA. A server that does not know it yet is sent it."""
    name = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()
    _sources[name] = source
    return name


class RedisDriver:
    """The Redis at *url*: ``redis://``, ``rediss://`` or ``unix://``; for a cluster ``redis+cluster://`` or
    ``rediss+cluster://``, with one of its nodes or several: ``redis+cluster://HOST:PORT,HOST:PORT``.
    """

    def __init__(self, url: str, *, timeout: float = 2.0) -> None:
        self._url, self._others, self.cluster = _read(url)
        self._timeout = timeout
        self._server: ServerInfo | None = None  # what it is like, once it was asked
        self._lock, self._pid = threading.Lock(), os.getpid()
        self._blocking: BlockingClient | None = None
        self._loops: dict[asyncio.AbstractEventLoop, LoopClient] = {}
        self._left: list[object] = []  # a parent's: collected, they would talk on shared sockets

    def __repr__(self) -> str:
        return f"<RedisBind {urlsplit(self._url).netloc.rpartition('@')[2]}>"

    # ---- asking --------------------------------------------------------------------------------------------------

    async def ask(self, *command: Any, once: bool = False) -> Any:
        """The answer to one command."""
        [answer] = await self.ask_all((command,), once=once)
        return answer

    async def ask_all(self, commands: Sequence[Command], *, once: bool = False, durably: bool = False) -> list[Any]:
        """The answers to *commands*. *durably*: they, and what was written before them, are on the disk, if the server
        is one that can be asked to say so.
        """
        if not commands:
            return []
        if in_sync_context():
            return await self._ask(self.blocking, commands, once, durably)
        loop = _asyncio_loop()
        if loop is not None:
            return await self._ask(partial(self._awaiting, loop), commands, once, durably)
        from anyio import to_thread  # noqa: PLC0415  # blocking use needs no event loop library

        flow = partial(self._ask, self.blocking, commands, once, durably)
        return await to_thread.run_sync(lambda: run_sync(flow()), abandon_on_cancel=True)

    async def _ask(
        self, client_of: Callable[[], RedisClient], commands: Sequence[Command], once: bool, durably: bool
    ) -> list[Any]:
        with translate_error():
            client = client_of()
            server = self._server or await self._known(client)
            durably = durably and server.waits_for_disk
            sent = [*commands, ("WAITAOF", 1, 0, int(self._timeout * 900))] if durably else commands
            try:
                answers = await _told(client, sent)
            except ReadOnlyError:
                await client.drop()
                raise
            except redis.ConnectionError as error:
                self._server = None  # it may be another one when it is back
                if once or isinstance(error, DEFINITE):
                    raise
                answers = await _told(client, sent)
        if durably and answers.pop()[0] < 1:
            raise StoreUnavailable("Redis has not written to its disk in time")
        return answers

    async def _known(self, client: RedisClient) -> ServerInfo:
        [info] = await client.put((("INFO",),))
        if isinstance(info, NoPermissionError):
            info = {}  # this user may not ask: then nothing is known
        elif isinstance(info, Exception):
            raise info
        self._server = ServerInfo.of(info, self.cluster)
        return self._server

    # ---- clients -------------------------------------------------------------------------------------------------

    def blocking(self) -> BlockingClient:
        """The client of all threads."""
        self._leave_parents()
        found = self._blocking
        if found is None:
            made = BlockingClient(
                self._made(redis, redis.cluster)
            )  # a cluster's connects here: nobody waits for another
            with self._lock:
                found = self._blocking = self._blocking or made
            if found is not made:
                made.redis.close()
        return found

    def _awaiting(self, loop: asyncio.AbstractEventLoop) -> LoopClient:
        self._leave_parents()
        found = self._loops.get(loop)
        if found is None:
            client = self._made(redis.asyncio, redis.asyncio.cluster)
            found = self._loops[loop] = LoopClient(client, lambda: self._loops.pop(loop, None))
        return found

    def _made(self, drivers: Any, cluster: Any) -> Any:
        bounds: dict[str, Any] = {
            "socket_timeout": self._timeout,
            "socket_connect_timeout": self._timeout,
            "protocol": 2,
        }
        # redis-py tries again by itself, without asking whether it may: so it does not.
        bounds |= {"retry": Retry(NoBackoff(), 0), "socket_keepalive": True}
        if self._url.startswith("unix:"):
            del bounds["socket_keepalive"]
        if self.cluster:
            nodes = [cluster.ClusterNode(host, port) for host, port in self._others]
            bounds["retry"] = Retry(NoBackoff(), 1)  # a node that went away: to learn who has its slots now
            return cluster.RedisCluster.from_url(self._url, startup_nodes=nodes, **bounds)
        pool = drivers.BlockingConnectionPool.from_url(
            self._url, max_connections=WIDTH, timeout=self._timeout, **bounds
        )
        return drivers.Redis.from_pool(pool)  # which it closes with itself

    def _leave_parents(self) -> None:
        if self._pid != os.getpid():
            self._left += [self._blocking, self._loops]
            self._lock, self._blocking, self._loops, self._pid = threading.Lock(), None, {}, os.getpid()

    def listener(self, channel: str) -> Subscriber:
        """What is published on *channel*, for one thread."""
        return Subscriber(lambda: self._made(redis, redis.cluster), channel)

    # ---- the end -------------------------------------------------------------------------------------------------

    async def aclose(self) -> None:
        """Closes what belongs to the running event loop, then as ``close``."""
        loop = None if in_sync_context() else _asyncio_loop()
        if loop is not None and (found := self._loops.get(loop)):
            await found.end()
        self.close()

    def close(self) -> None:
        """Closes the connections of threads; those of an event loop end with it. A question after it makes others."""
        self._leave_parents()
        with self._lock:
            client, self._blocking = self._blocking, None
        if client is not None:
            client.redis.close()


async def _told(client: RedisClient, commands: Sequence[Command]) -> list[Any]:
    """The answers; a script that the server does not know is sent to it. Raises the first error among them."""
    answers = await client.put(commands)
    unknown = [n for n, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
    if unknown:
        if commands[-1][0] == "WAITAOF":
            unknown.append(len(commands) - 1)  # it waits for what was written before it
        for n, answer in zip(unknown, await client.put([_with_source(commands[n]) for n in unknown]), strict=True):
            answers[n] = answer
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return answers


def _with_source(command: Command) -> Command:
    return ("EVAL", _sources[command[1]], *command[2:]) if command[0] == "EVALSHA" else command


def _asyncio_loop() -> asyncio.AbstractEventLoop | None:
    """The running loop, if it is asyncio's; also where trio runs as its guest, then None."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return None
    return loop if asyncio.current_task(loop) is not None else None


def _read(url: str) -> tuple[str, list[tuple[str, int]], bool]:
    """The URL as redis-py takes it, the further nodes of a cluster, and whether it is one."""
    parts = urlsplit(url)
    scheme, plus, kind = parts.scheme.partition("+")
    login, at, hosts = parts.netloc.rpartition("@")
    first, *others = hosts.split(",")
    if scheme not in ("redis", "rediss", "unix") or kind not in ("", "cluster") or (plus and scheme == "unix"):
        raise ConfigurationError("the URL of the Redis store must begin with redis://, rediss:// or unix://")
    if others and not kind:
        raise ConfigurationError("several hosts are a cluster: write redis+cluster:// in the store's URL")
    read = urlunsplit((scheme, login + at + first, *parts[2:])) if scheme != "unix" else url
    try:
        redis.ConnectionPool.from_url(read)
        return read, [_host_and_port(other) for other in others], bool(kind)
    except ValueError:
        raise ConfigurationError("the URL of the Redis store is none: write redis://HOST:PORT/0") from None


def _host_and_port(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)
