"""A server that floods its clients: responses without end, drips, and bodies that unfold into gigabytes."""

from __future__ import annotations

import contextlib
import gzip
import socket
import threading
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Self

from tests.support.sockets import read_request

MIB = 1 << 20
CHALLENGE = b"HTTP/1.1 401 Unauthorized\r\nwww-authenticate: Bearer error=invalid_token\r\n"
FINE = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nfine"

Flood = Callable[["FloodingServer", socket.socket], None]


class FloodingServer:
    """Challenges each request with a ``flood`` until its token is another one than the first it saw, or always."""

    def __init__(self, *, always: bool = False) -> None:
        self.flood: Flood = endless
        self.always, self.first_token, self.sent, self.requests = always, b"", 0, 0
        self.closed_by_client = threading.Event()
        self._stopping = threading.Event()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def send(self, connection: socket.socket, data: bytes) -> None:
        """Send *data* and count what went out."""
        view = memoryview(data)
        while view and not self._stopping.is_set():
            try:
                size = connection.send(view[:65536])
            except TimeoutError:
                continue
            self.sent += size
            view = view[size:]

    def pause(self, seconds: float) -> bool:
        """Wait. Return whether the server goes on."""
        return not self._stopping.wait(seconds)

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for thread in self._threads:
            thread.join(10)

    def _start(self, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while not self._stopping.is_set():
                connection, _ = self._socket.accept()
                connection.settimeout(0.2)
                self._start(lambda connection=connection: self._serve(connection))

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(ConnectionError, BrokenPipeError):
            while not self._stopping.is_set():
                try:
                    request = read_request(connection)
                except TimeoutError:
                    continue
                if not request:
                    return
                self.requests += 1
                if self._is_good(request):
                    connection.sendall(FINE)
                    continue
                try:
                    self.flood(self, connection)
                except OSError:
                    self.closed_by_client.set()
                    raise

    def _is_good(self, request: bytes) -> bool:
        token = next(line for line in request.split(b"\r\n") if line.lower().startswith(b"authorization:"))
        self.first_token = self.first_token or token
        return token != self.first_token and not self.always


def endless(server: FloodingServer, connection: socket.socket) -> None:
    """As much as the client takes, until it closes."""
    server.send(connection, CHALLENGE + b"content-type: text/html\r\nconnection: close\r\n\r\n")
    while server.pause(0):
        server.send(connection, b"x" * 65536)


def endless_chunks(server: FloodingServer, connection: socket.socket) -> None:
    server.send(connection, CHALLENGE + b"transfer-encoding: chunked\r\n\r\n")
    while server.pause(0):
        server.send(connection, b"10000\r\n" + b"x" * 65536 + b"\r\n")


def announced(server: FloodingServer, connection: socket.socket) -> None:
    """A terabyte, by its length."""
    server.send(connection, CHALLENGE + b"content-length: 1099511627776\r\n\r\n")
    while server.pause(0):
        server.send(connection, b"x" * 65536)


def drip(server: FloodingServer, connection: socket.socket) -> None:
    """A byte now and then, each before the client loses patience."""
    server.send(connection, CHALLENGE + b"content-length: 1000000\r\n\r\n")
    while server.pause(0.1):
        server.send(connection, b"x")


def drip_of_chunks(server: FloodingServer, connection: socket.socket) -> None:
    server.send(connection, CHALLENGE + b"transfer-encoding: chunked\r\n\r\nfffff\r\n")
    while server.pause(0.1):
        server.send(connection, b"x")


def bomb(coding: str, pack: Callable[[bytes], bytes], *, kind: str = "text/html", head: bytes = CHALLENGE) -> Flood:
    """A body of *coding*, packed by *pack*."""
    packed = pack(b'{"code": 401, "x": "')

    def flood(server: FloodingServer, connection: socket.socket) -> None:
        headers = f"content-type: {kind}\r\ncontent-encoding: {coding}\r\ncontent-length: {len(packed)}\r\n\r\n"
        server.send(connection, head + headers.encode() + packed)

    return flood


def zeros(size: int) -> Iterator[bytes]:
    """A body of *size* MiB."""
    piece = b"0" * MIB
    return (piece for _ in range(size))


def gzipped(size: int) -> Callable[[bytes], bytes]:
    return lambda start: _packed(zlib.compressobj(9, zlib.DEFLATED, 31), start, size)


def deflated(size: int, wbits: int = 15) -> Callable[[bytes], bytes]:
    return lambda start: _packed(zlib.compressobj(9, zlib.DEFLATED, wbits), start, size)


def gzipped_twice(size: int) -> Callable[[bytes], bytes]:
    return lambda start: gzip.compress(gzipped(size)(start))


def _packed(packer: zlib._Compress, start: bytes, size: int) -> bytes:
    return b"".join([packer.compress(start), *map(packer.compress, zeros(size)), packer.flush()])


def brotlied(size: int) -> Callable[[bytes], bytes]:
    import brotli

    def pack(start: bytes) -> bytes:
        packer = brotli.Compressor(quality=5)
        return b"".join([packer.process(start), *map(packer.process, zeros(size)), packer.finish()])

    return pack


def zstandarded(size: int) -> Callable[[bytes], bytes]:
    from backports import zstd

    def pack(start: bytes) -> bytes:
        packer = zstd.ZstdCompressor()
        return b"".join([packer.compress(start), *map(packer.compress, zeros(size)), packer.flush()])

    return pack


class Peak:
    """The memory that a block took at most, in MiB, and how long it took."""

    mib = seconds = 0.0


@contextmanager
def measured() -> Iterator[Peak]:
    peak, began = Peak(), time.monotonic()
    tracemalloc.start(1)
    try:
        yield peak
    finally:
        peak.mib, peak.seconds = tracemalloc.get_traced_memory()[1] / MIB, time.monotonic() - began
        tracemalloc.stop()
