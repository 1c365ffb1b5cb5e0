"""``POST /login`` and RFC 6749 §4.3: a name and a password in, tokens out. ``login/`` decides who may log in.

1. Where the application requires MFA, ``/login`` returns 403 ``mfa_required`` with an ``mfa_token``, as Auth0's
   ``/oauth/token`` does. ``POST /login/step`` takes this token and the code, and returns tokens.
2. A password counts only if it is still right when its session exists (``login/authenticator.py`` rule 4). Otherwise
   the session is revoked, and the response is that of a wrong password.
3. A right password that requires MFA is refunded, and pays nothing back, until the code is right too.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from unbroken.errors import InvalidRequest, LoginRefused
from unbroken.server.core.session_info import NewSession
from unbroken.server.http.bodies import MfaRequiredBody
from unbroken.server.http.cookies import CookieTransport
from unbroken.server.http.messages import (
    MAX_LABEL_CHARS,
    Request,
    Response,
    Route,
    bool_field,
    json_response,
    text_field,
)
from unbroken.server.login.accounts import Subject
from unbroken.server.login.authenticator import Authenticator, MfaRequired
from unbroken.server.login.credential_check import CredentialCheck
from unbroken.server.login.mfa import MfaTokens, mfa_token_refused
from unbroken.server.login.rate_limit import name_key, spelling_key
from unbroken.server.sessions import Sessions
from unbroken.server.stores.markers import MFA_TOKEN_SECONDS, marker_key, revoked_since
from unbroken.server.worker_pool import run_in_worker
from unbroken.tokens import TokenResponse

__all__ = ["LoginEndpoints"]

MAX_CLIENT_ID_CHARS = 200  # it is in every access token, which must fit into a header
FIRST_PARTY = "first-party"  # the client id of clients that send none

Voided = Callable[[], Coroutine[Any, Any, bool]]


class LoginEndpoints:
    """Logs in: checks the credentials, and creates the session."""

    def __init__(
        self, sessions: Sessions, authenticator: Authenticator, cookies: CookieTransport, credentials: CredentialCheck
    ) -> None:
        self._sessions, self._authenticator = sessions, authenticator
        self._cookies, self._credentials = cookies, credentials
        self._mfa_tokens = MfaTokens(sessions)
        self.routes: tuple[Route, ...] = (Route("POST", "/login", self._login),)
        if authenticator.has_mfa:
            self.routes += (Route("POST", "/login/step", self._login_step),)

    async def _login(self, request: Request, _sid: str) -> Response:
        fields, in_cookies = request.json(), self._cookies.wants_cookies(request)
        result = await self._tokens_or_mfa(
            request,
            text_field(fields, "username"),
            text_field(fields, "password"),
            scope=text_field(fields, "scope", required=False),
            label=text_field(fields, "label", required=False)[:MAX_LABEL_CHARS],
            client_id=text_field(fields, "client_id", required=False) or FIRST_PARTY,
            coordinated=bool_field(fields, "coordinated") and not in_cookies,
        )
        return result if isinstance(result, Response) else self._cookies.issue(request, result)

    async def log_in(self, request: Request, name: str, password: str, *, scope: str, client_id: str) -> TokenResponse:
        """Return the tokens of a new session, without MFA. Raises LoginRefused, InvalidRequest, InvalidScope or
        TryLater.
        """
        result = await self._tokens_or_mfa(
            request, name, password, scope=scope, label="", client_id=client_id or FIRST_PARTY, coordinated=False
        )
        if isinstance(result, Response):
            raise LoginRefused("this account requires MFA: log in at /login", reason="mfa_required")
        return result

    async def _tokens_or_mfa(
        self, request: Request, name: str, password: str, **session: Any
    ) -> TokenResponse | Response:
        """Return the tokens of a new session with the fields *session*, or the response that asks for a code."""
        _check_client_id(session["client_id"])
        self._authenticator.check_length(name, password)
        started = self._sessions.clock()
        account, spelling = name_key(name), spelling_key(name)
        identity, attempt = await self._credentials.check(
            request.caller, account, "password", lambda: self._authenticator.authenticate(name, password), spelling
        )
        session["scope"] = " ".join(dict.fromkeys(session["scope"].split()))
        session["label"] = session["label"] or identity.label[:MAX_LABEL_CHARS]
        subject = identity.subject

        def voided() -> Coroutine[Any, Any, bool]:
            return self._sessions_revoked_since(subject, started)

        if isinstance(identity, MfaRequired):
            await self._credentials.refund(attempt)  # rule 3
            response = await self._ask_for_code(identity, account, spelling, session)
            voided_now = await run_in_worker(self._sessions.store, voided)
            if voided_now or not await self._authenticator.still_authenticates(subject, name, password):
                raise self._password_changed(request, account)
            return response
        await self._credentials.record_success(attempt)
        await self._authenticator.check_scope(subject, session["scope"])
        try:
            granted = await self._create_session(request, subject, session, voided)
        except LoginRefused:
            raise self._password_changed(request, account) from None
        if not await self._authenticator.still_authenticates(subject, name, password):  # rule 2
            await self._sessions.alogout(refresh_token=granted.refresh_token)
            raise self._password_changed(request, account)
        return granted

    async def _sessions_revoked_since(self, subject: str, started: float) -> bool:
        """Return whether all sessions of *subject* were revoked since *started*. A ``Subject`` knows it better."""
        return not isinstance(subject, Subject) and await revoked_since(self._sessions.store, subject, started)

    def _password_changed(self, request: Request, account: bytes) -> LoginRefused:
        """Return the error for a password that was right and may no longer be; report the failed login."""
        self._credentials.notify_failed(request.caller, account, "changed")
        return LoginRefused("wrong user name or password")

    async def _ask_for_code(
        self, mfa: MfaRequired, account: bytes, spelling: bytes, session: dict[str, Any]
    ) -> Response:
        await self._authenticator.check_scope(mfa.subject, session["scope"])
        body: MfaRequiredBody = {
            "error": "mfa_required",
            "error_description": "the password is right: send the code too",
            "mfa_token": await self._mfa_tokens.issue(mfa, account, spelling, session),
            "expires_in": int(MFA_TOKEN_SECONDS),
            "challenge_type": mfa.kind,
        }
        if mfa.hint:
            body["hint"] = mfa.hint
        return json_response(body, 403)

    async def _login_step(self, request: Request, _sid: str) -> Response:
        fields, in_cookies = request.json(), self._cookies.wants_cookies(request)
        pending, code = await self._mfa_tokens.read(text_field(fields, "mfa_token")), text_field(fields, "code")
        if text_field(fields, "client_id", required=False) not in ("", pending.session["client_id"]):
            raise mfa_token_refused()
        account = marker_key(b"code", pending.subject.encode("utf-8", "replace"))
        _, attempt = await self._credentials.check(
            request.caller,
            account,
            "code",
            lambda: self._authenticator.check_code(pending.subject, pending.kind, code),
        )
        try:
            await self._mfa_tokens.spend(pending)
        except LoginRefused as error:  # reported after a right code only: anybody can send bad tokens
            self._credentials.notify_failed(request.caller, account, error.reason)
            raise
        await self._credentials.record_success(attempt)
        await self._credentials.record_earlier_success(request.caller, pending.account, pending.spelling)
        session = {**pending.session, "coordinated": pending.session["coordinated"] and not in_cookies}
        try:
            granted = await self._create_session(
                request, pending.subject, session, lambda: self._mfa_tokens.is_voided(pending)
            )
        except LoginRefused:
            self._credentials.notify_failed(request.caller, account, "mfa_token")
            raise mfa_token_refused() from None
        return self._cookies.issue(request, granted)

    async def _create_session(
        self, request: Request, subject: str, session: dict[str, Any], voided: Voided
    ) -> TokenResponse:
        """Return the tokens of a new session. Raises LoginRefused if *voided* returns True once it is stored."""
        return await self._sessions.acreate_unless(subject, NewSession(**session), request.caller, voided=voided)


def _check_client_id(client_id: str) -> None:
    """Raise InvalidRequest for what is not printable ASCII (RFC 6749 appendix A.1), or too long."""
    if len(client_id) > MAX_CLIENT_ID_CHARS or not (client_id.isascii() and client_id.isprintable()):
        raise InvalidRequest(f"client_id has at most {MAX_CLIENT_ID_CHARS} printable ASCII characters")
