"""Whether a session was revoked, as a service learns it that only verifies tokens.

1. ``Introspection`` asks about each token (RFC 7662), ``Feed`` for all that was revoked lately. Both ask with a token
   of the service's own, whose scope must have the word ``introspect``.
2. When the server does not answer, nobody knows. What then happens has to be said: ``on_unavailable="reject"`` makes it
   TryLater, never InvalidToken, because nothing is wrong with the token; ``"accept"`` lets it pass, until it expires.
3. Only tokens that are genuine and have not expired are asked about: nobody else can cause a request.
"""

from __future__ import annotations

import logging
import ssl
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol
from urllib.parse import urlencode, urlsplit

from unbroken._bounded_cache import BoundedCache
from unbroken._clock import SYSTEM_CLOCK, Clock
from unbroken._fork import register_fork_aware
from unbroken._http import HttpRequest, HttpResponse, retry_after_seconds
from unbroken._origins import is_secure, origin_of
from unbroken._single_flight import SingleFlight
from unbroken._transport import NotSent, ResponseLost, Send, http_sender
from unbroken._verify.cached import CacheAges, RefreshingValue, pause, wait_for
from unbroken.client.session import Session
from unbroken.errors import ConfigurationError, InvalidToken, TryLater, UnbrokenError
from unbroken.server.keys.access_token import Claims

__all__ = ["Credential", "Introspection", "OnUnavailable", "RevocationCheck", "RevocationFeed", "answer_of", "checked"]

Credential = Session | Callable[[], str]
OnUnavailable = Literal["reject", "accept"]
MAX_CACHED_TOKENS = 10_000  # tokens that were asked about
AT_ONCE, IN_ALL = 16, 500  # requests under way, and tokens that wait for one
FEED_BYTES = 16 << 20
EVERY, WAITS, GAP = 0.5, 1.0, 30.0  # seconds
_log = logging.getLogger("unbroken")


class RevocationCheck(Protocol):
    """How a ``Verifier`` finds out that a session was revoked."""

    async def check(self, access_token: str, claims: Claims) -> None:
        """Raises InvalidToken, reason ``revoked``, if the session was revoked; TryLater if that cannot be found out."""


class Introspection:
    """Asks the server about each token (RFC 7662), and believes the answer for *cached* seconds.

    *credential*: the service's own Session, or a function that gives its access token. *on_unavailable*: what happens
    to a token while the server does not answer within *timeout* seconds: ``"reject"`` or ``"accept"``.
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
        self._ask = _AuthenticatedEndpoint(checked(url), credential, http_sender(tls), timeout)
        self._strict, self._cached, self._timeout, self._mono = (
            _strict(on_unavailable),
            cached,
            timeout,
            clock.monotonic,
        )
        self._known: BoundedCache[str, tuple[bool, float]] = BoundedCache(MAX_CACHED_TOKENS)
        self._failures, self._quiet_until = 0, float("-inf")
        self.reset_after_fork()
        register_fork_aware(self)

    def reset_after_fork(self) -> None:
        self._lock, self._turn = threading.Lock(), threading.BoundedSemaphore(AT_ONCE)
        self._flights: dict[str, SingleFlight[bool]] = {}
        self._known = BoundedCache(MAX_CACHED_TOKENS)

    async def check(self, access_token: str, claims: Claims) -> None:  # noqa: ARG002  # see ``Revocation``
        known = self._known.get(access_token)
        if known is None or self._mono() >= known[1]:
            try:
                active = await wait_for(self._flight(access_token), self._timeout + 1.0)
            except TryLater:
                if self._strict:
                    raise
                return
        else:
            active = known[0]
        if not active:
            raise _revoked()

    def _flight(self, token: str) -> SingleFlight[bool]:
        """The one who asks about *token*. Raises TryLater at once while the server is known not to answer."""
        with self._lock:
            flight = self._flights.get(token)
            if flight is not None:
                return flight
            if (left := self._quiet_until - self._mono()) > 0 or len(self._flights) >= IN_ALL:
                raise TryLater("whether the session was revoked cannot be found out now", retry_after=max(left, 1.0))
            flight = self._flights[token] = SingleFlight(lambda: self._look(token), 2 * self._timeout + 1.0)
        flight.start(lambda: self._flights.pop(token, None))
        return flight

    def _look(self, token: str) -> bool:
        with self._turn:
            begun = self._mono()
            body = urlencode({"token": token, "token_type_hint": "access_token"}).encode()
            try:
                active = _active(self._ask("POST", "", body))
            except TryLater as error:
                self._failed(error)
                raise
            if self._failures:
                _log.info("tokens can be introspected again")
            self._failures = 0
            self._known.put(token, (active, begun + self._cached))
            return active

    def _failed(self, error: TryLater) -> None:
        with self._lock:
            if self._mono() < self._quiet_until:
                return  # one of those that were under way already
            self._failures += 1
            self._quiet_until = self._mono() + pause(self._failures, error)
        if self._failures == 1:
            _log.warning("tokens cannot be introspected: %s", error)


def _active(answer: Mapping[str, object]) -> bool:
    active = answer.get("active")
    if not isinstance(active, bool):
        raise TryLater("the answer to an introspection does not say whether the token is active")
    return active


@dataclass(frozen=True, slots=True)
class _FeedState:
    """What the feed has told: up to which cursor, when, and the revoked sids with how long they matter."""

    cursor: int = 0
    asked_at: float = float("-inf")
    revoked: Mapping[str, float] = field(default_factory=dict)


class RevocationFeed:
    """Asks the server what was revoked since it was asked last: behind the requests, every half second at most.

    A revocation is known here within a second, or with the first request after a pause. *credential*: the service's own
    Session, or a function that gives its access token. *on_unavailable*: what happens to all tokens when the feed is
    lost, that is, without an answer for *lost_after* seconds: ``"reject"`` or ``"accept"``. *timeout*: for one request.
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
        self._ask, self._clock = (
            _AuthenticatedEndpoint(checked(url), credential, http_sender(tls, max_body_bytes=FEED_BYTES), timeout),
            clock,
        )
        strict = _strict(on_unavailable)
        self._ages = CacheAges(EVERY, WAITS, max(lost_after, WAITS) if strict else float("inf"))
        first = None if strict else _FeedState()
        self._kept = RefreshingValue("the list of revoked sessions", self._look, clock.monotonic, timeout, first)

    async def check(self, access_token: str, claims: Claims) -> None:  # noqa: ARG002  # see ``Revocation``
        if claims.sid in (await self._kept.now()).revoked:
            raise _revoked()

    def _look(self, last: _FeedState | None) -> tuple[_FeedState, CacheAges]:
        """After a gap all is asked for: the server may have been restored from a backup, and count from there."""
        last, mono = last or _FeedState(), self._clock.monotonic()
        after = last.cursor if mono - last.asked_at < GAP else 0
        cursor, fresh = _news(self._ask("GET", f"?after={after}"))
        if cursor < after:
            cursor, fresh = _news(self._ask("GET", "?after=0"))
        now = self._clock.wall() - GAP  # the server's clock may be a little behind
        known = last.revoked
        if any(until > known.get(sid, now) for sid, until in fresh) or any(until <= now for until in known.values()):
            joined = {**known, **{sid: max(until, known.get(sid, until)) for sid, until in fresh}}
            known = {sid: until for sid, until in joined.items() if until > now}
        return _FeedState(cursor, mono, known), self._ages


def _news(answer: Mapping[str, object]) -> tuple[int, list[tuple[str, float]]]:
    """The cursor, and what was revoked. Raises TryLater for anything else."""
    cursor, revoked = answer.get("cursor"), answer.get("revoked")
    no_list = TryLater("the answer is no list of revoked sessions")
    if isinstance(cursor, bool) or not isinstance(cursor, int) or not isinstance(revoked, list):
        raise no_list
    try:
        return cursor, [(str(one["sid"]), float(one["until"])) for one in revoked]
    except (TypeError, KeyError, ValueError):
        raise no_list from None


class _AuthenticatedEndpoint:
    """Asks *url* with the service's own token. Whatever goes wrong is TryLater, from its cause."""

    def __init__(self, url: str, credential: Credential, send: Send, timeout: float) -> None:
        self._url, self._credential, self._send, self._timeout = url, credential, send, timeout

    def __call__(self, method: str, query: str, body: bytes | None = None) -> Mapping[str, object]:
        token = self._token()
        reply = self._reply(method, query, body, token)
        if reply.status == 401 and isinstance(self._credential, Session):  # RFC 6750 §3
            reply = self._reply(method, query, body, self._token(token))
        answer = answer_of(reply, self._url)
        if not isinstance(answer, dict):
            raise TryLater(f"{self._url} did not answer with a JSON object")
        return answer

    def _reply(self, method: str, query: str, body: bytes | None, token: str) -> HttpResponse:
        headers = {"accept": "application/json", "authorization": f"Bearer {token}"}
        if body is not None:
            headers["content-type"] = "application/x-www-form-urlencoded"
        try:
            return self._send(HttpRequest(method, self._url + query, headers, body), self._timeout)
        except (NotSent, ResponseLost) as error:
            raise TryLater(str(error)) from error

    def _token(self, refused: str = "") -> str:
        """The service's own token; another one than *refused*."""
        try:
            if not isinstance(self._credential, Session):
                return self._credential()
            return self._credential.newer_token(refused, self._url) if refused else self._credential.token()
        except TryLater:
            raise
        except UnbrokenError as error:
            raise TryLater(f"the service's own session cannot be used: {error}") from error
        except Exception as error:
            _log.exception("the function that gives the service's own token failed")
            raise TryLater("the service has no token of its own now") from error


def answer_of(reply: HttpResponse, url: str) -> object:
    """The JSON of a good answer from *url*. Raises TryLater for any other; a redirect is one."""
    if reply.status != 200:  # RFC 9110 §15.3.1
        hint = ": redirects are not followed" if 300 <= reply.status < 400 else ""
        raise TryLater(f"{url} answered {reply.status}{hint}", retry_after=retry_after_seconds(reply))
    return reply.json()


def checked(url: str) -> str:
    """*url*, which is asked over https, or on this very machine. Raises ConfigurationError."""
    origin = origin_of(url)
    if not is_secure(origin):
        raise ConfigurationError(f"use https for {origin.host}: who can change its answers can forge tokens")
    if urlsplit(url).query or urlsplit(url).fragment:
        raise ConfigurationError(f"the URL at {origin.host} has a query or a fragment: leave it out")
    return url


def _strict(on_unavailable: str) -> bool:
    if on_unavailable not in ("reject", "accept"):
        raise ConfigurationError(f"on_unavailable must be 'reject' or 'accept', not {on_unavailable!r}")
    return on_unavailable == "reject"


def _revoked() -> InvalidToken:
    return InvalidToken("the access token was revoked", reason="revoked")
