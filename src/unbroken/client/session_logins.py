"""The logins of a Session, and its logout: how it gets the tokens that it refreshes from then on.

1. A login of any kind ends in ``import_tokens``: the new tokens replace those of the store, under a new epoch.
2. Logout wins: a refresh or a request that began before it finishes with SessionOver (rule 7 of
   ``refresh_coordinator.py``).
3. Each method has two spellings with one signature, ``login`` and ``alogin``: the second runs the first in a thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import TypeVar

from unbroken._arguments import checked_class
from unbroken._concurrency import run_sync
from unbroken._single_flight import SingleFlight
from unbroken._time import Clock, Duration
from unbroken.client.core.device_flow import DeviceCode
from unbroken.client.core.dialect import Dialect
from unbroken.client.core.events import LoggedIn, LoggedOut
from unbroken.client.core.refresh_rules import GrantRejected, Indeterminate, log_in, log_out
from unbroken.client.first_login import BrowserLogin, DeviceLogin, log_in_as_client
from unbroken.client.hooks import EventDispatcher
from unbroken.client.port import BlockingPort, MfaPrompt
from unbroken.client.prover import Prover
from unbroken.client.refresh_coordinator import RefreshCoordinator, SessionState
from unbroken.client.session_arguments import to_token_response
from unbroken.errors import SESSION_OVER_MESSAGES, BadResponse, ConfigurationError, LoginRefused, TryLater
from unbroken.tokens import TokenResponse, Tokens

__all__ = ["SessionLogins"]

T = TypeVar("T")


@checked_class(
    "login", "alogin", "login_in_browser", "alogin_in_browser", "login_by_device", "alogin_by_device",
    "login_as_client", "alogin_as_client", "import_tokens", "aimport_tokens",
)  # fmt: skip
class SessionLogins:
    """The methods of ``Session`` that log in and out. ``Session`` sets the attributes."""

    dialect: Dialect
    _clock: Clock
    _limit: float
    _dispatcher: EventDispatcher
    _state: SessionState
    _port: BlockingPort
    _prover: Prover | None
    _coordinator: RefreshCoordinator

    def login(self, username: str, password: str, *, mfa_prompt: MfaPrompt | None = None, **extra: object) -> Tokens:
        """Log in at the server, store the tokens and return them; *extra* goes along (``label="laptop"``).

        Where the server wants a code too, *mfa_prompt* returns it: a function of the code's kind (``totp``) and of a
        hint for the user. Raise LoginRefused (reason ``mfa_required`` without *mfa_prompt*), TryLater, InvalidRequest,
        BadResponse, or ConfigurationError if the dialect has no login.
        """
        return self._store_login(self._port.log_in_with_password(username, password, mfa_prompt, extra))

    def login_in_browser(
        self,
        *,
        scope: str = "",
        timeout: Duration = 300.0,
        redirect_uri: str = "",
        open_url: Callable[[str], object] | None = None,
        show: Callable[[str], object] | None = None,
        **parameters: str,
    ) -> Tokens:
        """Log in at an OAuth 2.0 server with a browser on this machine, store the tokens and return them.

        The authorization code flow with PKCE; the redirect comes to a listener on 127.0.0.1 (RFC 8252). *redirect_uri*
        is the one that the server has on record; without a port, any free one is used. The user has *timeout* seconds.
        *show* gets the URL, by default standard error; *open_url* opens it, by default in the user's browser.
        *parameters* go along with the URL (``login_hint="ada"``).

        Raise LoginRefused, whose reason is the server's word (``access_denied``), TryLater if the user does not log in,
        InvalidRequest, BadResponse, or ConfigurationError if the dialect has no authorization endpoint.
        """
        login = BrowserLogin(scope, timeout, redirect_uri, open_url, show, self._with_key(parameters))
        return self._run_login(login, threading.Event())

    def login_by_device(
        self, *, scope: str = "", timeout: Duration = 3600.0, show: Callable[[DeviceCode], object] | None = None
    ) -> Tokens:
        """Log in at an OAuth 2.0 server with a code that the user enters on another device (RFC 8628).

        *show* gets the code and the page where it is entered, by default standard error. The user has as long as the
        code lives, at most *timeout* seconds. Raise as ``login_in_browser`` does (reason: also ``expired_token``).
        """
        return self._run_login(DeviceLogin(scope, timeout, show), threading.Event())

    def login_as_client(self, *, scope: str = "", **extra: str) -> Tokens:
        """Log in as the program itself, with its client secret (client credentials, RFC 6749 §4.4).

        The server gives no refresh token: when the access token has expired, requests raise SessionOver, and the
        program logs in again; ``Session(…, credentials=ClientCredentials())`` does so by itself. *extra* goes along
        (``audience="api"``). Raise as ``login_in_browser`` does.
        """
        return self._store_login(log_in_as_client(self.dialect, self._port.send_for_login, scope, extra))

    def login_with_credentials(self) -> Tokens:
        """Log in with the credentials of this session, also after a logout, or after they were refused once.

        Raise LoginRefused, whose reason says why, TryLater, BadResponse, or ConfigurationError without credentials.
        """
        match self._port.log_in_with_credentials():
            case TokenResponse() as response:
                return self._store_login(response)
            case GrantRejected(reason, said):
                raise LoginRefused(said or SESSION_OVER_MESSAGES.get(reason, "refused"), reason=reason)
            case outcome:
                raise outcome.cause if isinstance(outcome.cause, BadResponse) else _later(outcome)

    def import_tokens(self, tokens: TokenResponse | Tokens | Mapping[str, object]) -> Tokens:
        """Store *tokens* from elsewhere as a new login; a mapping is a parsed token response (RFC 6749 §5.1).

        Raise BadResponse, which names the field, if it cannot be read as one, and ConfigurationError for tokens that
        are bound to another key than ``proof_key``.
        """
        response = self._port.bound(to_token_response(tokens, self.dialect))
        if response.is_bound and (self._prover is None or response.jkt != self._prover.key.thumbprint):
            raise ConfigurationError("these tokens are bound to a key: give the Session that key, as proof_key")
        fresh = run_sync(log_in(self._port, response))
        self._state.install(self._coordinator.activate(fresh))
        self._dispatcher.emit(LoggedIn(fresh.version))
        self._dispatcher.tokens_changed(fresh)
        self._dispatcher.deliver()
        return fresh

    def logout(self) -> bool:
        """Log out: forget the tokens, then revoke the session at the server. Return whether the server confirmed.

        A refresh under way can no longer store anything, and requests that wait for it raise SessionOver. Raise
        StoreUnavailable if the tokens cannot be taken out of the store; this object forgets them, and the server
        revokes the session, all the same.
        """
        held = self._state.active
        self._state.end_session(
            "logged_out", epoch=max(self._state.epoch + 1, int(self._clock.wall() * 1000))
        )  # rule 2
        tokens, epoch, told = run_sync(log_out(self._port, held.tokens if held else None))
        self._state.end_session("logged_out", epoch=epoch)
        self._dispatcher.emit(LoggedOut(tokens.version if tokens else 0, told_server=told))
        self._dispatcher.deliver()
        return told

    # ---- the same for event loops (rule 3) ---------------------------------------------------------------------

    async def alogin(
        self, username: str, password: str, *, mfa_prompt: MfaPrompt | None = None, **extra: object
    ) -> Tokens:
        """Log in as ``login`` does, without blocking. If the caller is cancelled, the login still completes."""
        return await self._in_thread(lambda: self.login(username, password, mfa_prompt=mfa_prompt, **extra))

    async def alogin_in_browser(
        self,
        *,
        scope: str = "",
        timeout: Duration = 300.0,
        redirect_uri: str = "",
        open_url: Callable[[str], object] | None = None,
        show: Callable[[str], object] | None = None,
        **parameters: str,
    ) -> Tokens:
        """Log in as ``login_in_browser`` does, without blocking. If the caller is cancelled, so is the login."""
        login = BrowserLogin(scope, timeout, redirect_uri, open_url, show, self._with_key(parameters))
        return await self._log_in_in_thread(login)

    async def alogin_by_device(
        self, *, scope: str = "", timeout: Duration = 3600.0, show: Callable[[DeviceCode], object] | None = None
    ) -> Tokens:
        """Log in as ``login_by_device`` does, without blocking. If the caller is cancelled, so is the login."""
        return await self._log_in_in_thread(DeviceLogin(scope, timeout, show))

    async def alogin_as_client(self, *, scope: str = "", **extra: str) -> Tokens:
        """Log in as ``login_as_client`` does, without blocking. A caller that is cancelled stops nothing."""
        return await self._in_thread(lambda: self.login_as_client(scope=scope, **extra))

    async def alogin_with_credentials(self) -> Tokens:
        """Log in as ``login_with_credentials`` does, without blocking. A caller that is cancelled stops nothing."""
        return await self._in_thread(self.login_with_credentials)

    async def aimport_tokens(self, tokens: TokenResponse | Tokens | Mapping[str, object]) -> Tokens:
        """Store *tokens* as ``import_tokens`` does, without blocking."""
        return await self._in_thread(lambda: self.import_tokens(tokens))

    async def alogout(self) -> bool:
        """Log out as ``logout`` does, without blocking. If the caller is cancelled, the logout still completes."""
        return await self._in_thread(self.logout)

    def _run_login(self, login: BrowserLogin | DeviceLogin, stop: threading.Event) -> Tokens:
        return self._store_login(login.run(self.dialect, self._port.send_for_login, stop))

    def _store_login(self, response: TokenResponse) -> Tokens:
        """Store the tokens of a login. One that must be bound to a key, and is not, ends at the server too."""
        try:
            return self.import_tokens(response)
        except BadResponse:
            run_sync(self._port.revoke(Tokens(response.access_token, response.refresh_token)))
            raise

    def _with_key(self, parameters: dict[str, str]) -> dict[str, str]:
        """Return the *parameters* of an authorization request, and the key that its code is good for (RFC 9449 §10)."""
        return {"dpop_jkt": self._prover.key.thumbprint, **parameters} if self._prover else parameters

    async def _log_in_in_thread(self, login: BrowserLogin | DeviceLogin) -> Tokens:
        """Log in without blocking. A caller that is cancelled stops the login."""
        stop = threading.Event()
        try:
            return await self._in_thread(lambda: self._run_login(login, stop), login.seconds)
        finally:
            stop.set()

    async def _in_thread(self, work: Callable[[], T], additional_seconds: float = 0.0) -> T:
        """Return the result of *work*, which blocks, while the event loop goes on."""
        self._dispatcher.remember_loop()
        flight = SingleFlight(work, 2 * self._limit + additional_seconds)
        flight.start()
        return await flight.wait_async()


def _later(outcome: Indeterminate) -> TryLater:
    error = TryLater(outcome.why, retry_after=outcome.retry_after)
    error.__cause__ = outcome.cause
    return error
