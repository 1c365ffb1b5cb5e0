"""What the holder of an access token may do with its subject's sessions: list, rename and revoke them; and tickets.

1. A token that was asked for with a scope has the rights in its scope and no others. So the sessions of an account are
   managed by the full tokens of the server's own client (``core/scope.py`` rule 6), and by those of any client with the
   scope ``sessions``.
2. Every token may end its own session, as a logout does.
3. A ticket has the rights of the token it is bought with. The server's own client may buy one with any token, another
   client with the scope ``sessions``. Its scope is checked again, because ``scopes_of`` may return less by now.
4. Sessions that belong to another issuer or audience on the same store do not exist here.
"""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import parse_qsl

from unbroken.errors import InvalidRequest
from unbroken.server.core.rotation import FIRST_PARTY
from unbroken.server.core.scope import SESSIONS, remaining_scope
from unbroken.server.core.session_info import MAX_LABEL_CHARS, SessionInfo
from unbroken.server.grants.rights import Allowed
from unbroken.server.http.authentication import RequestAuthenticator
from unbroken.server.http.bodies import ClaimsBody, ConfirmationBody, ErrorBody, RevokedBody
from unbroken.server.http.messages import (
    NO_STORE,
    InsufficientScope,
    Request,
    Response,
    Route,
    json_response,
    text_field,
)
from unbroken.server.keys.access_token import Claims
from unbroken.server.session_admin import DEFAULT_PAGE_SESSIONS, MAX_PAGE_SESSIONS
from unbroken.server.sessions import Sessions

__all__ = ["SessionEndpoints", "claims_body", "manages_sessions"]

MAX_QUERY_FIELDS = 50


class SessionEndpoints:
    """Shows callers their own sessions, renames and revokes them. With *tickets* it serves ``/ticket`` too."""

    def __init__(
        self,
        sessions: Sessions,
        authenticator: RequestAuthenticator,
        rights: Allowed | None,
        *,
        tickets: bool = True,
    ) -> None:
        self._sessions, self._authenticator = sessions, authenticator
        self._rights = rights
        self.routes = (
            Route("GET", "/session", self._session),
            Route("GET", "/sessions", self._my_sessions),
            Route("POST", "/sessions/revoke-others", self._revoke_others),
            Route("DELETE", "/sessions/{sid}", self._end_session),
            Route("PATCH", "/sessions/{sid}", self._rename_session),
            *((Route("POST", "/ticket", self._ticket),) if tickets else ()),
        )

    async def _session(self, request: Request, _sid: str) -> Response:
        return json_response(claims_body(await self._authenticator.require(request)))

    async def _my_sessions(self, request: Request, _sid: str) -> Response:
        caller = await self._manager(request)
        limit, cursor = _page_wanted(request.query)
        page = await self._sessions.apage_sessions(caller.subject, limit=limit, cursor=cursor)
        own = [
            self._for_user(info) for info in page.sessions if info.is_of(self._sessions.issuer, self._sessions.audience)
        ]  # rule 4
        own.sort(key=lambda info: (-info.used_at, -info.created_at, info.sid))  # not in the order of use, which tells
        body = {"sessions": [info.to_json(current=info.sid == caller.sid) for info in own]}
        return json_response(body | ({"next": page.next} if page.next else {}))

    async def _rename_session(self, request: Request, sid: str) -> Response:
        caller, fields = await self._manager(request), request.json()
        if "label" not in fields:
            raise InvalidRequest("missing parameter: label")
        label = text_field(fields, "label", required=False)
        if len(label) > MAX_LABEL_CHARS:
            raise InvalidRequest(f"label has at most {MAX_LABEL_CHARS} characters")
        info = await self._sessions.arename(sid, label, subject=caller.subject)
        if info is None:
            return _not_found()
        return json_response(self._for_user(info).to_json(current=info.sid == caller.sid))

    def _for_user(self, info: SessionInfo) -> SessionInfo:
        return info.for_user(self._sessions.clock(), self._sessions.policy.refresh_ttl)

    async def _end_session(self, request: Request, sid: str) -> Response:
        caller = await self._authenticator.require(request)
        if sid != caller.sid and not manages_sessions(caller):  # rule 2
            raise _insufficient(SESSIONS, caller)
        if not await self._sessions.arevoke(sid, subject=caller.subject):
            return _not_found()
        return Response(204, NO_STORE)

    async def _revoke_others(self, request: Request, _sid: str) -> Response:
        caller = await self._manager(request)
        body: RevokedBody = {"revoked": await self._sessions.arevoke_others(caller.subject, keep=caller.sid)}
        return json_response(body)

    async def _ticket(self, request: Request, _sid: str) -> Response:
        caller = await self._authenticator.require(request)
        if not (caller.client_id == FIRST_PARTY or caller.has_scope(SESSIONS)):  # rule 3
            raise _insufficient(SESSIONS, caller)
        allowed = await self._rights(caller.subject) if self._rights else None
        scope = remaining_scope(caller.scope, allowed)
        if caller.scope and not scope and not caller.is_full:
            raise _insufficient(caller.scope, caller)
        ticket = await self._sessions.aticket(caller if scope == caller.scope else replace(caller, scope=scope))
        return json_response(ticket.to_response())

    async def _manager(self, request: Request) -> Claims:
        """Return the claims of a token that may manage its account's sessions. Raise InsufficientScope (rule 1)."""
        caller = await self._authenticator.require(request)
        if not manages_sessions(caller):
            raise _insufficient(SESSIONS, caller)
        return caller


def manages_sessions(claims: Claims) -> bool:
    """Return whether a token with *claims* may manage the sessions of its account (rule 1)."""
    return claims.has_scope(SESSIONS) or (claims.client_id == FIRST_PARTY and claims.is_full)


def claims_body(claims: Claims) -> ClaimsBody:
    """Return the claims of an access token as JSON, for their holder and for RFC 7662 §2.2."""
    body: ClaimsBody = {
        "sub": claims.subject,
        "sid": claims.sid,
        "client_id": claims.client_id,
        "scope": claims.scope,
        "iss": claims.issuer,
        "aud": claims.audience,
        "iat": int(claims.issued_at),
        "exp": int(claims.expires_at),
    }
    bound_to: ConfirmationBody = {}
    if claims.jkt:
        bound_to["jkt"] = claims.jkt
    if claims.certificate:
        bound_to["x5t#S256"] = claims.certificate
    return {**body, "cnf": bound_to} if bound_to else body


def _page_wanted(query: str) -> tuple[int, str]:
    """Return the limit and the cursor in *query*. Raise InvalidRequest."""
    try:
        pairs = parse_qsl(query, max_num_fields=MAX_QUERY_FIELDS)
    except ValueError:
        raise InvalidRequest("the query has too many parameters") from None
    fields: dict[str, str] = {}
    for name, value in pairs:
        if name in ("limit", "cursor") and name in fields:
            raise InvalidRequest(f"duplicate parameter: {name}")
        fields[name] = value
    limit = fields.get("limit", str(DEFAULT_PAGE_SESSIONS))
    if not (limit.isascii() and limit.isdigit() and len(limit) <= len(str(MAX_PAGE_SESSIONS))):
        raise InvalidRequest(f"limit must be between 1 and {MAX_PAGE_SESSIONS}")
    return int(limit), fields.get("cursor", "")


def _insufficient(scope: str, caller: Claims) -> InsufficientScope:
    return InsufficientScope(scope, "DPoP" if caller.jkt else "Bearer")


def _not_found() -> Response:
    body: ErrorBody = {"error": "not_found", "error_description": "you have no such session"}
    return json_response(body, 404)
