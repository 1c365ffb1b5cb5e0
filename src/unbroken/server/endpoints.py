"""The server's endpoints: a ``Request`` value in, a ``Response`` value out. Frameworks only translate.

    POST /auth/login            JSON, username and password           tokens
    POST /auth/token            form, RFC 6749 §4.3 (if on) and §6    tokens
    POST /auth/refresh          JSON, refresh_token                   tokens
    POST /auth/logout           bearer token, refresh_token, or both  204
    POST /auth/revoke           form, RFC 7009                        200
    POST /auth/introspect       form, RFC 7662                        who a token belongs to
    GET  /auth/session          bearer token                          who am I
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
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

from unbroken.errors import ConfigurationError, InvalidRequest, InvalidToken, LoginRefused, Refused, TryLater
from unbroken.server.access_token import Claims
from unbroken.server.http import (
    BODY_LIMIT,
    NO_STORE,
    Request,
    Response,
    bearer_of,
    challenge,
    flag_of,
    json_response,
    refusal,
    text_of,
)
from unbroken.server.login import Authenticate, Logins, ScopesOf
from unbroken.server.metadata import WELL_KNOWN, inserted, metadata
from unbroken.server.sessions import Sessions
from unbroken.tokens import Granted

__all__ = ["Authenticate", "Endpoints", "Route", "ScopesOf"]

Handler = Callable[["Endpoints", Request, str], Awaitable[Response]]
CACHED = {"cache-control": "public, max-age=300"}
INTROSPECT = "introspect"  # the scope that may look at other subjects' tokens
LONGEST_CLIENT_ID = 200  # it stands in every access token, which must fit into a header


@dataclass(frozen=True, slots=True)
class Route:
    """One endpoint: where it is, and whether it is below the prefix (``rooted``: it is not)."""

    method: str
    path: str
    handler: Handler
    rooted: bool = False

    @property
    def name(self) -> str:
        """The handler's name, for a framework's route table."""
        return self.handler.__name__.strip("_")


class Endpoints:
    """All endpoints over *sessions*. *authenticate* gives the subject for a name and a password, or None; it may be
    async; a plain one runs in a thread, because it is slow on purpose, and in as many at once as there are cores.
    *password_grant* opens RFC 6749 §4.3 at ``/token``, for documentation pages and old clients. *scopes_of* gives the
    words of scope that a subject may ask for at login, plain or async like *authenticate*; without it, none.
    """

    def __init__(
        self,
        sessions: Sessions,
        authenticate: Authenticate,
        *,
        prefix: str = "/auth",
        password_grant: bool = False,
        scopes_of: ScopesOf | None = None,
    ) -> None:
        self.sessions, self.prefix, self.password_grant = sessions, prefix.rstrip("/"), password_grant
        self._logins = Logins(authenticate, scopes_of)
        path = inserted(sessions.issuer)
        self.routes = (*ROUTES, *([replace(ROUTES[-1], path=path)] if path else []))

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

    async def answer(self, route: Route, request: Request, sid: str = "") -> Response:
        """The response of one route."""
        if len(request.body) > BODY_LIMIT:
            return json_response({"error": "invalid_request", "error_description": "the body is too long"}, 413)
        try:
            return await route.handler(self, request, sid)
        except (Refused, TryLater, ConfigurationError) as error:
            return refusal(error)

    async def claims(self, request: Request) -> Claims | None:
        """Who sends *request*; None without a bearer token. Raises InvalidToken."""
        token = bearer_of(request)
        return None if token is None else await self.sessions.averify(token)

    # ---- tokens ------------------------------------------------------------------------------------------------

    async def _login(self, request: Request, _: str) -> Response:
        fields = request.json()
        return _tokens(
            await self._log_in(
                request,
                text_of(fields, "username"),
                text_of(fields, "password"),
                scope=text_of(fields, "scope", required=False),
                label=text_of(fields, "label", required=False),
                client_id=text_of(fields, "client_id", required=False) or "first-party",
                coordinated=flag_of(fields, "coordinated"),
            )
        )

    async def _token(self, request: Request, _: str) -> Response:
        fields = request.form()
        grant_type, client_id = text_of(fields, "grant_type"), fields.get("client_id") or request.basic_client()
        if grant_type == "refresh_token":
            token = text_of(fields, "refresh_token")
            return _tokens(await self._refreshed(request, token, client_id, fields.get("scope")))
        if grant_type == "password" and self.password_grant:
            name, password = text_of(fields, "username"), text_of(fields, "password")
            about = {"scope": fields.get("scope", ""), "client_id": client_id or "first-party"}
            try:
                return _tokens(await self._log_in(request, name, password, **about))
            except LoginRefused as error:  # RFC 6749 §5.2 calls it so; no session ends by it
                return json_response({"error": "invalid_grant", "error_description": str(error)}, 400)
        return json_response({"error": "unsupported_grant_type", "error_description": "use refresh_token"}, 400)

    async def _refresh(self, request: Request, _: str) -> Response:
        token = text_of(request.json(), "refresh_token")
        return _tokens(await self._refreshed(request, token, None, None))

    async def _refreshed(self, request: Request, token: str, client_id: str | None, scope: str | None) -> Granted:
        return await self.sessions.arefresh(
            token,
            attempt=request.headers.get("idempotency-key"),
            client_id=client_id,
            scope=scope,
            ip=request.client_ip,
            user_agent=request.headers.get("user-agent", ""),
        )

    async def _log_in(self, request: Request, name: str, password: str, **about: Any) -> Granted:
        _check_client_id(about["client_id"])
        subject = await self._logins.subject(name, password)
        await self._logins.check_scope(subject, about["scope"])
        agent = request.headers.get("user-agent", "")
        granted = await self.sessions.alogin(subject, ip=request.client_ip, user_agent=agent, **about)
        if not await self._logins.is_still(subject, name, password):
            await self.sessions.alogout(refresh_token=granted.refresh_token)
            raise LoginRefused("wrong user name or password")
        return granted

    async def _logout(self, request: Request, _: str) -> Response:
        access_token = bearer_of(request)
        refresh_token = text_of(request.json(), "refresh_token", required=False) if request.body else ""
        if access_token is None and not refresh_token:
            raise InvalidRequest("send the bearer token, the refresh_token, or both")
        ended = await self.sessions.alogout(access_token=access_token, refresh_token=refresh_token or None)
        if not ended and not refresh_token:
            return challenge(InvalidToken("this is not an access token of this server", reason="malformed"))
        return Response(204, NO_STORE)

    async def _revoke(self, request: Request, _: str) -> Response:
        token = text_of(request.form(), "token")
        await self.sessions.alogout(access_token=token, refresh_token=token)
        return Response(200, NO_STORE)

    async def _introspect(self, request: Request, _: str) -> Response:
        caller = await self.claims(request)
        if caller is None:
            return challenge(None)
        facts = await self._facts(text_of(request.form(), "token"))
        if facts is None or not (facts["sub"] == caller.subject or caller.has_scope(INTROSPECT)):
            return json_response({"active": False})
        return json_response({"active": True, **facts})

    async def _facts(self, token: str) -> dict[str, object] | None:
        """What RFC 7662 §2.2 tells of a good token; None for any other."""
        try:
            return _facts(await self.sessions.averify(token)) | {"token_type": "Bearer"}
        except InvalidToken:
            found = await self.sessions.ainspect_refresh(token)
        if found is None or not found[1]:
            return None
        info = found[0]
        return {
            "sub": info.subject,
            "sid": info.sid,
            "client_id": info.client_id,
            "scope": info.scope,
            "exp": int(info.idle_expires_at),
            "token_type": "refresh_token",
        }

    # ---- sessions ----------------------------------------------------------------------------------------------

    async def _session(self, request: Request, _: str) -> Response:
        caller = await self.claims(request)
        return challenge(None) if caller is None else json_response(_facts(caller))

    async def _sessions(self, request: Request, _: str) -> Response:
        caller = await self.claims(request)
        if caller is None:
            return challenge(None)
        found = await self.sessions.alist_of(caller.subject)
        return json_response({"sessions": [info.to_json(current=info.sid == caller.sid) for info in found]})

    async def _end_session(self, request: Request, sid: str) -> Response:
        caller = await self.claims(request)
        if caller is None:
            return challenge(None)
        if not await self.sessions.arevoke(sid, subject=caller.subject):
            return json_response({"error": "not_found", "error_description": "you have no such session"}, 404)
        return Response(204, NO_STORE)

    async def _revoke_others(self, request: Request, _: str) -> Response:
        caller = await self.claims(request)
        if caller is None:
            return challenge(None)
        return json_response({"revoked": await self.sessions.arevoke_others(caller.subject, keep=caller.sid)})

    # ---- what others need to know --------------------------------------------------------------------------------

    async def _jwks(self, _request: Request, _: str) -> Response:
        return json_response(await self.sessions.ajwks(), 200, CACHED)

    async def _metadata(self, _request: Request, _: str) -> Response:
        facts = metadata(self.sessions.issuer, self.prefix, password_grant=self.password_grant)
        return json_response(facts, 200, CACHED)


ROUTES = (
    Route("POST", "/login", Endpoints._login),
    Route("POST", "/token", Endpoints._token),
    Route("POST", "/refresh", Endpoints._refresh),
    Route("POST", "/logout", Endpoints._logout),
    Route("POST", "/revoke", Endpoints._revoke),
    Route("POST", "/introspect", Endpoints._introspect),
    Route("GET", "/session", Endpoints._session),
    Route("GET", "/sessions", Endpoints._sessions),
    Route("POST", "/sessions/revoke-others", Endpoints._revoke_others),
    Route("DELETE", "/sessions/{sid}", Endpoints._end_session),
    Route("GET", "/.well-known/jwks.json", Endpoints._jwks, rooted=True),
    Route("GET", WELL_KNOWN, Endpoints._metadata, rooted=True),
)


def _pattern(path: str) -> re.Pattern[str]:
    return re.compile(re.escape(path).replace(r"\{sid\}", r"(?P<sid>[A-Za-z0-9_-]{1,64})"))


def _check_client_id(client_id: str) -> None:
    """RFC 6749 appendix A.1: printable ASCII."""
    if len(client_id) > LONGEST_CLIENT_ID or not (client_id.isascii() and client_id.isprintable()):
        raise InvalidRequest(f"client_id has at most {LONGEST_CLIENT_ID} printable ASCII characters")


def _tokens(granted: Granted) -> Response:
    return json_response(granted.to_response())


def _facts(claims: Claims) -> dict[str, object]:
    return {
        "sub": claims.subject,
        "sid": claims.sid,
        "client_id": claims.client_id,
        "scope": claims.scope,
        "iss": claims.issuer,
        "aud": claims.audience,
        "iat": int(claims.issued_at),
        "exp": int(claims.expires_at),
    }
