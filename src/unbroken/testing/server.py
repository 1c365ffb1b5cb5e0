"""A real server on loopback with rotation, reuse detection, faults on request, and counters for assertions.

1. It is unbroken's own server, unchanged: it decides about reuse as in production.
2. A fault applies to the next refresh, or the next few; then the server works again.
3. Every wait is bounded; leaving the ``with`` block stops the server.
"""

from __future__ import annotations

import asyncio
import hashlib
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from email.utils import formatdate
from typing import Any, Self

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from unbroken._arguments import checked_class
from unbroken.client.core.backends import oauth2, unbroken_server
from unbroken.client.session import Session
from unbroken.server import MemorySessionStore, Policy, Sessions
from unbroken.starlette import AccessTokenMiddleware, current_claims, routes
from unbroken.testing.network import Network

__all__ = ["PASSWORD", "LoopbackServer", "running"]

PASSWORD = "correct horse"
ISSUER = "http://127.0.0.1:8400"  # nothing listens there: the server's own port is not known yet
BACKGROUND_REFRESH_SECONDS = 2.0  # a background refresh may start after the response to the request


@checked_class()
class LoopbackServer:
    """``with LoopbackServer() as server: session = server.login()``.

    Any user name may log in, with ``PASSWORD``. ``/echo`` needs a session and returns what it received; ``/never``
    rejects every token; ``/stream`` sends three lines, slowly; ``/redirect?to=URL`` redirects. *more*: routes of your
    own. ``refreshes`` counts refresh requests, ``alarms()`` sessions that were revoked for reuse. Times are in seconds.
    """

    def __init__(self, access_ttl: float = 1800.0, *, grace: float = 10.0, more: list[Route] | None = None) -> None:
        self.sessions = Sessions(MemorySessionStore(), policy=Policy(access_ttl=access_ttl, grace=grace), issuer=ISSUER)
        self.url = ""
        self._network: Network | None = None
        self.refreshes = 0
        self.bodies: list[str] = []  # SHA-256 of each body that /echo received with a valid token
        self.seen: list[tuple[str, str]] = []  # path and Authorization of each request to the API
        self._faults: list[Callable[[], Awaitable[Response | None]]] = []  # for the next refreshes, in order
        self._skew = 0.0
        self._more = more or []
        self._open: Any = None

    def __enter__(self) -> Self:
        self._open = _opened(self)
        self._open.__enter__()
        return self

    def __exit__(self, *why: object) -> None:
        self._open.__exit__(*why)

    @property
    def network(self) -> Network:
        """The network that loses responses. Raises RuntimeError before the ``with`` block."""
        if self._network is None:
            raise RuntimeError("the server does not run yet: start it, `with LoopbackServer() as server:`")
        return self._network

    @network.setter
    def network(self, network: Network) -> None:
        self._network = network

    # ---- sessions ----------------------------------------------------------------------------------------------

    def login(self, username: str = "ada", *, foreign: bool = False, **settings: Any) -> Session:
        """Return a new session that is logged in. *foreign*: as a client that knows OAuth 2.0 only."""
        self.network  # noqa: B018  # raises RuntimeError if the server does not run
        dialect = unbroken_server(self.url)
        session = Session(dialect, **settings)
        granted = session.login(username, PASSWORD)
        if foreign:
            session = Session(oauth2(self.url + "/auth/token"), **settings)
            session.import_tokens(granted)
        return session

    def expire(self) -> None:
        """Make all access tokens invalid now, whatever their clients' clocks say."""
        [*_, old] = self.sessions.keyring().signing
        self.sessions.rotate_keys(publish_ahead=0.0)
        self.sessions.retire_key(old.kid)

    def alarms(self) -> int:
        """Return the number of sessions that were revoked because a refresh token was reused."""
        return sum(info.revoked_why == "reuse" for info in self.sessions.list_sessions(include_revoked=True))

    @contextmanager
    def assert_one_refresh(self) -> Iterator[None]:
        """Raise AssertionError unless the ``with`` block makes exactly one refresh request, and no reuse is detected.

        It waits for the request of a background refresh, but not for its response.
        """
        refreshes, alarms = self.refreshes, self.alarms()
        yield
        deadline = time.monotonic() + BACKGROUND_REFRESH_SECONDS
        while self.refreshes == refreshes and time.monotonic() < deadline:
            time.sleep(0.01)
        made, raised = self.refreshes - refreshes, self.alarms() - alarms
        if made != 1 or raised:
            raise AssertionError(f"expected one refresh and no reuse; refreshes: {made}, reuse: {raised}")

    # ---- faults ------------------------------------------------------------------------------------------------

    def fail_next(self, status: int, *, headers: dict[str, str] | None = None, body: bytes = b"{}") -> None:
        """Respond to the next refresh with *status*, and do not carry it out."""

        async def fault() -> Response:
            return Response(body, status, headers)

        self._faults.append(fault)

    def junk_next(self, body: bytes = b"<html>it works</html>") -> None:
        """Respond to the next refresh with 200 and a body that is no token response, and do not carry it out."""
        self.fail_next(200, body=body)

    def slow_next(self, seconds: float) -> None:
        """Delay the next refresh by *seconds*."""

        async def fault() -> None:
            await asyncio.sleep(seconds)

        self._faults.append(fault)

    def lose_next(self, count: int = 1) -> None:
        """Carry out the next *count* refreshes, and lose their responses."""
        self.network.lose += count

    def skew(self, seconds: float) -> None:
        """Set the server's ``Date`` *seconds* ahead, or behind if negative."""
        self._skew = seconds

    # ---- the application ---------------------------------------------------------------------------------------

    def app(self) -> Any:
        """Return the ASGI application, to serve it yourself."""
        api = [
            Route("/echo", self._echo, methods=["GET", "POST", "PUT", "PATCH", "DELETE"]),
            Route("/never", self._never),
            Route("/redirect", self._redirect, methods=["GET", "POST", "PUT"]),
            Route("/stream", self._stream),
            *self._more,
        ]
        auth = routes(self.sessions, lambda name, password: name if password == PASSWORD else None)
        app = Starlette(routes=[*auth, *api], middleware=[Middleware(AccessTokenMiddleware, sessions=self.sessions)])

        async def with_faults(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http" and scope["path"] in ("/auth/refresh", "/auth/token"):
                self.refreshes += 1
                if self._faults and (response := await self._faults.pop(0)()) is not None:
                    await response(scope, receive, send)
                    return
            await app(scope, receive, self._dated(send))

        return with_faults

    def _dated(self, send: Any) -> Any:
        async def dated(message: Any) -> None:
            if self._skew and message["type"] == "http.response.start":
                date = _http_date(self._skew)
                message["headers"] = [h for h in message["headers"] if h[0] != b"date"] + [(b"date", date)]
            await send(message)

        return dated

    async def _echo(self, request: Request) -> Response:
        self.seen.append((request.url.path, request.headers.get("authorization", "")))
        claims = current_claims(request)
        body = await request.body()
        self.bodies.append(hashlib.sha256(body).hexdigest())
        return JSONResponse({"sub": claims.subject, "sid": claims.sid, "length": len(body)})

    async def _never(self, request: Request) -> Response:
        self.seen.append((request.url.path, request.headers.get("authorization", "")))
        return Response(status_code=401, headers={"www-authenticate": 'Bearer error="invalid_token"'})

    async def _redirect(self, request: Request) -> Response:
        status = int(request.query_params.get("status", "307"))
        return RedirectResponse(request.query_params["to"], status)

    async def _stream(self, request: Request) -> Response:
        current_claims(request)

        async def chunks() -> Any:
            for number in range(3):
                yield f"{number}\n"
                await asyncio.sleep(0.01)

        return StreamingResponse(chunks())


@contextmanager
def running(app: Any) -> Iterator[int]:
    """Serve *app* with a real uvicorn in a thread; yield its port."""
    # The protocol is named because asyncio switches TCP_NODELAY on only for sockets that name it.
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.bind(("127.0.0.1", 0))
    config = uvicorn.Config(
        app,
        http="h11",  # the same on every machine; it also passes malformed headers on
        log_level="critical",
        lifespan="off",
        timeout_graceful_shutdown=0,
        server_header=False,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        while not server.started and thread.is_alive():
            thread.join(0.005)
        yield listening.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(10)
        listening.close()


@contextmanager
def _opened(server: LoopbackServer) -> Iterator[None]:
    with running(server.app()) as port:
        server.network = Network(port)
        server.network.start()
        server.url = f"http://127.0.0.1:{server.network.port}"
        try:
            yield
        finally:
            with suppress(RuntimeError):
                server.network.stop()


def _http_date(skew: float) -> bytes:
    return formatdate(time.time() + skew, usegmt=True).encode()
