"""Refresh (RFC 6749 §6), logout, and token revocation (RFC 7009).

1. New tokens come the way the refresh token came: in the body, or in cookies.
2. Where the application tells whether a subject ``is_active``, and its ``security_stamp``, a refresh asks first. An
   inactive subject loses the session, and so does one whose password has changed; while the application cannot tell,
   the refresh token is not used up.
3. A refresh names its client, and the token must be that client's (RFC 6749 §6); only the server's own client may leave
   out its id. A revocation that names another client is refused (RFC 7009 §2.1). Without a name it is carried out: who
   holds a token may always end its session.
4. Logout takes an access token, a refresh token, or cookies, and revokes every session that they name. A token may be
   expired, but it must be genuine.
5. Tokens of a session that is bound to a key count only with a proof of this key, in the header ``DPoP``, also for a
   logout: a thief of a token must not be able to log its user out (``ProofPolicy`` may say otherwise).

The header ``Idempotency-Key`` of a refresh is a string of RFC 9651 §3.3.3
(draft-ietf-httpapi-idempotency-key-header §2.1).

6. ``"a"`` and ``a`` are one key: many clients leave out the quotes. Parameters after it are ignored.
7. What is neither is no key: the refresh goes on as one without a key, as with servers that do not know the header.
8. The response repeats the key that counted. A client learns from it that it may repeat the request with that key. A
   server that knows no keys, or behind a proxy that drops them, repeats none.

A browser may send several refresh cookies of one name (``cookies.py`` rule 5).

9. Of several tokens of one session the newest that can be used counts, otherwise the newest: it is treated as if it had
   come alone. So a response that got lost is made up for, and a token that was used long ago is reuse. Tokens of
   sessions that are over count only where there are no others.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import NoReturn

from unbroken.errors import InvalidRequest, InvalidToken, LoginRefused
from unbroken.server.core.rotation import FIRST_PARTY
from unbroken.server.core.session_info import NewSession, RefreshInspection, SessionInfo
from unbroken.server.grants.refresh_grant import MAX_IDEMPOTENCY_KEY_CHARS
from unbroken.server.grants.rights import Allowed
from unbroken.server.http.bodies import ErrorBody
from unbroken.server.http.cookies import CookieTransport, ambiguous_cookies
from unbroken.server.http.login import LoginEndpoints
from unbroken.server.http.messages import (
    NO_STORE,
    Request,
    Response,
    Route,
    access_token_of,
    json_response,
    text_field,
)
from unbroken.server.http.settings import EndpointSettings
from unbroken.server.login.authenticator import subject_is_active
from unbroken.server.login.security_stamp import SecurityStamps
from unbroken.server.proofs.verification import VerifiedProof
from unbroken.server.sessions import Sessions
from unbroken.tokens import TokenResponse

__all__ = ["TokenEndpoints", "read_idempotency_key"]

_QUOTED = r'"((?:[ !#-\[\]-~]|\\["\\])*+)"'
_BARE = r"([!#$%&'*+./0-9:=A-Z^_`a-z|~-]++)"
_PARAMETERS = (
    r'(?: *; *[a-z*][a-z0-9_.*-]*+(?:=(?:"(?:[ !#-\[\]-~]|\\["\\])*+"|[!#$%&\'*+./0-9:=?@A-Z^_`a-z|~-]++))?)*+'
)
_IDEMPOTENCY_KEY = re.compile(rf" *(?:{_QUOTED}|{_BARE}){_PARAMETERS} *")


class TokenEndpoints:
    """Refreshes and revokes by tokens. The password grant (RFC 6749 §4.3) is off, unless *settings* allow it."""

    def __init__(
        self,
        sessions: Sessions,
        logins: LoginEndpoints,
        cookies: CookieTransport,
        rights: Allowed | None,
        settings: EndpointSettings,
        stamps: SecurityStamps,
    ) -> None:
        self._sessions, self._logins, self._cookies = sessions, logins, cookies
        self._rights = rights
        self._stamps, self._asks_first = stamps, bool(settings.is_active or settings.security_stamp)
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
        grant_type, client_id = text_field(fields, "grant_type"), _client_id(request, fields)
        if grant_type == "refresh_token":
            token = text_field(fields, "refresh_token")
            granted = await self._refreshed(request, token, client_id, fields.get("scope"))
            return _with_key(request, _in_body(granted))
        if grant_type == "password" and self._password_grant:
            return await self._password_tokens(request, fields, client_id or "")
        body: ErrorBody = {"error": "unsupported_grant_type", "error_description": "use refresh_token"}
        return json_response(body, 400)

    async def _password_tokens(self, request: Request, fields: dict[str, str], client_id: str) -> Response:
        name, password = text_field(fields, "username"), text_field(fields, "password")
        session = NewSession(client_id or NewSession().client_id, fields.get("scope", ""))
        try:
            granted = await self._logins.log_in(request, name, password, session, (fields.get("device_token", ""),))
        except LoginRefused as error:  # RFC 6749 §5.2 has no other code for it; no session is over by it
            body: ErrorBody = {"error": "invalid_grant", "error_description": str(error)}
            return json_response(body, 400)
        return _in_body(granted)

    async def _refresh(self, request: Request, _sid: str) -> Response:
        client_id = _field_in_body(request, "client_id")
        if token := _field_in_body(request, "refresh_token"):  # rule 1
            return _with_key(request, _in_body(await self._refreshed(request, token, client_id, None)))
        if not (tokens := self._cookies.refresh_tokens(request)):
            raise InvalidRequest("missing parameter: refresh_token", reason="no_refresh_token")
        token = await self._usable_one(tokens, self._cookies.logged_in_sids(request))
        granted = await self._refreshed(request, token, client_id, None)
        return _with_key(request, self._cookies.issue(request, granted))

    async def _usable_one(self, tokens: tuple[str, ...], logged_in: frozenset[str]) -> str:
        """Return the one of several refresh tokens, from cookies of one name, that is to be used (rule 9).

        Raise InvalidRequest if they belong to several sessions that are alive, and for tokens of other sessions than
        those that the browser is *logged_in* to (``cookies.py`` rule 6).
        """
        if len(tokens) == 1 and not logged_in:
            return tokens[0]
        found = {token: about for token in tokens if (about := await self._sessions.ainspect_refresh(token))}
        if logged_in and found:
            found = {token: about for token, about in found.items() if about.session.sid in logged_in}
            if not found:
                raise ambiguous_cookies()
        alive = {token: about for token, about in found.items() if self._is_alive(about.session)}
        if len({about.session.sid for about in alive.values()}) > 1:
            raise ambiguous_cookies()  # whether or not one is used up: beside another session's, that would be told
        candidates = alive or found
        return max(candidates, key=lambda token: _rank(candidates[token]), default=tokens[0])

    def _is_alive(self, session: SessionInfo) -> bool:
        now = self._sessions.clock()
        return session.revoked_at is None and now < min(session.idle_expires_at, session.expires_at)

    async def _refreshed(self, request: Request, token: str, client_id: str | None, scope: str | None) -> TokenResponse:
        proof = await self._proof(request, token, client_id)
        if self._asks_first:
            await self._revoke_if_over(token)
        return await self._sessions.arefresh_within(
            token,
            self._rights,
            idempotency_key=read_idempotency_key(request.headers.get("idempotency-key")),
            client_id=client_id,
            scope=scope,
            caller=request.caller,
            proof=proof,
        )

    async def _proof(self, request: Request, token: str, client_id: str | None) -> VerifiedProof | None:
        """Return the proof of a refresh (rule 5). Raise InvalidProof.

        Of a client whose proofs are ignored, it is read only for a session that was bound before.
        """
        if request.proof is None:
            return None
        if self._sessions.proofs.policy.binding_of(client_id or FIRST_PARTY) == "off":
            found = await self._sessions.ainspect_refresh(token)
            if found is None or not found.session.jkt:
                return None
        return await self._sessions.averify_proof(request.proof)

    async def _revoke_if_over(self, token: str) -> None:
        """Revoke the session of *token* if its subject is inactive, or has another password: then ``arefresh`` rejects
        the token (rule 2).
        """
        found = await self._sessions.ainspect_refresh(token)
        if found is None or found.session.revoked_at is not None:
            return
        is_gone = self._is_active and not await subject_is_active(self._is_active, found.session.subject)
        if is_gone or await self._stamps.is_over(found.session):
            await self._sessions.arevoke(found.session.sid)

    # ---- logout and revocation (rules 3 and 4) -------------------------------------------------------------------

    async def _logout(self, request: Request, _sid: str) -> Response:
        scheme, access_token = access_token_of(request)
        refresh_token = _field_in_body(request, "refresh_token")
        in_cookies = self._cookies.requests_cookies(request)
        if not in_cookies and not access_token and not refresh_token:
            self._refuse_logout(request)
        proof = await self._proof_of_logout(request, access_token if scheme == "dpop" else "")
        revoked = await self._sessions.alogout(
            access_token=access_token or None, refresh_token=refresh_token or None, proof=proof
        )
        if in_cookies:  # all of them: after a logout this browser has no session
            for token in self._cookies.tokens_to_revoke(request):
                await self._sessions.alogout(access_token=token, refresh_token=token, proof=proof)
            return self._cookies.cleared(Response(204, NO_STORE))
        if not revoked and not refresh_token:
            raise InvalidToken("this is not an access token of this server", reason="malformed")
        return Response(204, NO_STORE)

    async def _proof_of_logout(self, request: Request, access_token: str = "") -> VerifiedProof | None:
        """Return the proof of a logout; None where it needs none, or has none. Raise InvalidProof."""
        if request.proof is None or self._sessions.proofs.policy.revoke_without_proof:
            return None
        return await self._sessions.averify_proof(request.proof, access_token)

    def _refuse_logout(self, request: Request) -> NoReturn:
        """Raise Forbidden for cookies without the CSRF header, InvalidRequest for no token at all."""
        self._cookies.refresh_tokens(request)
        self._cookies.access_tokens(request)
        raise InvalidRequest("send the access token, the refresh_token, or both")

    async def _revoke(self, request: Request, _sid: str) -> Response:
        fields = request.form()
        token, client_id = text_field(fields, "token"), _client_id(request, fields)
        proof = await self._proof_of_logout(request)
        await self._sessions.alogout(access_token=token, refresh_token=token, client_id=client_id, proof=proof)
        return Response(200, NO_STORE)


def _rank(about: RefreshInspection) -> tuple[bool, int, int]:
    """Return what tells which of several tokens of one session counts: the highest (rule 9)."""
    return about.is_usable, about.generation, about.branch


def _field_in_body(request: Request, name: str) -> str:
    return text_field(request.json(), name, required=False) if request.body else ""


def _client_id(request: Request, fields: dict[str, str]) -> str | None:
    """Return the client that a form names, or HTTP Basic. Raise InvalidRequest if they differ (RFC 6749 §2.3)."""
    in_form, in_header = fields.get("client_id"), request.basic_client_id()
    if in_form and in_header and in_form != in_header:
        raise InvalidRequest("the client_id and the Authorization header name two clients")
    return in_form or in_header


def _in_body(granted: TokenResponse) -> Response:
    return json_response(granted.to_response())


def read_idempotency_key(header: str | None) -> str | None:
    """Return the key that the value of the header has; None without one (rule 7)."""
    match = _IDEMPOTENCY_KEY.fullmatch(header or "")
    if match is None:
        return None
    quoted, bare = match.groups()
    return (bare if quoted is None else re.sub(r"\\(.)", r"\1", quoted)) or None  # rule 6


def _with_key(request: Request, response: Response) -> Response:
    """Return *response* with the idempotency key that *request* was carried out for (rule 8)."""
    key = read_idempotency_key(sent := request.headers.get("idempotency-key", ""))
    if key is None or len(key) > MAX_IDEMPOTENCY_KEY_CHARS:
        return response
    return replace(response, headers={**response.headers, "idempotency-key": sent})
