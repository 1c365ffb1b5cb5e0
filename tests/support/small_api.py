"""A small real server behind a session: it takes the newest access token only."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from unbroken import Dialect, HttpRequest, HttpResponse, RequestTemplate, Send, Session
from unbroken.testing import ManualClock

__all__ = ["BEARER", "Said", "SmallApi", "session_at"]

BEARER = 'Bearer error="invalid_token"'
Said = tuple[int, list[tuple[str, str]], bytes]


class SmallApi:
    """``with SmallApi() as api:`` it runs at ``url``. *page* gives responses to requests with a good token."""

    def __init__(self, page: Callable[[str], Said | None] | None = None, *, header: str = "authorization") -> None:
        self.good, self.refused, self.header = "A1", (401, [("www-authenticate", BEARER)], b"{}"), header
        self.seen: list[tuple[str, str | None]] = []
        self.bodies: list[bytes] = []
        self._page = page
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def refresh(self, call: HttpRequest, timeout: float) -> HttpResponse:
        """The refresh, for ``Session(send=…)``."""
        self.good = f"A{int(self.good[1:]) + 1}"
        return HttpResponse(200, {}, json.dumps({"access_token": self.good, "refresh_token": "R"}).encode())

    def response(self, path: str, token: str | None, body: bytes) -> Said:
        self.seen.append((path, token))
        self.bodies.append(body)
        if path != "/open" and (token or "").removeprefix("Bearer ") != self.good:
            return self.refused
        return (self._page(path) if self._page else None) or (200, [("content-type", "application/json")], b'{"a": 1}')


def _handler(backend: SmallApi) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            sent = self.rfile.read(int(self.headers.get("content-length") or 0))
            status, headers, body = backend.response(self.path, self.headers.get(backend.header), sent)
            self.send_response(status)
            for name, value in [*headers, ("content-length", str(len(body)))]:
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815  # the base asks for this name

        def log_message(self, *_: Any) -> None: ...

    return Handler


def session_at(
    backend: SmallApi, token: str = "A1", *, clock: ManualClock | None = None, send: Send | None = None, **about: Any
) -> Session:
    dialect = Dialect(refresh=RequestTemplate(backend.url + "/refresh"), **about)
    session = Session(dialect, send=send or backend.refresh, **({"clock": clock} if clock else {}))
    session.import_tokens({"access_token": token, "refresh_token": "R", "expires_in": 1800})
    return session
