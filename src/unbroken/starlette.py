"""The server's endpoints and the current session for Starlette.

    app = Starlette(routes=[*routes(sessions, authenticate), Route("/orders", orders)],
                    middleware=[Middleware(SessionMiddleware, sessions=sessions)])

    async def orders(request):
        claims = current_session(request)          # answers 401 with an RFC 6750 challenge by itself

This file translates; it decides nothing. A client's address is the connection's: behind a proxy, tell the ASGI server.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.requests import Request as StarletteRequest
from starlette.responses import Response as StarletteResponse
from starlette.routing import Route as StarletteRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from unbroken.errors import InvalidToken, TryLater
from unbroken.server.access_token import Claims
from unbroken.server.endpoints import ROUTES, Authenticate, Endpoints, Route
from unbroken.server.http import BODY_LIMIT, Request, Response, bearer_of, challenge, refusal
from unbroken.server.sessions import Sessions

__all__ = ["SessionMiddleware", "current_session", "routes"]

FOUND = "unbroken.claims"  # in the ASGI scope: Claims, or the Response that refuses the request


def routes(
    sessions: Sessions, authenticate: Authenticate, *, prefix: str = "/auth", password_grant: bool = False
) -> list[StarletteRoute]:
    """The endpoints as routes; see ``unbroken.server.Endpoints``."""
    endpoints = Endpoints(sessions, authenticate, prefix=prefix, password_grant=password_grant)
    return [
        StarletteRoute(endpoints.path(route), _endpoint(endpoints, route), methods=[route.method], name=route.name)
        for route in ROUTES
    ]


class SessionMiddleware:
    """Verifies the bearer token of every request, for ``current_session``. It refuses nothing by itself."""

    def __init__(self, app: ASGIApp, sessions: Sessions) -> None:
        self._app, self._sessions = app, sessions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            scope[FOUND] = await found(self._sessions, HTTPConnection(scope))
        await self._app(scope, receive, send)


def current_session(request: HTTPConnection, *, scope: str = "") -> Claims:
    """The session that sends *request*. Without a good token the client gets a 401 challenge (RFC 6750 §3), with too
    little *scope* a 403. Raises RuntimeError if ``SessionMiddleware`` is not installed.
    """
    if FOUND not in request.scope:
        raise RuntimeError("add SessionMiddleware to the application: current_session needs it")
    return demanded(request.scope[FOUND], scope)


async def found(sessions: Sessions, connection: HTTPConnection) -> Claims | Response:
    """Who sends this, or the response that refuses it."""
    token = bearer_of(Request("", "", {"authorization": connection.headers.get("authorization", "")}))
    if token is None:
        return challenge(None)
    try:
        return await sessions.averify(token)
    except (InvalidToken, TryLater) as error:
        return refusal(error)


def demanded(who: Claims | Response, scope: str) -> Claims:
    """*who*, with *scope*; raises the HTTPException that carries the refusal otherwise."""
    if isinstance(who, Claims):
        if who.has_scope(scope):
            return who
        who = challenge(None, scope=scope)
    headers = {name: value for name, value in who.headers.items() if name != "content-type"}
    raise HTTPException(who.status, "Forbidden" if who.status == 403 else "Unauthorized", headers)


def _endpoint(endpoints: Endpoints, route: Route) -> Callable[[StarletteRequest], Awaitable[StarletteResponse]]:
    async def endpoint(request: StarletteRequest) -> StarletteResponse:
        value = await _value_of(request)
        return _response_of(await endpoints.answer(route, value, request.path_params.get("sid", "")))

    return endpoint


async def _value_of(request: StarletteRequest) -> Request:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_LIMIT:  # enough to be refused; the rest is not read
            break
    headers = {name.lower(): value for name, value in request.headers.items()}
    ip = request.client.host if request.client else ""
    return Request(request.method, request.url.path, headers, bytes(body), ip)


def _response_of(value: Response) -> StarletteResponse:
    headers: Any = dict(value.headers)
    return StarletteResponse(value.body, value.status, headers)
