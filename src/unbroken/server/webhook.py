"""Events for another server, as signed HTTP requests: the form of Standard Webhooks (https://www.standardwebhooks.com).

1. ``webhook-signature`` is ``v1,`` and the base64 of HMAC-SHA256 over ``ID.TIMESTAMP.BODY``. The id stays the same when
   a message is sent again, so that the receiver can drop repetitions; the timestamp is that of the sending.
2. No request waits for a webhook. One thread of its own sends; it begins with the first event, after any fork.
3. Any 2xx is taken for received. Everything else is tried again, later and later, and given up with a line in the log;
   meanwhile newer messages go on. What is waiting is lost when the process ends.
4. At most ``most`` messages wait: the oldest makes room, with one line in the log until there is room again.
5. https only, but for loopback; redirects are not followed: what is sent names users and addresses.
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
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime

from unbroken._fork import register_fork_aware
from unbroken._http import HttpRequest
from unbroken._origins import is_secure, origin_of
from unbroken._transport import NotSent, ResponseLost, http_sender
from unbroken.errors import ConfigurationError
from unbroken.server.core.events import (
    LoginFailed,
    LoginRateLimited,
    ReuseDetected,
    ServerEvent,
    SessionCreated,
    SessionRevoked,
)

__all__ = ["Webhook", "signature"]

_log = logging.getLogger("unbroken")
DELAYS = (1.0, 5.0, 30.0, 120.0, 600.0)  # seconds before a message is sent again
SECRET = "whsec_"  # how a secret begins, as the standard writes it
LEAST = 24  # bytes of a secret


@dataclass(slots=True, eq=False)
class _Message:
    """One event on its way. *due* is on the monotonic clock."""

    id: str
    body: bytes = field(repr=False)
    due: float
    tries: int = 0


class Webhook:
    """An ``on_event`` that posts to *url*, signed with *secret*: ``whsec_`` and base64, or a text of 24 bytes or more.

    *kinds* are the events to send; without it, all but refreshes. *timeout* is in seconds, for the whole
    request. Raises ConfigurationError for a URL that is not safe, and for a secret that is too short.
    """

    def __init__(
        self,
        url: str,
        secret: str,
        *,
        kinds: Collection[str] = (
            SessionCreated.kind,
            LoginFailed.kind,
            LoginRateLimited.kind,
            ReuseDetected.kind,
            SessionRevoked.kind,
        ),
        most: int = 1000,
        timeout: float = 10.0,
        delays: Collection[float] = DELAYS,
    ) -> None:
        self._url, self._host = url, _checked(url)
        self._key, self._kinds, self._most = _key(secret), frozenset(kinds), most
        self._timeout, self._delays = timeout, tuple(delays)
        self._send = http_sender(read_body=False)
        self._changed = threading.Condition()  # guards all below
        self._waiting: list[_Message] = []  # the oldest first
        self._thread: threading.Thread | None = None
        self._closed = self._is_full = False
        self._lost = 0  # since it was closed
        register_fork_aware(self)

    def __repr__(self) -> str:
        return f"<Webhook {self._host}>"

    def __call__(self, event: ServerEvent) -> None:
        """Takes note of *event*, and returns at once."""
        if event.kind not in self._kinds:
            return
        message = _Message(f"msg_{secrets.token_urlsafe(18)}", _body(event), time.monotonic())
        with self._changed:
            if self._closed:
                return
            self._make_room()
            self._waiting.append(message)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name=f"unbroken {self!r}", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def close(self, timeout: float = 5.0) -> bool:
        """Sends what waits, each message once, for at most *timeout* seconds; whether all of it arrived. It takes no
        events any more.
        """
        ends = time.monotonic() + timeout
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            thread = self._thread
        if thread:
            thread.join(max(ends - time.monotonic(), 0.0))
        with self._changed:
            left = len(self._waiting) + self._lost
            self._waiting.clear()  # of the thread, if it is still at it, this is the end too
        if left:
            _log.warning("%r was closed: %d messages did not arrive", self, left)
        return not left

    # ---- the thread ----------------------------------------------------------------------------------------------

    def reset_after_fork(self) -> None:
        """After a fork: the thread, and what waits for it, are the parent's."""
        self._changed = threading.Condition()
        self._waiting, self._thread, self._is_full = [], None, False

    def _make_room(self) -> None:
        if len(self._waiting) < self._most:
            self._is_full = False
            return
        del self._waiting[0]
        if not self._is_full:
            _log.warning("%r does not keep up: the oldest of %d messages are dropped", self, self._most)
        self._is_full = True

    def _work(self) -> None:
        while message := self._next():
            why = self._sent(message)
            with self._changed:
                if message not in self._waiting:
                    continue  # it was dropped meanwhile
                if why is None:
                    self._waiting.remove(message)
                else:
                    self._put_off(message, why)

    def _next(self) -> _Message | None:
        """The message to send now; None when there is nothing more to do."""
        with self._changed:
            while True:
                if self._closed:
                    return self._waiting[0] if self._waiting else None
                now = time.monotonic()
                first = min(self._waiting, key=lambda message: message.due, default=None)
                if first and first.due <= now:
                    return first
                self._changed.wait(first.due - now if first else None)

    def _put_off(self, message: _Message, why: str) -> None:
        message.tries += 1
        if not self._closed and message.tries <= len(self._delays):
            delay = self._delays[message.tries - 1]
            message.due = time.monotonic() + delay * random.uniform(0.8, 1.2)  # noqa: S311  # so that not all come at once
            return
        self._waiting.remove(message)
        self._lost += self._closed
        _log.warning("%r: message %s was given up after %d tries: %s", self, message.id, message.tries, why)

    def _sent(self, message: _Message) -> str | None:
        """Sends *message*; None if it was received, otherwise why not."""
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
            return f"no response from {self._host} ({error.reason})"
        return None if 200 <= status < 300 else f"{self._host} responded with {status}"


def signature(key: bytes, message_id: str, timestamp: str, body: bytes) -> str:
    """The ``webhook-signature`` of a message."""
    signed = hmac.digest(key, f"{message_id}.{timestamp}.".encode() + body, "sha256")
    return "v1," + b64encode(signed).decode()


def _body(event: ServerEvent) -> bytes:
    at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return json.dumps({"type": event.kind, "timestamp": at, "data": event.to_json()}, separators=(",", ":")).encode()


def _checked(url: str) -> str:
    """The host of *url*."""
    with contextlib.suppress(ConfigurationError):
        origin = origin_of(url)
        if is_secure(origin):
            return origin.host
    raise ConfigurationError(
        "the URL of a webhook begins with https:// (http:// on this machine), and holds no password"
    )


def _key(secret: str) -> bytes:
    """The bytes of *secret*, which is in base64 after ``whsec_``."""
    try:
        key = b64decode(secret.removeprefix(SECRET), validate=True) if secret.startswith(SECRET) else secret.encode()
    except ValueError:
        raise ConfigurationError("what follows whsec_ in the secret of a webhook is base64") from None
    if len(key) < LEAST:
        raise ConfigurationError(f"the secret of a webhook has at least {LEAST} bytes")
    return key
