"""What resource servers ask: whether a token is active (RFC 7662), and which sessions were revoked lately.

    POST {prefix}/introspect               token=…     {"active": true, "sub": …, "sid": …, …} or {"active": false}
    GET  {prefix}/revocations?after=N      {"cursor": M, "revoked": [{"sid": …, "until": seconds since the epoch}, …]}

1. A caller may introspect its own subject's tokens that its own client got; those of other clients too if it may manage
   the account's sessions (``sessions.py``). Those of other subjects need the scope ``introspect``. All others are
   reported as inactive.
2. The list of revocations needs that scope too: it names sessions of all subjects.
3. ``after`` is the cursor of the previous response; 0 or none lists everything that still matters. A cursor is valid
   for the store that issued it.
4. Access tokens of the session may live until ``until``; then the entry is dropped.
5. The scope of an active token is what its subject may still have: a service that asks with each request sees a right
   go at once.
6. A used refresh token of a standard session is active while its session lives: otherwise a thief would learn when to
   come within the grace. A coordinated session has no grace, so there it is inactive.
"""

from __future__ import annotations

from urllib.parse import parse_qsl

from unbroken.errors import InvalidRequest, InvalidToken
from unbroken.server.core.scope import INTROSPECT, remaining_scope, token_scope
from unbroken.server.grants.rights import Allowed
from unbroken.server.http.authentication import RequestAuthenticator
from unbroken.server.http.bodies import RevocationsBody
from unbroken.server.http.messages import Request, Response, Route, challenge, json_response, text_field
from unbroken.server.http.sessions import claims_body, manages_sessions
from unbroken.server.keys.access_token import Claims
from unbroken.server.sessions import Sessions

__all__ = ["IntrospectionEndpoints"]

MAX_CURSOR = (1 << 63) - 1


class IntrospectionEndpoints:
    """Reports on tokens and revocations."""

    def __init__(self, sessions: Sessions, authenticator: RequestAuthenticator, rights: Allowed | None) -> None:
        self._sessions, self._authenticator, self._rights = sessions, authenticator, rights
        self.routes = (
            Route("POST", "/introspect", self._introspect),
            Route("GET", "/revocations", self._revocations),
        )

    async def _introspect(self, request: Request, _sid: str) -> Response:
        caller = await self._authenticator.require(request)
        token = await self._active_token(text_field(request.form(), "token"))
        if token is None or not _may_introspect(caller, token):
            return json_response({"active": False})
        return json_response({"active": True, **token, "scope": await self._scope_now(token)})

    async def _scope_now(self, token: dict[str, object]) -> str:
        """Return what is left of the scope of an active token (rule 5)."""
        subject, scope, client_id = (str(token[name]) for name in ("sub", "scope", "client_id"))
        allowed = await self._rights(subject) if self._rights else None
        if token["token_type"] == "refresh_token":
            return token_scope(scope, allowed, client_id).words
        return remaining_scope(scope, allowed)

    async def _active_token(self, token: str) -> dict[str, object] | None:
        """Return what RFC 7662 §2.2 says of an active token; None for any other."""
        try:
            claims = await self._sessions.ainspect_access(token)
            return {**claims_body(claims), "token_type": "DPoP" if claims.jkt else "Bearer"}  # RFC 9449 §6.2
        except InvalidToken:
            found = await self._sessions.ainspect_refresh(token)
        now = self._sessions.clock()
        if found is None or found.session.revoked_at is not None:
            return None
        if now >= min(found.session.idle_expires_at, found.session.expires_at):
            return None
        if found.session.coordinated and not found.is_usable:  # rule 6
            return None
        info = found.session.for_user(now, self._sessions.policy.refresh_ttl)
        bound = {"cnf": {"jkt": info.jkt}} if info.jkt else {}
        return {
            **bound,
            "sub": info.subject,
            "sid": info.sid,
            "client_id": info.client_id,
            "scope": info.scope,
            "exp": int(info.idle_expires_at),
            "token_type": "refresh_token",
        }

    async def _revocations(self, request: Request, _sid: str) -> Response:
        caller = await self._authenticator.require(request)
        if not caller.has_scope(INTROSPECT):  # rule 2
            return challenge(None, scope=INTROSPECT)
        cursor, revoked = await self._sessions.arevocations(_cursor(request.query))
        body: RevocationsBody = {"cursor": cursor, "revoked": [{"sid": sid, "until": until} for sid, until in revoked]}
        return json_response(body)


def _may_introspect(caller: Claims, token: dict[str, object]) -> bool:
    """Return whether *caller* may know what *token* is (rule 1)."""
    if caller.has_scope(INTROSPECT):
        return True
    is_own_client = token["client_id"] == caller.client_id
    return token["sub"] == caller.subject and (is_own_client or manages_sessions(caller))


def _cursor(query: str) -> int:
    """Return the cursor in *query*, 0 if there is none (rule 3). Raise InvalidRequest."""
    values = [value for name, value in parse_qsl(query, keep_blank_values=True) if name == "after"] or ["0"]
    if len(values) > 1:
        raise InvalidRequest("duplicate parameter: after")
    text = values[0]
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(MAX_CURSOR)) and int(text) <= MAX_CURSOR):
        raise InvalidRequest("after must be the cursor of a previous response, or 0")
    return int(text)
