"""The server's endpoints: a ``Request`` value in, a ``Response`` value out. Frameworks only translate.

    POST /auth/login            JSON, username and password           tokens             login_endpoints.py
    POST /auth/login/step       JSON, mfa_token and code              tokens
    POST /auth/token            form, RFC 6749 §4.3 (if on) and §6    tokens             token_endpoints.py
    POST /auth/refresh          JSON, refresh_token, or a cookie      tokens
    POST /auth/logout           any token of the session, or cookies  204
    POST /auth/revoke           form, RFC 7009                        200
    POST /auth/introspect       form, RFC 7662                        who a token belongs to
    GET  /auth/session          bearer token                          who am I           session_endpoints.py
    GET  /auth/sessions         bearer token                          my devices
    PATCH /auth/sessions/SID    bearer token; JSON, label             the device by its new name
    DELETE /auth/sessions/SID   bearer token                          204
    POST /auth/sessions/revoke-others  bearer token                   how many
    POST /auth/ticket           bearer token                          for a URL, used once
    GET  /auth/revocations      bearer token, ?after=CURSOR           revoked sids       feed_endpoint.py
    GET  /auth/health, /auth/health/ready                         200, or 503        health.py
    GET  /auth/unbroken.js, /auth/unbroken.js.map                 the browser module static.py
    GET  /.well-known/jwks.json, /.well-known/oauth-authorization-server (RFC 7517, RFC 8414)

1. A refused refresh token is 400 ``invalid_grant`` everywhere. Nothing else is, but a wrong password at ``/token``,
   where RFC 6749 §5.2 wants it so. At ``/login`` that is 401 ``access_denied``, without a challenge: no token was sent,
   and a client that sees ``Bearer`` would try to renew one.
2. ``Idempotency-Key`` is the client's attempt id.
3. A caller sees and ends its own sessions only; introspection of other subjects, and the list of what was
   revoked, need the scope ``introspect``.
4. Who may log in, and with what scope, is decided in ``login.py``; how often it may be tried, in ``guard.py``: 429.
5. No input causes a 5xx. A store that does not answer is 503 with ``Retry-After``; so are too many logins at once, and
   an ``authenticate`` that fails.
6. Cookies take the place of tokens for clients that ask for them (``cookies.py``); pages of other origins may call
   the endpoints if these are listed (``cors.py``).
7. Everything is written once, as coroutines: ``handle`` awaits, ``handle_blocking`` needs no event loop.
8. HEAD is answered as GET, without the body.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TypedDict, Unpack

from unbroken._sync import run_sync
from unbroken.errors import ConfigurationError, Refused, TryLater
from unbroken.server.http.authentication import RequestAuthenticator
from unbroken.server.http.cookies import Cookies, CookieTransport
from unbroken.server.http.login import LoginEndpoints
from unbroken.server.http.messages import (
    MAX_BODY_BYTES,
    NO_STORE,
    Request,
    Response,
    Route,
    error_response,
    json_response,
)
from unbroken.server.http.operations import (
    WELL_KNOWN,
    HealthEndpoints,
    RevocationsEndpoint,
    metadata,
    path_inserted_url,
)
from unbroken.server.http.origins import AllowedOrigins, Cors
from unbroken.server.http.sessions import SessionEndpoints
from unbroken.server.http.static import BrowserModule
from unbroken.server.http.token import TokenEndpoints
from unbroken.server.keys.access_token import Claims
from unbroken.server.login.authenticator import Authenticate, Authenticator, IsActive, ScopesOf, VerifyMfa
from unbroken.server.login.rate_limit import CredentialCheck, LoginRateLimiter, RateLimitPolicy
from unbroken.server.sessions import Sessions

__all__ = ["Authenticate", "EndpointSettings", "Endpoints", "Route", "ScopesOf"]

SID = "[A-Za-z0-9_-]{1,64}"
CACHED = {"cache-control": "public, max-age=300"}


class EndpointSettings(TypedDict, total=False):
    """What may be set about the endpoints, in every framework alike."""

    prefix: str  # where they are; "/auth"
    password_grant: bool  # opens RFC 6749 §4.3 at /token, for documentation pages and old clients
    scopes_of: ScopesOf | None  # the words of scope that a subject may ask for at login; without it, none
    second_step: VerifyMfa | None  # checks the code of a subject for whom authenticate wants one more step
    is_active: IsActive | None  # at each refresh: whether the subject is somebody still; None: not asked
    guard: RateLimitPolicy | None  # how often passwords and codes may be wrong; None: as often as anybody likes
    cookies: Cookies | None  # lets clients keep their tokens in cookies; without it, none may
    tickets: bool  # False leaves out /ticket, for connections that a browser opens without headers
    origins: Sequence[str]  # the other sites whose pages may call the endpoints, as https://app.example.com


class Endpoints:
    """All endpoints over *sessions*. *authenticate* gives the subject for a name and a password, or None; it may be
    async; a plain one runs in a thread, because it is slow on purpose, and in as many at once as there are cores.
    *settings* are those of ``EndpointSettings``.
    """

    def __init__(self, sessions: Sessions, authenticate: Authenticate, **settings: Unpack[EndpointSettings]) -> None:
        self.sessions, self.prefix = sessions, settings.get("prefix", "/auth").rstrip("/")
        self.password_grant = settings.get("password_grant", False)
        self.cookies, origins = settings.get("cookies"), AllowedOrigins(settings.get("origins", ()))
        self._cors = Cors(origins, credentials=self.cookies is not None)
        jar = CookieTransport(self.cookies, origins, self.prefix)
        self.callers = RequestAuthenticator(sessions, cookies=self.cookies, origins=tuple(origins.allowed))
        asked = Authenticator(authenticate, settings.get("scopes_of"), settings.get("second_step"))
        logins = LoginEndpoints(sessions, asked, jar, CredentialCheck(_guard(sessions, settings), sessions.notify))
        is_active = settings.get("is_active")
        tokens = TokenEndpoints(sessions, self.callers, logins, jar, is_active, password_grant=self.password_grant)
        devices = SessionEndpoints(sessions, self.callers, tickets=settings.get("tickets", True))
        for_callers = (devices, RevocationsEndpoint(sessions, self.callers))
        groups = (logins, tokens, *for_callers, HealthEndpoints(sessions), BrowserModule())
        routes = (*(route for group in groups for route in group.routes), *self._discovery())
        self.routes = (*routes, *self._cors.preflights(routes))

    def path(self, route: Route) -> str:
        """Where *route* is, ``{sid}`` standing for a session id."""
        return route.path if route.rooted else self.prefix + route.path

    async def handle(self, request: Request) -> Response | None:
        """The response; None if the path is none of ours."""
        allowed, method = list[str](), "GET" if request.method == "HEAD" else request.method
        for route in self.routes:
            if match := _pattern(self.path(route)).fullmatch(request.path):
                if method == route.method:
                    return await self.answer(route, request, match.groupdict().get("sid", ""))
                allowed += ("GET", "HEAD") if route.method == "GET" else (route.method,)
        if not allowed:
            return None
        refused = json_response({"error": "method_not_allowed"}, 405, {**NO_STORE, "allow": ", ".join(allowed)})
        return self._cors.add_headers(request, refused)

    def handle_blocking(self, request: Request) -> Response | None:
        """``handle`` without an event loop, for frameworks that have none."""
        return run_sync(self.handle(request))

    async def answer(self, route: Route, request: Request, sid: str = "") -> Response:
        """The response of one route."""
        response = self._cors.add_headers(request, await self._answer(route, request, sid))
        if request.method != "HEAD":
            return response
        return replace(response, headers={**response.headers, "content-length": str(len(response.body))}, body=b"")

    async def _answer(self, route: Route, request: Request, sid: str) -> Response:
        if "{sid}" in route.path and not re.fullmatch(SID, sid):  # frameworks give whatever stands between two slashes
            return json_response({"error": "not_found", "error_description": "there can be no such session"}, 404)
        if len(request.body) > MAX_BODY_BYTES:
            return json_response({"error": "invalid_request", "error_description": "the body is too long"}, 413)
        try:
            return await route.handler(request, sid)
        except (Refused, TryLater, ConfigurationError) as error:
            return error_response(error)

    async def claims(self, request: Request) -> Claims | None:
        """Who sends *request*; None without a token. Raises as ``Callers.claims`` does."""
        return await self.callers.claims(request)

    def _discovery(self) -> tuple[Route, ...]:
        """What others need to know: the keys, and where everything is."""
        places = [WELL_KNOWN, *filter(None, [path_inserted_url(self.sessions.issuer)])]
        return (
            Route("GET", "/.well-known/jwks.json", self._jwks, rooted=True),
            *(Route("GET", place, self._metadata, rooted=True) for place in places),
        )

    async def _jwks(self, _request: Request, _: str) -> Response:
        return json_response(await self.sessions.ajwks(), 200, CACHED)

    async def _metadata(self, _request: Request, _: str) -> Response:
        facts = metadata(self.sessions.issuer, self.prefix, password_grant=self.password_grant)
        return json_response(facts, 200, CACHED)


def _guard(sessions: Sessions, settings: EndpointSettings) -> LoginRateLimiter | None:
    policy = settings.get("guard", RateLimitPolicy())
    return LoginRateLimiter(sessions.store, policy, sessions.clock) if policy else None


@lru_cache(maxsize=256)
def _pattern(path: str) -> re.Pattern[str]:
    return re.compile(re.escape(path).replace(r"\{sid\}", f"(?P<sid>{SID})"))
