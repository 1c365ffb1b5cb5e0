"""The server's endpoints and the current session for FastAPI, right in OpenAPI.

    auth = Auth(sessions, authenticate)
    app = FastAPI()
    app.include_router(auth.router)

    @app.get("/orders")
    async def orders(session: Annotated[Claims, Depends(auth.session)]): ...

    @app.get("/reports")
    async def reports(session: Annotated[Claims, Security(auth.session, scopes=["reports"])]): ...

A service that only verifies tokens has ``Bearer(verifier)`` in place of ``Auth``: the dependency, without endpoints.
With ``cookies=Cookies("both")`` the dependency takes the access token from its cookie too.
With ``password_grant=True`` the docs page's Authorize button asks for name and password; without, for a token.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, Unpack

from fastapi import APIRouter, Depends, HTTPException
from fastapi.security import APIKeyCookie, HTTPBearer, OAuth2PasswordBearer, SecurityScopes
from starlette.requests import Request as StarletteRequest

from unbroken._openapi import described, needs_token
from unbroken.server.access_token import Claims
from unbroken.server.callers import Callers, Verifies
from unbroken.server.cookies import Cookies
from unbroken.server.endpoints import Authenticate, Endpoints, EndpointSettings
from unbroken.server.sessions import Sessions
from unbroken.starlette import demanded, endpoint_of, found

__all__ = ["Auth", "Bearer"]


class Bearer:
    """``session``, a dependency that gives the ``Claims`` of the caller. *verifier* knows good tokens."""

    def __init__(self, verifier: Verifies) -> None:
        self.session = _dependency(Callers(verifier), HTTPBearer(auto_error=False))


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
            self.router.add_api_route(
                endpoints.path(route),
                endpoint_of(endpoints, route),
                methods=[route.method],
                dependencies=[Depends(places)] if needs_token(route) else [],
                **described(route, endpoints.cookies),
            )


def _any_of(scheme: Any, cookies: Cookies | None) -> Any:
    """The places where an access token may be, for OpenAPI: any one of them is enough."""
    if cookies is None or cookies.mode != "both":
        return scheme
    cookie = APIKeyCookie(name=cookies.access_name, scheme_name="SessionCookie", auto_error=False)

    async def seen(_: Any = Depends(scheme), __: Any = Depends(cookie)) -> None:
        """Nothing: the places are declared by this function's parameters."""

    return seen


def _dependency(callers: Callers, scheme: Any) -> Callable[..., Awaitable[Claims]]:
    async def session(request: StarletteRequest, scopes: SecurityScopes, _: Any = Depends(scheme)) -> Claims:
        """The session that sends *request*; answers 401 or 403 with an RFC 6750 challenge otherwise."""
        who = demanded(await found(callers, request), scopes.scope_str)
        if isinstance(who, Claims):
            return who
        headers = {name: value for name, value in who.headers.items() if name != "content-type"}
        raise HTTPException(who.status, json.loads(who.body), headers)

    return session


def _scheme(endpoints: Endpoints, scopes: dict[str, str]) -> OAuth2PasswordBearer:
    token = endpoints.prefix + "/token"
    return OAuth2PasswordBearer(tokenUrl=token, refreshUrl=token, scopes=scopes, auto_error=False)
