"""The library's own connection for exchanges, logins and logouts: one request, one answer, over the standard library.

1. Nothing of the user's client is on this path: no hooks, no history, no logs, no expired token, no silent retry.
2. Redirects are not followed: a refresh token goes to the URL it was meant for, and nowhere else.
3. ``timeout`` is for the whole of it, also for a server that sends one byte a second, or has ten addresses that do not
   answer. Only the system's own name lookup cannot be cut short.
4. Proxies come from the environment (``HTTPS_PROXY``, ``NO_PROXY`` …), as for every other program; never for loopback,
   where plain http is allowed.
5. An answer that is shorter than it says is no answer.

What goes wrong is told apart: ``Unsent`` when the request cannot have reached the server, ``Lost`` when it may have.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import socket
import ssl
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from typing import Any, NoReturn

from unbroken._http import MAX_BODY_BYTES, HttpRequest, HttpResponse
from unbroken._origins import is_loopback

__all__ = ["NotSent", "ResponseLost", "Send", "http_sender"]

Send = Callable[[HttpRequest, float], HttpResponse]


class NotSent(Exception):
    """The server was not reached: the request certainly was not carried out."""


class ResponseLost(Exception):
    """No answer came back: the request may have been carried out."""


def http_sender(context: ssl.SSLContext | None = None, most: int = MAX_BODY_BYTES) -> Send:
    """A function that sends one ``Call`` within so many seconds. Raises Unsent or Lost, each from its cause.

    *most*: bytes of an answer; a longer one is none.
    """

    def send(call: HttpRequest, timeout: float) -> HttpResponse:
        watch = _Deadline(timeout)
        try:
            return _send(call, watch, context or _default_tls(), most)
        except (OSError, http.client.HTTPException, ValueError) as error:
            _explain(error, call, watch)
        finally:
            watch.end()

    return send


@functools.cache
def _default_tls() -> ssl.SSLContext:
    """The system's trusted authorities; reading them takes some 20 ms, so it is done once, when it is needed."""
    return ssl.create_default_context()


def _send(call: HttpRequest, watch: _Deadline, tls: ssl.SSLContext, most: int) -> HttpResponse:
    handlers: list[urllib.request.BaseHandler] = [_Http(watch), _Https(watch, tls), _NoRedirects()]
    if is_loopback(urllib.parse.urlsplit(call.url).hostname or ""):
        handlers.append(urllib.request.ProxyHandler({}))
    opener = urllib.request.build_opener(*handlers)
    opener.addheaders = [("user-agent", "unbroken")]
    request = urllib.request.Request(call.url, call.body, dict(call.headers), method=call.method)  # noqa: S310  # http(s) only, checked when the dialect was taken
    with opener.open(request, timeout=watch.left()) as response:
        body = response.read(most + 1)
        if len(body) > most:
            raise http.client.HTTPException("the answer is too long")
        headers = {name.lower(): value for name, value in response.headers.items()}
        if response.length:  # bytes that were announced, and did not come
            raise http.client.IncompleteRead(body)
        return HttpResponse(response.status, headers, body)


def _explain(error: Exception, call: HttpRequest, watch: _Deadline) -> NoReturn:
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    where = call.url.partition("?")[0]
    if not watch.connected:
        raise NotSent(f"{where} cannot be reached") from (reason if isinstance(reason, Exception) else error)
    why = "within its time" if watch.expired else "before the connection broke"
    raise ResponseLost(f"{where} did not answer {why}") from (reason if isinstance(reason, Exception) else error)


class _Deadline:
    """Ends a connection when its time is over, whatever it is doing."""

    def __init__(self, timeout: float) -> None:
        self._ends = time.monotonic() + timeout
        self._timer: threading.Timer | None = None
        self._sock: socket.socket | None = None
        self.connected = self.expired = False

    def left(self) -> float:
        return max(self._ends - time.monotonic(), 0.001)

    def connect(self, address: tuple[str, int], *_more: object) -> socket.socket:
        """A connection to one of the addresses of a host; over which a watch is kept from now on."""
        error: OSError = OSError(f"{address[0]} has no address")
        for family, kind, protocol, _name, where in socket.getaddrinfo(*address, type=socket.SOCK_STREAM):
            sock = socket.socket(family, kind, protocol)
            try:
                sock.settimeout(self.left())
                sock.connect(where)
                self.watch(sock)
                return sock
            except OSError as failed:
                error = failed
                sock.close()
        raise error

    def watch(self, sock: socket.socket) -> None:
        """Keeps watch over *sock*, instead of the one before."""
        self._sock = sock
        if self._timer is None:
            self._timer = threading.Timer(self.left(), self._cut)
            self._timer.daemon = True
            self._timer.start()

    def end(self) -> None:
        if self._timer:
            self._timer.cancel()

    def _cut(self) -> None:
        self.expired = True
        with contextlib.suppress(OSError):
            if self._sock is not None:
                self._sock.shutdown(socket.SHUT_RDWR)


class _Http(urllib.request.HTTPHandler):
    """Connections over which a watch is kept."""

    def __init__(self, watch: _Deadline) -> None:
        super().__init__()
        self._watch = watch

    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_connection_with_deadline(http.client.HTTPConnection, self._watch), request)


class _Https(urllib.request.HTTPSHandler):
    """The same over TLS."""

    def __init__(self, watch: _Deadline, tls: ssl.SSLContext) -> None:
        super().__init__(context=tls)
        self._watch, self._tls = watch, tls

    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(
            _connection_with_deadline(http.client.HTTPSConnection, self._watch), request, context=self._tls
        )


def _connection_with_deadline(kind: type[http.client.HTTPConnection], watch: _Deadline) -> Any:
    class Watched(kind):  # type: ignore[valid-type,misc]  # one of two classes of the standard library
        def __init__(self, *args: Any, **settings: Any) -> None:
            super().__init__(*args, **settings)
            self._create_connection = watch.connect

        def connect(self) -> None:
            super().connect()  # TCP, a proxy's CONNECT, TLS
            watch.watch(self.sock)
            watch.connected = True

    return Watched


class _NoRedirects(urllib.request.HTTPErrorProcessor):
    """Hands every answer over as it came: no redirect is followed, no status is an exception."""

    def http_response(self, request: urllib.request.Request, response: Any) -> Any:  # noqa: ARG002  # the base's names
        return response

    https_response = http_response
