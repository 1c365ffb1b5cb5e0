"""Refresh (RFC 6749 §6), logout, and token revocation (RFC 7009).

1. New tokens come the way the refresh token came: in the body, or in cookies.
2. Where the application tells whether a subject ``is_active``, a refresh asks it first. An inactive subject loses the
   session; while the application cannot tell, the refresh token is not used up.
3. Logout takes an access token, a refresh token, or cookies, and revokes every session that they name. A token may be
   expired, but it must be genuine.
"""

from __future__ import annotations

from typing import NoReturn

from unbroken.errors import InvalidRequest, InvalidToken, LoginRefused
from unbroken.server.core.session_info import NewSession
from unbroken.server.http.bodies import ErrorBody
from unbroken.server.http.cookies import CookieTransport, ambiguous_cookies
from unbroken.server.http.idempotency import read_idempotency_key
from unbroken.server.http.login import LoginEndpoints
from unbroken.server.http.messages import (
    NO_STORE,
    Request,
    Response,
    Route,
    bearer_token,
    json_response,
    text_field,
)
from unbroken.server.http.settings import EndpointSettings
from unbroken.server.login.authenticator import IsActive, subject_is_active
from unbroken.server.sessions import Sessions
from unbroken.tokens import TokenResponse

__all__ = ["TokenEndpoints"]


class TokenEndpoints:
    """Refreshes and revokes by tokens. The password grant (RFC 6749 §4.3) is off, unless *settings* allow it."""

    def __init__(
        self, sessions: Sessions, logins: LoginEndpoints, cookies: CookieTransport, settings: EndpointSettings
    ) -> None:
        self._sessions, self._logins, self._cookies = sessions, logins, cookies
        self._is_active, self._password_grant = settings.is_active, settings.password_grant
        self.routes = (
            Route("POST", "/token", self._token),
            Route("POST", "/refresh", self._refresh),
            Route("POST", "/logout", self._logout),
            Route("POST", "/revoke", self._revoke),
        )

    # ---- refresh -------------------------------------------------------------------------------------------------

    async def _token(self, request: Request, _sid: str) -> Response:
        fields = request.form()
        grant_type, client_id = text_field(fields, "grant_type"), fields.get("client_id") or request.basic_client_id()
        if grant_type == "refresh_token":
            token = text_field(fields, "refresh_token")
            return _in_body(await self._refreshed(request, token, client_id, fields.get("scope")))
        if grant_type == "password" and self._password_grant:
            return await self._password_tokens(request, fields, client_id or "")
        body: ErrorBody = {"error": "unsupported_grant_type", "error_description": "use refresh_token"}
        return json_response(body, 400)

    async def _password_tokens(self, request: Request, fields: dict[str, str], client_id: str) -> Response:
        name, password = text_field(fields, "username"), text_field(fields, "password")
        session = NewSession(client_id or NewSession().client_id, fields.get("scope", ""))
        try:
            granted = await self._logins.log_in(request, name, password, session)
        except LoginRefused as error:  # RFC 6749 §5.2 has no other code for it; no session is over by it
            body: ErrorBody = {"error": "invalid_grant", "error_description": str(error)}
            return json_response(body, 400)
        return _in_body(granted)

    async def _refresh(self, request: Request, _sid: str) -> Response:
        if token := _refresh_token_in_body(request):  # rule 1
            return _in_body(await self._refreshed(request, token, None, None))
        if not (tokens := self._cookies.refresh_tokens(request)):
            raise InvalidRequest("missing parameter: refresh_token", reason="no_refresh_token")
        token = await self._usable_one(tokens)
        return self._cookies.issue(request, await self._refreshed(request, token, None, None))

    async def _usable_one(self, tokens: tuple[str, ...]) -> str:
        """Return the one of several refresh tokens, from cookies of one name, that can be used now.

        A wrong choice could revoke a session as if its token had been stolen. Raises InvalidRequest if several
        sessions have a usable token.
        """
        if len(tokens) == 1:
            return tokens[0]
        found = {token: about for token in tokens if (about := await self._sessions.ainspect_refresh(token))}
        usable = {token: info for token, (info, is_usable) in found.items() if is_usable}
        alive = usable or {token: info for token, (info, _) in found.items() if info.revoked_at is None}
        if len({info.sid for info in alive.values()}) > 1 or (not usable and len(alive) > 1):
            raise ambiguous_cookies()
        return next(iter(alive), tokens[0])

    async def _refreshed(self, request: Request, token: str, client_id: str | None, scope: str | None) -> TokenResponse:
        if self._is_active is not None:
            await self._revoke_if_inactive(self._is_active, token)
        return await self._sessions.arefresh(
            token,
            idempotency_key=read_idempotency_key(request.headers.get("idempotency-key")),
            client_id=client_id,
            scope=scope,
            caller=request.caller,
        )

    async def _revoke_if_inactive(self, is_active: IsActive, token: str) -> None:
        """Revoke the session of *token* if its subject is inactive: then ``arefresh`` rejects the token (rule 2)."""
        found = await self._sessions.ainspect_refresh(token)
        if found is None or found.session.revoked_at is not None:
            return
        if not await subject_is_active(is_active, found.session.subject):
            await self._sessions.arevoke(found.session.sid)

    # ---- logout and revocation (rule 3) --------------------------------------------------------------------------

    async def _logout(self, request: Request, _sid: str) -> Response:
        access_token, refresh_token = bearer_token(request), _refresh_token_in_body(request)
        in_cookies = self._cookies.requests_cookies(request)
        if not in_cookies and access_token is None and not refresh_token:
            self._refuse_logout(request)
        revoked = await self._sessions.alogout(access_token=access_token, refresh_token=refresh_token or None)
        if in_cookies:  # all of them: after a logout this browser has no session
            for token in self._cookies.tokens_to_revoke(request):
                await self._sessions.alogout(access_token=token, refresh_token=token)
            return self._cookies.cleared(Response(204, NO_STORE))
        if not revoked and not refresh_token:
            raise InvalidToken("this is not an access token of this server", reason="malformed")
        return Response(204, NO_STORE)

    def _refuse_logout(self, request: Request) -> NoReturn:
        """Raise Forbidden for cookies without the CSRF header, InvalidRequest for no token at all."""
        self._cookies.refresh_tokens(request)
        self._cookies.access_tokens(request)
        raise InvalidRequest("send the access token, the refresh_token, or both")

    async def _revoke(self, request: Request, _sid: str) -> Response:
        token = text_field(request.form(), "token")
        await self._sessions.alogout(access_token=token, refresh_token=token)
        return Response(200, NO_STORE)


def _refresh_token_in_body(request: Request) -> str:
    return text_field(request.json(), "refresh_token", required=False) if request.body else ""


def _in_body(granted: TokenResponse) -> Response:
    return json_response(granted.to_response())
