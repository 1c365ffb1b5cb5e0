"""``POST /login``, and RFC 6749 §4.3: a name and a password in, tokens out. Who may is decided in ``login.py``.

Where the application wants one more step, ``/login`` answers 403 ``mfa_required`` with an ``mfa_token``, as Auth0's
``/oauth/token`` does; ``POST /login/step`` takes that and the code, and answers with tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from unbroken.errors import InvalidRequest, LoginRefused
from unbroken.server.core.session_info import NewSession
from unbroken.server.http.cookies import CookieTransport
from unbroken.server.http.messages import Request, Response, Route, flag_of, json_response, text_of
from unbroken.server.login.accounts import Subject
from unbroken.server.login.authenticator import Authenticator, MfaRequired
from unbroken.server.login.mfa import MfaTokens, start_over
from unbroken.server.login.rate_limit import Attempt, CredentialCheck, name_key, spelling_key
from unbroken.server.sessions import Sessions
from unbroken.server.stores.markers import MFA_TOKEN_SECONDS, marker_key, revoked_since
from unbroken.server.worker_pool import run_in_worker
from unbroken.tokens import TokenResponse

__all__ = ["LoginEndpoints"]

LONGEST_CLIENT_ID = 200  # it stands in every access token, which must fit into a header
LONGEST_LABEL = 200


class LoginEndpoints:
    """Begins sessions."""

    def __init__(self, sessions: Sessions, logins: Authenticator, jar: CookieTransport, door: CredentialCheck) -> None:
        self._sessions, self._logins, self._jar, self._door = sessions, logins, jar, door
        self._steps = MfaTokens(sessions)
        self.routes: tuple[Route, ...] = (Route("POST", "/login", self._login),)
        if logins.has_mfa:
            self.routes += (Route("POST", "/login/step", self._login_step),)

    async def _login(self, request: Request, _: str) -> Response:
        fields, in_cookies = request.json(), self._jar.wants_cookies(request)
        found = await self._begun(
            request,
            text_of(fields, "username"),
            text_of(fields, "password"),
            scope=text_of(fields, "scope", required=False),
            label=text_of(fields, "label", required=False)[:LONGEST_LABEL],
            client_id=text_of(fields, "client_id", required=False) or "first-party",
            coordinated=flag_of(fields, "coordinated") and not in_cookies,
        )
        return found if isinstance(found, Response) else self._jar.issue(request, found)

    async def log_in(self, request: Request, name: str, password: str, **about: Any) -> TokenResponse:
        """The tokens of a new session. Raises LoginRefused, InvalidRequest, InvalidScope, or TryLater."""
        found = await self._begun(request, name, password, **about)
        if isinstance(found, Response):
            raise LoginRefused("this account has a second step: log in at /login instead", reason="mfa_required")
        return found

    async def _begun(self, request: Request, name: str, password: str, **about: Any) -> TokenResponse | Response:
        """The tokens of a new session, or what one more step needs."""
        _check_client_id(about["client_id"])
        self._logins.check_length(name, password)
        began = self._sessions.clock()
        account, spelling = name_key(name), spelling_key(name)
        who, one = await self._door.check(
            request.caller, account, "password", lambda: self._logins.authenticate(name, password), spelling
        )
        scope = " ".join(dict.fromkeys(about["scope"].split()))
        about = {**about, "scope": scope, "label": about.get("label") or who.label[:LONGEST_LABEL]}
        if isinstance(who, MfaRequired):
            answer = await self._asked_for_more(who, one, account, spelling, about)
            ended = await run_in_worker(self._sessions.store, lambda: self._was_ended(who.subject, began))
            if ended or not await self._logins.still_authenticates(who.subject, name, password):
                raise self._changed(request, account)
            return answer
        await self._door.record_success(one)
        await self._logins.check_scope(who.subject, about["scope"])
        try:
            granted = await self._begin(request, who.subject, about, lambda: self._was_ended(who.subject, began))
        except LoginRefused:
            raise self._changed(request, account) from None
        if not await self._logins.still_authenticates(who.subject, name, password):
            await self._undo(granted)
            raise self._changed(request, account)
        return granted

    async def _was_ended(self, subject: str, began: float) -> bool:
        """Whether all sessions of *subject* were ended since *began*, if that is all that can be known of it."""
        return not isinstance(subject, Subject) and await revoked_since(self._sessions.store, subject, began)

    def _changed(self, request: Request, account: bytes) -> LoginRefused:
        """The error for a password that was right, and may be so no more; told to who listens."""
        self._door.notify_failed(request.caller, account, "changed")
        return LoginRefused("wrong user name or password")

    async def _asked_for_more(
        self, step: MfaRequired, one: Attempt | None, account: bytes, spelling: bytes, about: dict[str, Any]
    ) -> Response:
        """The right password alone is no login: it costs nothing, and forgives nothing."""
        await self._door.refund(one)
        await self._logins.check_scope(step.subject, about["scope"])
        token = await self._steps.token(step, account, spelling, about)
        body = {
            "error": "mfa_required",
            "error_description": "the password is right: send the code too",
            "mfa_token": token,
            "expires_in": int(MFA_TOKEN_SECONDS),
            "challenge_type": step.kind,
        }
        return json_response(body | ({"hint": step.hint} if step.hint else {}), 403)

    async def _login_step(self, request: Request, _: str) -> Response:
        fields, in_cookies = request.json(), self._jar.wants_cookies(request)
        begun, code = await self._steps.read(text_of(fields, "mfa_token")), text_of(fields, "code")
        if text_of(fields, "client_id", required=False) not in ("", begun.about["client_id"]):
            raise start_over()
        account = marker_key(b"code", begun.subject.encode("utf-8", "replace"))
        _right, one = await self._door.check(
            request.caller, account, "code", lambda: self._logins.check_code(begun.subject, begun.kind, code)
        )
        try:
            await self._steps.spend(begun)
        except LoginRefused as error:  # told after a right code only: any number of bad tokens can be sent by anybody
            self._door.notify_failed(request.caller, account, error.reason)
            raise
        await self._door.record_success(one)
        await self._door.record_earlier_success(request.caller, begun.account, begun.spelling)
        about = {**begun.about, "coordinated": begun.about["coordinated"] and not in_cookies}
        try:
            granted = await self._begin(request, begun.subject, about, lambda: self._steps.is_over(begun))
        except LoginRefused:
            self._door.notify_failed(request.caller, account, "mfa_token")
            raise start_over() from None
        return self._jar.issue(request, granted)

    async def _begin(
        self, request: Request, subject: str, about: dict[str, Any], was_ended: Callable[[], Coroutine[Any, Any, bool]]
    ) -> TokenResponse:
        return await self._sessions.acreate_unless(subject, NewSession(**about), request.caller, voided=was_ended)

    async def _undo(self, granted: TokenResponse) -> None:
        await self._sessions.alogout(refresh_token=granted.refresh_token)


def _check_client_id(client_id: str) -> None:
    """RFC 6749 appendix A.1: printable ASCII."""
    if len(client_id) > LONGEST_CLIENT_ID or not (client_id.isascii() and client_id.isprintable()):
        raise InvalidRequest(f"client_id has at most {LONGEST_CLIENT_ID} printable ASCII characters")
