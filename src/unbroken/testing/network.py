"""A network that loses responses: a small proxy on loopback, in a thread of its own.

It recognizes a refresh by the first bytes of a connection. Unbroken's client opens a connection for each refresh; a
refresh on a connection that was kept open is passed on and not counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import cast

from unbroken._arguments import checked_class

__all__ = ["Network"]

CHUNK_BYTES = 65536


@checked_class()
class Network:
    """Passes bytes between clients and ``127.0.0.1:upstream``, and drops the responses to the next ``lose`` refreshes.

    *refresh_starts*: how the request of a refresh starts. ``refreshes`` and ``lost`` count.
    """

    def __init__(
        self, upstream: int, refresh_starts: tuple[bytes, ...] = (b"POST /auth/refresh", b"POST /auth/token")
    ) -> None:
        self._upstream, self._starts = upstream, refresh_starts
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="network", daemon=True)
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.lose = 0
        self.refreshes = 0
        self.lost = 0

    def start(self) -> None:
        """Start, and return when ``port`` accepts connections."""
        self._thread.start()
        self._ready.wait()

    def stop(self) -> None:
        """Close all connections and end the thread."""
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(timeout=5)

    async def _run(self) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._end.wait()
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks)
        await asyncio.sleep(0.01)  # transports close in the next turn of the loop, which must still run

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_writer, task = None, cast("asyncio.Task[None]", asyncio.current_task())
        self._tasks.add(task)
        try:
            first = await reader.read(CHUNK_BYTES)
            is_refresh = first.startswith(self._starts)
            self.refreshes += is_refresh
            upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", self._upstream)
            upstream_writer.write(first)
            request = asyncio.create_task(_copy(reader, upstream_writer))
            if is_refresh and self.lose:
                self.lose -= 1
                await upstream_reader.read(CHUNK_BYTES)  # the server has responded, and the client never learns it
                self.lost += 1
            else:
                await _copy(upstream_reader, writer)
            request.cancel()
        except (OSError, asyncio.CancelledError):
            pass  # the server is down, a client hung up, or stop() was called: the connections are closed
        finally:
            self._tasks.discard(task)
            for end in (writer, upstream_writer):
                if end is not None:
                    end.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
