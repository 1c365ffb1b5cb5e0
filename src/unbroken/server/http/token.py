"""What is done with a token: exchange it, end it, ask about it (RFC 6749 §6, RFC 7009, RFC 7662).

Where the application says whether a subject ``is_active``, a refresh asks it first: who is not is logged out, and where
nobody can say, nothing is spent.
"""

from __future__ import annotations

from typing import NoReturn

from unbroken.errors import InvalidRequest, InvalidToken, LoginRefused
from unbroken.server.http.authentication import RequestAuthenticator
from unbroken.server.http.cookies import CookieTransport, ambiguous
from unbroken.server.http.login import LoginEndpoints
from unbroken.server.http.messages import (
    NO_STORE,
    Request,
    Response,
    Route,
    bearer_of,
    introspection_response,
    json_response,
    text_of,
)
from unbroken.server.login.authenticator import IsActive, is_somebody
from unbroken.server.sessions import Sessions
from unbroken.tokens import TokenResponse

__all__ = ["TokenEndpoints"]

INTROSPECT = "introspect"  # the scope that may look at other subjects' tokens


class TokenEndpoints:
    """Exchanges, ends and tells about tokens. *password_grant* opens RFC 6749 §4.3."""

    def __init__(
        self,
        sessions: Sessions,
        callers: RequestAuthenticator,
        logins: LoginEndpoints,
        jar: CookieTransport,
        is_active: IsActive | None = None,
        *,
        password_grant: bool = False,
    ) -> None:
        self._sessions, self._callers, self._logins, self._jar = sessions, callers, logins, jar
        self._is_active, self._password_grant = is_active, password_grant
        self.routes = (
            Route("POST", "/token", self._token),
            Route("POST", "/refresh", self._refresh),
            Route("POST", "/logout", self._logout),
            Route("POST", "/revoke", self._revoke),
            Route("POST", "/introspect", self._introspect),
        )

    async def _token(self, request: Request, _: str) -> Response:
        fields = request.form()
        grant_type, client_id = text_of(fields, "grant_type"), fields.get("client_id") or request.basic_client()
        if grant_type == "refresh_token":
            token = text_of(fields, "refresh_token")
            return _tokens(await self._refreshed(request, token, client_id, fields.get("scope")))
        if grant_type == "password" and self._password_grant:
            name, password = text_of(fields, "username"), text_of(fields, "password")
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
        return text_of(request.json(), "refresh_token", required=False) if request.body else ""

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
            raise ambiguous()
        return next(iter(living), tokens[0])

    async def _refreshed(self, request: Request, token: str, client_id: str | None, scope: str | None) -> TokenResponse:
        if self._is_active is not None:
            await self._look_at_subject(self._is_active, token)
        return await self._sessions.arefresh(
            token,
            idempotency_key=request.headers.get("idempotency-key"),
            client_id=client_id,
            scope=scope,
            caller=request.caller,
        )

    async def _look_at_subject(self, is_active: IsActive, token: str) -> None:
        """Ends the session of *token* if its subject is nobody any more: then ``arefresh`` refuses it, and tells so, as
        it does any other that has ended.
        """
        found = await self._sessions.ainspect_refresh(token)
        if found is None or found.session.revoked_at is not None:
            return
        if not await is_somebody(is_active, found.session.subject):
            await self._sessions.arevoke(found.session.sid)

    async def _logout(self, request: Request, _: str) -> Response:
        access_token, refresh_token = bearer_of(request), self._in_body(request)
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
        token = text_of(request.form(), "token")
        await self._sessions.alogout(access_token=token, refresh_token=token)
        return Response(200, NO_STORE)

    async def _introspect(self, request: Request, _: str) -> Response:
        caller = await self._callers.require(request)
        facts = await self._facts(text_of(request.form(), "token"))
        if facts is None or not (facts["sub"] == caller.subject or caller.has_scope(INTROSPECT)):
            return json_response({"active": False})
        return json_response({"active": True, **facts})

    async def _facts(self, token: str) -> dict[str, object] | None:
        """What RFC 7662 §2.2 tells of a good token; None for any other."""
        try:
            return introspection_response(await self._sessions.averify(token)) | {"token_type": "Bearer"}
        except InvalidToken:
            found = await self._sessions.ainspect_refresh(token)
        if found is None or not found.is_usable:
            return None
        info = found.session
        return {
            "sub": info.subject,
            "sid": info.sid,
            "client_id": info.client_id,
            "scope": info.scope,
            "exp": int(info.idle_expires_at),
            "token_type": "refresh_token",
        }


def _tokens(granted: TokenResponse) -> Response:
    return json_response(granted.to_response())
