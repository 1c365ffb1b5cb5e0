"""The endpoints of the server: a ``Request`` in, a ``Response`` out. Frameworks only translate (``docs/extend``).

    POST   /auth/login             JSON, username and password          tokens              login.py
    POST   /auth/login/step        JSON, mfa_token and code             tokens
    POST   /auth/token             form, RFC 6749 §6 (and §4.3)         tokens              token.py
    POST   /auth/refresh           JSON, refresh_token, or a cookie     tokens
    POST   /auth/logout            a token of the session, or a cookie  204
    POST   /auth/revoke            form, RFC 7009                       200
    GET    /auth/session           access token                         its claims          sessions.py
    GET    /auth/sessions          own access token, ?limit= and ?cursor=   my sessions
    PATCH  /auth/sessions/SID      own access token; JSON, label        the renamed session
    DELETE /auth/sessions/SID      own access token                     204
    POST   /auth/sessions/revoke-others   own access token              how many
    POST   /auth/ticket            access token of the own client       a ticket for a URL
    POST   /auth/introspect        form, RFC 7662; access token         claims of a token   introspection.py
    GET    /auth/revocations       access token, ?after=CURSOR          revoked sessions
    GET    /auth/health, /auth/health/ready                             200, or 503         health.py
    GET    /auth/unbroken.js, /auth/unbroken.js.map; -core, -axios, -stores     browser module      static.py
    GET    /.well-known/jwks.json, oauth-authorization-server, oauth-protected-resource     discovery.py

1. A rejected refresh token is 400 ``invalid_grant`` at every endpoint. Nothing else has this code, except a wrong
   password at ``/token``, where RFC 6749 §5.2 prescribes it. At ``/login`` a wrong password is 401 ``access_denied``
   without a challenge, because no token was sent.
2. The header ``Idempotency-Key`` of a refresh is the client's idempotency key (``token.py``).
3. Callers see and revoke their own sessions only, and not with every token: ``sessions.py``. Introspection of other
   subjects' tokens, and the list of revocations, need the scope ``introspect``.
4. Too many wrong passwords are 429 with ``Retry-After``.
5. No input causes a 500. A store that does not respond, too many concurrent logins and an ``authenticate`` that raises
   are 503 with ``Retry-After``.
6. Clients that ask for it get cookies in place of tokens (``cookies.py``). Pages of other origins may call the
   endpoints if the origin is listed (``origins.py``).
7. Every endpoint is written once, as a coroutine: ``handle`` awaits it, ``handle_blocking`` needs no event loop.
8. HEAD gets the response of GET without its body.
9. Login, refresh and logout take a proof of the client's key in the header ``DPoP`` (RFC 9449): a login with it makes a
   session that is bound to this key. Where proofs need a nonce, each response to one has the newest (RFC 9449 §8.2).
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import lru_cache
from typing import Unpack

from unbroken._arguments import checked_class
from unbroken._concurrency import run_sync
from unbroken.errors import ConfigurationError, Refused, TryLater
from unbroken.server.grants.rights import rights_of
from unbroken.server.http.authentication import RequestAuthenticator
from unbroken.server.http.cookies import CookieTransport
from unbroken.server.http.cors_check import CorsCheck
from unbroken.server.http.discovery import DiscoveryEndpoints
from unbroken.server.http.health import HealthEndpoints
from unbroken.server.http.introspection import IntrospectionEndpoints
from unbroken.server.http.login import LoginEndpoints
from unbroken.server.http.messages import (
    MAX_BODY_BYTES,
    NO_STORE,
    NONCE_HEADER,
    Request,
    Response,
    Route,
    error_response,
    json_response,
)
from unbroken.server.http.origins import AllowedOrigins, Cors
from unbroken.server.http.own_logins import OwnLogins
from unbroken.server.http.sessions import SessionEndpoints
from unbroken.server.http.settings import EndpointOptions, EndpointSettings
from unbroken.server.http.static import BrowserModule
from unbroken.server.http.token import TokenEndpoints
from unbroken.server.login.authenticator import Authenticate, Authenticator
from unbroken.server.login.credential_check import CredentialCheck
from unbroken.server.login.devices import DeviceTokens
from unbroken.server.login.rate_limit import LoginRateLimiter, RateLimitPolicy
from unbroken.server.login.security_stamp import SecurityStamps
from unbroken.server.sessions import Sessions

__all__ = ["Endpoints"]

SID = "[A-Za-z0-9_-]{1,64}"


@checked_class(own=("sessions", "authenticate"))
class Endpoints:
    """All endpoints over *sessions*.

    *authenticate* returns the subject for a name and a password, or None (``login/authenticator.py`` rule 4); a plain
    function runs in a worker thread. ``EndpointSettings`` describes the *options*.
    Raise ConfigurationError for an unknown option and for a wrong value.
    """

    def __init__(self, sessions: Sessions, authenticate: Authenticate, **options: Unpack[EndpointOptions]) -> None:
        _check_arguments(sessions, authenticate)
        self.sessions, self.settings = sessions, EndpointSettings.of(**options)
        settings, origins = self.settings, AllowedOrigins(self.settings.origins)
        self._cors = Cors(origins, credentials=settings.cookies is not None) if origins.allowed else None  # rule 6
        self.cors_check = CorsCheck()
        cookies = CookieTransport(settings.cookies, origins, settings.prefix)
        credentials = CredentialCheck(_rate_limiter(sessions, settings.rate_limit), sessions.notify)  # rule 4
        devices = DeviceTokens(sessions, settings.rate_limit.known_for) if settings.rate_limit else None
        application = Authenticator(authenticate, settings.verify_mfa)
        rights = rights_of(settings.scopes_of) if settings.scopes_of else sessions.rights
        stamps = SecurityStamps(settings.security_stamp)
        self.authenticator = RequestAuthenticator(
            sessions, cookies=settings.cookies, origins=settings.origins, rights=rights
        )
        logins = LoginEndpoints(sessions, application, cookies, credentials, devices, stamps, rights)
        self.own_logins = OwnLogins(sessions, self.authenticator, logins, cookies, rights, stamps, settings.is_active)
        groups = (
            logins,
            TokenEndpoints(sessions, logins, cookies, rights, settings, stamps),
            SessionEndpoints(sessions, self.authenticator, rights, tickets=settings.tickets),
            IntrospectionEndpoints(sessions, self.authenticator, rights),
            HealthEndpoints(sessions),
            BrowserModule(),
            DiscoveryEndpoints(sessions, settings),
        )
        routes = tuple(route for group in groups for route in group.routes)
        self.routes = (*routes, *self._cors.preflights(routes)) if self._cors else routes

    def path(self, route: Route) -> str:
        """Return the path of *route*, in which ``{sid}`` stands for a session id."""
        return route.path if route.rooted else self.settings.prefix + route.path

    async def handle(self, request: Request) -> Response | None:
        """Return the response; None if no endpoint has this path."""
        allowed, method = list[str](), "GET" if request.method == "HEAD" else request.method  # rule 8
        for route in self.routes:
            if match := _pattern(self.path(route)).fullmatch(request.path):
                if method == route.method:
                    return await self.respond(route, request, match.groupdict().get("sid", ""))
                allowed += ("GET", "HEAD") if route.method == "GET" else (route.method,)
        if not allowed:
            return None
        refused = json_response({"error": "method_not_allowed"}, 405, {**NO_STORE, "allow": ", ".join(allowed)})
        return self._cors.add_headers(request, refused) if self._cors else refused

    def handle_blocking(self, request: Request) -> Response | None:
        """Return what ``handle`` returns, without an event loop."""
        return run_sync(self.handle(request))  # rule 7

    async def respond(self, route: Route, request: Request, sid: str = "") -> Response:
        """Return the response of *route*, for a framework that has found the route and the *sid* of its path."""
        response = self._with_nonce(request, await self._respond(route, request, sid))
        if self._cors:
            response = self._cors.add_headers(request, response)
        if request.method != "HEAD":
            return response
        return replace(response, headers={**response.headers, "content-length": str(len(response.body))}, body=b"")

    def _with_nonce(self, request: Request, response: Response) -> Response:
        """Return *response* with the nonce for the next proof (rule 9)."""
        if response.status >= 400 or "dpop" not in request.headers:
            return response
        nonce = self.authenticator.next_nonce(request)
        return replace(response, headers={**response.headers, NONCE_HEADER: nonce}) if nonce else response

    async def _respond(self, route: Route, request: Request, sid: str) -> Response:
        if "{sid}" in route.path and not re.fullmatch(SID, sid):  # a framework passes any text between two slashes
            return json_response({"error": "not_found", "error_description": "this is no session id"}, 404)
        if len(request.body) > MAX_BODY_BYTES:
            return json_response({"error": "invalid_request", "error_description": "the body is too long"}, 413)
        try:
            return await route.handler(request, sid)
        except (Refused, TryLater, ConfigurationError) as error:  # rule 5
            return error_response(error)


def _check_arguments(sessions: object, authenticate: object) -> None:
    if isinstance(sessions, str):  # its value may hold a password
        raise ConfigurationError("the first argument is a Sessions, not a URL: Sessions(open_store(url))")
    if not isinstance(sessions, Sessions):
        raise ConfigurationError(f"the first argument is a Sessions, not a {type(sessions).__name__}")
    if not callable(authenticate):
        raise ConfigurationError("authenticate must be a function of a user name and a password")


def _rate_limiter(sessions: Sessions, policy: RateLimitPolicy | None) -> LoginRateLimiter | None:
    return LoginRateLimiter(sessions.store, policy, sessions.clock) if policy else None


@lru_cache(maxsize=256)
def _pattern(path: str) -> re.Pattern[str]:
    return re.compile(re.escape(path).replace(r"\{sid\}", f"(?P<sid>{SID})"))
