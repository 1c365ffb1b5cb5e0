"""The blocking port: what the rules need of the world, for a renewal in a thread of its own.

None of it suspends, so ``run_sync`` runs the rules over it. Each renewal has a port of its own, with its own hold on
the lock: one that was given up may still be under way when the next begins. Tokens that were granted but could not be
stored are known to all of them, under their attempt id: the next try stores them, instead of asking a server that may
not answer twice.

The conversation of a login: name and password, then a code where the server wants one.
"""

from __future__ import annotations

import copy
import logging
import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from types import TracebackType
from typing import Self

from unbroken._clock import Clock
from unbroken._http import HttpRequest, HttpResponse
from unbroken._transport import NotSent, ResponseLost, Send
from unbroken.client.core.dialect import Dialect, MfaChallenge
from unbroken.client.core.events import ClientEvent
from unbroken.client.core.record import PERMANENT_LEASE, Lease, StoredSession, TokenStore
from unbroken.client.core.refresh_rules import Indeterminate, RefreshOutcome
from unbroken.errors import LoginRefused, TryLater
from unbroken.tokens import TokenResponse, Tokens

__all__ = ["BlockingPort", "MfaPrompt", "log_in_with_password"]

_log = logging.getLogger("unbroken")


class BlockingPort:
    """A ``Port`` over a store, a dialect and a connection. Timeouts are in seconds."""

    def __init__(
        self,
        store: TokenStore,
        dialect: Dialect,
        send: Send,
        clock: Clock,
        tell: Callable[[ClientEvent], None],
        *,
        refresh_timeout: float,
        lock_timeout: float,
    ) -> None:
        self._store, self._dialect, self._send, self._clock = store, dialect, send, clock
        self._exchange_timeout, self._lock_timeout = refresh_timeout, lock_timeout
        self._unsaved: dict[str, TokenResponse] = {}  # by attempt id; shared by the ports of all renewals
        self._lease: Lease = PERMANENT_LEASE
        self.granted = False  # whether this renewal got its tokens by an exchange
        self.emit = tell

    def for_one_refresh(self) -> Self:
        """A port that knows the same unsaved tokens, and holds a lock of its own."""
        return copy.copy(self)

    def now(self) -> float:
        return self._clock.wall()

    def new_idempotency_key(self) -> str:
        return secrets.token_hex(16)

    def lock(self) -> _AsyncLock:
        return _AsyncLock(self, self._store.lock(self._lock_timeout))

    async def load(self) -> StoredSession:
        return self._store.load()

    async def save(self, record: StoredSession, expected: StoredSession) -> bool:
        saved = self._store.save(record, expected)
        if saved and record.idempotency_key is None:
            self._unsaved.clear()
        return saved

    async def send_refresh(self, tokens: Tokens, attempt: str) -> RefreshOutcome:
        if unsaved := self._unsaved.get(attempt):
            return unsaved
        if not self._lease.is_held(self._exchange_timeout):
            return Indeterminate("the renewal lock was lost before the request was sent", may_retry=False)
        try:
            reply = self._send(self._dialect.refresh_request(tokens, attempt), self._exchange_timeout)
        except NotSent as error:
            return Indeterminate(str(error), cause=error)
        except ResponseLost as error:
            return Indeterminate(str(error), lost=True, cause=error)
        except Exception as error:  # noqa: BLE001  # a sender of the user's own may raise anything, and may have sent
            return Indeterminate(f"the exchange failed: {type(error).__name__}", lost=True, cause=error)
        answer = self._dialect.read_refresh_response(reply)
        if isinstance(answer, TokenResponse):
            self.granted = True
            answer = replace(answer, received_at=self._clock.wall())
            if answer.unreadable_fields:
                _log.warning(
                    "fields of the token response that cannot be read: %s", ", ".join(answer.unreadable_fields)
                )
            if None in (answer.refresh_seq, tokens.refresh_seq) or answer.refresh_seq > tokens.refresh_seq:  # type: ignore[operator]  # both are numbers here
                self._unsaved[attempt] = answer
        return answer

    async def revoke(self, tokens: Tokens) -> bool:
        call = self._dialect.logout_request(tokens)
        if call is None:
            return False
        try:
            return 200 <= self._send(call, self._exchange_timeout).status < 300
        except Exception:  # noqa: BLE001  # whatever went wrong, the answer is: the server did not say yes
            return False

    async def pause(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251  # this port blocks, in a thread of its own


class _AsyncLock:
    """The store's lock, spelled the way the rules ask for it."""

    def __init__(self, port: BlockingPort, lock: AbstractContextManager[Lease | None]) -> None:
        self._port, self._lock = port, lock

    async def __aenter__(self) -> None:
        self._port._lease = self._lock.__enter__() or PERMANENT_LEASE

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.__exit__(kind, error, trace)


MfaPrompt = Callable[[str, str], str]  # the code, for its kind and the hint that the server gives


def log_in_with_password(
    dialect: Dialect,
    ask: Callable[[HttpRequest], HttpResponse],
    username: str,
    password: str,
    second_step: MfaPrompt | None,
    extra: Mapping[str, object],
) -> TokenResponse:
    """The tokens that the server gives; *ask* sends one request. Raises what ``Session.login`` says."""

    def answer(call: HttpRequest) -> TokenResponse | MfaChallenge:
        try:
            return dialect.read_login_response(ask(call))
        except (NotSent, ResponseLost) as error:
            raise TryLater(f"the login failed: {error}") from error

    found = answer(dialect.login_request(username, password, extra))
    while isinstance(found, MfaChallenge):
        if second_step is None:
            raise LoginRefused("the server wants a code too: give login a second_step", reason="mfa_required")
        call = dialect.mfa_request(found, second_step(found.kind, found.hint))
        try:
            found = answer(call)
        except LoginRefused as error:
            raise LoginRefused("the login was refused: wrong code", reason=error.reason) from error
    return found
