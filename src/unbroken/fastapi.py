"""The server's endpoints, and the claims of a request, for FastAPI; both are described in OpenAPI.

    auth = Auth(sessions, authenticate)
    app = FastAPI()
    app.include_router(auth.router)

    @app.get("/orders")
    async def orders(claims: Annotated[Claims, Depends(auth.claims)]): ...

    @app.get("/reports")
    async def reports(claims: Annotated[Claims, Security(auth.claims, scopes=["reports"])]): ...

    @app.delete("/orders")                         # of now, whatever the token says
    async def delete(claims: Annotated[Claims, Depends(auth.requires(claims={"role": "admin"}, now=True))]): ...

    @app.get("/callback")                          # somebody else has authenticated the user
    async def callback(request: Request):
        return await auth.log_in(RedirectResponse("/"), subject, request=request)

    tickets = TicketAuth(sessions)                 # for what a browser opens without headers, as /live?ticket=…

    @app.websocket("/live")
    async def live(socket: WebSocket, claims: Annotated[Claims, Depends(tickets.claims)]): ...

1. A service that only verifies tokens has ``Bearer(verifier)`` in place of ``Auth``: the dependency without endpoints.
2. With ``cookies="both"`` the dependency takes the access token from its cookie too.
3. With ``password_grant=True`` the Authorize button of the documentation page asks for a name and a password, without
   it for a token.
4. A refused request gets FastAPI's error body, in which ``detail`` is the object that other frameworks send.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any, TypeVar, Unpack

try:
    from fastapi import APIRouter, Depends, HTTPException, Query, Security
except ModuleNotFoundError as error:
    message = "unbroken.fastapi needs FastAPI: pip install 'unbroken[fastapi]'"
    raise ModuleNotFoundError(message, name=error.name) from error

from fastapi.security import APIKeyCookie, HTTPBearer, OAuth2PasswordBearer, SecurityScopes
from fastapi.security.http import HTTPBase
from starlette.requests import HTTPConnection
from starlette.requests import Request as StarletteRequest
from starlette.responses import Response as StarletteResponse

from unbroken._arguments import checked_class
from unbroken._openapi import needs_access_token, route_description
from unbroken.server.http.authentication import Needs, RequestAuthenticator, TokenVerifier, require_scope
from unbroken.server.http.cookies import Cookies
from unbroken.server.http.endpoints import Endpoints
from unbroken.server.http.messages import Response
from unbroken.server.http.own_logins import LoginOptions
from unbroken.server.http.settings import EndpointOptions
from unbroken.server.keys.access_token import Claims
from unbroken.server.login.authenticator import Authenticate
from unbroken.server.sessions import Sessions
from unbroken.starlette import (
    CLAIMS,
    claims_or_refusal,
    log_in,
    log_out,
    next_nonce,
    route_endpoint,
    ticket_claims_or_refusal,
)

__all__ = ["Auth", "Bearer", "TicketAuth"]

PROOF_DESCRIPTION = "A token that is bound to a key, with a proof of this key in the header `DPoP` (RFC 9449)"
R = TypeVar("R", bound=StarletteResponse)
ClaimsDependency = Callable[..., Awaitable[Claims]]


@checked_class(own=("verifier",))
class Bearer:
    """``claims``: a dependency that returns the ``Claims`` of the request's access token, by *verifier*.

    *cookies* and *origins* are those of the endpoints, if access tokens are in cookies.
    """

    claims: ClaimsDependency

    def __init__(self, verifier: TokenVerifier, *, cookies: Cookies | None = None, origins: Sequence[str] = ()) -> None:
        authenticator = RequestAuthenticator(verifier, cookies=cookies, origins=origins)
        self.claims = _dependency(authenticator, _any_of(HTTPBearer(auto_error=False), cookies))


@checked_class("requires", own=("sessions", "authenticate"))
class Auth:
    """``router``: the endpoints. ``claims``: a dependency that returns the ``Claims`` of the request's access token.

    Parameters as those of ``unbroken.server.Endpoints``; *scopes* describes each word of scope, for the documentation
    page. Set *prefix* here, not at ``include_router``: metadata and documentation name the endpoints by it.
    """

    router: APIRouter
    claims: ClaimsDependency

    def __init__(
        self,
        sessions: Sessions,
        authenticate: Authenticate,
        *,
        scopes: dict[str, str] | None = None,
        **options: Unpack[EndpointOptions],
    ) -> None:
        endpoints = self._endpoints = Endpoints(sessions, authenticate, **options)
        settings = endpoints.settings
        self.scheme = (
            _password_scheme(endpoints, scopes or {}) if settings.password_grant else HTTPBearer(auto_error=False)
        )
        security = _any_of(self.scheme, settings.cookies)  # rule 2
        # One object: FastAPI compares dependencies, and those that tests override, by identity.
        self.claims = _dependency(endpoints.authenticator, security)
        self.router = APIRouter(tags=["auth"])
        for route in endpoints.routes:
            path, endpoint = endpoints.path(route), route_endpoint(endpoints, route)
            self.router.add_api_route(
                path,
                endpoint,
                methods=[route.method],
                dependencies=[Depends(security)] if needs_access_token(route) else [],
                **route_description(route, settings.cookies),
            )
            if route.method == "GET":  # HEAD is not in the document
                name = f"{route.name}_head"
                self.router.add_api_route(path, endpoint, methods=["HEAD"], name=name, include_in_schema=False)

    def requires(self, *, scope: str = "", claims: Needs | None = None, now: bool = False) -> ClaimsDependency:
        """Return a dependency: ``claims``, with *scope* and with claims of the application (``{"role": "admin"}``).

        With *now* both are what the subject has now, whatever the token says; this costs a query. A test that overrides
        ``auth.claims`` decides here too.
        """
        authenticator, words = self._endpoints.authenticator, [] if now else scope.split()

        async def with_rights(found: Claims = Security(self.claims, scopes=words)) -> Claims:
            """Return the claims of the token. Refuses the request with 401 or 403 and an RFC 6750 challenge."""
            return _claims_or_raise(await authenticator.check(found, scope=scope, claims=claims, now=now))

        return with_rights

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


@checked_class()
class TicketAuth:
    """``claims``: a dependency that returns the ``Claims`` of the session that connects with ``?ticket=…``.

    For WebSocket routes, and for GET routes that a page opens without headers. Later log lines do not contain the
    ticket.
    """

    claims: ClaimsDependency

    def __init__(self, sessions: Sessions) -> None:
        async def ticket_claims(
            connection: HTTPConnection,
            scopes: SecurityScopes,
            _: Annotated[str, Query(alias="ticket", description="from /ticket; used once, within 30 seconds")] = "",
        ) -> Claims:
            """Return the claims of the ticket. Refuses the request with 401 or 403 and an RFC 6750 challenge."""
            claims = await ticket_claims_or_refusal(sessions, connection)
            return _claims_or_raise(require_scope(claims, scopes.scope_str))

        self.claims = ticket_claims


def _any_of(scheme: Any, cookies: Cookies | None) -> Any:
    """Return a dependency that declares, for OpenAPI, where an access token may be: any one place is enough."""
    proof = HTTPBase(scheme="DPoP", scheme_name="DPoP", description=PROOF_DESCRIPTION, auto_error=False)
    if cookies is None or cookies.mode != "both":

        async def in_header(_: Any = Depends(scheme), __: Any = Depends(proof)) -> None:
            """Do nothing: the parameters are what is declared."""

        return in_header
    cookie = APIKeyCookie(name=cookies.access_name, scheme_name="SessionCookie", auto_error=False)

    async def declared(_: Any = Depends(scheme), __: Any = Depends(proof), ___: Any = Depends(cookie)) -> None:
        """Do nothing: the parameters are what is declared."""

    return declared


def _dependency(authenticator: RequestAuthenticator, scheme: Any) -> ClaimsDependency:
    async def claims(
        request: StarletteRequest, response: StarletteResponse, scopes: SecurityScopes, _: Any = Depends(scheme)
    ) -> Claims:
        """Return the claims of the token. Refuses the request with 401 or 403 and an RFC 6750 challenge."""
        found = await claims_or_refusal(authenticator, request)
        if isinstance(found, Claims) and (nonce := next_nonce(authenticator, {**request.scope, CLAIMS: found})):
            response.headers["dpop-nonce"] = nonce
        return _claims_or_raise(require_scope(found, scopes.scope_str))

    return claims


def _claims_or_raise(claims: Claims | Response) -> Claims:
    if isinstance(claims, Claims):
        return claims
    headers = {name: value for name, value in claims.headers.items() if name != "content-type"}
    raise HTTPException(claims.status, json.loads(claims.body), headers)  # rule 4


def _password_scheme(endpoints: Endpoints, scopes: dict[str, str]) -> OAuth2PasswordBearer:
    token_url = endpoints.settings.prefix + "/token"
    return OAuth2PasswordBearer(tokenUrl=token_url, refreshUrl=token_url, scopes=scopes, auto_error=False)
