"""Send commands to Redis or Valkey: one coroutine for blocking code, for asyncio and for trio.

1. ``in_sync_context`` decides how an operation waits. Within ``run_sync`` it uses the client of all threads and never
   suspends. Under asyncio it uses the client of the running loop. Under trio, which redis-py does not support, it
   runs in a worker thread with the client of all threads.
2. Each wait lasts at most *timeout* seconds: for a connection, for a free place in the pool, for a response. A late or
   broken connection raises StoreUnavailable; what an operator must fix raises ConfigurationError.
3. Commands whose connection broke are sent a second time, unless the caller says ``once``.
4. Clients belong to a process: a forked child opens its own, and leaves the parent's alone.
5. The first operation, and the first one after a broken connection, asks the server for its INFO.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import urlsplit, urlunsplit

import redis
import redis.asyncio
import redis.cluster
from redis.backoff import NoBackoff
from redis.exceptions import NoPermissionError, NoScriptError, ReadOnlyError
from redis.retry import Retry

from unbroken._concurrency import in_sync_context, run_sync
from unbroken._drivers.event_loops import asyncio_loop, in_worker_thread
from unbroken._drivers.redis_clients import BlockingClient, Command, LoopClient, RedisClient, Subscriber
from unbroken._drivers.redis_errors import DEFINITE, ServerInfo, translating_errors
from unbroken.errors import ConfigurationError, StoreUnavailable

__all__ = ["Command", "RedisDriver", "Subscriber", "script"]

MAX_CONNECTIONS = 32  # of one event loop, or of all threads
WAITAOF_SHARE = 0.9  # of the timeout: the server must respond before the socket times out
_scripts: dict[str, str] = {}  # source by name


def script(source: str) -> str:
    """Return the name of the Lua script *source*, for EVALSHA. A server that does not know it receives the source."""
    name = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()
    _scripts[name] = source
    return name


class RedisDriver:
    """The Redis at *url*: ``redis://``, ``rediss://`` or ``unix://``, or a cluster: ``redis+cluster://`` or
    ``rediss+cluster://`` with one or several of its nodes, ``redis+cluster://HOST:PORT,HOST:PORT``.

    *timeout* is in seconds (rule 2). Connects at first use. Raises ConfigurationError for a malformed URL.
    """

    def __init__(self, url: str, *, timeout: float = 2.0) -> None:
        self._url, self._other_nodes, self.cluster = _parse_url(url)
        self._timeout = timeout
        self._server: ServerInfo | None = None  # rule 5
        self._lock, self._pid = threading.Lock(), os.getpid()
        self._blocking: BlockingClient | None = None
        self._loops: dict[asyncio.AbstractEventLoop, LoopClient] = {}
        # A parent's clients: their connections, if collected in a child, would write to the shared sockets.
        self._of_parents: list[object] = []

    def __repr__(self) -> str:
        return f"<RedisDriver {urlsplit(self._url).netloc.rpartition('@')[2]}>"

    # ---- operations ----------------------------------------------------------------------------------------------

    async def execute(self, *command: Any, once: bool = False) -> Any:
        """Return the response to one command. Raise StoreUnavailable, ConfigurationError or InvalidRequest."""
        [response] = await self.execute_all((command,), once=once)
        return response

    async def execute_all(self, commands: Sequence[Command], *, once: bool = False, durably: bool = False) -> list[Any]:
        """Return the responses to *commands*, which are sent together. *once*: see rule 3.

        *durably*: return when these and all earlier writes are on the disk, if the server can tell (WAITAOF).
        Raise StoreUnavailable, ConfigurationError or InvalidRequest.
        """
        if not commands:
            return []
        if in_sync_context():  # rule 1
            return await self._execute(self._blocking_client, commands, once, durably)
        loop = asyncio_loop()
        if loop is not None:
            return await self._execute(partial(self._loop_client, loop), commands, once, durably)
        work = partial(self._execute, self._blocking_client, commands, once, durably)
        return await in_worker_thread(lambda: run_sync(work()))

    async def _execute(
        self, client_of: Callable[[], RedisClient], commands: Sequence[Command], once: bool, durably: bool
    ) -> list[Any]:
        with translating_errors():
            client = client_of()
            server = self._server or await self._ask_server_info(client)
            durably = durably and server.waits_for_disk
            sent = [*commands, ("WAITAOF", 1, 0, int(self._timeout * WAITAOF_SHARE * 1000))] if durably else commands
            try:
                responses = await _send(client, sent)
            except ReadOnlyError:
                await client.disconnect_idle()
                raise
            except redis.ConnectionError as error:
                self._server = None  # another server may respond next
                if once or isinstance(error, DEFINITE):  # rule 3
                    raise
                responses = await _send(client, sent)
        if durably and responses.pop()[0] < 1:
            raise StoreUnavailable("Redis did not write to its disk in time")
        return responses

    async def _ask_server_info(self, client: RedisClient) -> ServerInfo:
        [info] = await client.send((("INFO",),))
        if isinstance(info, NoPermissionError):
            info = {}  # this user may not read it, so nothing is assumed
        elif isinstance(info, Exception):
            raise info
        self._server = ServerInfo.of(info, self.cluster)
        return self._server

    # ---- clients -------------------------------------------------------------------------------------------------

    def subscriber(self, channel: str) -> Subscriber:
        """Return a subscriber to *channel*, for one thread."""
        return Subscriber(lambda: self._connect(redis, redis.cluster), channel)

    def _blocking_client(self) -> BlockingClient:
        self._leave_parents_clients()
        found = self._blocking
        if found is None:
            made = BlockingClient(self._connect(redis, redis.cluster))  # not under the lock: a cluster connects here
            with self._lock:
                found = self._blocking = self._blocking or made
            if found is not made:
                made.redis.close()
        return found

    def _loop_client(self, loop: asyncio.AbstractEventLoop) -> LoopClient:
        self._leave_parents_clients()
        found = self._loops.get(loop)
        if found is None:
            client = self._connect(redis.asyncio, redis.asyncio.cluster)
            found = self._loops[loop] = LoopClient(client, lambda: self._loops.pop(loop, None))
        return found

    def _connect(self, clients: Any, cluster_clients: Any) -> Any:
        """Return a client of redis-py: of its blocking or of its asyncio modules."""
        settings: dict[str, Any] = {
            "socket_timeout": self._timeout,
            "socket_connect_timeout": self._timeout,
            "protocol": 2,
            "retry": Retry(NoBackoff(), 0),  # rule 3: redis-py would not ask whether it may
        }
        if not self._url.startswith("unix:"):
            settings["socket_keepalive"] = True
        if self.cluster:
            nodes = [cluster_clients.ClusterNode(host, port) for host, port in self._other_nodes]
            settings["retry"] = Retry(NoBackoff(), 1)  # to find the node that took over the slots
            return cluster_clients.RedisCluster.from_url(self._url, startup_nodes=nodes, **settings)
        pool = clients.BlockingConnectionPool.from_url(
            self._url, max_connections=MAX_CONNECTIONS, timeout=self._timeout, **settings
        )
        return clients.Redis.from_pool(pool)  # closes the pool with itself

    def _leave_parents_clients(self) -> None:
        if self._pid != os.getpid():  # rule 4
            self._of_parents += [self._blocking, self._loops]
            self._lock, self._blocking, self._loops, self._pid = threading.Lock(), None, {}, os.getpid()

    # ---- the end -------------------------------------------------------------------------------------------------

    async def aclose(self) -> None:
        """Close the running loop's client, then the client of threads."""
        loop = None if in_sync_context() else asyncio_loop()
        if loop is not None and (found := self._loops.get(loop)):
            await found.aclose()
        self.close()

    def close(self) -> None:
        """Close the client of threads; a later operation opens another. The clients of event loops end with them."""
        self._leave_parents_clients()
        with self._lock:
            client, self._blocking = self._blocking, None
        if client is not None:
            client.redis.close()


async def _send(client: RedisClient, commands: Sequence[Command]) -> list[Any]:
    """Return the responses; send the source of scripts that the server does not know. Raise the first error."""
    responses = await client.send(commands)
    unknown = [n for n, response in enumerate(responses) if isinstance(response, NoScriptError)]
    if unknown:
        if commands[-1][0] == "WAITAOF":
            unknown.append(len(commands) - 1)  # it must follow the writes that it waits for
        sources = await client.send([_with_source(commands[n]) for n in unknown])
        for n, response in zip(unknown, sources, strict=True):
            responses[n] = response
    for response in responses:
        if isinstance(response, Exception):
            raise response
    return responses


def _with_source(command: Command) -> Command:
    return ("EVAL", _scripts[command[1]], *command[2:]) if command[0] == "EVALSHA" else command


class _ParsedUrl(NamedTuple):
    """A URL as redis-py reads it, the other nodes of a cluster, and whether it is a cluster."""

    url: str
    other_nodes: list[tuple[str, int]]
    cluster: bool


def _parse_url(url: str) -> _ParsedUrl:
    parts = urlsplit(url)
    scheme, plus, kind = parts.scheme.partition("+")
    login, at, hosts = parts.netloc.rpartition("@")
    first, *others = hosts.split(",")
    if scheme not in ("redis", "rediss", "unix") or kind not in ("", "cluster") or (plus and scheme == "unix"):
        raise ConfigurationError("the URL of the Redis store must begin with redis://, rediss:// or unix://")
    if others and not kind:
        raise ConfigurationError("several hosts are a cluster: write redis+cluster:// in the store's URL")
    plain_url = urlunsplit((scheme, login + at + first, *parts[2:])) if scheme != "unix" else url
    try:
        redis.ConnectionPool.from_url(plain_url)
        return _ParsedUrl(plain_url, [_host_and_port(other) for other in others], bool(kind))
    except ValueError:
        raise ConfigurationError("the URL of the Redis store cannot be read: write redis://HOST:PORT/0") from None


def _host_and_port(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)
