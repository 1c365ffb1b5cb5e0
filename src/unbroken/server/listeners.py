"""Who is told of events: the functions of ``on_event``, and ``EventLog``, which is one of them."""

from __future__ import annotations

import logging
from collections.abc import Collection

from unbroken.server.core.events import (
    EventListener,
    LoginRateLimited,
    RefreshRejected,
    ReuseDetected,
    ServerEvent,
    SessionRefreshed,
)

__all__ = ["EventLog", "Listeners", "listeners_of"]

_log = logging.getLogger("unbroken")
WARNINGS = frozenset({LoginRateLimited.kind, ReuseDetected.kind})
FREQUENT = frozenset({SessionRefreshed.kind, RefreshRejected.kind})


class EventLog:
    """An ``on_event`` that writes records of ``logging``: the fields of the event stand in them as ``extra`` fields,
    beside ``event``, which is its kind.
    """

    def __init__(self, logger: logging.Logger | str = "unbroken.events") -> None:
        self._logger = logging.getLogger(logger) if isinstance(logger, str) else logger

    def __call__(self, event: ServerEvent) -> None:
        level = logging.WARNING if event.kind in WARNINGS else logging.INFO
        if event.kind in FREQUENT:
            level = logging.DEBUG
        if not self._logger.isEnabledFor(level):
            return
        extra = {"event": event.kind, **event.to_json()}
        self._logger.log(level, "%s%s", event.kind, f" sid={event.sid}" if event.sid else "", extra=extra)


class Listeners:
    """Those who are told. What one of them raises is logged, and keeps nothing from the others."""

    def __init__(self, listeners: Collection[EventListener]) -> None:
        self._listeners = tuple(listeners)

    def __bool__(self) -> bool:
        return bool(self._listeners)

    def add(self, listener: EventListener) -> None:
        """Tells *listener* too, from now on."""
        self._listeners += (listener,)

    def notify(self, event: ServerEvent) -> None:
        """Hands *event* over to all of them."""
        for listener in self._listeners:
            try:
                listener(event)
            except Exception:  # noqa: BLE001  # the application's code: whatever it raises is logged
                _log.exception("on_event failed")


def listeners_of(on_event: EventListener | Collection[EventListener] | None) -> Listeners:
    """Those that *on_event* names: none, one, or several."""
    if on_event is None:
        return Listeners(())
    return Listeners((on_event,) if callable(on_event) else on_event)
