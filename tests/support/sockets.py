"""Servers of a few bytes, for responses that no HTTP library would send."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["read_request", "responding"]


@contextmanager
def responding(response: bytes) -> Iterator[int]:
    """The port of a server for one connection: it reads the whole request, sends *response*, and closes."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=_serve, args=(listening, response), daemon=True)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            with contextlib.suppress(OSError):  # a server that was never connected to still waits
                listening.shutdown(socket.SHUT_RDWR)
            thread.join(10)


def _serve(listening: socket.socket, response: bytes) -> None:
    with contextlib.suppress(OSError):
        connection, _ = listening.accept()
        with connection:
            read_request(connection)
            connection.sendall(response)


def read_request(connection: socket.socket) -> bytes:
    """Return one whole request, with its body. A socket that is closed with bytes unread resets the connection."""
    received = b""
    while b"\r\n\r\n" not in received:
        if not (more := connection.recv(65536)):
            return received
        received += more
    head, _, body = received.partition(b"\r\n\r\n")
    lengths = [line.partition(b":")[2] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
    while len(body) < int(lengths[0] if lengths else 0):
        if not (more := connection.recv(65536)):
            break
        body += more
    return head + b"\r\n\r\n" + body
