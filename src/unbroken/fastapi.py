"""The server's endpoints and the current session for FastAPI, right in OpenAPI.

    auth = Auth(sessions, authenticate)
    app = FastAPI()
    app.include_router(auth.router)

    @app.get("/orders")
    async def orders(session: Annotated[Claims, Depends(auth.session)]): ...

    @app.get("/reports")
    async def reports(session: Annotated[Claims, Security(auth.session, scopes=["reports"])]): ...

    tickets = Tickets(sessions)                    # for what a browser opens without headers, as /live?ticket=…

    @app.websocket("/live")
    async def live(socket: WebSocket, session: Annotated[Claims, Depends(tickets.session)]): ...

A service that only verifies tokens has ``Bearer(verifier)`` in place of ``Auth``: the dependency, without endpoints.
With ``cookies=Cookies("both")`` the dependency takes the access token from its cookie too.
With ``password_grant=True`` the docs page's Authorize button asks for name and password; without, for a token.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any, Unpack

from fastapi import APIRouter, Depends, HTTPException, Query
from fastapi.security import APIKeyCookie, HTTPBearer, OAuth2PasswordBearer, SecurityScopes
from starlette.requests import HTTPConnection
from starlette.requests import Request as StarletteRequest

from unbroken._openapi import described, needs_token
from unbroken.server.http.authentication import RequestAuthenticator, TokenVerifier
from unbroken.server.http.cookies import Cookies
from unbroken.server.http.endpoints import Authenticate, Endpoints, EndpointSettings
from unbroken.server.http.messages import Response
from unbroken.server.keys.access_token import Claims
from unbroken.server.sessions import Sessions
from unbroken.starlette import authenticate, by_ticket, endpoint_of, require_scope

__all__ = ["Auth", "Bearer", "TicketAuth"]


class Bearer:
    """``session``, a dependency that gives the ``Claims`` of the caller. *verifier* knows good tokens.

    *cookies* and *origins* are those of the endpoints, if access tokens are in cookies.
    """

    def __init__(self, verifier: TokenVerifier, *, cookies: Cookies | None = None, origins: Sequence[str] = ()) -> None:
        callers = RequestAuthenticator(verifier, cookies=cookies, origins=origins)
        self.session = _dependency(callers, _any_of(HTTPBearer(auto_error=False), cookies))


class Auth:
    """The endpoints as ``router``, and ``session``, a dependency that gives the ``Claims`` of the caller.

    Parameters as those of ``unbroken.server.Endpoints``; *scopes* describes the words of scope, for the docs page.
    Set *prefix* here, not at ``include_router``: the metadata and the docs page name the endpoints by it.
    """

    def __init__(
        self,
        sessions: Sessions,
        authenticate: Authenticate,
        *,
        scopes: dict[str, str] | None = None,
        **settings: Unpack[EndpointSettings],
    ) -> None:
        endpoints = Endpoints(sessions, authenticate, **settings)
        password_grant = endpoints.password_grant
        self.scheme = _scheme(endpoints, scopes or {}) if password_grant else HTTPBearer(auto_error=False)
        places = _any_of(self.scheme, endpoints.cookies)
        # One object for ever: FastAPI knows a dependency, and what overrides it in tests, by its identity.
        self.session = _dependency(endpoints.callers, places)
        self.router = APIRouter(tags=["auth"])
        for route in endpoints.routes:
            path, endpoint = endpoints.path(route), endpoint_of(endpoints, route)
            self.router.add_api_route(
                path,
                endpoint,
                methods=[route.method],
                dependencies=[Depends(places)] if needs_token(route) else [],
                **described(route, endpoints.cookies),
            )
            if route.method == "GET":  # the document need not say so
                name = f"{route.name}_head"
                self.router.add_api_route(path, endpoint, methods=["HEAD"], name=name, include_in_schema=False)


class TicketAuth:
    """``session``, a dependency that gives the ``Claims`` of who connects with ``?ticket=…``: for WebSocket routes, and
    for GET routes that a page opens without headers. What is logged from then on does not show the ticket.
    """

    def __init__(self, sessions: Sessions) -> None:
        async def session(
            connection: HTTPConnection,
            scopes: SecurityScopes,
            _: Annotated[str, Query(alias="ticket", description="from /ticket; used once, within 30 seconds")] = "",
        ) -> Claims:
            """The session that opens *connection*; answers 401 or 403 with an RFC 6750 challenge otherwise."""
            return _or_refused(require_scope(await by_ticket(sessions, connection), scopes.scope_str))

        self.session = session


def _any_of(scheme: Any, cookies: Cookies | None) -> Any:
    """The places where an access token may be, for OpenAPI: any one of them is enough."""
    if cookies is None or cookies.mode != "both":
        return scheme
    cookie = APIKeyCookie(name=cookies.access_name, scheme_name="SessionCookie", auto_error=False)

    async def seen(_: Any = Depends(scheme), __: Any = Depends(cookie)) -> None:
        """Nothing: the places are declared by this function's parameters."""

    return seen


def _dependency(callers: RequestAuthenticator, scheme: Any) -> Callable[..., Awaitable[Claims]]:
    async def session(request: StarletteRequest, scopes: SecurityScopes, _: Any = Depends(scheme)) -> Claims:
        """The session that sends *request*; answers 401 or 403 with an RFC 6750 challenge otherwise."""
        return _or_refused(require_scope(await authenticate(callers, request), scopes.scope_str))

    return session


def _or_refused(who: Claims | Response) -> Claims:
    if isinstance(who, Claims):
        return who
    headers = {name: value for name, value in who.headers.items() if name != "content-type"}
    raise HTTPException(who.status, json.loads(who.body), headers)


def _scheme(endpoints: Endpoints, scopes: dict[str, str]) -> OAuth2PasswordBearer:
    token = endpoints.prefix + "/token"
    return OAuth2PasswordBearer(tokenUrl=token, refreshUrl=token, scopes=scopes, auto_error=False)
