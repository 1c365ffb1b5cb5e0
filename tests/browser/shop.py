"""unbroken's own server over SQLite, with an API beside it, faults on request, and counters."""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from tests.interop.backends.base import Fault, Torn
from unbroken.server import Policy, ProofPolicy, Sessions, SqliteSessionStore
from unbroken.starlette import AccessTokenMiddleware, current_claims, routes

__all__ = ["PASSWORD", "Shop"]

PASSWORD = "correct horse"
REFRESH = "/auth/refresh"
ENDLESS = 60.0  # seconds; no test waits that long


class Shop:
    """One server. ``refreshes``, ``alarms()`` and ``bodies`` are what it saw; *settings* are those of its endpoints.

    Everyone who knows the password is logged in, unless *authenticate* says otherwise.
    """

    def __init__(
        self,
        folder: Path,
        *,
        access_ttl: float = 1800.0,
        grace: float = 10.0,
        proofs: ProofPolicy | str = "accepted",
        authenticate: Any = lambda name, word: name if word == PASSWORD else None,
        **settings: Any,
    ) -> None:
        self._store = SqliteSessionStore(folder / "sessions.db")
        self.sessions = Sessions(self._store, policy=Policy(access_ttl=access_ttl, grace=grace), proofs=proofs)
        self._authenticate, self._settings = authenticate, settings
        self.url = ""
        self.faults: deque[Fault] = deque()
        self.refreshes = 0
        self.idempotency_keys: list[str] = []  # of each refresh
        self.seen: list[tuple[str, str]] = []  # path, and who sent it if the token was good
        self.arrived: list[bytes] = []  # each body, whatever the token
        self.bodies: list[str] = []  # SHA-256 of each body that arrived with a good token

    def expire(self) -> None:
        """All access tokens die now, whatever their clients' clocks say."""
        [*_, old] = self.sessions.keyring().signing
        self.sessions.rotate_keys(publish_ahead=0.0)
        self.sessions.retire_key(old.kid)

    def alarms(self) -> int:
        """How many sessions were ended because a refresh token was used twice."""
        return sum(info.revoked_why == "reuse" for info in self.sessions.list_sessions(include_revoked=True))

    def spoil(self, fault: Fault, *, times: int = 1) -> None:
        """Let the next refreshes go wrong."""
        self.faults.extend([fault] * times)

    async def _echo(self, request: Request) -> Response:
        body = await request.body()
        self.arrived.append(body)
        self.seen.append((request.url.path, ""))
        claims = current_claims(request)
        self.seen[-1] = (request.url.path, claims.subject)
        self.bodies.append(hashlib.sha256(body).hexdigest())
        return JSONResponse({"user": claims.subject, "sha256": self.bodies[-1], "length": len(body)})

    async def _never(self, _request: Request) -> Response:
        self.seen.append(("/never", ""))
        return Response(status_code=401, headers={"www-authenticate": 'Bearer error="invalid_token"'})

    async def _lines(self, request: Request) -> Response:
        """Says one line at once, in the media type that is asked for, and no more until the reader goes away."""

        async def lines() -> AsyncIterator[str]:
            yield '{"code": 200}\n'
            await asyncio.sleep(ENDLESS)

        return StreamingResponse(lines(), media_type=request.query_params["type"])

    async def _socket(self, socket: WebSocket) -> None:
        """Takes its token as a subprotocol, the only header of a WebSocket that a page can set."""
        protocol = socket.headers.get("sec-websocket-protocol", "").split(",")[-1].strip()
        await socket.accept(subprotocol="unbroken")
        claims = await self.sessions.averify(protocol)
        await socket.send_text(claims.subject)
        await socket.close()

    def app(self) -> Any:
        """The ASGI application."""
        auth = routes(self.sessions, self._authenticate, **self._settings)
        own = {name: self._settings[name] for name in ("cookies", "origins") if name in self._settings}
        methods = ["GET", "POST", "PUT", "DELETE"]
        api = [Route("/echo", self._echo, methods=methods), Route("/never", self._never, methods=methods)]
        api.append(Route("/lines", self._lines))
        middleware = [Middleware(AccessTokenMiddleware, sessions=self.sessions, **own)]
        app = Starlette(routes=[*auth, *api, WebSocketRoute("/socket", self._socket)], middleware=middleware)

        async def with_faults(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] != "http" or scope["path"] != REFRESH or scope["method"] != "POST":
                await app(scope, receive, send)
                return
            self.refreshes += 1
            self.idempotency_keys.append(dict(scope["headers"]).get(b"idempotency-key", b"").decode())
            await self._spoiled(app, scope, receive, send)

        return with_faults

    async def _spoiled(self, app: Any, scope: Any, receive: Any, send: Any) -> None:
        fault = self.faults.popleft() if self.faults else Fault()
        await asyncio.sleep(fault.seconds)
        if fault.used or not (fault.lost or fault.status):
            await app(scope, receive, _nowhere if fault.lost or fault.status else send)
        if fault.lost:
            await Torn()(scope, receive, send)
        elif fault.status:
            await Response(fault.body, fault.status, dict(fault.headers), "application/json")(scope, receive, send)

    def close(self) -> None:
        self._store.close()


async def _nowhere(_message: Any) -> None:
    """Drop a response."""
