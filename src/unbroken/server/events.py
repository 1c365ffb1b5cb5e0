"""What the server tells about its sessions and logins: frozen values for ``on_event``. None of them holds a secret.

``kind`` is a stable word for programs: it names the event in logs and webhooks. A login that is refused has no subject
yet, and the name that was typed is not told, because people type passwords there: ``account`` stands for it, and is the
same word for the same name.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from typing import ClassVar

__all__ = [
    "Event",
    "EventLog",
    "LoggedIn",
    "LoginRefused",
    "LoginThrottled",
    "RefreshRefused",
    "Refreshed",
    "ReuseDetected",
    "SessionEnded",
]

_log = logging.getLogger("unbroken")


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a session, or on the way to one: then ``sid`` and ``subject`` are empty."""

    kind: ClassVar[str] = "event"
    sid: str
    subject: str

    def to_json(self) -> dict[str, object]:
        """What it tells, as a JSON object; ``kind`` is not in it."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class LoggedIn(Event):
    """A session began. ``new_device``: not within a year has this subject logged in from this client and device before,
    as the ``User-Agent`` names it.
    """

    kind: ClassVar[str] = "login.accepted"
    client_id: str = ""
    ip: str = ""
    user_agent: str = ""
    new_device: bool = False


@dataclass(frozen=True, slots=True)
class LoginRefused(Event):
    """A login was refused: ``why`` is ``password`` or ``code``, or the application's own word."""

    kind: ClassVar[str] = "login.refused"
    sid: str = ""
    subject: str = ""
    account: str = ""
    why: str = "password"
    ip: str = ""
    user_agent: str = ""


@dataclass(frozen=True, slots=True)
class LoginThrottled(Event):
    """A login came too soon after wrong ones. Told at most once a minute for one account at one address."""

    kind: ClassVar[str] = "login.throttled"
    sid: str = ""
    subject: str = ""
    account: str = ""
    retry_after: float = 0.0
    ip: str = ""
    user_agent: str = ""


@dataclass(frozen=True, slots=True)
class Refreshed(Event):
    """A refresh token was exchanged; ``verdict`` is that of ``rotation.present``, ``seq`` the newest generation."""

    kind: ClassVar[str] = "session.refreshed"
    verdict: str = "rotated"
    seq: int = 0


@dataclass(frozen=True, slots=True)
class RefreshRefused(Event):
    """A refresh token was refused; ``reason`` is that of ``InvalidGrant``. It may be anybody's: no session is named."""

    kind: ClassVar[str] = "session.refresh_refused"
    sid: str = ""
    subject: str = ""
    reason: str = "malformed"
    ip: str = ""
    user_agent: str = ""


@dataclass(frozen=True, slots=True)
class ReuseDetected(Event):
    """A refresh token came back that only a second holder can have: the session was ended, and should be looked at.

    ``evidence`` names the places; ``age_ms`` is how long ago the token before the newest was exchanged.
    """

    kind: ClassVar[str] = "session.reuse_detected"
    evidence: str = ""
    age_ms: int | None = None
    ip: str = ""
    user_agent: str = ""


@dataclass(frozen=True, slots=True)
class SessionEnded(Event):
    """A session was ended by a logout or a revocation, for the reason ``why``."""

    kind: ClassVar[str] = "session.ended"
    why: str = "revoked"


OnEvent = Callable[[Event], object]
WARNINGS = frozenset({LoginThrottled.kind, ReuseDetected.kind})
FREQUENT = frozenset({Refreshed.kind, RefreshRefused.kind})


class EventLog:
    """An ``on_event`` that writes records of ``logging``: the fields of the event stand in them as ``extra`` fields,
    beside ``event``, which is its kind.
    """

    def __init__(self, logger: logging.Logger | str = "unbroken.events") -> None:
        self._logger = logging.getLogger(logger) if isinstance(logger, str) else logger

    def __call__(self, event: Event) -> None:
        level = logging.WARNING if event.kind in WARNINGS else logging.INFO
        if event.kind in FREQUENT:
            level = logging.DEBUG
        if not self._logger.isEnabledFor(level):
            return
        extra = {"event": event.kind, **event.to_json()}
        self._logger.log(level, "%s%s", event.kind, f" sid={event.sid}" if event.sid else "", extra=extra)


class Listeners:
    """Those who are told. What one of them raises is logged, and keeps nothing from the others."""

    def __init__(self, listeners: Collection[OnEvent]) -> None:
        self._listeners = tuple(listeners)

    def __bool__(self) -> bool:
        return bool(self._listeners)

    def add(self, listener: OnEvent) -> None:
        """Tells *listener* too, from now on."""
        self._listeners += (listener,)

    def tell(self, event: Event) -> None:
        """Hands *event* over to all of them."""
        for listener in self._listeners:
            try:
                listener(event)
            except Exception:  # noqa: BLE001  # the application's code: whatever it raises is logged
                _log.exception("on_event failed")


def listeners_of(on_event: OnEvent | Collection[OnEvent] | None) -> Listeners:
    """Those that *on_event* names: none, one, or several."""
    if on_event is None:
        return Listeners(())
    return Listeners((on_event,) if callable(on_event) else on_event)
