"""The server's endpoints: a ``Request`` value in, a ``Response`` value out. Frameworks only translate.

    POST /auth/login            JSON, username and password           tokens             login_endpoints.py
    POST /auth/token            form, RFC 6749 §4.3 (if on) and §6    tokens             token_endpoints.py
    POST /auth/refresh          JSON, refresh_token                   tokens
    POST /auth/logout           bearer token, refresh_token, or both  204
    POST /auth/revoke           form, RFC 7009                        200
    POST /auth/introspect       form, RFC 7662                        who a token belongs to
    GET  /auth/session          bearer token                          who am I           session_endpoints.py
    GET  /auth/sessions         bearer token                          my devices
    DELETE /auth/sessions/SID   bearer token                          204
    POST /auth/sessions/revoke-others  bearer token                   how many
    GET  /.well-known/jwks.json, /.well-known/oauth-authorization-server (RFC 7517, RFC 8414)

1. A refused refresh token is 400 ``invalid_grant`` everywhere. Nothing else is, but a wrong password at ``/token``,
   where RFC 6749 §5.2 wants it so. At ``/login`` that is 401 ``access_denied``, without a challenge: no token was sent,
   and a client that sees ``Bearer`` would try to renew one.
2. ``Idempotency-Key`` is the client's attempt id.
3. A caller sees and ends its own sessions only; introspection of other subjects needs the scope ``introspect``.
4. Who may log in, and with what scope, is decided in ``login.py``.
5. No input causes a 5xx. A store that does not answer is 503 with ``Retry-After``; so are too many logins at once.
6. Everything is written once, as coroutines: ``handle`` awaits, ``handle_blocking`` needs no event loop.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TypedDict, Unpack

from unbroken._once import run_once
from unbroken.errors import ConfigurationError, Refused, TryLater
from unbroken.server.access_token import Claims
from unbroken.server.callers import Callers
from unbroken.server.http import BODY_LIMIT, NO_STORE, Request, Response, Route, json_response, refusal
from unbroken.server.login import Authenticate, Logins, ScopesOf
from unbroken.server.login_endpoints import LoginEndpoints
from unbroken.server.metadata import WELL_KNOWN, inserted, metadata
from unbroken.server.session_endpoints import SessionEndpoints
from unbroken.server.sessions import Sessions
from unbroken.server.token_endpoints import TokenEndpoints

__all__ = ["Authenticate", "EndpointSettings", "Endpoints", "Route", "ScopesOf"]

CACHED = {"cache-control": "public, max-age=300"}


class EndpointSettings(TypedDict, total=False):
    """What may be set about the endpoints, in every framework alike."""

    prefix: str  # where they are; "/auth"
    password_grant: bool  # opens RFC 6749 §4.3 at /token, for documentation pages and old clients
    scopes_of: ScopesOf | None  # the words of scope that a subject may ask for at login; without it, none


class Endpoints:
    """All endpoints over *sessions*. *authenticate* gives the subject for a name and a password, or None; it may be
    async; a plain one runs in a thread, because it is slow on purpose, and in as many at once as there are cores.
    *settings* are those of ``EndpointSettings``.
    """

    def __init__(self, sessions: Sessions, authenticate: Authenticate, **settings: Unpack[EndpointSettings]) -> None:
        self.sessions, self.prefix = sessions, settings.get("prefix", "/auth").rstrip("/")
        self.password_grant = settings.get("password_grant", False)
        logins = LoginEndpoints(sessions, Logins(authenticate, settings.get("scopes_of")))
        self._callers = Callers(sessions)
        tokens = TokenEndpoints(sessions, self._callers, logins, password_grant=self.password_grant)
        devices = SessionEndpoints(sessions, self._callers)
        self.routes = (*logins.routes, *tokens.routes, *devices.routes, *self._discovery())

    def path(self, route: Route) -> str:
        """Where *route* is, ``{sid}`` standing for a session id."""
        return route.path if route.rooted else self.prefix + route.path

    async def handle(self, request: Request) -> Response | None:
        """The response; None if the path is none of ours."""
        allowed = []
        for route in self.routes:
            if match := _pattern(self.path(route)).fullmatch(request.path):
                if request.method == route.method:
                    return await self.answer(route, request, match.groupdict().get("sid", ""))
                allowed.append(route.method)
        if not allowed:
            return None
        return json_response({"error": "method_not_allowed"}, 405, {**NO_STORE, "allow": ", ".join(allowed)})

    def handle_blocking(self, request: Request) -> Response | None:
        """``handle`` without an event loop, for frameworks that have none."""
        return run_once(self.handle(request))

    async def answer(self, route: Route, request: Request, sid: str = "") -> Response:
        """The response of one route."""
        if len(request.body) > BODY_LIMIT:
            return json_response({"error": "invalid_request", "error_description": "the body is too long"}, 413)
        try:
            return await route.handler(request, sid)
        except (Refused, TryLater, ConfigurationError) as error:
            return refusal(error)

    async def claims(self, request: Request) -> Claims | None:
        """Who sends *request*; None without a bearer token. Raises InvalidToken."""
        return await self._callers.claims(request)

    def _discovery(self) -> tuple[Route, ...]:
        """What others need to know: the keys, and where everything is."""
        places = [WELL_KNOWN, *filter(None, [inserted(self.sessions.issuer)])]
        return (
            Route("GET", "/.well-known/jwks.json", self._jwks, rooted=True),
            *(Route("GET", place, self._metadata, rooted=True) for place in places),
        )

    async def _jwks(self, _request: Request, _: str) -> Response:
        return json_response(await self.sessions.ajwks(), 200, CACHED)

    async def _metadata(self, _request: Request, _: str) -> Response:
        facts = metadata(self.sessions.issuer, self.prefix, password_grant=self.password_grant)
        return json_response(facts, 200, CACHED)


@lru_cache(maxsize=256)
def _pattern(path: str) -> re.Pattern[str]:
    return re.compile(re.escape(path).replace(r"\{sid\}", r"(?P<sid>[A-Za-z0-9_-]{1,64})"))
