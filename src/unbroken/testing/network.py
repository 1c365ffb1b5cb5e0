"""A network that can lose answers: a small proxy on loopback, in a thread of its own.

It looks at the first line of each connection, to know an exchange when it sees one. Our own client makes a connection
for each exchange; one on a connection that was kept open is passed on unseen.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import cast

__all__ = ["Network"]


class Network:
    """Passes bytes between clients and ``127.0.0.1:upstream``; swallows the answers to the next ``lose`` exchanges.

    An exchange is known by how its request begins: one of *exchanges*.
    """

    def __init__(
        self, upstream: int, exchanges: tuple[bytes, ...] = (b"POST /auth/refresh", b"POST /auth/token")
    ) -> None:
        self._upstream, self._starts = upstream, exchanges
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="network", daemon=True)
        self._busy: set[asyncio.Task[None]] = set()
        self.port = 0
        self.lose = 0
        self.exchanges = 0
        self.lost = 0

    def start(self) -> None:
        """Starts, and returns when ``port`` can be connected to."""
        self._thread.start()
        self._ready.wait()

    def stop(self) -> None:
        """Ends the thread."""
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(timeout=5)

    async def _run(self) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._end.wait()
        server.close()
        for task in self._busy:
            task.cancel()
        await asyncio.gather(*self._busy)
        await asyncio.sleep(0.01)  # what was closed is closed before the loop ends

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up, me = None, cast("asyncio.Task[None]", asyncio.current_task())
        self._busy.add(me)
        try:
            first = await reader.read(65536)
            refresh = first.startswith(self._starts)
            self.exchanges += refresh
            up_reader, up = await asyncio.open_connection("127.0.0.1", self._upstream)
            up.write(first)
            there = asyncio.create_task(_copy(reader, up))
            if refresh and self.lose:
                self.lose -= 1
                await up_reader.read(65536)  # the server has answered; nobody will know
                self.lost += 1
            else:
                await _copy(up_reader, writer)
            there.cancel()
        except (OSError, asyncio.CancelledError):
            pass  # the server is down, somebody hung up, or it is over: that is what this network is like
        finally:
            self._busy.discard(me)
            for end in (writer, up):
                if end is not None:
                    end.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
