"""What is done with a token: exchange it, end it, ask about it (RFC 6749 §6, RFC 7009, RFC 7662).

Where the application says whether a subject ``is_active``, a refresh asks it first: who is not is logged out, and where
nobody can say, nothing is spent.
"""

from __future__ import annotations

from typing import NoReturn

from unbroken.errors import InvalidRequest, InvalidToken, LoginRefused
from unbroken.server.http.cookies import CookieTransport, ambiguous_cookies
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
    """Exchanges, ends and tells about tokens. *password_grant* opens RFC 6749 §4.3."""

    def __init__(
        self,
        sessions: Sessions,
        logins: LoginEndpoints,
        jar: CookieTransport,
        settings: EndpointSettings,
    ) -> None:
        self._sessions, self._logins, self._jar = sessions, logins, jar
        self._is_active, self._password_grant = settings.is_active, settings.password_grant
        self.routes = (
            Route("POST", "/token", self._token),
            Route("POST", "/refresh", self._refresh),
            Route("POST", "/logout", self._logout),
            Route("POST", "/revoke", self._revoke),
        )

    async def _token(self, request: Request, _: str) -> Response:
        fields = request.form()
        grant_type, client_id = text_field(fields, "grant_type"), fields.get("client_id") or request.basic_client_id()
        if grant_type == "refresh_token":
            token = text_field(fields, "refresh_token")
            return _tokens(await self._refreshed(request, token, client_id, fields.get("scope")))
        if grant_type == "password" and self._password_grant:
            name, password = text_field(fields, "username"), text_field(fields, "password")
            about = {"scope": fields.get("scope", ""), "client_id": client_id or "first-party"}
            try:
                return _tokens(await self._logins.log_in(request, name, password, **about))
            except LoginRefused as error:  # RFC 6749 §5.2 calls it so; no session ends by it
                return json_response({"error": "invalid_grant", "error_description": str(error)}, 400)
        return json_response({"error": "unsupported_grant_type", "error_description": "use refresh_token"}, 400)

    async def _refresh(self, request: Request, _: str) -> Response:
        """A token in the body is answered in the body, one in a cookie in a cookie."""
        if token := self._in_body(request):
            return _tokens(await self._refreshed(request, token, None, None))
        if not (found := self._jar.refresh_tokens(request)):
            raise InvalidRequest("refresh_token is missing", reason="no_refresh_token")
        return self._jar.issue(request, await self._refreshed(request, await self._one_of(found), None, None))

    def _in_body(self, request: Request) -> str:
        return text_field(request.json(), "refresh_token", required=False) if request.body else ""

    async def _one_of(self, tokens: tuple[str, ...]) -> str:
        """The refresh token to exchange. Of several, one is looked for that can be, because a wrong guess could end a
        session as if its token had been stolen. Raises InvalidRequest if several sessions have one.
        """
        if len(tokens) == 1:
            return tokens[0]
        found = {token: about for token in tokens if (about := await self._sessions.ainspect_refresh(token))}
        good = {token: info for token, (info, can_be_exchanged) in found.items() if can_be_exchanged}
        living = good or {token: info for token, (info, _) in found.items() if info.revoked_at is None}
        if len({info.sid for info in living.values()}) > 1 or (not good and len(living) > 1):
            raise ambiguous_cookies()
        return next(iter(living), tokens[0])

    async def _refreshed(self, request: Request, token: str, client_id: str | None, scope: str | None) -> TokenResponse:
        if self._is_active is not None:
            await self._look_at_subject(self._is_active, token)
        return await self._sessions.arefresh(
            token,
            attempt=request.headers.get("idempotency-key"),
            client_id=client_id,
            scope=scope,
            ip=request.client_ip,
            user_agent=request.caller.user_agent,
        )

    async def _look_at_subject(self, is_active: IsActive, token: str) -> None:
        """Ends the session of *token* if its subject is nobody any more: then ``arefresh`` refuses it, and tells so, as
        it does any other that has ended.
        """
        found = await self._sessions.ainspect_refresh(token)
        if found is None or found[0].revoked_at is not None:
            return
        if not await subject_is_active(is_active, found[0].subject):
            await self._sessions.arevoke(found[0].sid)

    async def _logout(self, request: Request, _: str) -> Response:
        access_token, refresh_token = bearer_token(request), self._in_body(request)
        in_cookies = self._jar.requests_cookies(request)
        if not in_cookies and access_token is None and not refresh_token:
            self._refuse_logout(request)
        ended = await self._sessions.alogout(access_token=access_token, refresh_token=refresh_token or None)
        if in_cookies:  # each of them: who logs out wants none of the sessions that this browser still has
            for token in self._jar.tokens_to_revoke(request):
                await self._sessions.alogout(access_token=token, refresh_token=token)
            return self._jar.cleared(Response(204, NO_STORE))
        if not ended and not refresh_token:
            raise InvalidToken("this is not an access token of this server", reason="malformed")
        return Response(204, NO_STORE)

    def _refuse_logout(self, request: Request) -> NoReturn:
        """Says what is wrong with a logout that names no session: cookies without the header, or nothing at all."""
        self._jar.refresh_tokens(request)
        self._jar.access_tokens(request)
        raise InvalidRequest("send the bearer token, the refresh_token, or both")

    async def _revoke(self, request: Request, _: str) -> Response:
        token = text_field(request.form(), "token")
        await self._sessions.alogout(access_token=token, refresh_token=token)
        return Response(200, NO_STORE)


def _tokens(granted: TokenResponse) -> Response:
    return json_response(granted.to_response())
