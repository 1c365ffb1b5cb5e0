"""Listeners: the callables of ``on_event``, and ``EventLog``, which is one."""

from __future__ import annotations

import logging
from collections.abc import Collection

from unbroken._arguments import checked_class
from unbroken.server.core.events import (
    EventListener,
    KeyNotProven,
    LoginRateLimited,
    RefreshRejected,
    ReuseDetected,
    ReuseSuspected,
    ServerEvent,
    SessionRefreshed,
)

__all__ = ["EventLog", "Listeners", "listeners_of"]

_log = logging.getLogger("unbroken")
WARNING_KINDS = frozenset({KeyNotProven.kind, LoginRateLimited.kind, ReuseDetected.kind, ReuseSuspected.kind})
DEBUG_KINDS = frozenset({SessionRefreshed.kind, RefreshRejected.kind})  # as frequent as requests


@checked_class()
class EventLog:
    """A listener that writes each event to a logger.

    The record has the event's fields as ``extra`` attributes, and its kind as ``event``. Reuse and rate limits are
    warnings, refreshes are debug messages, the others are information.
    """

    def __init__(self, logger: logging.Logger | str = "unbroken.events") -> None:
        self._logger = logging.getLogger(logger) if isinstance(logger, str) else logger

    def __call__(self, event: ServerEvent) -> None:
        level = logging.WARNING if event.kind in WARNING_KINDS else logging.INFO
        if event.kind in DEBUG_KINDS:
            level = logging.DEBUG
        if not self._logger.isEnabledFor(level):
            return
        extra = {"event": event.kind, **event.to_json()}
        self._logger.log(level, "%s%s", event.kind, f" sid={event.sid}" if event.sid else "", extra=extra)


class Listeners(list[EventListener]):
    """A list of listeners. What one of them raises is logged, and does not keep the event from the others."""

    def notify(self, event: ServerEvent) -> None:
        """Call all of them with *event*."""
        for listener in tuple(self):  # one that is added meanwhile hears the next event
            try:
                listener(event)
            except Exception:  # noqa: BLE001  # the application's code: whatever it raises is logged
                _log.exception("an event listener failed")


def listeners_of(on_event: EventListener | Collection[EventListener] | None) -> Listeners:
    """Return the listeners in *on_event*: none, one or several."""
    if on_event is None:
        return Listeners(())
    return Listeners((on_event,) if callable(on_event) else on_event)
