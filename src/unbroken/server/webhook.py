"""Webhooks: events for another server, as signed HTTP requests (Standard Webhooks, https://www.standardwebhooks.com).

1. ``webhook-signature`` is ``v1,`` and the base64 of HMAC-SHA256 over ``ID.TIMESTAMP.BODY``. The id stays the same when
   a message is sent again, so that the receiver can drop duplicates; the timestamp is that of the sending.
2. No request waits for a webhook. A thread of its own sends; it starts with the first event, also in a forked child.
3. Any 2xx means received. After any other response, or none, the message is sent again after each of ``delays``, then
   dropped with a line in the log. A receiver that is down (no response, or one of ``DOWN_STATUSES``) gets nothing else
   meanwhile, so that the order stays. After any other response newer messages go on: it may be this message's fault.
4. What strangers can cause in any number (``STRANGERS_KINDS``) waits until nothing else does.
5. At most ``max_pending`` messages wait. A full queue drops what strangers can cause first, then logins from known
   devices, then the rest; the oldest of each first, with one line in the log until there is room again. A theft is
   not pushed out by wrong passwords.
6. What is not received is counted by its kind, and is in the log when the webhook is closed. Pending messages are lost
   when the process exits.
7. https only, except on loopback; redirects are not followed: a message names users and addresses.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import logging
import random
import secrets
import threading
import time
from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple

from unbroken._arguments import checked_class, did_you_mean, wrong_type
from unbroken._concurrency import register_fork_aware
from unbroken._http import HttpRequest, NotSent, ResponseLost, is_secure, origin_of
from unbroken._transport import http_sender
from unbroken.errors import ConfigurationError
from unbroken.server.core.events import (
    KeyNotProven,
    LoginFailed,
    LoginRateLimited,
    RefreshRejected,
    ReuseDetected,
    ReuseSuspected,
    ServerEvent,
    SessionCreated,
    SessionRefreshed,
    SessionRevoked,
)

__all__ = ["Webhook", "signature"]

_log = logging.getLogger("unbroken")
RETRY_DELAYS_SECONDS = (1.0, 5.0, 30.0, 120.0, 600.0)
SECRET_PREFIX = "whsec_"  # of a secret in base64, as the standard writes it
MIN_SECRET_BYTES = 24
DEFAULT_EVENTS = (
    SessionCreated.kind,
    LoginFailed.kind,
    LoginRateLimited.kind,
    ReuseDetected.kind,
    ReuseSuspected.kind,
    KeyNotProven.kind,
    SessionRevoked.kind,
)
DOWN_STATUSES = frozenset({429, 502, 503, 504})
STRANGERS_KINDS = frozenset({LoginFailed.kind, LoginRateLimited.kind, SessionRefreshed.kind, RefreshRejected.kind})
# The order in which a full queue drops messages, and nothing else: see rule 5.
STRANGERS, KNOWN_DEVICE, REST = range(3)
EVENT_KINDS = frozenset({*DEFAULT_EVENTS, SessionRefreshed.kind, RefreshRejected.kind})


@dataclass(slots=True, eq=False)
class _Message:
    """A pending event. *due* is on the monotonic clock."""

    id: str
    body: bytes = field(repr=False)
    due: float
    kind: str
    rank: int
    tries: int = 0


class _Failure(NamedTuple):
    """Why a message was not received, and whether the receiver is down rather than unwilling."""

    why: str
    is_down: bool


@checked_class("add_drop_listener", "close", own=("events",))
class Webhook:
    """A listener that posts events to *url*.

    *secret* signs them: ``whsec_`` and base64, or a text of at least 24 bytes. *events* are the kinds to send; by
    default all except refreshes, accepted and refused. At most *max_pending* messages wait. *timeout*, for the whole
    request, and *delays*, before each further try, are in seconds.

    Raises ConfigurationError for a URL that is not safe, a secret that is too short, and an unknown kind. ``close`` it
    to send what is pending.
    """

    def __init__(
        self,
        url: str,
        secret: str,
        *,
        events: Collection[str] = DEFAULT_EVENTS,
        max_pending: int = 1000,
        timeout: float = 10.0,
        delays: Collection[float] = RETRY_DELAYS_SECONDS,
    ) -> None:
        self._url, self._host = url, _checked(url)
        self._key, self._events, self._max_pending = _key(secret), _checked_events(events), max_pending
        self._timeout, self._retry_delays = timeout, tuple(delays)
        self._send = http_sender(read_body=False)
        self._changed = threading.Condition()  # guards all below
        self._pending: list[_Message] = []  # the oldest first
        self._down_until = 0.0  # on the monotonic clock (rule 3)
        self._thread: threading.Thread | None = None
        self._closed = self._is_full = False
        self._undelivered: Counter[str] = Counter()  # by kind, since it was closed
        self._drop_listeners: tuple[Callable[[str], object], ...] = ()
        register_fork_aware(self)

    def __repr__(self) -> str:
        return f"<Webhook {self._host}>"

    def __call__(self, event: ServerEvent) -> None:
        """Queue *event*, and return at once."""
        if event.kind not in self._events:
            return
        message = _Message(f"msg_{secrets.token_urlsafe(18)}", _body(event), time.monotonic(), event.kind, _rank(event))
        with self._changed:
            if self._closed:
                return
            self._pending.append(message)
            self._make_room()
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name=f"unbroken {self!r}", daemon=True)
                self._thread.start()  # rule 2
            self._changed.notify_all()

    def add_drop_listener(self, listener: Callable[[str], object]) -> None:
        """Call *listener* with the kind of each event that the receiver will not get."""
        self._drop_listeners += (listener,)

    def close(self, timeout: float = 5.0) -> bool:
        """Send each pending message once, for at most *timeout* seconds, and return whether all were received.

        Later events are ignored.
        """
        deadline = time.monotonic() + timeout
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            thread = self._thread
        if thread:
            thread.join(max(deadline - time.monotonic(), 0.0))
        with self._changed:
            for message in list(self._pending):  # which ends the thread too, if it still sends
                self._drop(message)
            undelivered = self._undelivered
        if undelivered:
            kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(undelivered.items()))
            _log.warning("%r was closed with %d undelivered messages: %s", self, undelivered.total(), kinds)
        return not undelivered

    # ---- the thread ----------------------------------------------------------------------------------------------

    def reset_after_fork(self) -> None:
        """Forget the thread and the pending messages, which are the parent's."""
        self._changed = threading.Condition()
        self._pending, self._thread, self._is_full, self._down_until = [], None, False, 0.0

    def _make_room(self) -> None:
        if len(self._pending) <= self._max_pending:
            self._is_full = False
            return
        self._drop(min(self._pending, key=lambda message: message.rank))  # of equals the oldest (rule 5)
        if not self._is_full:
            _log.warning("%r has %d pending messages: the oldest are dropped", self, self._max_pending)
        self._is_full = True

    def _drop(self, message: _Message) -> None:
        self._pending.remove(message)
        if self._closed:
            self._undelivered[message.kind] += 1
        for listener in self._drop_listeners:
            listener(message.kind)

    def _work(self) -> None:
        while message := self._next():
            failure = self._deliver(message)
            with self._changed:
                if message not in self._pending:
                    continue  # dropped meanwhile
                if failure is None:
                    self._pending.remove(message)
                else:
                    self._retry_later(message, failure)

    def _next(self) -> _Message | None:
        """Return the message to send next, once it is due; None when closed and nothing is pending."""
        with self._changed:
            while True:
                now = time.monotonic()
                due = [one for one in self._pending if self._closed or one.due <= now]
                if due and (self._closed or self._down_until <= now):
                    return min(due, key=lambda message: message.rank == STRANGERS)  # of equals the oldest (rule 4)
                if self._closed:
                    return None
                wakes = [one.due for one in self._pending if one.due > now or self._down_until > now]
                self._changed.wait(max(min(wakes), self._down_until) - now if wakes else None)

    def _retry_later(self, message: _Message, failure: _Failure) -> None:
        message.tries += 1
        if not self._closed and message.tries <= len(self._retry_delays):
            delay = self._retry_delays[message.tries - 1] * random.uniform(0.8, 1.2)  # noqa: S311  # jitter
            if failure.is_down:
                self._down_until = time.monotonic() + delay
            else:
                message.due = time.monotonic() + delay
            return
        self._drop(message)
        why = failure.why
        _log.warning("%r: message %s was dropped after %d tries: %s", self, message.id, message.tries, why)

    def _deliver(self, message: _Message) -> _Failure | None:
        """Send *message*. Return None if it was received."""
        now = str(int(time.time()))
        headers = {
            "content-type": "application/json",
            "webhook-id": message.id,
            "webhook-timestamp": now,
            "webhook-signature": signature(self._key, message.id, now, message.body),
        }
        try:
            status = self._send(HttpRequest("POST", self._url, headers, message.body), self._timeout).status
        except (NotSent, ResponseLost) as error:  # its message names the URL, whose path may be a secret
            return _Failure(f"no response from {self._host} ({error.reason})", is_down=True)
        if 200 <= status < 300:
            return None
        return _Failure(f"{self._host} responded with {status}", status in DOWN_STATUSES)


def signature(key: bytes, message_id: str, timestamp: str, body: bytes) -> str:
    """Return the ``webhook-signature`` of a message (rule 1)."""
    signed = hmac.digest(key, f"{message_id}.{timestamp}.".encode() + body, "sha256")
    return "v1," + b64encode(signed).decode()


def _rank(event: ServerEvent) -> int:
    """Return what a full queue drops before (rule 5)."""
    if event.kind in STRANGERS_KINDS:
        return STRANGERS
    return KNOWN_DEVICE if isinstance(event, SessionCreated) and not event.new_device else REST


def _body(event: ServerEvent) -> bytes:
    at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return json.dumps({"type": event.kind, "timestamp": at, "data": event.to_json()}, separators=(",", ":")).encode()


def _checked(url: str) -> str:
    """Return the host of *url*. Raise ConfigurationError for a URL that is not safe (rule 7)."""
    with contextlib.suppress(ConfigurationError):
        origin = origin_of(url)
        if is_secure(origin):
            return origin.host
    # It does not show the URL, whose path may be a secret.
    raise ConfigurationError(
        "the URL of a webhook must begin with https:// (http:// on loopback), be percent-encoded, and hold no password"
    )


def _key(secret: str) -> bytes:
    """Return the bytes of *secret*. Raise ConfigurationError for one that is too short, or not base64."""
    try:
        key = (
            b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
            if secret.startswith(SECRET_PREFIX)
            else secret.encode()
        )
    except ValueError:
        raise ConfigurationError("the secret of a webhook must be base64 after whsec_") from None
    if len(key) < MIN_SECRET_BYTES:
        raise ConfigurationError(f"the secret of a webhook must have at least {MIN_SECRET_BYTES} bytes")
    return key


def _checked_events(events: Collection[str]) -> frozenset[str]:
    """Return *events*. Raise ConfigurationError for an unknown kind."""
    if not isinstance(events, Collection) or isinstance(events, bytes):
        raise wrong_type("events", "a list of texts", events)
    if unknown := sorted(set(map(str, events)) - EVENT_KINDS):
        known = sorted(EVENT_KINDS)
        nearest = did_you_mean(unknown[0], known)
        raise ConfigurationError(f"a webhook knows no event {unknown[0]!r}: {nearest}use {', '.join(known)}")
    return frozenset(events)
