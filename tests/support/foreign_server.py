"""A token endpoint of somebody else, over real HTTP: it rotates, knows no idempotency keys, and can be slow.

``strict``: a used refresh token ends the session. ``forgiving``: it is accepted again for ten seconds. ``refusing``: it
is rejected, and nothing more. ``GET /echo`` takes the newest access tokens of a session that has not ended.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, Self
from urllib.parse import parse_qs

__all__ = ["ForeignServer"]

GRACE_SECONDS = 10.0


class ForeignServer:
    """``with ForeignServer("strict") as server:`` one session, whose first tokens are ``server.first``.

    ``seconds``: how long a response takes, after the rotation. ``hang_up``: how many of the next refreshes get no
    response, either ``before`` they are carried out or after. ``number``: what the next response has as
    ``refresh_seq``; None: none. ``presented``: the refresh tokens that came. ``reused``: how many of them were used.
    """

    def __init__(self, kind: Literal["strict", "forgiving", "refusing"], *, seconds: float = 0.0) -> None:
        self.kind, self.seconds, self.number = kind, seconds, None
        self.hang_up: list[Literal["before", "after"]] = []
        self.presented: list[str] = []
        self.reused, self.ended, self.generation = 0, False, 0
        self.rotated = threading.Event()
        self._current, self._previous, self._rotated_at = "R0", "", 0.0
        self._lock = threading.Lock()
        self.number: int | None

    def __enter__(self) -> Self:
        self._http = _Http(("127.0.0.1", 0), _handler_of(self))
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    @property
    def first(self) -> dict[str, object]:
        return {"access_token": "A0", "refresh_token": "R0", "expires_in": 3600, "refresh_seq": self.number}

    def accepts(self, access_token: str) -> bool:
        return not self.ended and access_token == f"A{self.generation}"

    def refresh(self, token: str) -> tuple[int, dict[str, object]]:
        """Carry out one refresh, and return status and body of its response."""
        with self._lock:
            self.presented.append(token)
            if not self._may_rotate(token):
                self.reused += 1
                self.ended = self.ended or self.kind != "refusing"
                return 400, {"error": "invalid_grant", "error_description": "this token was used"}
            self.generation += 1
            self._previous, self._current, self._rotated_at = token, f"R{self.generation}", time.monotonic()
            self.number = None if self.number is None else self.number + 1
            body = {"access_token": f"A{self.generation}", "refresh_token": self._current, "expires_in": 3600}
        self.rotated.set()
        return 200, body if self.number is None else body | {"refresh_seq": self.number}

    def _may_rotate(self, token: str) -> bool:
        if self.ended or token == self._current:
            return not self.ended
        is_recent = time.monotonic() - self._rotated_at < GRACE_SECONDS
        return self.kind == "forgiving" and token == self._previous and is_recent


class _Http(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed is no error of the server."""


def _handler_of(server: ForeignServer) -> Callable[..., BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            form = parse_qs(self.rfile.read(int(self.headers["content-length"])).decode())
            fault = server.hang_up.pop(0) if server.hang_up else ""
            if fault == "before":
                return self._hang_up()
            status, body = server.refresh(form["refresh_token"][0])
            if fault:
                return self._hang_up()
            time.sleep(server.seconds if status == 200 else 0.0)
            return self._respond(status, body)

        def do_GET(self) -> None:
            token = self.headers.get("authorization", "").removeprefix("Bearer ")
            self._respond(*((200, {}) if server.accepts(token) else (401, {})))

        def _respond(self, status: int, body: dict[str, object]) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def _hang_up(self) -> None:
            self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    return Handler
