"""The blocking port: the store, the server and the clock, as the rules and a login see them.

1. Nothing of it suspends, so ``run_sync`` runs the rules over it. It blocks the thread that calls it.
2. Each refresh has a copy of the port with its own lease: a refresh that was given up may still be under way when the
   next begins.
3. Tokens that were granted but could not be stored are known to all copies, by their idempotency key: the next refresh
   stores them, instead of asking a server that may not respond twice.
4. A refresh is sent, and sent again with another proof, only while the lock is certainly held.
5. A server that knows no idempotency keys has longer for its response than a request waits: the thread of the refresh
   waits on, and holds the lock meanwhile. Connecting has the same limit at every server.
6. A session with a key sends a proof with each request of its own (``prover.py``), but for the one that asks for a
   device code, which is no token request (RFC 9449 §5).
7. Without a refresh token, a refresh is a login with the credentials that the user has chosen (``credentials.py``).
   Such a login may be repeated: it uses nothing up.
"""

from __future__ import annotations

import copy
import logging
import secrets
import ssl
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from types import TracebackType
from typing import Self

from unbroken._http import HttpRequest, HttpResponse, NotSent, ResponseLost, Send
from unbroken._time import Clock
from unbroken.client.core.dialect import Dialect, MfaChallenge
from unbroken.client.core.events import ClientEvent
from unbroken.client.core.refresh_rules import (
    GrantRejected,
    Indeterminate,
    RefreshOutcome,
    ServerKind,
    is_progress,
    response_seconds,
)
from unbroken.client.core.token_store import PERMANENT_LEASE, Lease, StoredSession, TokenStore
from unbroken.client.credentials import Credentials, use_credentials
from unbroken.client.prover import Prover
from unbroken.errors import BadResponse, ConfigurationError, LoginRefused, TryLater
from unbroken.tokens import TokenResponse, Tokens

__all__ = ["BlockingPort", "MfaPrompt", "standard_sender"]

_log = logging.getLogger("unbroken")

MAX_MFA_CODES = 5  # of one login: a prompt that needs no person would go on for ever

MfaPrompt = Callable[[str, str], str]
"""A function that returns the code of an MFA login, for its kind (``totp``) and the hint that the server gives."""


class BlockingPort:
    """The ``Port`` of the rules over a store, a dialect and a sender. Timeouts are in seconds."""

    def __init__(
        self,
        store: TokenStore,
        dialect: Dialect,
        send: Send,
        clock: Clock,
        emit: Callable[[ClientEvent], None],
        *,
        refresh_timeout: float,
        lock_timeout: float,
        prover: Prover | None = None,
        credentials: Credentials | None = None,
    ) -> None:
        self._store, self._dialect, self._clock, self._prover = store, dialect, clock, prover
        self._send_once = send
        self._refresh_timeout, self._lock_timeout = refresh_timeout, lock_timeout
        self._unsaved: dict[str, TokenResponse] = {}  # by idempotency key; shared by all copies (rule 3)
        self._lease: Lease = PERMANENT_LEASE
        self._credentials, self.has_credentials = credentials, credentials is not None
        self.granted = False  # whether this refresh got its tokens from the server
        self.emit = emit

    def for_one_refresh(self) -> Self:
        """Return a copy with a lease of its own (rule 2)."""
        return copy.copy(self)

    # ---- for the rules -----------------------------------------------------------------------------------------

    def now(self) -> float:
        return self._clock.wall()

    def new_idempotency_key(self) -> str:
        return secrets.token_hex(16)

    def lock(self) -> _AsyncLock:
        return _AsyncLock(self, self._store.lock(self._lock_timeout))

    def can_refresh(self, tokens: Tokens) -> bool:
        return bool(tokens.refresh_token) or self.has_credentials

    def server_kind(self, tokens: Tokens) -> ServerKind:
        return self._dialect.server_kind(tokens) if tokens.refresh_token else "idempotent"  # rule 7

    def lock_holder(self) -> str:
        name = getattr(self._lease, "holder", None)
        return name if isinstance(name, str) else secrets.token_hex(8)  # a new one, which no other holder has

    async def load(self) -> StoredSession:
        return self._store.load()

    async def save(self, record: StoredSession, expected: StoredSession) -> bool:
        saved = self._store.save(record, expected)
        if saved and record.idempotency_key is None:
            self._unsaved.clear()  # no refresh is under way any more
        return saved

    async def send_refresh(self, tokens: Tokens, idempotency_key: str) -> RefreshOutcome:
        if unsaved := self._unsaved.get(idempotency_key):
            return unsaved  # rule 3
        if not self._lease.is_held():  # rule 4
            return Indeterminate("the lock of the store was lost before the refresh was sent", may_retry=False)
        outcome = self._refreshed(tokens, idempotency_key) if tokens.refresh_token else self._by_credentials()
        if not isinstance(outcome, TokenResponse):
            return outcome
        try:
            return self._received(tokens, idempotency_key, self.bound(outcome))
        except BadResponse as error:
            return Indeterminate(str(error), cause=error, may_retry=False)

    def _refreshed(self, tokens: Tokens, idempotency_key: str) -> RefreshOutcome:
        """Return what the server responds to the refresh token of *tokens*."""
        try:
            response = self._sent(tokens, idempotency_key)
        except NotSent as error:
            return Indeterminate(str(error), cause=error)
        except ResponseLost as error:
            return Indeterminate(str(error), lost=True, cause=error)
        except Exception as error:  # noqa: BLE001  # a sender of the user's may raise anything, and may have sent
            return Indeterminate(f"the refresh failed: {type(error).__name__}", lost=True, cause=error)
        secrets = (tokens.refresh_token or "", tokens.access_token)
        return self._dialect.read_refresh_response(response, idempotency_key=idempotency_key, secrets=secrets)

    def _by_credentials(self) -> RefreshOutcome:
        """Return the outcome of a login with the credentials (rule 7)."""
        return self.log_in_with_credentials() if self.has_credentials else GrantRejected("no_refresh_token")

    def log_in_with_credentials(self) -> RefreshOutcome:
        """Return what the server responds to the credentials. Raise ConfigurationError if there are none."""
        if self._credentials is None:
            raise ConfigurationError("this session has no credentials: Session(…, credentials=…)")
        device_token = self._store.load().device_token
        seconds = self._refresh_timeout
        return use_credentials(
            self._credentials, self._dialect, device_token, lambda request: self._send(request, seconds)
        )

    async def revoke(self, tokens: Tokens) -> bool:
        request = self._dialect.logout_request(tokens)
        if request is None:
            return False
        try:
            return 200 <= self._send(request, self._refresh_timeout).status < 300
        except Exception:  # noqa: BLE001  # whatever went wrong, the server did not confirm
            return False

    async def pause(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251  # rule 1

    def _sent(self, tokens: Tokens, idempotency_key: str) -> HttpResponse:
        request = self._dialect.refresh_request(tokens, idempotency_key)
        seconds = response_seconds(self.server_kind(tokens), self._refresh_timeout)
        return self._send(replace(request, connect_timeout=self._refresh_timeout), seconds)  # rule 5

    def _send(self, request: HttpRequest, seconds: float) -> HttpResponse:
        """Return the response to *request*, which waits for *seconds*, with a proof if there is a key (rule 6)."""
        prover = self._prover
        endpoints = self._dialect.login_endpoints
        if prover is None or (endpoints and request.url == endpoints.device_authorization_endpoint):
            return self._send_once(request, seconds)
        return prover.send(lambda proven: self._send_once(proven, seconds), request, self._lease.is_held)  # rule 4

    def _received(self, tokens: Tokens, idempotency_key: str, response: TokenResponse) -> TokenResponse:
        self.granted = True
        if response.unreadable_fields:
            _log.warning("the token response has unreadable fields: %s", ", ".join(response.unreadable_fields))
        response = replace(response, received_at=self._clock.wall())
        if is_progress(response, tokens):  # else the rules do not store it
            self._unsaved[idempotency_key] = response  # rule 3
        return response

    def bound(self, response: TokenResponse) -> TokenResponse:
        """Return *response* with the key that its tokens are bound to. Raise BadResponse if there must be one."""
        return response if self._prover is None else self._prover.bound(response)

    # ---- for a login -------------------------------------------------------------------------------------------

    def log_in_with_password(
        self, username: str, password: str, mfa_prompt: MfaPrompt | None, extra: Mapping[str, object]
    ) -> TokenResponse:
        """Return the tokens for a name and a password, and for a code where the server wants one.

        Raise the errors that ``Session.login`` documents.
        """
        secrets = (password, *(value for value in extra.values() if isinstance(value, str)))
        if device_token := self._store.load().device_token:
            extra = {"device_token": device_token, **extra}
            secrets += (device_token,)
        result = self._send_login(self._dialect.login_request(username, password, extra), secrets)
        codes = 0
        while isinstance(result, MfaChallenge):
            if mfa_prompt is None:
                raise LoginRefused("the server wants a code too: pass mfa_prompt= to login", reason="mfa_required")
            if (codes := codes + 1) > MAX_MFA_CODES:
                raise BadResponse(f"the server wants more than {MAX_MFA_CODES} codes for one login")
            code = mfa_prompt(result.kind, result.hint)
            request, secrets = self._dialect.mfa_request(result, code), (result.token, code)
            try:
                result = self._send_login(request, secrets)
            except LoginRefused as error:
                raise LoginRefused("the login was refused: wrong code", reason=error.reason) from error
        return result

    def _send_login(self, request: HttpRequest, secrets: tuple[str, ...]) -> TokenResponse | MfaChallenge:
        return self._dialect.read_login_response(self.send_for_login(request), secrets=secrets)

    def send_for_login(self, request: HttpRequest) -> HttpResponse:
        """Return the response to *request*. Raise TryLater, from NotSent or ResponseLost, if there is none."""
        try:
            return self._send(request, self._refresh_timeout)
        except (NotSent, ResponseLost) as error:
            raise TryLater(f"the login failed: {error}") from error


class _AsyncLock:
    """The lock of the store as the async context manager that the rules use. Entering it sets the lease of the port."""

    def __init__(self, port: BlockingPort, lock: AbstractContextManager[Lease | None]) -> None:
        self._port, self._lock = port, lock

    async def __aenter__(self) -> None:
        self._port._lease = self._lock.__enter__() or PERMANENT_LEASE

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.__exit__(kind, error, trace)


def standard_sender(tls: ssl.SSLContext | None) -> Send:
    """Return the library's sender. It is imported at the first request: programs that send none start faster."""

    sender: Send | None = None

    def send(request: HttpRequest, timeout: float) -> HttpResponse:
        nonlocal sender
        if sender is None:
            from unbroken._transport import http_sender  # noqa: PLC0415

            sender = http_sender(tls)
        return sender(request, timeout)

    return send
