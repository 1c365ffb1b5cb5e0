"""The server's endpoints and the current session for Starlette.

    app = Starlette(routes=[*routes(sessions, authenticate), Route("/orders", orders)],
                    middleware=[Middleware(SessionMiddleware, sessions=sessions)])

    async def orders(request):
        claims = current_session(request)          # answers 401 with an RFC 6750 challenge by itself

Where Starlette's own ``AuthenticationMiddleware`` is at work, ``BearerBackend`` takes the place of the middleware:

    Middleware(AuthenticationMiddleware, backend=BearerBackend(sessions), on_error=BearerBackend.on_error)

A service that only verifies tokens gives a ``Verifier`` for *sessions* to either of them.

Where tokens are in cookies too, tell it both: ``SessionMiddleware`` and ``BearerBackend`` take ``cookies`` and
``origins`` as the endpoints do. This file translates; it decides nothing. A client's address is the connection's:
behind a proxy, tell the ASGI server.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Unpack

from starlette.authentication import AuthCredentials, AuthenticationBackend, AuthenticationError, BaseUser
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, HTTPConnection
from starlette.requests import Request as StarletteRequest
from starlette.responses import Response as StarletteResponse
from starlette.routing import Route as StarletteRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from unbroken.errors import ConfigurationError, Refused, TryLater
from unbroken.server.access_token import Claims
from unbroken.server.callers import Callers, Verifies
from unbroken.server.cookies import Cookies
from unbroken.server.endpoints import Authenticate, Endpoints, EndpointSettings, Route
from unbroken.server.http import BODY_LIMIT, Request, Response, challenge, refusal
from unbroken.server.sessions import Sessions

__all__ = ["BearerBackend", "SessionMiddleware", "SessionUser", "current_session", "routes"]

FOUND = "unbroken.claims"  # in the ASGI scope: Claims, or the Response that refuses the request


def routes(
    sessions: Sessions,
    authenticate: Authenticate,
    **settings: Unpack[EndpointSettings],
) -> list[StarletteRoute]:
    """The endpoints as routes; parameters as those of ``unbroken.server.Endpoints``."""
    endpoints = Endpoints(sessions, authenticate, **settings)
    return [
        StarletteRoute(endpoints.path(route), endpoint_of(endpoints, route), methods=[route.method], name=route.name)
        for route in endpoints.routes
    ]


class SessionMiddleware:
    """Verifies the access token of every request, for ``current_session``. It refuses nothing by itself.

    *cookies* and *origins* are those of the endpoints, if access tokens are in cookies.
    """

    def __init__(
        self, app: ASGIApp, sessions: Verifies, *, cookies: Cookies | None = None, origins: Sequence[str] = ()
    ) -> None:
        self._app, self._callers = app, Callers(sessions, cookies=cookies, origins=origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            scope[FOUND] = await found(self._callers, HTTPConnection(scope))
        await self._app(scope, receive, send)


@dataclass(frozen=True, slots=True)
class SessionUser(BaseUser):
    """``request.user`` behind ``BearerBackend``: the subject, and all that the token says."""

    claims: Claims

    @property
    def is_authenticated(self) -> bool:
        return True

    @property
    def display_name(self) -> str:
        return self.claims.subject

    @property
    def identity(self) -> str:
        return self.claims.subject


class BearerBackend(AuthenticationBackend):
    """``request.user`` and ``request.auth``: the words of the token's scope, and ``authenticated``.

    Without a token the user is Starlette's unauthenticated one. With a bad one, ``on_error`` answers the challenge.
    *cookies* and *origins* are those of the endpoints, if access tokens are in cookies.
    """

    def __init__(self, sessions: Verifies, *, cookies: Cookies | None = None, origins: Sequence[str] = ()) -> None:
        self._callers = Callers(sessions, cookies=cookies, origins=origins)

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, BaseUser] | None:
        try:
            claims = await self._callers.claims(_heard(conn))
        except (Refused, TryLater, ConfigurationError) as error:
            conn.scope[FOUND] = refusal(error)
            raise AuthenticationError("the access token was refused") from None
        conn.scope[FOUND] = claims or challenge(None)
        return (AuthCredentials(["authenticated", *claims.scope.split()]), SessionUser(claims)) if claims else None

    @staticmethod
    def on_error(conn: HTTPConnection, _error: AuthenticationError) -> StarletteResponse:
        """The response to a bad token (RFC 6750 §3)."""
        return _response_of(conn.scope[FOUND])


def current_session(request: HTTPConnection, *, scope: str = "") -> Claims:
    """The session that sends *request*. Without a good token the client gets a 401 challenge (RFC 6750 §3), with too
    little *scope* a 403. Raises RuntimeError if neither ``SessionMiddleware`` nor ``BearerBackend`` is installed.
    """
    if FOUND not in request.scope:
        raise RuntimeError("add SessionMiddleware to the application: current_session needs it")
    who = demanded(request.scope[FOUND], scope)
    if isinstance(who, Claims):
        return who
    # Starlette writes the detail out as it is: so the body is the JSON object it is everywhere else.
    raise HTTPException(who.status, who.body.decode(), dict(who.headers))


async def found(callers: Callers, connection: HTTPConnection) -> Claims | Response:
    """Who sends this, or the response that refuses it."""
    return await callers.found(_heard(connection))


def demanded(who: Claims | Response, scope: str) -> Claims | Response:
    """*who* if it has *scope*, the response that refuses it otherwise."""
    if isinstance(who, Claims) and not who.has_scope(scope):
        return challenge(None, scope=scope)
    return who


def endpoint_of(endpoints: Endpoints, route: Route) -> Callable[[StarletteRequest], Awaitable[StarletteResponse]]:
    """The endpoint function of one route."""

    async def endpoint(request: StarletteRequest) -> StarletteResponse:
        try:
            value = await _value_of(request)
        except ClientDisconnect:  # nobody is left to read an answer, and it is no error of this server
            return StarletteResponse(status_code=400)
        return _response_of(await endpoints.answer(route, value, request.path_params.get("sid", "")))

    return endpoint


async def _value_of(request: StarletteRequest) -> Request:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_LIMIT:  # enough to be refused; the rest is not read
            break
    return replace(_heard(request), body=bytes(body))


def _heard(connection: HTTPConnection) -> Request:
    """All of a request but its body."""
    headers: dict[str, str] = {}
    for name, value in connection.headers.items():  # a repeated header must not mean one thing here, another there
        joint = "; " if name == "cookie" else ", "
        headers[name] = f"{headers[name]}{joint}{value}" if name in headers else value
    if connection.scope["type"] == "websocket":  # HTTP/2 has no such header, and pages cannot send one
        headers["upgrade"] = "websocket"
    ip = connection.client.host if connection.client else ""
    method, url = connection.scope.get("method", "GET"), connection.url
    return Request(method, url.path, headers, client_ip=ip, query=url.query)


def _response_of(value: Response) -> StarletteResponse:
    headers: Any = dict(value.headers)
    response = StarletteResponse(value.body, value.status, headers)
    for cookie in value.cookies:
        response.headers.append("set-cookie", cookie)
    return response
