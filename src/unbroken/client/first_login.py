"""The logins of OAuth 2.0: with a browser on this machine, with a code on another device, and as a client.

1. Tokens, codes and verifiers are in no log, no argument of a program and no error. The URL that a browser is opened
   with has a state and a code challenge, which are worth nothing without the verifier.
2. The browser is opened in a thread that the login does not wait for: some browsers return when they are closed.
3. The user is told the URL in any case: a browser may be missing, or may open elsewhere.
4. A login whose caller was cancelled stops within a second, and frees its port.
"""

from __future__ import annotations

import os
import secrets
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from unbroken._http import HttpRequest, HttpResponse
from unbroken._time import Duration, to_seconds
from unbroken.client.core.authorization_code import authorization_request, code_of_redirect, code_request
from unbroken.client.core.device_flow import (
    MAX_CODE_SECONDS,
    DeviceCode,
    device_code_request,
    poll_request,
    read_device_code,
    read_poll,
    slower,
)
from unbroken.client.core.dialect import Dialect
from unbroken.client.core.token_request import login_endpoints, read_token_response, token_request
from unbroken.errors import TryLater, UnbrokenError
from unbroken.tokens import TokenResponse

if TYPE_CHECKING:
    from unbroken.client.loopback_listener import LoopbackListener

__all__ = ["BrowserLogin", "DeviceLogin", "SendForLogin", "log_in_as_client"]

SendForLogin = Callable[[HttpRequest], HttpResponse]
"""A function that sends one request of a login; it raises TryLater if there is no response."""

STATE_BYTES = 24
VERIFIER_BYTES = 48  # 64 characters (RFC 7636 §4.1)


@dataclass(frozen=True, slots=True)
class BrowserLogin:
    """A login with a browser (RFC 8252). *timeout*: how long the user has. *parameters* go along with the URL."""

    scope: str = ""
    timeout: Duration = 300.0
    redirect_uri: str = ""
    open_url: Callable[[str], object] | None = None
    show: Callable[[str], object] | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """The timeout in seconds. Raises ConfigurationError for one that cannot be one."""
        return to_seconds("timeout", self.timeout, above_zero=True)

    def run(self, dialect: Dialect, send: SendForLogin, stop: threading.Event) -> TokenResponse:
        """Return the tokens of the login. Raise the errors that ``Session.login_in_browser`` documents."""
        from unbroken.client.loopback_listener import LoopbackListener  # noqa: PLC0415  # few programs log in

        seconds = self.seconds
        with LoopbackListener(self.redirect_uri or login_endpoints(dialect).redirect_uri) as listener:
            try:
                tokens = self._log_in(dialect, send, listener, seconds, stop)
            except UnbrokenError as error:
                listener.respond("The login has failed", f"{str(error)[:1].upper()}{str(error)[1:]}.")
                raise
            listener.respond("You are logged in", "This window can be closed.")
            return tokens

    def _log_in(
        self, dialect: Dialect, send: SendForLogin, listener: LoopbackListener, seconds: float, stop: threading.Event
    ) -> TokenResponse:
        request = authorization_request(
            dialect,
            redirect_uri=listener.redirect_uri,
            state=secrets.token_urlsafe(STATE_BYTES),
            code_verifier=secrets.token_urlsafe(VERIFIER_BYTES),
            scope=self.scope,
            parameters=self.parameters,
        )
        (self.show or _show)(request.url)  # rule 3
        opener = threading.Thread(target=self.open_url or _open_browser, args=(request.url,), daemon=True)
        opener.start()  # rule 2
        code = listener.wait(lambda query: code_of_redirect(dialect, request, query), seconds, stop)
        response = send(code_request(dialect, request, code))
        return read_token_response(dialect, response, secrets=(code, request.code_verifier))  # rule 1


@dataclass(frozen=True, slots=True)
class DeviceLogin:
    """A login with a code on another device (RFC 8628). *timeout*: how long the user has, at most."""

    scope: str = ""
    timeout: Duration = MAX_CODE_SECONDS
    show: Callable[[DeviceCode], object] | None = None

    @property
    def seconds(self) -> float:
        """The timeout in seconds. Raises ConfigurationError for one that cannot be one."""
        return to_seconds("timeout", self.timeout, above_zero=True)

    def run(self, dialect: Dialect, send: SendForLogin, stop: threading.Event) -> TokenResponse:
        """Return the tokens of the login. Raise the errors that ``Session.login_by_device`` documents."""
        seconds, code = self.seconds, read_device_code(dialect, send(device_code_request(dialect, self.scope)))
        (self.show or _show_code)(code)
        ends_at, interval = time.monotonic() + min(seconds, code.expires_in), code.interval
        while time.monotonic() + interval < ends_at and not stop.wait(interval):  # rule 4
            outcome = self._poll(dialect, send, code, interval)
            if isinstance(outcome, TokenResponse):
                return outcome
            interval = outcome
        raise TryLater("the code was not entered in time; log in again for a new one")

    def _poll(self, dialect: Dialect, send: SendForLogin, code: DeviceCode, interval: float) -> TokenResponse | float:
        try:
            response = send(poll_request(dialect, code))
        except TryLater:
            return slower(interval)
        return read_poll(dialect, response, code, interval)


def _show_code(code: DeviceCode) -> None:
    sys.stderr.write(f"open {code.verification_uri} on any device, and enter the code {code.user_code}\n")
    sys.stderr.flush()


def log_in_as_client(dialect: Dialect, send: SendForLogin, scope: str, extra: Mapping[str, str]) -> TokenResponse:
    """Return tokens for the client itself (RFC 6749 §4.4). Raise as ``Session.login_as_client`` documents."""
    values = {name: value for name, value in {"scope": scope, **extra}.items() if value}
    return read_token_response(dialect, send(token_request(dialect, "client_credentials", values)))


def _show(url: str) -> None:
    sys.stderr.write(f"log in with a browser on this machine: {url}\n")
    sys.stderr.flush()


def _open_browser(url: str) -> None:
    import webbrowser  # noqa: PLC0415  # slow to import, and few programs log in

    try:
        browser = webbrowser.get()
    except webbrowser.Error:
        return
    # A browser in the terminal would take it away from the program, unless the user has chosen it.
    if os.environ.get("BROWSER") or type(browser) is not webbrowser.GenericBrowser:
        browser.open(url)
