"""How a service that only verifies tokens learns that a session was revoked.

1. ``Introspection`` asks about each token (RFC 7662), ``RevocationFeed`` for everything that was revoked lately. Both
   authenticate with a token of the service's own, which needs the scope ``introspect``.
2. When the server does not respond, the state of the session is unknown. The application has to choose what happens
   then: ``on_unavailable="reject"`` raises TryLater, never InvalidToken, because nothing is wrong with the token;
   ``"accept"`` lets the token pass, until it expires.
3. Only genuine tokens that have not expired are asked about, so that forged ones cause no requests.
"""

from __future__ import annotations

import logging
import ssl
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol
from urllib.parse import urlencode, urlsplit

from unbroken._arguments import checked_class
from unbroken._bounded_cache import BoundedCache
from unbroken._concurrency import register_fork_aware
from unbroken._http import (
    HttpRequest,
    HttpResponse,
    NotSent,
    ResponseLost,
    Send,
    is_secure,
    origin_of,
    retry_after_seconds,
)
from unbroken._single_flight import SingleFlight
from unbroken._time import SYSTEM_CLOCK, Clock
from unbroken._transport import http_sender
from unbroken._verify.cached import CacheAges, RefreshingValue, retry_delay, wait_for
from unbroken.client.session import Session
from unbroken.errors import ConfigurationError, InvalidToken, TryLater, UnbrokenError
from unbroken.server.keys.access_token import Claims
from unbroken.server.keys.strict_jwt import read_text, read_time

__all__ = [
    "Credential",
    "Introspection",
    "OnUnavailable",
    "RevocationCheck",
    "RevocationFeed",
    "checked_url",
    "json_of",
]

Credential = Session | Callable[[], str]
OnUnavailable = Literal["reject", "accept"]
MAX_CACHED_TOKENS = 10_000
MAX_CONCURRENT_REQUESTS = 16
MAX_PENDING_TOKENS = 500
MAX_FEED_BYTES = 16 << 20
FEED_POLL_SECONDS = 0.5
FEED_BLOCKING_SECONDS = 1.0  # a list of this age is refreshed before it is used
FEED_GAP_SECONDS = 30.0  # after such a gap the whole list is fetched: the server may have been restored from a backup
_log = logging.getLogger("unbroken")


class RevocationCheck(Protocol):
    """How a ``Verifier`` finds out that a session was revoked."""

    async def check(self, access_token: str, claims: Claims) -> None:
        """Raise InvalidToken, reason ``revoked``, if the session was revoked; TryLater if that cannot be found out."""


class _Verdict(NamedTuple):
    """What the server has said of a token, and when it must be asked again."""

    active: bool
    valid_until: float


@checked_class(own=("on_unavailable",))
class Introspection:
    """Asks the server about each token (RFC 7662), and caches the result for *cached* seconds.

    *credential*: the service's own ``Session``, or a function that returns its access token. *on_unavailable*: whether
    a token is rejected or accepted while the server does not respond within *timeout* seconds.
    Raises ConfigurationError for a URL that is not https (loopback excepted).
    """

    def __init__(
        self,
        url: str,
        credential: Credential,
        *,
        on_unavailable: OnUnavailable,
        cached: float = 5.0,
        timeout: float = 5.0,
        tls: ssl.SSLContext | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._endpoint = _AuthenticatedEndpoint(checked_url(url), credential, http_sender(tls), timeout)
        self._rejects = _rejects(on_unavailable)
        self._cache_seconds, self._timeout, self._monotonic = cached, timeout, clock.monotonic
        self._failures, self._no_request_until = 0, float("-inf")
        self.reset_after_fork()
        register_fork_aware(self)

    def reset_after_fork(self) -> None:
        """Replace what a forked child must not share with its parent."""
        self._lock, self._slots = threading.Lock(), threading.BoundedSemaphore(MAX_CONCURRENT_REQUESTS)
        self._flights: dict[str, SingleFlight[bool]] = {}
        self._verdicts: BoundedCache[str, _Verdict] = BoundedCache(MAX_CACHED_TOKENS)

    async def check(self, access_token: str, claims: Claims) -> None:  # noqa: ARG002  # see ``RevocationCheck``
        verdict = self._verdicts.get(access_token)
        if verdict is None or self._monotonic() >= verdict.valid_until:
            try:
                active = await wait_for(self._flight(access_token), self._timeout + 1.0)
            except TryLater:
                if self._rejects:  # rule 2
                    raise
                return
        else:
            active = verdict.active
        if not active:
            raise _revoked()

    def _flight(self, token: str) -> SingleFlight[bool]:
        """Return the one request about *token*. Raise TryLater at once while the server is known not to respond."""
        with self._lock:
            flight = self._flights.get(token)
            if flight is not None:
                return flight
            wait_seconds = self._no_request_until - self._monotonic()
            if wait_seconds > 0 or len(self._flights) >= MAX_PENDING_TOKENS:
                message = "whether the session was revoked cannot be found out now"
                raise TryLater(message, retry_after=max(wait_seconds, 1.0))
            flight = self._flights[token] = SingleFlight(lambda: self._ask(token), 2 * self._timeout + 1.0)
        flight.start(lambda: self._flights.pop(token, None))
        return flight

    def _ask(self, token: str) -> bool:
        with self._slots:
            asked_at = self._monotonic()
            body = urlencode({"token": token, "token_type_hint": "access_token"}).encode()
            try:
                active = _active(self._endpoint("POST", "", body))
            except TryLater as error:
                self._record_failure(error)
                raise
            if self._failures:
                _log.info("tokens can be introspected again")
            self._failures = 0
            self._verdicts.put(token, _Verdict(active, asked_at + self._cache_seconds))
            return active

    def _record_failure(self, error: TryLater) -> None:
        with self._lock:
            if self._monotonic() < self._no_request_until:
                return  # one of the requests that were under way when the first one failed
            self._failures += 1
            self._no_request_until = self._monotonic() + retry_delay(self._failures, error)
        if self._failures == 1:
            _log.warning("tokens cannot be introspected: %s", error)


def _active(response: Mapping[str, object]) -> bool:
    active = response.get("active")
    if not isinstance(active, bool):
        raise TryLater("the response to an introspection does not say whether the token is active")
    return active


@dataclass(frozen=True, slots=True)
class _FeedState:
    """What the feed has said: up to which cursor, when, and for each revoked sid until when it matters."""

    cursor: int = 0
    fetched_at: float = float("-inf")
    revoked: Mapping[str, float] = field(default_factory=dict)


class _FeedPage(NamedTuple):
    cursor: int
    revoked: list[tuple[str, float]]


@checked_class(own=("on_unavailable",))
class RevocationFeed:
    """Asks the server for new revocations in the background, every half second at most.

    A revocation is known here within a second, or with the first request after a pause. *credential*: the service's own
    ``Session``, or a function that returns its access token. *on_unavailable*: whether all tokens are rejected or
    accepted when the feed is lost, that is, without a response for *lost_after* seconds. *timeout*: for one request.
    Raises ConfigurationError for a URL that is not https (loopback excepted).
    """

    def __init__(
        self,
        url: str,
        credential: Credential,
        *,
        on_unavailable: OnUnavailable,
        lost_after: float = 10.0,
        timeout: float = 5.0,
        tls: ssl.SSLContext | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        send = http_sender(tls, max_body_bytes=MAX_FEED_BYTES)
        self._endpoint, self._clock = _AuthenticatedEndpoint(checked_url(url), credential, send, timeout), clock
        rejects = _rejects(on_unavailable)
        unusable = max(lost_after, FEED_BLOCKING_SECONDS) if rejects else float("inf")
        self._ages = CacheAges(FEED_POLL_SECONDS, FEED_BLOCKING_SECONDS, unusable)
        initial = None if rejects else _FeedState()
        self._state = RefreshingValue("the list of revoked sessions", self._fetch, clock.monotonic, timeout, initial)

    async def check(self, access_token: str, claims: Claims) -> None:  # noqa: ARG002  # see ``RevocationCheck``
        if claims.sid in (await self._state.get()).revoked:
            raise _revoked()

    def _fetch(self, last: _FeedState | None) -> tuple[_FeedState, CacheAges]:
        last, now = last or _FeedState(), self._clock.monotonic()
        after = last.cursor if now - last.fetched_at < FEED_GAP_SECONDS else 0
        cursor, added = _page(self._endpoint("GET", f"?after={after}"))
        if cursor < after:  # another store, or an older state of it
            cursor, added = _page(self._endpoint("GET", "?after=0"))
        return _FeedState(cursor, now, self._merged(last.revoked, added)), self._ages

    def _merged(self, revoked: Mapping[str, float], added: list[tuple[str, float]]) -> Mapping[str, float]:
        """Return *revoked* with *added*, without what no longer matters; *revoked* itself if nothing changes."""
        now = self._clock.wall() - FEED_GAP_SECONDS  # the server's clock may be a little behind
        is_new = any(until > revoked.get(sid, now) for sid, until in added)
        if not is_new and all(until > now for until in revoked.values()):
            return revoked
        merged = {**revoked, **{sid: max(until, revoked.get(sid, until)) for sid, until in added}}
        return {sid: until for sid, until in merged.items() if until > now}


def _page(response: Mapping[str, object]) -> _FeedPage:
    """Return the cursor and the revocations of *response*. Raise TryLater for anything else."""
    cursor, revoked = response.get("cursor"), response.get("revoked")
    not_a_list = TryLater("the response is not a list of revoked sessions")
    if isinstance(cursor, bool) or not isinstance(cursor, int) or not isinstance(revoked, list):
        raise not_a_list
    try:
        return _FeedPage(cursor, [(read_text(one["sid"]), read_time(one["until"])) for one in revoked])
    except (TypeError, KeyError, ValueError):
        raise not_a_list from None


class _AuthenticatedEndpoint:
    """Requests to *url* with the service's own token. Every failure is TryLater, raised from its cause."""

    def __init__(self, url: str, credential: Credential, send: Send, timeout: float) -> None:
        self._url, self._credential, self._send, self._timeout = url, credential, send, timeout

    def __call__(self, method: str, query: str, body: bytes | None = None) -> Mapping[str, object]:
        token = self._token()
        response = self._response(method, query, body, token)
        if response.status == 401 and isinstance(self._credential, Session):  # RFC 6750 §3
            response = self._response(method, query, body, self._token(token))
        content = json_of(response, self._url)
        if not isinstance(content, dict):
            raise TryLater(f"the response of {self._url} is not a JSON object")
        return content

    def _response(self, method: str, query: str, body: bytes | None, token: str) -> HttpResponse:
        headers = {"accept": "application/json", "authorization": f"Bearer {token}"}
        if body is not None:
            headers["content-type"] = "application/x-www-form-urlencoded"
        try:
            return self._send(HttpRequest(method, self._url + query, headers, body), self._timeout)
        except (NotSent, ResponseLost) as error:
            raise TryLater(str(error)) from error

    def _token(self, rejected: str = "") -> str:
        """Return the service's own token; with *rejected*, a newer one than this."""
        try:
            if not isinstance(self._credential, Session):
                return self._credential()
            return self._credential.newer_token(rejected, self._url) if rejected else self._credential.token()
        except TryLater:
            raise
        except UnbrokenError as error:
            raise TryLater(f"the service's own session cannot be used: {error}") from error
        except Exception as error:
            _log.exception("the function that returns the service's own token has raised an error")
            raise TryLater("the service has no token of its own now") from error


def json_of(response: HttpResponse, url: str) -> object:
    """Return the JSON of a 200 response from *url*. Raise TryLater for any other status, a redirect included."""
    if response.status != 200:
        hint = ": redirects are not followed" if 300 <= response.status < 400 else ""
        message = f"{url} responded with status {response.status}{hint}"
        raise TryLater(message, retry_after=retry_after_seconds(response))
    return response.json()


def checked_url(url: str) -> str:
    """Return *url*, if it is https or on loopback. Raise ConfigurationError."""
    origin = origin_of(url)
    if not is_secure(origin):
        raise ConfigurationError(f"use https for {origin.host}: an attacker on the network could forge tokens")
    if urlsplit(url).query or urlsplit(url).fragment:
        raise ConfigurationError(f"remove the query and the fragment from the URL at {origin.host}")
    return url


def _rejects(on_unavailable: str) -> bool:
    if on_unavailable not in ("reject", "accept"):
        raise ConfigurationError(f"on_unavailable must be 'reject' or 'accept', not {on_unavailable!r}")
    return on_unavailable == "reject"


def _revoked() -> InvalidToken:
    return InvalidToken("the access token was revoked", reason="revoked")
