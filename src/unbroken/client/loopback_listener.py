"""A listener on this machine for the one redirect that ends a login with a browser (RFC 8252 §7.3).

1. It is bound to 127.0.0.1, so that no other machine reaches it, and to a free port unless the URI names one.
2. It serves one path, under the host of its URI alone: a page of another name that points here (DNS rebinding) gets
   nothing.
3. Junk costs little and ends nothing: a connection has ``CONNECTION_SECONDS`` and ``MAX_REQUEST_BYTES``, of more than
   ``MAX_CONNECTIONS`` the oldest is closed, and the listener goes on.
4. The first redirect that belongs to the login is the last: the listener closes. The page waits for what becomes of it.
5. No response repeats anything of its request, and nothing of it is logged: it may be a code.
"""

from __future__ import annotations

import contextlib
import html
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http import HTTPStatus
from types import TracebackType
from typing import Self, TypeVar
from urllib.parse import urlsplit

from unbroken.client.core.login_endpoints import check_redirect_uri
from unbroken.errors import ConfigurationError, TryLater

__all__ = ["LoopbackListener"]

T = TypeVar("T")

CONNECTION_SECONDS = 10.0
MAX_CONNECTIONS = 50
MAX_REQUEST_BYTES = 1 << 15
READ_BYTES = 1 << 13
STOP_CHECK_SECONDS = 0.2
SEND_PAGE_SECONDS = 2.0
PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title><body style="font-family: system-ui; margin: 15vh auto; max-width: 32em; padding: 0 1em">
<h1>{title}</h1><p>{text}</p></body></html>"""
PAGE_HEADERS = (
    "Content-Type: text/html; charset=utf-8",
    "Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "Cache-Control: no-store",
    "Referrer-Policy: no-referrer",
    "X-Content-Type-Options: nosniff",
    "Connection: close",
)


class _Connection:
    """One connection, and what of its request has arrived."""

    def __init__(self, of: socket.socket) -> None:
        self.socket, self.received = of, b""
        self.ends_at = time.monotonic() + CONNECTION_SECONDS

    def close(self) -> None:
        self.socket.close()

    def read(self) -> bool:
        """Read what is there. Return whether the head of the request is complete; raise OSError if it never will be."""
        chunk = self.socket.recv(READ_BYTES)
        self.received += chunk
        if b"\r\n\r\n" in self.received:
            return True
        if not chunk or len(self.received) > MAX_REQUEST_BYTES:  # rule 3
            raise ConnectionAbortedError
        return False

    def respond(self, status: int, title: str, text: str) -> None:
        """Send a page, and close. A browser that has gone is no error."""
        body = PAGE.format(title=html.escape(title), text=html.escape(text)).encode()
        head = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", *PAGE_HEADERS, f"Content-Length: {len(body)}"]
        with contextlib.suppress(OSError):
            self.socket.settimeout(SEND_PAGE_SECONDS)
            self.socket.sendall("\r\n".join(head).encode() + b"\r\n\r\n" + body)
            self.socket.shutdown(socket.SHUT_WR)
        self.close()


class LoopbackListener:
    """``with LoopbackListener(uri) as listener:`` it listens at ``listener.redirect_uri``. Raise ConfigurationError."""

    def __init__(self, redirect_uri: str) -> None:
        check_redirect_uri(redirect_uri)
        parts = urlsplit(redirect_uri)
        self._listening = _listen(parts.port or 0)
        port = self._listening.getsockname()[1]
        self._host, self._path = f"{parts.hostname}:{port}", parts.path or "/"
        self.redirect_uri = f"http://{self._host}{parts.path}"
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listening, selectors.EVENT_READ)
        self._open: list[_Connection] = []
        self._redirect: _Connection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop_listening()
        if self._redirect is not None:
            self._redirect.close()

    def wait(self, accept: Callable[[str], T | None], seconds: float, stop: threading.Event) -> T:
        """Return what *accept* makes of the query of the redirect; None from it means that it was not the one.

        What *accept* raises ends the wait as well. Raise TryLater after *seconds*, or when *stop* is set.
        """
        ends_at = time.monotonic() + seconds
        try:
            while (left := ends_at - time.monotonic()) > 0 and not stop.is_set():
                for connection in self._ready(min(left, STOP_CHECK_SECONDS)):
                    if (result := self._serve(connection, accept)) is not None:
                        return result
        finally:
            self._stop_listening()  # rule 4
        raise TryLater(
            f"the user has not logged in within {seconds:g} seconds; where no browser is, log in with a code instead"
        )

    def respond(self, title: str, text: str) -> None:
        """Show the user what became of the login."""
        if self._redirect is not None:
            self._redirect.respond(200, title, text)
            self._redirect = None

    # ---- connections -------------------------------------------------------------------------------------------

    def _ready(self, seconds: float) -> Iterator[_Connection]:
        """Yield the connections whose request is complete; wait for one at most so many *seconds*."""
        for key, _ in self._selector.select(seconds):
            connection = key.data
            try:
                if connection is None:
                    self._accept()
                elif connection.read():
                    self._forget(connection)
                    yield connection
            except BlockingIOError:
                continue
            except OSError:
                self._drop(connection)
        now = time.monotonic()
        for overdue in [one for one in self._open if one.ends_at < now]:
            self._drop(overdue)

    def _accept(self) -> None:
        accepted, _ = self._listening.accept()
        accepted.setblocking(False)
        connection = _Connection(accepted)
        self._open.append(connection)
        self._selector.register(accepted, selectors.EVENT_READ, connection)
        if len(self._open) > MAX_CONNECTIONS:
            self._drop(self._open[0])  # rule 3

    def _drop(self, connection: _Connection | None) -> None:
        if connection is not None:
            self._forget(connection)
            connection.close()

    def _forget(self, connection: _Connection) -> None:
        if connection in self._open:
            self._open.remove(connection)
            self._selector.unregister(connection.socket)

    def _stop_listening(self) -> None:
        for connection in list(self._open):
            self._drop(connection)
        self._selector.close()
        self._listening.close()

    # ---- requests ----------------------------------------------------------------------------------------------

    def _serve(self, connection: _Connection, accept: Callable[[str], T | None]) -> T | None:
        """Return what *accept* makes of the request, or None, if it is not the redirect of this login."""
        status, query = self._parse(connection.received)
        if status != 200:
            connection.respond(status, "Nothing is here", "A program waits here for a login, and for nothing else.")
            return None
        self._redirect = connection
        result = accept(query)  # what it raises is shown by respond()
        if result is None:
            self._redirect = None
            text = "This is not the login that the program waits for. Go back to the program, and use its link."
            connection.respond(400, "Another login", text)
        return result

    def _parse(self, received: bytes) -> tuple[int, str]:
        """Return a status, and if that is 200, the query of the request."""
        line, *headers = received.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
        words = line.split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            return 400, ""
        fields = [(name.lower(), value.strip()) for name, _, value in (one.partition(":") for one in headers)]
        if [value.lower() for name, value in fields if name == "host"] != [self._host]:  # rule 2
            return 421, ""
        path, _, query = words[1].partition("?")
        if path != self._path:
            return 404, ""
        return (200, query) if words[0] == "GET" else (405, "")


def _listen(port: int) -> socket.socket:
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listening.bind(("127.0.0.1", port))  # rule 1
        listening.listen(MAX_CONNECTIONS)
        listening.setblocking(False)
    except OSError as error:
        listening.close()
        raise ConfigurationError(
            f"the login cannot listen at port {port or 'any'} of 127.0.0.1: {error.strerror}"
        ) from error
    return listening
