"""A real server on loopback with rotation, a reuse alarm, and faults on request. What counts is counted here.

1. It is unbroken's own server, unchanged: what it says about reuse is what production says.
2. A fault is for the next exchange, or for the next few: then the server is well again.
3. Everything that waits is bounded; leaving the ``with`` block ends it all.
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

from unbroken.client.core.dialect import oauth2, unbroken_server
from unbroken.client.session import Session
from unbroken.server import MemorySessionStore, Policy, Sessions
from unbroken.starlette import AccessTokenMiddleware, current_claims, routes
from unbroken.testing.network import Network

__all__ = ["PASSWORD", "LoopbackServer", "running"]

PASSWORD = "correct horse"
ISSUER = "http://127.0.0.1:8400"  # nothing listens there: the server's own port is not known yet
PATIENCE = 2.0  # seconds; a renewal behind a request may begin when the request is over


class LoopbackServer:
    """``with LoopbackServer() as server: session = server.login()``.

    Any user may log in with ``PASSWORD``. ``/echo`` needs a session and tells what it received; ``/never`` rejects
    every token; ``/stream`` sends three lines, slowly; ``/redirect?to=URL`` redirects. *more*: your own routes.
    ``exchanges`` counts refresh requests, ``alarms()`` sessions that were ended because a token was used twice.
    Times are in seconds.
    """

    def __init__(self, access_ttl: float = 1800.0, *, grace: float = 10.0, more: list[Route] | None = None) -> None:
        self.sessions = Sessions(MemorySessionStore(), policy=Policy(access_ttl=access_ttl, grace=grace), issuer=ISSUER)
        self.url = ""
        self._network: Network | None = None
        self.exchanges = 0
        self.bodies: list[str] = []  # SHA-256 of each body that /echo received from a session that is alive
        self.seen: list[tuple[str, str]] = []  # path and Authorization of each request to the API
        self._faults: list[Callable[[], Awaitable[Response | None]]] = []  # for the next exchanges, in order
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
        """What loses answers. Raises RuntimeError before the ``with`` block."""
        if self._network is None:
            raise RuntimeError("the server does not run yet: open it, `with LoopbackServer() as server:`")
        return self._network

    @network.setter
    def network(self, network: Network) -> None:
        self._network = network

    # ---- sessions ----------------------------------------------------------------------------------------------

    def login(self, username: str = "ada", *, foreign: bool = False, **settings: Any) -> Session:
        """A session that is logged in here. *foreign*: as a plain OAuth 2.0 client, without our own extras."""
        self.network  # noqa: B018  # raises if there is no server yet
        dialect = unbroken_server(self.url)
        session = Session(dialect, **settings)
        granted = session.login(username, PASSWORD)
        if foreign:
            session = Session(oauth2(self.url + "/auth/token"), **settings)
            session.import_tokens(granted)
        return session

    def expire(self) -> None:
        """All access tokens die now, whatever their clients' clocks say."""
        [*_, old] = self.sessions.keyring().signing
        self.sessions.rotate_keys(publish_ahead=0.0)
        self.sessions.retire_key(old.kid)

    def alarms(self) -> int:
        """How many sessions were ended because a refresh token was used twice."""
        return sum(info.revoked_why == "reuse" for info in self.sessions.list_sessions(include_revoked=True))

    @contextmanager
    def assert_one_refresh(self) -> Iterator[None]:
        """Fails unless exactly one refresh request arrives in the ``with`` block, and no reuse alarm is raised.

        One that was begun behind a request is waited for, but not for its answer.
        """
        exchanges, alarms = self.exchanges, self.alarms()
        yield
        ends = time.monotonic() + PATIENCE
        while self.exchanges == exchanges and time.monotonic() < ends:
            time.sleep(0.01)
        made, raised = self.exchanges - exchanges, self.alarms() - alarms
        if made != 1 or raised:
            raise AssertionError(f"expected one exchange and no alarm; exchanges: {made}, alarms: {raised}")

    # ---- faults ------------------------------------------------------------------------------------------------

    def fail_next(self, status: int, *, headers: dict[str, str] | None = None, body: bytes = b"{}") -> None:
        """The next exchange is answered with *status*, and does not happen."""

        async def fault() -> Response:
            return Response(body, status, headers)

        self._faults.append(fault)

    def junk_next(self, body: bytes = b"<html>it works</html>") -> None:
        """The next exchange is answered with 200 and something that is no token response."""
        self.fail_next(200, body=body)

    def slow_next(self, seconds: float) -> None:
        """The next exchange happens *seconds* later."""

        async def fault() -> None:
            await asyncio.sleep(seconds)

        self._faults.append(fault)

    def lose_next(self, answers: int = 1) -> None:
        """The next exchange happens, and its answer never arrives."""
        self.network.lose += answers

    def skew(self, seconds: float) -> None:
        """The server's clock goes wrong: its ``Date`` is *seconds* ahead, or behind if negative."""
        self._skew = seconds

    # ---- the application ---------------------------------------------------------------------------------------

    def app(self) -> Any:
        """The ASGI application, for a server of one's own."""
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
                self.exchanges += 1
                if self._faults and (answer := await self._faults.pop(0)()) is not None:
                    await answer(scope, receive, send)
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
    """*app* by a real uvicorn in a thread; its port."""
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # named, for TCP_NODELAY
    listening.bind(("127.0.0.1", 0))
    config = uvicorn.Config(
        app,
        http="h11",  # the same wherever it runs, and the one that hands on whatever comes
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
