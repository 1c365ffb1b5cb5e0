"""A real server on loopback with faults on request, for tests of the client. What counts is counted here."""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from unbroken.testing.network import Network as Proxy
from unbroken.server import MemoryStore, Policy, Sessions
from unbroken.starlette import SessionMiddleware, current_session, routes

PASSWORD = "correct horse"


class Backend:
    """The server, its sessions, and its faults. ``url`` goes through a proxy that can lose answers."""

    def __init__(self, access_ttl: float) -> None:
        self.sessions = Sessions(MemoryStore(), policy=Policy(access_ttl=access_ttl))
        self.faults: list[Callable[[], Awaitable[Response | None]]] = []  # for the next refreshes, in order
        self.exchanges = 0
        self.bodies: list[str] = []
        self.seen: list[tuple[str, str]] = []  # path and Authorization of each request to the API
        self.parked = 0

    def expire(self) -> None:
        """All access tokens die now, whatever their clients' clocks say."""
        [*_, old] = self.sessions.keyring().signing
        self.sessions.rotate_keys(publish_ahead=0.0)
        self.sessions.retire_key(old.kid)

    def fail_next(self, status: int, *, headers: dict[str, str] | None = None, body: bytes = b"{}") -> None:
        async def fault() -> Response:
            return Response(body, status, headers)

        self.faults.append(fault)

    def slow_next(self, seconds: float) -> None:
        async def fault() -> None:
            await asyncio.sleep(seconds)

        self.faults.append(fault)

    def alarms(self) -> int:
        return sum(info.revoked_why == "reuse" for info in self.sessions.list_all(include_ended=True))

    # ---- the API -----------------------------------------------------------------------------------------------

    async def echo(self, request: Request) -> Response:
        self.seen.append((request.url.path, request.headers.get("authorization", "")))
        claims = current_session(request)
        body = await request.body()
        self.bodies.append(hashlib.sha256(body).hexdigest())
        return JSONResponse({"sub": claims.subject, "sid": claims.sid, "length": len(body)})

    async def never(self, request: Request) -> Response:
        """Answers 401 to whatever token."""
        self.seen.append((request.url.path, ""))
        return Response(status_code=401, headers={"www-authenticate": 'Bearer error="invalid_token"'})

    async def redirect(self, request: Request) -> Response:
        return RedirectResponse(request.query_params["to"])

    async def stream(self, request: Request) -> Response:
        current_session(request)

        async def chunks() -> Any:
            for number in range(3):
                yield f"{number}\n"
                await asyncio.sleep(0.01)

        return StreamingResponse(chunks())

    def app(self) -> Any:
        api = [
            Route("/echo", self.echo, methods=["GET", "POST", "PUT"]),
            Route("/never", self.never),
            Route("/redirect", self.redirect),
            Route("/stream", self.stream),
        ]
        auth = routes(self.sessions, lambda name, password: name if password == PASSWORD else None)
        app = Starlette(routes=[*auth, *api], middleware=[Middleware(SessionMiddleware, sessions=self.sessions)])

        async def with_faults(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http" and scope["path"] in ("/auth/refresh", "/auth/token"):
                self.exchanges += 1
                if self.faults and (answer := await self.faults.pop(0)()) is not None:
                    await answer(scope, receive, send)
                    return
            await app(scope, receive, send)

        return with_faults


@contextmanager
def running(app: Any) -> Iterator[int]:
    """*app* by a real uvicorn in a thread; its port."""
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # named, for TCP_NODELAY
    listening.bind(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_level="error", lifespan="off", timeout_graceful_shutdown=0)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        while not server.started:
            thread.join(0.005)
        yield listening.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(10)
        listening.close()


@contextmanager
def backend(access_ttl: float = 1800.0) -> Iterator[Backend]:
    """A running backend, behind a proxy."""
    built = Backend(access_ttl)
    with running(built.app()) as port:
        built.network = Proxy(port)
        built.network.start()
        built.url = f"http://127.0.0.1:{built.network.port}"
        try:
            yield built
        finally:
            built.network.stop()


def as_json(value: object) -> bytes:
    return json.dumps(value).encode()
