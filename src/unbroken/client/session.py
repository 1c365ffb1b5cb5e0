"""Session: what users hold. It carries the rules of ``rules.py`` into threads and event loops.

1. The hot path is one comparison of clocks: no lock, no store, no suspension.
2. Every exchange runs in a thread of its own (``flight.py``); callers of both styles only wait for it, or do not.
3. Each method comes in two spellings, ``token`` and ``atoken``: the second never blocks an event loop.
4. Hooks are called after everybody who waited has been woken; what they raise is logged and hurts nobody.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from unbroken._clock import SYSTEM_CLOCK, Clock
from unbroken._http import HttpRequest, HttpResponse
from unbroken._single_flight import SingleFlight
from unbroken._sync import run_sync
from unbroken._transport import Send, http_sender
from unbroken.client.core.body import Rewind
from unbroken.client.core.dialect import Dialect, allowed_origins, unbroken_server
from unbroken.client.core.events import ClientEvent, LoggedIn, LoggedOut, RequestWaited
from unbroken.client.core.record import TokenStore
from unbroken.client.core.refresh_rules import log_in, log_out
from unbroken.client.core.request_flow import (
    FlowStep,
    NeedNewerTokens,
    NeedTokens,
    ReadResponse,
    ResponsePort,
    request_flow,
)
from unbroken.client.core.schedule import ActiveTokens, Leeway, RefreshWindow
from unbroken.client.hooks import EventDispatcher
from unbroken.client.port import BlockingPort, MfaPrompt, log_in_with_password
from unbroken.client.refresh_coordinator import TRANSIENT_ERRORS, RefreshCoordinator, SessionState
from unbroken.client.stores.memory import MemoryStore
from unbroken.errors import ConfigurationError, NotReplayable, SessionOver
from unbroken.tokens import TokenResponse, Tokens

__all__ = ["Session", "Status"]

T = TypeVar("T")
_log = logging.getLogger("unbroken")


@dataclass(frozen=True, slots=True)
class Status:
    """How a session stands: ``good``, ``ageing``, ``expired`` or ``over`` (for ``reason``). Times are in seconds."""

    state: str
    reason: str = ""
    expires_in: float | None = None
    refreshing: bool = False
    scope: str = ""
    version: int = 0


class Session:
    """One login that does not break. Share one object between all threads, tasks and clients of a program.

    *dialect* says how the backend speaks; a URL stands for unbroken's own server there. *store* keeps the tokens
    (default: in memory). Tokens are sent to *origins* only, by default the dialect's. Times are in seconds:
    *refresh_timeout* for one request of the library's own, *wait_timeout* for how long a caller waits for a renewal.
    *window* guards against storms (None switches it off). *send* replaces the library's own connection, *tls* its
    TLS settings. The hooks may be plain or async functions; ``on_event`` hears of everything that happens.

    Raises ConfigurationError for a URL that is not https (loopback excepted, and ``allow_plain_http``).
    """

    def __init__(
        self,
        dialect: Dialect | str,
        store: TokenStore | None = None,
        *,
        origins: Iterable[str] = (),
        on_tokens_changed: Callable[[Tokens], object] | None = None,
        on_session_over: Callable[[str], object] | None = None,
        on_event: Callable[[ClientEvent], object] | None = None,
        leeway: Leeway = Leeway(),
        window: RefreshWindow | None = RefreshWindow(),
        refresh_timeout: float = 10.0,
        wait_timeout: float = 60.0,
        send: Send | None = None,
        tls: ssl.SSLContext | None = None,
        clock: Clock = SYSTEM_CLOCK,
        allow_plain_http: bool = False,
    ) -> None:
        self._settings: dict[str, Any] = {
            "origins": tuple(origins),
            "on_tokens_changed": on_tokens_changed,
            "on_session_over": on_session_over,
            "on_event": on_event,
            "leeway": leeway,
            "window": window,
            "refresh_timeout": refresh_timeout,
            "wait_timeout": wait_timeout,
            "send": send,
            "tls": tls,
            "clock": clock,
            "allow_plain_http": allow_plain_http,
        }
        self.dialect = unbroken_server(dialect) if isinstance(dialect, str) else dialect
        self.store = MemoryStore() if store is None else store
        self.origins = allowed_origins(self.dialect, tuple(origins), allow_plain_http)
        self._clock, self._leeway, self._wait_timeout = clock, leeway, wait_timeout
        self._limit = 4 * refresh_timeout + 5.0
        lease = getattr(self.store, "lease", None)  # a store whose lock is lent for a while
        if lease is not None and lease < refresh_timeout + 5.0:
            raise ConfigurationError(
                f"a lease of {lease:g} seconds does not outlive an exchange of up to {refresh_timeout:g}: "
                "lengthen the store's lease, or shorten refresh_timeout"
            )
        self._hooks = EventDispatcher(on_tokens_changed, on_session_over, on_event)
        self._known = SessionState(clock, leeway, window)
        self._send, self._exchange_timeout = send or http_sender(tls), refresh_timeout
        self._port = BlockingPort(
            self.store,
            self.dialect,
            self._send,
            clock,
            self._hooks.note,
            refresh_timeout=refresh_timeout,
            lock_timeout=self._limit,
        )
        self._renewal = RefreshCoordinator(
            self.store, self.dialect, clock, leeway, self._known, self._hooks, self._port, self._limit
        )

    def __reduce__(self) -> tuple[object, ...]:
        """A copy for another process: over the same store, never with tokens of its own."""
        return (_rebuild, (self.dialect, self.store, self._settings))

    def __repr__(self) -> str:
        live = self._known.live
        return f"<unbroken.Session {self._known.over if live is None else f'version={live.tokens.version}'}>"

    # ---- logging in and out ------------------------------------------------------------------------------------

    def login(self, username: str, password: str, *, mfa_prompt: MfaPrompt | None = None, **extra: object) -> Tokens:
        """Logs in at the server and stores the tokens; *extra* goes along (``label="laptop"``).

        Where the server wants a code too, *second_step* is asked for it: a function of its kind (``totp``) and of a
        hint for the user. Raises LoginRefused (with the reason ``mfa_required`` if there is nobody to ask), TryLater,
        InvalidRequest, BadResponse, or ConfigurationError if the dialect has no login.
        """

        def ask(call: HttpRequest) -> HttpResponse:
            return self._send(call, self._exchange_timeout)

        return self.import_tokens(log_in_with_password(self.dialect, ask, username, password, mfa_prompt, extra))

    def import_tokens(self, tokens: TokenResponse | Tokens | Mapping[str, object]) -> Tokens:
        """Takes *tokens* from elsewhere as a new login; a mapping is a token response (RFC 6749 §5.1).

        Raises BadResponse, which names the field, if the mapping is none.
        """
        fresh = run_sync(log_in(self._port, _to_token_response(tokens, self.dialect)))
        self._known.install(self._renewal.activate(fresh))
        self._hooks.note(LoggedIn(fresh.version))
        self._hooks.tokens_changed(fresh)
        self._hooks.deliver()
        return fresh

    def logout(self) -> bool:
        """Ends the session: here at once, then at the server. Whether the server confirmed it; never fails for that.

        A renewal under way can no longer store anything, and what waits for it gets SessionOver. Raises
        StoreUnavailable if the tokens cannot be taken out of the store; this object forgets them, and the server is
        told, all the same.
        """
        held = self._known.live
        self._known.end_session("logged_out", epoch=max(self._known.epoch + 1, int(self._clock.wall() * 1000)))
        tokens, epoch, told = run_sync(log_out(self._port, held.tokens if held else None))
        self._known.end_session("logged_out", epoch=epoch)
        self._hooks.note(LoggedOut(tokens.version if tokens else 0, told_server=told))
        self._hooks.deliver()
        return told

    # ---- tokens ------------------------------------------------------------------------------------------------

    def token(self) -> str:
        """An access token that is good now, renewed first if need be. Raises SessionOver or TryLater."""
        return self._authorize().tokens.access_token

    def newer_token(self, token: str, where: object = None) -> str:
        """An access token newer than *token*, which was refused by *where*: for what is no HTTP client.

        The same token, if the refusal is the endpoint's own affair. Raises SessionOver, TryLater or RefreshStorm.
        """
        live = self._authorize()
        if live.tokens.access_token == token:
            live = self._handle_challenge(live, where) or live
        return live.tokens.access_token

    def add_listener(self, hook: Callable[[ClientEvent], object]) -> None:
        """Has *hook* called with every event from now on, beside ``on_event``."""
        self._hooks.listen(hook)

    def _authorize(self, *, fresh: bool = False) -> ActiveTokens:
        """The tokens for one request. *fresh*: not ageing ones, for a request that cannot be repeated."""
        live = self._known.live
        if live is not None and self._good(live):
            return live
        usable, flight = self._renewal.plan(fresh, live or self._renewal.load())
        return self._wait_for(usable, flight, lambda f: f.wait(self._wait_timeout)) if flight else _require(usable)

    def _handle_challenge(self, sent: ActiveTokens, endpoint: object) -> ActiveTokens | None:
        """The tokens to repeat a request with that was sent with *sent* and challenged; None: hand the answer over.

        Raises SessionOver, TryLater or RefreshStorm.
        """
        newer, flight = self._renewal.handle_challenge(sent, endpoint, self._known.live or self._renewal.load())
        return self._wait_for(newer, flight, lambda f: f.wait(self._wait_timeout)) if flight else newer

    def _perform(self, step: FlowStep, answer: ResponsePort) -> object:
        """Does one step of a request's passage that is not sending; for adapters. *answer* is the one at hand."""
        match step:
            case NeedTokens():
                return self._authorize(fresh=step.fresh)
            case NeedNewerTokens():
                with nullcontext() if step.needed else suppress(*TRANSIENT_ERRORS):
                    return self._handle_challenge(step.sent, step.endpoint)
            case ReadResponse():
                return answer.read(step.most) if step.body else answer.headers()
            case NotReplayable():
                answer.note(step)
        return None

    def _request_flow(
        self, rewind: Rewind | None, where: Callable[[Any], object], request: Any, sent: ActiveTokens | None = None
    ) -> Generator[FlowStep, Any, None]:
        """The steps of *request*, which goes to ``where(request)``; for adapters. *sent*: tokens it already carries."""
        live = sent or self._known.live
        if sent is None and live is not None and not self._good(live):
            live = None
        return request_flow(self.dialect, live, rewind, where, request, self._known.record_acceptance, self._hooks.tell)

    # ---- the same for event loops ------------------------------------------------------------------------------

    async def alogin(
        self, username: str, password: str, *, mfa_prompt: MfaPrompt | None = None, **extra: object
    ) -> Tokens:
        """``login`` without blocking. If the caller is cancelled, the login still completes."""
        return await self._in_thread(lambda: self.login(username, password, mfa_prompt=mfa_prompt, **extra))

    async def aimport_tokens(self, tokens: TokenResponse | Tokens | Mapping[str, object]) -> Tokens:
        """``import_tokens`` without blocking."""
        return await self._in_thread(lambda: self.import_tokens(tokens))

    async def alogout(self) -> bool:
        """``logout`` without blocking. If the caller is cancelled, the logout still completes."""
        return await self._in_thread(self.logout)

    async def atoken(self) -> str:
        """``token`` without blocking."""
        return (await self._aauthorize()).tokens.access_token

    async def anewer_token(self, token: str, where: object = None) -> str:
        """``renewed`` without blocking."""
        live = await self._aauthorize()
        if live.tokens.access_token == token:
            live = await self._ahandle_challenge(live, where) or live
        return live.tokens.access_token

    async def _aauthorize(self, *, fresh: bool = False) -> ActiveTokens:
        """``authorize`` without blocking."""
        live = self._known.live
        if live is not None and self._good(live):
            return live
        self._hooks.remember_loop()
        usable, flight = self._renewal.plan(fresh, live or await self._aload())
        return await self._await_for(usable, flight) if flight else _require(usable)

    async def _ahandle_challenge(self, sent: ActiveTokens, endpoint: object) -> ActiveTokens | None:
        """``challenged`` without blocking."""
        self._hooks.remember_loop()
        newer, flight = self._renewal.handle_challenge(sent, endpoint, self._known.live or await self._aload())
        return await self._await_for(newer, flight) if flight else newer

    async def _aperform(self, step: FlowStep, answer: ResponsePort) -> object:
        """``perform`` without blocking, for answers whose ``read`` is awaited."""
        match step:
            case NeedTokens():
                return await self._aauthorize(fresh=step.fresh)
            case NeedNewerTokens():
                with nullcontext() if step.needed else suppress(*TRANSIENT_ERRORS):
                    return await self._ahandle_challenge(step.sent, step.endpoint)
            case ReadResponse(body=True):
                return await answer.read(step.most)
            case _:
                return self._perform(step, answer)
        return None

    # ---- how it stands -----------------------------------------------------------------------------------------

    @property
    def status(self) -> Status:
        """How the session stands, as far as this process knows. Asks nobody; reads the store if it has not yet.

        Raises StoreUnavailable if it cannot.
        """
        try:
            live = self._known.live or self._renewal.load()
        except SessionOver as over:
            return Status("over", over.reason, refreshing=self._known.refreshing)
        age, ages = live.age(self._clock), live.ages
        state = "good" if age < ages.refresh_in_background_at else "ageing" if age < ages.expires_at else "expired"
        left = None if live.tokens.expires_in is None else max(ages.expires_at - age, 0.0)
        return Status(state, "", left, self._known.refreshing, live.tokens.scope, live.tokens.version)

    def allows_origin(self, scheme: str, host: str, port: int | None) -> bool:
        """Whether tokens may be sent to this origin (RFC 6454)."""
        return (scheme, host, port or (443 if scheme == "https" else 80)) in self.origins

    def _good(self, live: ActiveTokens) -> bool:
        return self._clock.monotonic() < live.behind_mono and self._clock.wall() < live.behind_wall

    # ---- waiting ------------------------------------------------------------------------------------------------

    def _wait_for(
        self,
        usable: ActiveTokens | None,
        flight: SingleFlight[ActiveTokens],
        wait: Callable[[SingleFlight[ActiveTokens]], ActiveTokens],
    ) -> ActiveTokens:
        epoch, began = self._known.epoch, self._clock.monotonic()
        try:
            return self._renewal.check_still_current(wait(flight), epoch)
        except TRANSIENT_ERRORS:
            if usable is None or usable.age(self._clock) >= usable.ages.expires_at:
                raise
            return self._renewal.check_still_current(usable, epoch)
        finally:
            self._hooks.tell(RequestWaited(self._known.version, seconds=self._clock.monotonic() - began))

    async def _await_for(self, usable: ActiveTokens | None, flight: SingleFlight[ActiveTokens]) -> ActiveTokens:
        epoch, began, outcome = self._known.epoch, self._clock.monotonic(), None
        try:
            outcome = await flight.wait_async(self._wait_timeout)
        except TRANSIENT_ERRORS:
            if usable is None or usable.age(self._clock) >= usable.ages.expires_at:
                raise
        finally:
            self._hooks.tell(RequestWaited(self._known.version, seconds=self._clock.monotonic() - began))
        return self._renewal.check_still_current(outcome or _require(usable), epoch)

    async def _aload(self) -> ActiveTokens:
        """``_load`` in a thread: a store may be slow, or far away."""
        flight, mine = self._known.load_flight(self._renewal.load, self._limit)
        if mine:
            flight.start()
        return await flight.wait_async(self._wait_timeout)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        """*work*, which blocks, done in a thread while an event loop goes on."""
        self._hooks.remember_loop()
        flight = SingleFlight(work, 2 * self._limit)
        flight.start()
        return await flight.wait_async()


def _rebuild(dialect: Dialect, store: TokenStore, settings: dict[str, Any]) -> Session:
    return Session(dialect, store, **settings)


def _require(live: ActiveTokens | None) -> ActiveTokens:
    if live is None:
        raise ConfigurationError("neither tokens nor a renewal: please report this as a bug")
    return live


def _to_token_response(tokens: TokenResponse | Tokens | Mapping[str, object], dialect: Dialect) -> TokenResponse:
    if isinstance(tokens, TokenResponse):
        return tokens
    if isinstance(tokens, Tokens):
        return TokenResponse(
            tokens.access_token,
            tokens.refresh_token,
            tokens.expires_in,
            tokens.refresh_expires_in,
            tokens.refresh_seq,
            tokens.scope,
            tokens.token_type,
            tokens.received_at or None,
        )
    return TokenResponse.from_response(tokens, dialect.tokens)
