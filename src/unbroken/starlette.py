"""The server's endpoints, and the claims of a request, for Starlette.

    app = Starlette(routes=[*routes(sessions, authenticate), Route("/orders", orders)],
                    middleware=[Middleware(AccessTokenMiddleware, sessions=sessions)])

    async def orders(request):
        claims = current_claims(request)          # refuses the request without a good token: 401, RFC 6750

``Auth`` has more: rights that are looked up at the request, and logins of the application's own.

    auth = Auth(sessions, authenticate)            # auth.routes are the endpoints

    async def delete(request):
        claims = await auth.claims(request, scope="write", claims={"role": "admin"}, now=True)

    async def callback(request):                   # somebody else has authenticated the user
        return await auth.log_in(RedirectResponse("/"), subject, request=request)

A WebSocket, an EventSource or a download comes with a ticket in its URL, because a browser gives it no headers:

    async def live(socket):
        claims = await claims_from_ticket(socket, sessions)  # of wss://shop.example.com/live?ticket=…
        await socket.accept()

With Starlette's own ``AuthenticationMiddleware``, ``BearerBackend`` takes the place of ``AccessTokenMiddleware``:

    Middleware(AuthenticationMiddleware, backend=BearerBackend(sessions), on_error=BearerBackend.on_error)

1. A service that only verifies tokens passes a ``Verifier`` as *sessions* to either of them.
2. Where access tokens are in cookies, both take the ``cookies`` and ``origins`` of the endpoints.
3. This file translates and decides nothing. The address of a client is that of the connection: behind a proxy,
   configure the ASGI server.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, Unpack

try:
    from starlette.authentication import AuthCredentials, AuthenticationBackend, AuthenticationError, BaseUser
except ModuleNotFoundError as error:
    message = "unbroken.starlette needs Starlette: pip install 'unbroken[starlette]'"
    raise ModuleNotFoundError(message, name=error.name) from error

from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.requests import Request as StarletteRequest
from starlette.responses import Response as StarletteResponse
from starlette.routing import Route as StarletteRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from unbroken._arguments import checked, checked_class
from unbroken.errors import ConfigurationError, Refused, TryLater
from unbroken.server.core.proof import raw_path_of
from unbroken.server.http.authentication import Needs, RequestAuthenticator, TokenVerifier, require_scope
from unbroken.server.http.cookies import Cookies
from unbroken.server.http.cors_check import LOGINS
from unbroken.server.http.endpoints import Endpoints
from unbroken.server.http.messages import (
    MAX_BODY_BYTES,
    NO_STORE,
    Request,
    Response,
    Route,
    challenge,
    error_response,
)
from unbroken.server.http.own_logins import LoginOptions
from unbroken.server.http.settings import EndpointOptions
from unbroken.server.keys.access_token import Claims
from unbroken.server.login.authenticator import Authenticate
from unbroken.server.sessions import Sessions

__all__ = [
    "AccessTokenMiddleware",
    "AccessTokenUser",
    "Auth",
    "BearerBackend",
    "claims_from_ticket",
    "current_claims",
    "routes",
]

R = TypeVar("R", bound=StarletteResponse)
CLAIMS = "unbroken.claims"  # key of the ASGI scope: Claims, or the Response that refuses the request
SPENT_PROOFS = "unbroken.spent_proofs"
TICKET = b"ticket="  # in a query; the characters of a ticket need no escaping there


@checked("sessions", "authenticate")
def routes(
    sessions: Sessions,
    authenticate: Authenticate,
    **options: Unpack[EndpointOptions],
) -> list[StarletteRoute]:
    """Return the endpoints as routes. Parameters as those of ``unbroken.server.Endpoints``."""
    return _routes(Endpoints(sessions, authenticate, **options))


def _routes(endpoints: Endpoints) -> list[StarletteRoute]:
    return [
        StarletteRoute(endpoints.path(route), _RouteApp(endpoints, route), methods=[route.method], name=route.name)
        for route in endpoints.routes
    ]


@checked_class(own=("sessions", "authenticate"))
class Auth:
    """``routes``: the endpoints. ``claims`` says who asks, and ``log_in`` starts sessions of the application's own.

    Parameters as those of ``unbroken.server.Endpoints``.
    """

    routes: list[StarletteRoute]

    def __init__(self, sessions: Sessions, authenticate: Authenticate, **options: Unpack[EndpointOptions]) -> None:
        self._endpoints = Endpoints(sessions, authenticate, **options)
        self.routes = _routes(self._endpoints)

    async def claims(
        self, request: HTTPConnection, *, scope: str = "", claims: Needs | None = None, now: bool = False
    ) -> Claims:
        """Return the claims of the request's access token. No middleware is needed.

        Without a good token the client gets a 401 challenge, without *scope* or *claims* (``{"role": "admin"}``) a 403.
        With *now* they are those that the subject has now, whatever the token says; this costs a query.
        """
        authenticator = self._endpoints.authenticator
        if CLAIMS not in request.scope:
            request.scope[CLAIMS] = await claims_or_refusal(authenticator, request)
        found = request.scope[CLAIMS]
        return _claims_or_raise(await authenticator.check(found, scope=scope, claims=claims, now=now))

    async def log_in(
        self, response: R | None, subject: str, *, request: HTTPConnection, **options: Unpack[LoginOptions]
    ) -> R | StarletteResponse:
        """Return *response* with the cookies of a new session of *subject*, whom you have authenticated.

        Without a *response* it is that of ``/login``: tokens in cookies if the request asks for them, or in the body.
        """
        return await log_in(self._endpoints, response, subject, request, **options)

    async def log_out(
        self, response: R | None, *, request: HTTPConnection, everywhere: bool = False
    ) -> R | StarletteResponse:
        """End the session of *request*, with *everywhere* all sessions of its subject; return *response*, or a 204."""
        return await log_out(self._endpoints, response, request, everywhere=everywhere)


class AccessTokenMiddleware:
    """Verifies the access token of every request, for ``current_claims``. Refuses no request by itself.

    *cookies* and *origins* are those of the endpoints, if access tokens are in cookies.
    """

    def __init__(
        self, app: ASGIApp, sessions: TokenVerifier, *, cookies: Cookies | None = None, origins: Sequence[str] = ()
    ) -> None:
        self._app, self._authenticator = app, RequestAuthenticator(sessions, cookies=cookies, origins=origins)
        self._verify_cached = sessions.verify_cached

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            claims = self._verify_cached(_plain_bearer_token(scope))  # nearly always: no request object, no suspension
            scope[CLAIMS] = claims or await claims_or_refusal(self._authenticator, HTTPConnection(scope))
            if claims is None and (nonce := next_nonce(self._authenticator, scope)):
                send = _with_nonce(send, nonce)
        await self._app(scope, receive, send)


@dataclass(frozen=True, slots=True)
class AccessTokenUser(BaseUser):
    """``request.user`` behind ``BearerBackend``: the subject of the token, and all its claims."""

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
    """Sets ``request.user``, and ``request.auth`` to the scope of the token and ``authenticated``.

    Without a token the user is Starlette's ``UnauthenticatedUser``. For a bad token ``on_error`` returns the challenge.
    *cookies* and *origins* are those of the endpoints, if access tokens are in cookies.
    """

    def __init__(self, sessions: TokenVerifier, *, cookies: Cookies | None = None, origins: Sequence[str] = ()) -> None:
        self._authenticator = RequestAuthenticator(sessions, cookies=cookies, origins=origins)  # rules 1 and 2

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, BaseUser] | None:
        try:
            claims = await self._authenticator.claims(_to_request(conn.scope))
        except (Refused, TryLater, ConfigurationError) as error:
            conn.scope[CLAIMS] = error_response(error)
            raise AuthenticationError("the access token was rejected") from None
        conn.scope[CLAIMS] = claims or challenge(None)
        if claims is None:
            return None
        return AuthCredentials(["authenticated", *claims.scope.split()]), AccessTokenUser(claims)

    @staticmethod
    def on_error(conn: HTTPConnection, _error: AuthenticationError) -> StarletteResponse:
        """Return the response to a bad token (RFC 6750 §3)."""
        return _to_starlette(conn.scope[CLAIMS])


async def log_in(
    endpoints: Endpoints,
    response: R | None,
    subject: str,
    request: HTTPConnection,
    **options: Unpack[LoginOptions],
) -> R | StarletteResponse:
    """``log_in`` of ``Auth``, by *endpoints*."""
    login = endpoints.own_logins.log_in(_to_request(request.scope), subject, **options, may_have_body=response is None)
    return _put_into(response, await _or_raise(login))


async def log_out(
    endpoints: Endpoints, response: R | None, request: HTTPConnection, *, everywhere: bool
) -> R | StarletteResponse:
    """``log_out`` of ``Auth``, by *endpoints*."""
    logout = endpoints.own_logins.log_out(_to_request(request.scope), everywhere=everywhere)
    return _put_into(response, await _or_raise(logout))


async def _or_raise(work: Awaitable[Response]) -> Response:
    try:
        return await work
    except (Refused, TryLater, ConfigurationError) as error:
        refusal = error_response(error)
        raise HTTPException(refusal.status, refusal.body.decode(), dict(refusal.headers)) from error


def _put_into(response: R | None, made: Response) -> R | StarletteResponse:
    """Return *response* with the cookies of *made*, not to be stored; or *made* where the application has none."""
    if response is None:
        return _to_starlette(made)
    response.headers.update(NO_STORE)
    for cookie in made.cookies:
        response.headers.append("set-cookie", cookie)
    return response


def current_claims(request: HTTPConnection, *, scope: str = "", claims: Needs | None = None) -> Claims:
    """Return the claims of the request's access token.

    Without a good token the client gets a 401 challenge (RFC 6750 §3), without *scope* or *claims* a 403. Raises
    RuntimeError if neither ``AccessTokenMiddleware`` nor ``BearerBackend`` is installed.
    """
    found = request.scope.get(CLAIMS)
    if found is None:
        raise RuntimeError("current_claims needs the middleware: add AccessTokenMiddleware to the application")
    return _claims_or_raise(require_scope(found, scope, claims))


async def claims_from_ticket(connection: HTTPConnection, sessions: Sessions, *, scope: str = "") -> Claims:
    """Return the claims of the session that opens *connection* with ``?ticket=…``. Call it before a WebSocket is
    accepted.

    The ticket is spent, and removed from the URL, so that later log lines do not contain it. Refuses the request as
    ``current_claims`` does.
    """
    return _claims_or_raise(require_scope(await ticket_claims_or_refusal(sessions, connection), scope))


async def claims_or_refusal(authenticator: RequestAuthenticator, connection: HTTPConnection) -> Claims | Response:
    """Return the claims of the connection's access token, or the response that refuses it."""
    return await authenticator.authenticate(_to_request(connection.scope))


def next_nonce(authenticator: RequestAuthenticator, scope: Scope) -> str:
    """Return the header ``DPoP-Nonce`` of the response to a request with a good token; empty for none."""
    is_good = isinstance(scope.get(CLAIMS), Claims) and scope["type"] == "http"
    return authenticator.next_nonce(_to_request(scope)) if is_good else ""


async def ticket_claims_or_refusal(sessions: Sessions, connection: HTTPConnection) -> Claims | Response:
    """Return the claims of the connection's ticket, or the response that refuses it."""
    tickets = _pop_tickets(connection.scope)
    try:  # of several tickets none counts
        return await sessions.aredeem(tickets[0] if len(tickets) == 1 else "") if tickets else challenge(None)
    except (Refused, TryLater, ConfigurationError) as error:
        return error_response(error)


def route_endpoint(endpoints: Endpoints, route: Route) -> Callable[[StarletteRequest], Awaitable[StarletteResponse]]:
    """Return the endpoint function of *route*."""

    async def endpoint(request: StarletteRequest) -> StarletteResponse:
        response = await _respond(endpoints, route, request.scope, request.receive)
        if response is None:
            return StarletteResponse(status_code=400)
        made = _to_starlette(response)
        if route.name in LOGINS:
            made.background = BackgroundTask(_check_cors, endpoints, route, request.scope, response)
        return made

    return endpoint


class _RouteApp:
    """One route as an ASGI application, which spares Starlette's own request and response objects."""

    def __init__(self, endpoints: Endpoints, route: Route) -> None:
        self._endpoints, self._route = endpoints, route
        self.__name__ = route.name

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await _respond(self._endpoints, self._route, scope, receive)
        if response is None:
            return
        headers = [(name.encode("latin-1"), text.encode("latin-1")) for name, text in response.headers.items()]
        headers += [(b"set-cookie", cookie.encode("latin-1")) for cookie in response.cookies]
        if "content-length" not in response.headers:  # the response to HEAD has that of the body it lacks
            headers.append((b"content-length", b"%d" % len(response.body)))
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        await send({"type": "http.response.body", "body": response.body})
        if self._route.name in LOGINS:
            await _check_cors(self._endpoints, self._route, scope, response)


async def _check_cors(endpoints: Endpoints, route: Route, scope: Scope, response: Response) -> None:
    """After a login: send the application the preflight of the page's first refresh (``http/cors_check.py``)."""
    if "app" not in scope or not (asked := endpoints.cors_check.due(route, _to_request(scope), response)):
        return
    kept = ("type", "asgi", "http_version", "scheme", "root_path", "client", "server", "state")
    headers = [(name.encode(), value.encode("latin-1")) for name, value in asked.headers.items()]
    headers += [(name, value) for name, value in scope["headers"] if name == b"host"]
    path = {"path": asked.path, "raw_path": asked.path.encode(), "query_string": b"", "headers": headers}
    started: Message = {}

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            started.update(message)

    try:
        await scope["app"](
            {**{name: scope[name] for name in kept if name in scope}, "method": "OPTIONS", **path}, receive, send
        )
        got = {name.decode().lower(): value.decode("latin-1") for name, value in started["headers"]}
        endpoints.cors_check.report(asked, started["status"], got)
    except Exception as error:  # noqa: BLE001  # of the application's middleware: a check breaks nothing
        endpoints.cors_check.failed(asked, error)


async def _respond(endpoints: Endpoints, route: Route, scope: Scope, receive: Receive) -> Response | None:
    """Return the response of *route*; None if the client has disconnected."""
    body, more = b"", True
    while more and len(body) <= MAX_BODY_BYTES:  # the rest of a longer body is not read: it is refused
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body, more = body + message.get("body", b""), message.get("more_body", False)
    return await endpoints.respond(route, _to_request(scope, body), scope.get("path_params", {}).get("sid", ""))


def _to_request(scope: Scope, body: bytes = b"") -> Request:
    headers: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:  # joined, so that a repeated header has one meaning everywhere
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        if name in headers:
            value = f"{headers[name]}{'; ' if name == 'cookie' else ', '}{value}"
        headers[name] = value
    if scope["type"] == "websocket":  # HTTP/2 has no such header, and pages cannot send one
        headers["upgrade"] = "websocket"
    client, query = scope.get("client"), scope.get("query_string", b"").decode("latin-1")
    path, raw = scope["path"], ""
    if "dpop" in headers:  # only a proof needs it
        raw = raw_path_of(scope.get("raw_path", b"").decode("latin-1"), path)
    spent = scope.setdefault(SPENT_PROOFS, set())
    return Request(scope.get("method", "GET"), path, headers, body, client[0] if client else "", query, raw, spent)


def _to_starlette(response: Response) -> StarletteResponse:
    headers: Any = dict(response.headers)
    result = StarletteResponse(response.body, response.status, headers)
    for cookie in response.cookies:
        result.headers.append("set-cookie", cookie)
    return result


def _with_nonce(send: Send, nonce: str) -> Send:
    async def send_with_nonce(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), (b"dpop-nonce", nonce.encode())]}
        await send(message)

    return send_with_nonce


def _pop_tickets(scope: Scope) -> list[str]:
    """Remove the tickets from the query and return them. Servers write their access logs from this very dict."""
    parts = scope.get("query_string", b"").split(b"&")
    scope["query_string"] = b"&".join(part for part in parts if not part.startswith(TICKET))
    return [part.removeprefix(TICKET).decode("latin-1") for part in parts if part.startswith(TICKET)]


def _claims_or_raise(claims: Claims | Response) -> Claims:
    if isinstance(claims, Claims):
        return claims
    # Starlette sends the detail unchanged, so the body stays the JSON object that other frameworks send.
    raise HTTPException(claims.status, claims.body.decode(), dict(claims.headers))


def _plain_bearer_token(scope: Scope) -> str:
    """Return the token of one ``Authorization: Bearer …`` in its usual spelling; empty for anything else."""
    found = b""
    for name, value in scope["headers"]:
        if name == b"authorization":
            if found:
                return ""
            found = value
    return found[7:].decode("latin-1") if found.startswith(b"Bearer ") else ""
