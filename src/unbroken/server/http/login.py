"""``POST /login`` and RFC 6749 §4.3: a name and a password in, tokens out. ``login/`` decides who may log in.

1. Where the application requires MFA, ``/login`` returns 403 ``mfa_required`` with an ``mfa_token``, as Auth0's
   ``/oauth/token`` does. ``POST /login/step`` takes this token and the code, and returns tokens.
2. A password counts only if it is still right when its session exists (``login/authenticator.py`` rule 3). Otherwise
   the session is revoked, and the response is that of a wrong password.
3. A right password that requires MFA is refunded, and pays nothing back, until the code is right too.
4. A login with a proof of the client's key (RFC 9449 §5) makes a session that is bound to this key; with MFA, both
   requests prove the same key. ``ProofPolicy`` says whether it may or must, before any password is checked.
5. Tokens come with a *device token*, in the body or in a cookie. The client sends it with its next login, and then
   other clients' wrong passwords do not keep it out (``login/devices.py``).
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from unbroken.errors import InvalidRequest, LoginRefused
from unbroken.server.core.scope import granted_scope
from unbroken.server.core.session_info import MAX_LABEL_CHARS, Caller, NewSession
from unbroken.server.grants.rights import Allowed
from unbroken.server.http.bodies import MfaRequiredBody
from unbroken.server.http.cookies import CookieTransport
from unbroken.server.http.messages import (
    Request,
    Response,
    Route,
    bool_field,
    json_response,
    text_field,
)
from unbroken.server.keys.proof_token import refused
from unbroken.server.login.accounts import Subject
from unbroken.server.login.authenticator import Authenticator, MfaRequired
from unbroken.server.login.credential_check import CredentialCheck
from unbroken.server.login.devices import DeviceTokens
from unbroken.server.login.mfa import MfaTokens, PendingLogin, mfa_token_refused
from unbroken.server.login.rate_limit import name_key, spelling_key
from unbroken.server.login.security_stamp import SecurityStamps
from unbroken.server.proofs.verification import VerifiedProof
from unbroken.server.sessions import Sessions
from unbroken.server.stores.base import run_in_worker
from unbroken.server.stores.markers import MFA_TOKEN_SECONDS, marker_key, revoked_since
from unbroken.tokens import TokenResponse

__all__ = ["LoginEndpoints", "check_client_id"]

MAX_CLIENT_ID_CHARS = 200  # it is in every access token, which must fit into a header


class _Login(NamedTuple):
    """A login whose password was right. *account* and *spelling* are the rate limit's keys of the name."""

    caller: Caller
    name: str
    password: str
    account: bytes
    spelling: bytes
    started: float
    subject: str
    session: NewSession
    device: bytes  # the id of the device, if the account knows it
    proof: VerifiedProof | None

    def __repr__(self) -> str:
        return f"<_Login of {self.subject}>"


class LoginEndpoints:
    """Logs in: checks the credentials, and creates the session."""

    def __init__(
        self,
        sessions: Sessions,
        authenticator: Authenticator,
        cookies: CookieTransport,
        credentials: CredentialCheck,
        devices: DeviceTokens | None,
        stamps: SecurityStamps,
        rights: Allowed | None,
    ) -> None:
        self._sessions, self._authenticator = sessions, authenticator
        self._cookies, self._credentials, self._devices = cookies, credentials, devices
        self._mfa_tokens, self._stamps = MfaTokens(sessions), stamps
        self._rights = rights
        self.routes: tuple[Route, ...] = (Route("POST", "/login", self._login),)
        if authenticator.has_mfa:
            self.routes += (Route("POST", "/login/step", self._login_step),)

    async def _login(self, request: Request, _sid: str) -> Response:
        fields, in_cookies = request.json(), self._cookies.wants_cookies(request)
        session = NewSession(
            client_id=text_field(fields, "client_id", required=False) or NewSession().client_id,
            scope=text_field(fields, "scope", required=False),
            label=text_field(fields, "label", required=False)[:MAX_LABEL_CHARS],
            coordinated=bool_field(fields, "coordinated") and not in_cookies,
        )
        name, password = text_field(fields, "username"), text_field(fields, "password")
        sent = text_field(fields, "device_token", required=False)
        device_tokens = (sent,) if sent else self._cookies.device_tokens(request)
        result = await self._tokens_or_mfa(request, name, password, session, device_tokens)
        return result if isinstance(result, Response) else self._cookies.issue(request, result)

    async def log_in(
        self, request: Request, name: str, password: str, session: NewSession, device_tokens: tuple[str, ...]
    ) -> TokenResponse:
        """Return the tokens of a new session, without MFA.

        Raise LoginRefused, InvalidRequest, InvalidScope or TryLater.
        """
        result = await self._tokens_or_mfa(request, name, password, session, device_tokens)
        if isinstance(result, Response):
            raise LoginRefused("this account requires MFA: log in at /login", reason="mfa_required")
        return result

    async def _tokens_or_mfa(
        self, request: Request, name: str, password: str, session: NewSession, device_tokens: tuple[str, ...]
    ) -> TokenResponse | Response:
        """Return the tokens of a new session, or the response that asks for a code."""
        check_client_id(session.client_id)
        self._authenticator.check_length(name, password)
        proof = await self._proof(request, session.client_id)
        started = self._sessions.clock()
        account, spelling = name_key(name), spelling_key(name)
        device = await self._devices.device_of(device_tokens, spelling) if self._devices else b""
        identity, attempt = await self._credentials.check(
            request.caller,
            account,
            "password",
            lambda: self._authenticator.authenticate(name, password),
            spelling,
            device,
        )
        scope = " ".join(dict.fromkeys(session.scope.split()))
        session = session._replace(
            scope=scope,
            label=session.label or identity.label[:MAX_LABEL_CHARS],
            jkt=_jkt(proof),
            stamp=await self._stamps.take(identity.subject),
        )
        login = _Login(
            request.caller, name, password, account, spelling, started, identity.subject, session, device, proof
        )
        if isinstance(identity, MfaRequired):
            await self._credentials.refund(attempt)  # rule 3
            return await self._mfa_response(login, identity)
        await self._credentials.record_success(attempt)
        return await self._with_device(await self._tokens(login), login.subject, spelling, device)

    async def _with_device(self, granted: TokenResponse, subject: str, spelling: bytes, device: bytes) -> TokenResponse:
        """Return *granted* with a device token, where logins are rate limited (rule 5)."""
        if self._devices is None:
            return granted
        return replace(granted, device_token=await self._devices.issue(subject, spelling, device))

    async def _tokens(self, login: _Login) -> TokenResponse:
        if self._rights is None:
            await self._check_scope(login.subject, login.session.scope)
        try:
            granted = await self._sessions.acreate_unless(
                login.subject,
                login.session,
                login.caller,
                rights=self._rights,
                voided=lambda: self._is_voided(login),
                proof=login.proof,
            )
        except LoginRefused:
            raise self._password_changed(login) from None
        if not await self._authenticator.still_authenticates(login.subject, login.name, login.password):  # rule 2
            await self._end(granted)
            raise self._password_changed(login)
        return granted

    async def _check_scope(self, subject: str, scope: str) -> None:
        """Raise InvalidScope if *subject* may have nothing of *scope*, before a code is asked for."""
        if scope:
            granted_scope(scope, await self._rights(subject) if self._rights else ())

    async def _end(self, granted: TokenResponse) -> None:
        """Revoke the session that *granted* are the tokens of."""
        if found := await self._sessions.ainspect_refresh(granted.refresh_token or ""):
            await self._sessions.arevoke(found.session.sid, why="logged_out")

    async def _proof(self, request: Request, client_id: str) -> VerifiedProof | None:
        hides = self._cookies.hides_access_tokens(request)
        return await self.proof_of(request, client_id, hides_access_token=hides)

    async def proof_of(self, request: Request, client_id: str, *, hides_access_token: bool) -> VerifiedProof | None:
        """Return the proof that binds a session of *client_id*; None for one that is not bound (rule 4).

        Raise InvalidProof, and InvalidRequest where no page could ever prove its key.
        """
        binding = self._sessions.proofs.policy.binding_of(client_id)
        if binding == "off" or (binding == "accepted" and request.proof is None):
            return None
        if hides_access_token:
            raise InvalidRequest("a session whose access token is in a cookie cannot be bound to a key")
        return await self._sessions.averify_proof(request.proof)

    async def _mfa_response(self, login: _Login, mfa: MfaRequired) -> Response:
        """Return the response that asks for a code (rule 1)."""
        await self._check_scope(mfa.subject, login.session.scope)
        body: MfaRequiredBody = {
            "error": "mfa_required",
            "error_description": "the password is right: send the code too",
            "mfa_token": await self._mfa_tokens.issue(mfa, login.account, login.spelling, login.session, login.device),
            "expires_in": int(MFA_TOKEN_SECONDS),
            "challenge_type": mfa.kind,
        }
        if mfa.hint:
            body["hint"] = mfa.hint
        voided = await run_in_worker(self._sessions.store, lambda: self._is_voided(login))
        if voided or not await self._authenticator.still_authenticates(login.subject, login.name, login.password):
            raise self._password_changed(login)  # rule 2
        return json_response(body, 403)

    async def _is_voided(self, login: _Login) -> bool:
        """Return whether all sessions of the subject were revoked since *login* started.

        False for a ``Subject``, which tells by itself whether its password has changed.
        """
        if isinstance(login.subject, Subject):
            return False
        return await revoked_since(self._sessions.store, login.subject, login.started)

    def _password_changed(self, login: _Login) -> LoginRefused:
        """Return the error for a password that was right and may no longer be; report the failed login."""
        self._credentials.notify_failed(login.caller, login.account, "changed")
        return LoginRefused("wrong user name or password")

    async def _login_step(self, request: Request, _sid: str) -> Response:
        fields, in_cookies = request.json(), self._cookies.wants_cookies(request)
        mfa_token, code = text_field(fields, "mfa_token"), text_field(fields, "code")
        pending = await self._mfa_tokens.read(mfa_token, lambda: self._credentials.count_junk(request.caller))
        if text_field(fields, "client_id", required=False) not in ("", pending.session.client_id):
            raise mfa_token_refused()
        proof = await self._proof(request, pending.session.client_id)
        if _jkt(proof) != pending.session.jkt:  # rule 4
            raise refused("missing" if proof is None else "wrong_key")
        if await self._stamps.has_changed(pending.subject, pending.session.stamp):  # rule 2
            raise mfa_token_refused()
        await self._check_scope(pending.subject, pending.session.scope)  # it may have been taken away
        account = marker_key(b"code", pending.subject.encode("utf-8", "replace"))
        _, attempt = await self._credentials.check(
            request.caller,
            account,
            "code",
            lambda: self._authenticator.check_code(pending.subject, pending.kind, code),
            device=pending.device or await self._known_network(pending.subject, request),
        )
        try:
            await self._mfa_tokens.spend(pending)
        except LoginRefused as error:  # reported after a right code only: any client can send bad tokens
            self._credentials.notify_failed(request.caller, account, error.reason)
            raise
        await self._credentials.record_success(attempt)
        if not pending.device:  # whose attempts were not charged to the account
            await self._credentials.record_earlier_success(request.caller, pending.account, pending.spelling)
        session = pending.session._replace(coordinated=pending.session.coordinated and not in_cookies)
        granted = await self._tokens_after_mfa(replace(pending, session=session), request.caller, account, proof)
        return self._cookies.issue(request, granted)

    async def _tokens_after_mfa(
        self, pending: PendingLogin, caller: Caller, account: bytes, proof: VerifiedProof | None
    ) -> TokenResponse:
        """Return the tokens of the session that *pending* asks for; its password and its code are right."""
        try:
            granted = await self._sessions.acreate_unless(
                pending.subject,
                pending.session,
                caller,
                rights=self._rights,
                voided=lambda: self._mfa_tokens.is_voided(pending),
                proof=proof,
            )
        except LoginRefused:
            self._credentials.notify_failed(caller, account, "mfa_token")
            raise mfa_token_refused() from None
        if self._devices:
            await self._devices.remember_network(pending.subject, caller.ip)
        return await self._with_device(granted, pending.subject, pending.spelling, pending.device)

    async def _known_network(self, subject: str, request: Request) -> bytes:
        return await self._devices.network_of(subject, request.caller.ip) if self._devices else b""


def _jkt(proof: VerifiedProof | None) -> str:
    return "" if proof is None else proof.jkt


def check_client_id(client_id: str) -> None:
    """Raise InvalidRequest for what is not printable ASCII (RFC 6749 appendix A.1), or too long."""
    if len(client_id) > MAX_CLIENT_ID_CHARS or not (client_id.isascii() and client_id.isprintable()):
        raise InvalidRequest(f"client_id has at most {MAX_CLIENT_ID_CHARS} printable ASCII characters")
