"""Session, the object of the client's users: it gives every request its tokens. ``session_logins.py`` has the logins.

1. The hot path compares two clocks: no lock, no store, no suspension.
2. A refresh runs in a thread of its own (``_single_flight.py``); callers of both styles wait for it, or do not.
3. Each method has two spellings with one signature, ``token`` and ``atoken``: the second never blocks an event loop.
4. Events and callbacks are delivered after all waiting requests have been woken (``hooks.py``).
5. Tokens are sent to the allowed origins only. The first request to any other is logged.
6. A session with a key proves it at each login, refresh and logout, and with each request whose token is bound to it.
"""

from __future__ import annotations

import logging
import os
import ssl
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from unbroken._arguments import checked, checked_class
from unbroken._concurrency import Closeable
from unbroken._http import DEFAULT_PORTS, Origin, Send
from unbroken._time import SYSTEM_CLOCK, Clock, Duration, to_seconds
from unbroken.client.core.body import Rewind
from unbroken.client.core.dialect import Dialect, allowed_origins
from unbroken.client.core.events import ClientEvent, RequestWaited
from unbroken.client.core.proof import PROOF_HEADER
from unbroken.client.core.request_flow import Effect, ProofWish, SentResponse, request_flow
from unbroken.client.core.schedule import TRANSIENT_ERRORS, ActiveTokens, Leeway, RefreshWindow
from unbroken.client.core.token_store import TokenStore
from unbroken.client.credentials import Credentials, to_credentials
from unbroken.client.hooks import EventDispatcher
from unbroken.client.port import BlockingPort, standard_sender
from unbroken.client.profiles import LogInAgain
from unbroken.client.proof_key import ProofKey
from unbroken.client.prover import Prover
from unbroken.client.refresh_coordinator import RefreshCoordinator, RefreshFlight, SessionState
from unbroken.client.session_arguments import check_settings, to_dialect, to_htu, to_store
from unbroken.client.session_logins import SessionLogins
from unbroken.errors import ConfigurationError, SessionOver
from unbroken.tokens import Tokens

__all__ = ["Session", "Status", "require_session"]

_log = logging.getLogger("unbroken")

MAX_LOGGED_ORIGINS = 100


@dataclass(frozen=True, slots=True)
class Status:
    """The state of a session. ``reason`` says why it is over; ``expires_in`` is in seconds, None if unknown."""

    state: Literal["good", "ageing", "expired", "over"]
    reason: str = ""
    expires_in: float | None = None
    refreshing: bool = False
    scope: str = ""
    version: int = 0


@checked_class(
    "newer_token", "anewer_token", "add_listener", "request_headers", "arequest_headers",
    own=("dialect", "store", "origins", "leeway", "window"),
)  # fmt: skip
class Session(SessionLogins, Closeable):
    """One login that does not break. Share one object between all threads, tasks and HTTP clients of a program.

    *dialect* says how the backend speaks; a URL is that of unbroken's own server. *store* keeps the tokens: a token
    store, or text that ``open_token_store`` understands, such as the path of a file; by default they are in memory.
    Tokens are sent to *origins* and to those of the dialect. *refresh_timeout* bounds one request of the library's own,
    *wait_timeout* how long a request waits for a refresh; both are seconds or a ``timedelta``. *leeway* says how long
    before it expires a token is refreshed. *window* limits refreshes that new tokens do not end (None: no limit).
    *credentials* log in when there are no tokens yet, and again where the server gives no refresh token. *send*
    replaces the HTTP sender, *tls* its TLS settings, *clock* the clock, for tests. Callbacks may be plain or async:
    *on_tokens_changed* gets new tokens, *on_session_over* the reason, *on_event* every event.

    *proof_key* binds the session to a key (RFC 9449), at a server that knows DPoP: a login proves it, and so does each
    request and refresh. With *require_bound*, tokens that the server has bound to no key are refused.

    ``close``, or a ``with`` block, waits for a refresh under way and closes the connections of the store.

    Raise ConfigurationError for a URL that is not https (loopback excepted, or ``allow_plain_http``), and for a value
    that cannot work.
    """

    def __init__(
        self,
        dialect: Dialect | str,
        store: TokenStore | str | os.PathLike[str] | None = None,
        *,
        origins: Iterable[str] = (),
        on_tokens_changed: Callable[[Tokens], object] | None = None,
        on_session_over: Callable[[str], object] | None = None,
        on_event: Callable[[ClientEvent], object] | None = None,
        leeway: Leeway = Leeway(),
        window: RefreshWindow | None = RefreshWindow(),
        credentials: Credentials | None = None,
        refresh_timeout: Duration = 10.0,
        wait_timeout: Duration = 60.0,
        send: Send | None = None,
        tls: ssl.SSLContext | None = None,
        clock: Clock = SYSTEM_CLOCK,
        allow_plain_http: bool = False,
        proof_key: ProofKey | None = None,
        require_bound: bool = False,
    ) -> None:
        self.dialect, self.store = to_dialect(dialect), to_store(store)
        check_settings(origins, leeway, window)
        credentials = to_credentials(credentials)
        if require_bound and proof_key is None:
            raise ConfigurationError("require_bound needs a key to bind to: proof_key=ProofKey.in_file(path)")
        request_seconds = to_seconds("refresh_timeout", refresh_timeout, above_zero=True)
        wait_seconds = to_seconds("wait_timeout", wait_timeout)
        self._settings: dict[str, Any] = {
            "origins": tuple(origins),
            "on_tokens_changed": on_tokens_changed,
            "on_session_over": on_session_over,
            "on_event": on_event,
            "leeway": leeway,
            "window": window,
            "credentials": credentials,
            "refresh_timeout": request_seconds,
            "wait_timeout": wait_seconds,
            "send": send,
            "tls": tls,
            "clock": clock,
            "allow_plain_http": allow_plain_http,
            "proof_key": proof_key,
            "require_bound": require_bound,
        }
        self.origins = allowed_origins(self.dialect, self._settings["origins"], allow_plain_http)
        self._logged_origins: set[Origin] = set()
        self._clock, self._wait_seconds = clock, wait_seconds
        self._limit = 4 * request_seconds + 5.0  # three tries, the pauses between them, and the store
        self._dispatcher = EventDispatcher(on_tokens_changed, on_session_over, on_event)  # rule 4
        self._state = SessionState(clock, leeway, window)
        self._prover = None if proof_key is None else Prover(proof_key, clock.wall, is_required=require_bound)
        self._port = BlockingPort(
            self.store,
            self.dialect,
            send or standard_sender(tls),
            clock,
            self._dispatcher.emit,
            refresh_timeout=request_seconds,
            lock_timeout=self._limit,
            prover=self._prover,
            credentials=credentials,
        )
        self._coordinator = RefreshCoordinator(
            self.store,
            self.dialect,
            clock,
            leeway,
            self._state,
            self._dispatcher,
            self._port,
            self._limit,
            self._prover,
        )

    def __reduce__(self) -> tuple[object, ...]:
        # A copy for another process: over the same store, never with tokens of its own.
        return (_rebuild, (self.dialect, self.store, self._settings))

    def __repr__(self) -> str:
        active = self._state.active
        return f"<unbroken.Session {self._state.over_reason if active is None else f'version={active.tokens.version}'}>"

    @classmethod
    @checked()
    def open(cls, name: str, **settings: Any) -> Session:
        """Return the session that `unbroken login URL --as NAME` has stored for this user.

        It shares tokens and lock with every command and program that uses the name. *settings* are those of a Session,
        without those that the login has decided: dialect, store, *origins*, *allow_plain_http*, and the key.

        Raise SessionOver, whose message has the command that logs in, if no one is logged in; InvalidRequest if there
        is no such name; ConfigurationError if the profile is damaged, or is not this user's alone.
        """
        from unbroken.client.profile_session import ProfileSession  # noqa: PLC0415  # it is a Session

        session = ProfileSession.of_name(name, settings)
        if (status := session.status).state == "over":
            raise LogInAgain(status.reason, session.profile)
        return session

    # ---- tokens ------------------------------------------------------------------------------------------------

    def token(self) -> str:
        """Return an access token that is good now, refreshed first if necessary. Raise SessionOver or TryLater."""
        return self._authorize().tokens.access_token

    def newer_token(self, rejected_token: str, endpoint: object = None) -> str:
        """Return an access token newer than *rejected_token*, which *endpoint* rejected; for other protocols than HTTP.

        Return the same token if the rejection is the endpoint's own affair. Raise SessionOver, TryLater or
        RefreshStorm.
        """
        active = self._authorize()
        if active.tokens.access_token == rejected_token:
            active = self._handle_challenge(active, endpoint) or active
        return active.tokens.access_token

    def request_headers(self, method: str, url: str, *, nonce: str = "") -> dict[str, str]:
        """Return the headers of one request to *url*, for an HTTP client without an adapter: a good access token.

        For a bound session a proof comes with it, which is good for this one request: call this again for the next try.
        *nonce* is what the server has asked for in ``DPoP-Nonce``. Raise SessionOver or TryLater, and InvalidRequest if
        *url* is not one of the session's origins.
        """
        htu = to_htu(method, url, self.origins)
        return self._headers_with(self._authorize(fresh=True), method, htu, nonce)

    def add_listener(self, listener: Callable[[ClientEvent], object]) -> None:
        """Call *listener* with every event from now on, besides ``on_event``."""
        self._dispatcher.add_listener(listener)

    @property
    def status(self) -> Status:
        """The state of the session as far as this process knows. Sends nothing; loads the store if it has not yet.

        Raise StoreUnavailable if it cannot.
        """
        try:
            active = self._state.active or self._coordinator.load()
        except SessionOver as over:
            return Status("over", over.reason, refreshing=self._state.is_refreshing)
        age, ages, tokens = active.age(self._clock), active.ages, active.tokens
        left = None if tokens.expires_in is None else max(ages.expires_at - age, 0.0)
        is_good, is_usable = age < ages.refresh_in_background_at, age < ages.expires_at
        state: Literal["good", "ageing", "expired"] = "good" if is_good else "ageing" if is_usable else "expired"
        return Status(state, "", left, self._state.is_refreshing, tokens.scope, tokens.version)

    def allows_origin(self, scheme: str, host: str, port: int | None) -> bool:
        """Return whether tokens may be sent to this origin (RFC 6454); *port* None is the default port of *scheme*."""
        return (scheme, host, port or (443 if scheme == "https" else 80)) in self.origins

    # ---- the same for event loops (rule 3) ---------------------------------------------------------------------

    async def atoken(self) -> str:
        """Return an access token as ``token`` does, without blocking."""
        return (await self._aauthorize()).tokens.access_token

    async def anewer_token(self, rejected_token: str, endpoint: object = None) -> str:
        """Return an access token as ``newer_token`` does, without blocking."""
        active = await self._aauthorize()
        if active.tokens.access_token == rejected_token:
            active = await self._ahandle_challenge(active, endpoint) or active
        return active.tokens.access_token

    async def arequest_headers(self, method: str, url: str, *, nonce: str = "") -> dict[str, str]:
        """Return headers as ``request_headers`` does, without blocking."""
        htu = to_htu(method, url, self.origins)
        return self._headers_with(await self._aauthorize(fresh=True), method, htu, nonce)

    # ---- the end -----------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Wait for a refresh under way, deliver its events, and close the connections of the store.

        A closed session can be used again: it opens new connections.
        """
        self._state.join_flights(self._limit)
        self._dispatcher.deliver()
        close = getattr(self.store, "close", None)
        if close is not None:
            close()

    async def aclose(self) -> None:
        """Close as ``close`` does, without blocking."""
        await self._in_thread(self.close)

    # ---- for adapters ------------------------------------------------------------------------------------------

    def _proof(self, tokens: ActiveTokens, method: str, htu: str) -> str:
        """Return a new proof for one try of a request with *tokens*, which are bound; *htu* as ``htu_of`` spells it."""
        return self._prover.proof(method, htu, tokens.ath) if self._prover else ""

    def _judge_proof(self, response: SentResponse) -> ProofWish:
        """Return whether *response* asks for another proof. Keep what it tells for the next one."""
        return self._prover.judge(response) if self._prover else ""

    def _request_flow(
        self,
        sent: ActiveTokens,
        status: int,
        rewind: Rewind | None,
        endpoint_of: Callable[[Any], object],
        request: Any,
    ) -> Generator[Effect, Any, None]:
        """Return the effects after the first response to *request*, which was sent with *sent* (``request_flow``)."""
        return request_flow(
            self.dialect,
            sent,
            status,
            rewind,
            endpoint_of,
            request,
            self._state.record_acceptance,
            self._dispatcher.emit_now,
        )

    def _attaches_to(self, scheme: str, host: str, port: int | None) -> bool:
        """Return whether requests to this origin get a token; log the first one that does not (rule 5)."""
        # Not by allows_origin: this is the hot path of every adapter.
        if (scheme, host, port or (443 if scheme == "https" else 80)) in self.origins:
            return True
        self._log_foreign_origin(scheme, host, port)
        return False

    def _log_foreign_origin(self, scheme: str, host: str, port: int | None) -> None:
        origin = Origin(scheme, host, port or DEFAULT_PORTS.get(scheme, 0))
        if origin in self._logged_origins or len(self._logged_origins) >= MAX_LOGGED_ORIGINS:
            return
        self._logged_origins.add(origin)
        own = ", ".join(sorted(map(str, self.origins)))
        _log.debug("no token sent: origin %s is not among the session's origins: %s", origin, own)

    def _authorize(self, *, fresh: bool = False) -> ActiveTokens:
        """Return the tokens for one request. *fresh*: not ageing ones, for a request that cannot be repeated."""
        active = self._state.active
        if active is not None and self._is_good(active):
            return active  # rule 1
        plan = self._coordinator.tokens_for_request(fresh, active or self._load())
        return self._wait_for(plan.usable, plan.flight, plan.patience) if plan.flight else _require(plan.usable)

    async def _aauthorize(self, *, fresh: bool = False) -> ActiveTokens:
        """Return what ``_authorize`` returns, without blocking."""
        active = self._state.active
        if active is not None and self._is_good(active):
            return active
        self._dispatcher.remember_loop()
        plan = self._coordinator.tokens_for_request(fresh, active or await self._aload())
        return await self._await_for(plan.usable, plan.flight, plan.patience) if plan.flight else _require(plan.usable)

    def _handle_challenge(self, sent: ActiveTokens, endpoint: object) -> ActiveTokens | None:
        """Return the tokens to send a challenged request again with; None to return its response as it is.

        Raise SessionOver, TryLater or RefreshStorm.
        """
        active = self._state.active or self._load()
        plan = self._coordinator.tokens_after_challenge(sent, endpoint, active)
        return self._wait_for(plan.usable, plan.flight, plan.patience) if plan.flight else plan.usable

    async def _ahandle_challenge(self, sent: ActiveTokens, endpoint: object) -> ActiveTokens | None:
        """Return what ``_handle_challenge`` returns, without blocking."""
        self._dispatcher.remember_loop()
        active = self._state.active or await self._aload()
        plan = self._coordinator.tokens_after_challenge(sent, endpoint, active)
        return await self._await_for(plan.usable, plan.flight, plan.patience) if plan.flight else plan.usable

    def _is_good(self, active: ActiveTokens) -> bool:
        return self._clock.monotonic() < active.refresh_at_monotonic and self._clock.wall() < active.refresh_at_wall

    # ---- waiting -----------------------------------------------------------------------------------------------

    def _wait_for(self, usable: ActiveTokens | None, flight: RefreshFlight, patience: float | None) -> ActiveTokens:
        """Wait for *flight*. If it fails and *usable* tokens have not expired, return those."""
        epoch, began, tokens = self._state.epoch, self._clock.monotonic(), usable
        try:
            tokens = flight.wait(self._patience(patience))
        except TRANSIENT_ERRORS:
            if usable is None or usable.age(self._clock) >= usable.ages.expires_at:
                raise
        finally:
            self._dispatcher.emit_now(RequestWaited(self._state.version, seconds=self._clock.monotonic() - began))
        return self._state.check_still_current(_require(tokens), epoch)

    async def _await_for(
        self, usable: ActiveTokens | None, flight: RefreshFlight, patience: float | None
    ) -> ActiveTokens:
        """Wait as ``_wait_for`` does, without blocking."""
        epoch, began, tokens = self._state.epoch, self._clock.monotonic(), usable
        try:
            tokens = await flight.wait_async(self._patience(patience))
        except TRANSIENT_ERRORS:
            if usable is None or usable.age(self._clock) >= usable.ages.expires_at:
                raise
        finally:
            self._dispatcher.emit_now(RequestWaited(self._state.version, seconds=self._clock.monotonic() - began))
        return self._state.check_still_current(_require(tokens), epoch)

    def _patience(self, seconds: float | None) -> float:
        return self._wait_seconds if seconds is None else min(seconds, self._wait_seconds)

    def _load(self) -> ActiveTokens:
        """Load the store; with credentials in one flight, because it may have to log in."""
        if not self._port.has_credentials:
            return self._coordinator.load()
        flight, is_new = self._state.load_flight(self._coordinator.load_or_begin, self._limit)
        if is_new:
            flight.start(self._dispatcher.deliver)
        return flight.wait(self._wait_seconds)

    async def _aload(self) -> ActiveTokens:
        """Load the store in a thread, because it may be slow or far away."""
        flight, is_new = self._state.load_flight(self._coordinator.load_or_begin, self._limit)
        if is_new:
            flight.start(self._dispatcher.deliver)
        return await flight.wait_async(self._wait_seconds)

    def _headers_with(self, active: ActiveTokens, method: str, htu: str, nonce: str) -> dict[str, str]:
        headers = {self.dialect.header: active.header}
        if active.ath and self._prover:
            headers[PROOF_HEADER] = self._prover.proof(method, htu, active.ath, nonce)
        return headers


def require_session(session: object, adapter: str) -> None:
    """Raise ConfigurationError, which says what to do, if *adapter* was given something else than a Session."""
    if not isinstance(session, Session):
        raise ConfigurationError(
            f"{adapter} takes a Session, not {type(session).__name__}: {adapter}(unbroken.Session(url))"
        )


def _rebuild(dialect: Dialect, store: TokenStore, settings: dict[str, Any]) -> Session:
    return Session(dialect, store, **settings)


def _require(active: ActiveTokens | None) -> ActiveTokens:
    if active is None:
        raise ConfigurationError("neither tokens nor a refresh: please report this as a bug")
    return active
