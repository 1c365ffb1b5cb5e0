"""The server's endpoints and the current session for Starlette.

    app = Starlette(routes=[*routes(sessions, authenticate), Route("/orders", orders)],
                    middleware=[Middleware(SessionMiddleware, sessions=sessions)])

    async def orders(request):
        claims = current_claims(request)          # answers 401 with an RFC 6750 challenge by itself

A WebSocket, an EventSource and a download come with a ticket in their URL, as a browser gives them no headers:

    async def live(socket):
        claims = await redeemed(socket, sessions)  # of wss://shop.example.com/live?ticket=…
        await socket.accept()

Where Starlette's own ``AuthenticationMiddleware`` is at work, ``BearerBackend`` takes the place of the middleware:

    Middleware(AuthenticationMiddleware, backend=BearerBackend(sessions), on_error=BearerBackend.on_error)

A service that only verifies tokens gives a ``Verifier`` for *sessions* to either of them.

Where tokens are in cookies too, tell it both: ``SessionMiddleware`` and ``BearerBackend`` take ``cookies`` and
``origins`` as the endpoints do. This file translates; it decides nothing. A client's address is the connection's:
behind a proxy, tell the ASGI server.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Unpack

from starlette.authentication import AuthCredentials, AuthenticationBackend, AuthenticationError, BaseUser
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.requests import Request as StarletteRequest
from starlette.responses import Response as StarletteResponse
from starlette.routing import Route as StarletteRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from unbroken.errors import ConfigurationError, Refused, TryLater
from unbroken.server.http.authentication import RequestAuthenticator, TokenVerifier
from unbroken.server.http.cookies import Cookies
from unbroken.server.http.endpoints import Authenticate, Endpoints, EndpointSettings, Route
from unbroken.server.http.messages import MAX_BODY_BYTES, Request, Response, challenge, error_response
from unbroken.server.keys.access_token import Claims
from unbroken.server.sessions import Sessions

__all__ = ["AccessTokenMiddleware", "BearerBackend", "SessionUser", "claims_from_ticket", "current_claims", "routes"]

FOUND = "unbroken.claims"  # in the ASGI scope: Claims, or the Response that refuses the request
TICKET = b"ticket="  # in a query; what a ticket is made of needs no escaping there


def routes(
    sessions: Sessions,
    authenticate: Authenticate,
    **settings: Unpack[EndpointSettings],
) -> list[StarletteRoute]:
    """The endpoints as routes; parameters as those of ``unbroken.server.Endpoints``."""
    endpoints = Endpoints(sessions, authenticate, **settings)
    return [
        StarletteRoute(endpoints.path(route), _Endpoint(endpoints, route), methods=[route.method], name=route.name)
        for route in endpoints.routes
    ]


class AccessTokenMiddleware:
    """Verifies the access token of every request, for ``current_claims``. It refuses nothing by itself.

    *cookies* and *origins* are those of the endpoints, if access tokens are in cookies.
    """

    def __init__(
        self, app: ASGIApp, sessions: TokenVerifier, *, cookies: Cookies | None = None, origins: Sequence[str] = ()
    ) -> None:
        self._app, self._callers = app, RequestAuthenticator(sessions, cookies=cookies, origins=origins)
        self._verify_cached = sessions.verify_cached

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            scope[FOUND] = self._verify_cached(_token(scope)) or await authenticate(
                self._callers, HTTPConnection(scope)
            )
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

    def __init__(self, sessions: TokenVerifier, *, cookies: Cookies | None = None, origins: Sequence[str] = ()) -> None:
        self._callers = RequestAuthenticator(sessions, cookies=cookies, origins=origins)

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, BaseUser] | None:
        try:
            claims = await self._callers.claims(_to_request(conn.scope))
        except (Refused, TryLater, ConfigurationError) as error:
            conn.scope[FOUND] = error_response(error)
            raise AuthenticationError("the access token was refused") from None
        conn.scope[FOUND] = claims or challenge(None)
        return (AuthCredentials(["authenticated", *claims.scope.split()]), SessionUser(claims)) if claims else None

    @staticmethod
    def on_error(conn: HTTPConnection, _error: AuthenticationError) -> StarletteResponse:
        """The response to a bad token (RFC 6750 §3)."""
        return _response_of(conn.scope[FOUND])


def current_claims(request: HTTPConnection, *, scope: str = "") -> Claims:
    """The session that sends *request*. Without a good token the client gets a 401 challenge (RFC 6750 §3), with too
    little *scope* a 403. Raises RuntimeError if neither ``SessionMiddleware`` nor ``BearerBackend`` is installed.
    """
    who = request.scope.get(FOUND)
    if who is None:
        raise RuntimeError("add SessionMiddleware to the application: current_claims needs it")
    return _or_refused(require_scope(who, scope) if scope else who)


async def claims_from_ticket(connection: HTTPConnection, sessions: Sessions, *, scope: str = "") -> Claims:
    """The session that opens *connection* with ``?ticket=…``; to be asked before a WebSocket is accepted. The ticket is
    spent, and gone from the URL, so that what is logged from then on does not show it. Refuses as ``current_claims``.
    """
    return _or_refused(require_scope(await by_ticket(sessions, connection), scope))


async def authenticate(callers: RequestAuthenticator, connection: HTTPConnection) -> Claims | Response:
    """Who sends this, or the response that refuses it."""
    return await callers.authenticate(_to_request(connection.scope))


async def by_ticket(sessions: Sessions, connection: HTTPConnection) -> Claims | Response:
    """Who opens this with a ticket, or the response that refuses it."""
    tickets = _taken(connection.scope)
    try:  # of several no one is right
        return await sessions.aredeem(tickets[0] if len(tickets) == 1 else "") if tickets else challenge(None)
    except (Refused, TryLater, ConfigurationError) as error:
        return error_response(error)


def require_scope(who: Claims | Response, scope: str) -> Claims | Response:
    """*who* if it has *scope*, the response that refuses it otherwise."""
    if isinstance(who, Claims) and not who.has_scope(scope):
        return challenge(None, scope=scope)
    return who


def endpoint_of(endpoints: Endpoints, route: Route) -> Callable[[StarletteRequest], Awaitable[StarletteResponse]]:
    """The endpoint function of one route."""

    async def endpoint(request: StarletteRequest) -> StarletteResponse:
        value = await _answered(endpoints, route, request.scope, request.receive)
        return StarletteResponse(status_code=400) if value is None else _response_of(value)

    return endpoint


class _Endpoint:
    """One route as an ASGI application: nothing of Starlette's own stands between the server and the endpoint."""

    def __init__(self, endpoints: Endpoints, route: Route) -> None:
        self._endpoints, self._route = endpoints, route
        self.__name__ = route.name

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        value = await _answered(self._endpoints, self._route, scope, receive)
        if value is None:
            return
        headers = [(name.encode("latin-1"), text.encode("latin-1")) for name, text in value.headers.items()]
        headers += [(b"set-cookie", cookie.encode("latin-1")) for cookie in value.cookies]
        if "content-length" not in value.headers:  # to HEAD it is that of the body that is not sent
            headers.append((b"content-length", b"%d" % len(value.body)))
        await send({"type": "http.response.start", "status": value.status, "headers": headers})
        await send({"type": "http.response.body", "body": value.body})


async def _answered(endpoints: Endpoints, route: Route, scope: Scope, receive: Receive) -> Response | None:
    """The response of one route; None if nobody is left to read it."""
    body, more = b"", True
    while more and len(body) <= MAX_BODY_BYTES:  # one that is longer is refused: the rest of it is not read
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body, more = body + message.get("body", b""), message.get("more_body", False)
    return await endpoints.answer(route, _to_request(scope, body), scope.get("path_params", {}).get("sid", ""))


def _to_request(scope: Scope, body: bytes = b"") -> Request:
    """A request as a value."""
    headers: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:  # a repeated header must not mean one thing here, another there
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        if name in headers:
            value = f"{headers[name]}{'; ' if name == 'cookie' else ', '}{value}"
        headers[name] = value
    if scope["type"] == "websocket":  # HTTP/2 has no such header, and pages cannot send one
        headers["upgrade"] = "websocket"
    client, query = scope.get("client"), scope.get("query_string", b"").decode("latin-1")
    return Request(scope.get("method", "GET"), scope["path"], headers, body, client[0] if client else "", query)


def _taken(scope: Scope) -> list[str]:
    """The tickets in the query. They are not in it afterwards: servers write their access logs from this very dict."""
    parts = scope.get("query_string", b"").split(b"&")
    scope["query_string"] = b"&".join(part for part in parts if not part.startswith(TICKET))
    return [part.removeprefix(TICKET).decode("latin-1") for part in parts if part.startswith(TICKET)]


def _or_refused(who: Claims | Response) -> Claims:
    if isinstance(who, Claims):
        return who
    # Starlette writes the detail out as it is: so the body is the JSON object it is everywhere else.
    raise HTTPException(who.status, who.body.decode(), dict(who.headers))


def _token(scope: Scope) -> str:
    """The bearer token, where it stands as nearly all clients write it; else nothing, and others look."""
    found = b""
    for name, value in scope["headers"]:
        if name == b"authorization":
            if found:
                return ""
            found = value
    return found[7:].decode("latin-1") if found.startswith(b"Bearer ") else ""


def _response_of(value: Response) -> StarletteResponse:
    headers: Any = dict(value.headers)
    response = StarletteResponse(value.body, value.status, headers)
    for cookie in value.cookies:
        response.headers.append("set-cookie", cookie)
    return response
