"""The HTTP sender of the library: one request, one response, over the standard library.

1. No hook, history or log of the user's HTTP client is on this path, and no silent retry.
2. Redirects are not followed: a refresh token goes to the URL it was meant for, and nowhere else.
3. The timeout bounds the whole request, also against a server that sends one byte a second, or a name with ten
   addresses that do not respond. Only the name lookup of the system cannot be cut short. ``connect_timeout`` bounds it
   until the connection is there.
4. Proxies come from the environment (``HTTPS_PROXY``, ``NO_PROXY`` …), as in other programs; loopback, where plain http
   is allowed, is reached without one.
5. A response that is shorter or longer than allowed is no response. The bytes are counted below the parser of HTTP,
   which a chunk of negative size makes read on to the end.
6. Failures are of two kinds: NotSent, if the request cannot have reached the server, and ResponseLost, if it may have.
7. A connection whose other end has gone without a word is noticed within half a minute, however long the timeout.
8. A child that is forked in the middle of a request does not keep its connection.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import io
import socket
import ssl
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from unbroken._concurrency import close_copy, register_fork_aware
from unbroken._http import (
    MAX_BODY_BYTES,
    HttpRequest,
    HttpResponse,
    NotSent,
    ResponseLost,
    ResponseTooLong,
    Send,
    is_loopback,
)

__all__ = ["http_sender"]

MAX_HEAD_BYTES = 1 << 18  # of status, headers, and the frames of chunks


def http_sender(
    context: ssl.SSLContext | None = None, *, max_body_bytes: int = MAX_BODY_BYTES, read_body: bool = True
) -> Send:
    """Return a function that sends one request within a number of seconds.

    It raises NotSent or ResponseLost, each from its cause. A body above *max_body_bytes* is ResponseTooLong; without
    *read_body* the body of a response stays unread.
    """
    max_bytes = max_body_bytes if read_body else None

    def send(request: HttpRequest, timeout: float) -> HttpResponse:
        deadline = _Deadline(timeout, request.connect_timeout, MAX_HEAD_BYTES + (max_bytes or 0))
        try:
            return _send(request, deadline, context or _default_tls(), max_bytes)
        except Exception as error:  # noqa: BLE001  # http.client and urllib have no end of errors of their own
            cause = error.reason if isinstance(error, urllib.error.URLError) else error
            cause = cause if isinstance(cause, Exception) else error
            raise _failure(request, deadline, cause) from cause
        finally:
            deadline.end()

    return send


@functools.cache
def _default_tls() -> ssl.SSLContext:
    """Return the trusted authorities of the system. Cached: reading them takes some 20 ms."""
    return ssl.create_default_context()


def _send(request: HttpRequest, deadline: _Deadline, tls: ssl.SSLContext, max_bytes: int | None) -> HttpResponse:
    handlers: list[urllib.request.BaseHandler] = [_Http(deadline), _Https(deadline, tls), _NoRedirects()]
    if is_loopback(urllib.parse.urlsplit(request.url).hostname or ""):
        handlers.append(urllib.request.ProxyHandler({}))  # rule 4
    opener = urllib.request.build_opener(*handlers)
    opener.addheaders = [("user-agent", "unbroken")]
    prepared = urllib.request.Request(request.url, request.body, dict(request.headers), method=request.method)  # noqa: S310  # callers check that the URL is http(s)
    with opener.open(prepared, timeout=deadline.left()) as response:
        headers = {name.lower(): value for name, value in response.headers.items()}
        body = None if max_bytes is None else _read(response, max_bytes)
        return HttpResponse(response.status, headers, body)


class _TooLong(http.client.HTTPException):
    """A response has more bytes than are read (rule 5)."""


def _read(response: http.client.HTTPResponse, max_bytes: int) -> bytes:
    body = response.read(max_bytes + 1)
    if len(body) > max_bytes:
        raise _TooLong(f"it is longer than {max_bytes} bytes")
    if response.length:  # rule 5: the server announced more bytes than it sent
        raise http.client.IncompleteRead(body)
    return body


def _failure(request: HttpRequest, deadline: _Deadline, cause: Exception) -> NotSent | ResponseLost:
    url = request.url.partition("?")[0]  # a query may hold a token
    if not deadline.connected:
        reason = _connect_failure(deadline, cause)
        return NotSent(f"{url} cannot be reached ({reason})", reason)
    if isinstance(cause, _TooLong):
        return ResponseTooLong(f"the response from {url} is not read: {cause}", str(cause))
    reason = "timeout" if deadline.expired or isinstance(cause, TimeoutError) else _describe(cause)
    return ResponseLost(f"no response from {url} ({reason})", reason)


def _connect_failure(deadline: _Deadline, cause: Exception) -> str:
    if deadline.expired or isinstance(cause, TimeoutError):
        reason = "timeout"
    elif isinstance(cause, socket.gaierror):
        reason = f"DNS: {_describe(cause)}"
    elif isinstance(cause, ssl.SSLError):
        reason = f"TLS: {_describe(cause)}"
    else:
        reason = _describe(cause)
    return f"by the proxy {deadline.proxy}: {reason}" if deadline.proxy else reason


def _describe(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.replace("_", " ").lower()
    words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return words[:1].lower() + words[1:] if words and not isinstance(error, ValueError) else type(error).__name__


class _Deadline:
    """Ends a connection when the time of its request is over, whatever the connection is doing.

    ``bytes_left`` is how much may still be received (rule 5).
    """

    def __init__(self, timeout: float, connect_timeout: float | None, max_bytes: int) -> None:
        now = time.monotonic()
        self._ends_at_last, self.bytes_left = now + timeout, max_bytes
        self._ends = now + (timeout if connect_timeout is None else min(timeout, connect_timeout))
        self._timer: threading.Timer | None = None
        self._sock: socket.socket | None = None
        self.connected = self.expired = False
        self.proxy = ""  # host and port, once a proxy is used
        register_fork_aware(self)

    def reset_after_fork(self) -> None:
        """Close the child's copy of the connection (rule 8)."""
        if self._sock is not None:
            close_copy(self._sock.detach())  # close() waits for the readers of the response

    def left(self) -> float:
        """Return the seconds left; never 0, which would mean a non-blocking socket."""
        return max(self._ends - time.monotonic(), 0.001)

    def connect(self, address: tuple[str, int], *_more: object) -> socket.socket:
        """Return a connection to one of the addresses of a host, ended at the deadline."""
        error: OSError = OSError(f"{address[0]} has no address")
        for family, kind, protocol, _name, where in socket.getaddrinfo(*address, type=socket.SOCK_STREAM):
            sock = self._sock = socket.socket(family, kind, protocol)
            try:
                sock.settimeout(self.left())
                _keep_alive(sock)
                sock.connect(where)
                self.watch(sock)
                return sock
            except OSError as failed:
                error = failed
                sock.close()
        raise error

    def watch(self, sock: socket.socket) -> None:
        """End *sock* at the deadline, instead of the socket before it (TLS wraps one into another)."""
        self._sock = sock
        if self._timer is None:
            self._start_timer()

    def extend(self, sock: socket.socket) -> None:
        """Give the connected *sock* the time of the whole request (rule 3)."""
        if self._ends < self._ends_at_last and not self.expired:
            self.end()
            self._ends = self._ends_at_last
            sock.settimeout(self.left())
            self._start_timer()

    def _start_timer(self) -> None:
        self._timer = threading.Timer(self.left(), self._cut)
        self._timer.daemon = True
        self._timer.start()

    def end(self) -> None:
        """Stop the timer: the request is over."""
        if self._timer:
            self._timer.cancel()

    def _cut(self) -> None:
        self.expired = True
        with contextlib.suppress(OSError):
            if self._sock is not None:
                self._sock.shutdown(socket.SHUT_RDWR)


KEEP_ALIVE_OPTIONS = {  # rule 7: seconds, but for the count of probes; the last in milliseconds
    "TCP_KEEPIDLE": 10,
    "TCP_KEEPALIVE": 10,  # as macOS calls it
    "TCP_KEEPINTVL": 5,
    "TCP_KEEPCNT": 3,
    "TCP_USER_TIMEOUT": 25_000,
}


def _keep_alive(sock: socket.socket) -> None:
    """Let the system of *sock* ask the other end whether it is still there, as far as it can (rule 7)."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEP_ALIVE_OPTIONS.items():
        if (option := getattr(socket, name, None)) is not None:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, option, value)


class _Http(urllib.request.HTTPHandler):
    """Open connections that end at the deadline."""

    def __init__(self, deadline: _Deadline) -> None:
        super().__init__()
        self._deadline = deadline

    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        self._deadline.proxy = _proxy_of(request)
        return self.do_open(_connection_with_deadline(http.client.HTTPConnection, self._deadline), request)


class _Https(urllib.request.HTTPSHandler):
    """The same over TLS."""

    def __init__(self, deadline: _Deadline, tls: ssl.SSLContext) -> None:
        super().__init__(context=tls)
        self._deadline, self._tls = deadline, tls

    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        self._deadline.proxy = _proxy_of(request)
        connection = _connection_with_deadline(http.client.HTTPSConnection, self._deadline)
        return self.do_open(connection, request, context=self._tls)


def _proxy_of(request: urllib.request.Request) -> str:
    """Return host and port of the proxy that urllib has chosen for *request*, without its password; "" without one."""
    is_proxied = request.has_proxy() or getattr(request, "_tunnel_host", None)
    return request.host if is_proxied else ""


def _connection_with_deadline(kind: type[http.client.HTTPConnection], deadline: _Deadline) -> Any:
    class CountedResponse(http.client.HTTPResponse):
        def __init__(self, *args: Any, **settings: Any) -> None:
            super().__init__(*args, **settings)
            self.fp = io.BufferedReader(_CountedBytes(self.fp.detach(), deadline))

    class Connection(kind):  # type: ignore[valid-type,misc]  # one of two classes of the standard library
        response_class = CountedResponse

        def __init__(self, *args: Any, **settings: Any) -> None:
            super().__init__(*args, **settings)
            self._create_connection = deadline.connect

        def connect(self) -> None:
            super().connect()  # TCP, CONNECT to a proxy, TLS
            deadline.watch(self.sock)
            deadline.extend(self.sock)
            if deadline.expired:
                raise TimeoutError
            deadline.connected = True  # rule 6: from here on the request may arrive

    return Connection


class _CountedBytes(io.RawIOBase):
    """The bytes of a response; more than the deadline allows are an error (rule 5)."""

    def __init__(self, raw: io.RawIOBase, deadline: _Deadline) -> None:
        self._raw, self._deadline = raw, deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        size: int | None = self._raw.readinto(buffer)
        self._deadline.bytes_left -= size or 0
        if self._deadline.bytes_left < 0:
            raise _TooLong("it is too long")
        return size

    def close(self) -> None:
        self._raw.close()
        super().close()


class _NoRedirects(urllib.request.HTTPErrorProcessor):
    """Return each response as it is: redirects are not followed (rule 2), and no status is an exception."""

    def http_response(self, request: urllib.request.Request, response: Any) -> Any:  # noqa: ARG002  # the base's names
        return response

    https_response = http_response
