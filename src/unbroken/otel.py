"""Spans and metrics for OpenTelemetry: one span for each refresh, with its reason, its outcome and its tries.

observe(session)             # a client session; with the global providers, or with those that are passed
observe_sessions(sessions)   # the sessions of a server: metrics only

Spans are named ``unbroken.refresh``, metrics ``unbroken.client.…`` and ``unbroken.server.…``. No attribute holds a
secret, a user or a URL.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

try:
    from opentelemetry import metrics, trace
except ImportError as error:
    raise ImportError("unbroken.otel needs opentelemetry-api: pip install 'unbroken[otel]'") from error

from opentelemetry.trace import Status, StatusCode

from unbroken._arguments import checked, wrong_type
from unbroken.client.core import events
from unbroken.client.session import Session, require_session

if TYPE_CHECKING:  # a program that is only a client has not installed what the server needs
    from unbroken.server.sessions import Sessions

__all__ = ["observe", "observe_sessions"]

COUNTERS_BY_EVENT: dict[type[events.ClientEvent], str] = {
    events.RefreshJoined: "unbroken.client.joined_waiters",
    events.RequestReplayed: "unbroken.client.replays",
    events.RequestNotReplayed: "unbroken.client.not_replayed",
    events.LateChallenge: "unbroken.client.late_challenges",
    events.TokensAdopted: "unbroken.client.adoptions",
    events.LateTokensDiscarded: "unbroken.client.late_tokens_discarded",
    events.RefreshStormStopped: "unbroken.client.refresh_storms",
    events.SessionEnded: "unbroken.client.sessions_ended",
}


def observe(
    session: Session,
    *,
    tracer_provider: trace.TracerProvider | None = None,
    meter_provider: metrics.MeterProvider | None = None,
) -> None:
    """Report to OpenTelemetry what *session* does."""
    require_session(session, "observe")
    tracer = trace.get_tracer("unbroken", tracer_provider=tracer_provider)
    session.add_listener(_Instruments(tracer, _meter(meter_provider)).on_event)


@checked()
def observe_sessions(sessions: Sessions, *, meter_provider: metrics.MeterProvider | None = None) -> None:
    """Report to OpenTelemetry what a server does with *sessions*, and how long its store takes."""
    from unbroken.server.metrics import COUNTERS, count_drops, counted, time_store  # noqa: PLC0415  # see above
    from unbroken.server.sessions import Sessions  # noqa: PLC0415  # see above

    if not isinstance(sessions, Sessions):
        raise wrong_type("sessions", "a Sessions", sessions)
    meter = _meter(meter_provider)
    counters = {name: meter.create_counter(f"unbroken.server.{name}") for name in COUNTERS}
    seconds = meter.create_histogram("unbroken.server.store.duration", unit="s")

    def count(name: str, value: str) -> None:
        label = COUNTERS[name][1]
        counters[name].add(1, {f"unbroken.{label}": value} if label else {})

    def on_event(event: Any) -> None:
        for name, value in counted(event):
            count(name, value)

    def on_store_operation(operation: str, took: float, failed: bool) -> None:
        attributes = {"unbroken.operation": operation}
        seconds.record(took, attributes | ({"error.type": "store"} if failed else {}))

    count_drops(sessions.listeners, count)
    sessions.add_listener(on_event)
    time_store(sessions.store, on_store_operation)


def _meter(provider: metrics.MeterProvider | None) -> metrics.Meter:
    return metrics.get_meter("unbroken", meter_provider=provider)


class _Instruments:
    """The instruments of one session. The span of a refresh is made when the refresh is over."""

    def __init__(self, tracer: trace.Tracer, meter: metrics.Meter) -> None:
        self._tracer = tracer
        self._refreshes = meter.create_counter("unbroken.client.refreshes")
        self._seconds = meter.create_histogram("unbroken.client.refresh.duration", unit="s")
        self._waited = meter.create_histogram("unbroken.client.waiting.duration", unit="s")
        self._counters = {event: meter.create_counter(name) for event, name in COUNTERS_BY_EVENT.items()}
        self._attributes: dict[str, Any] = {}  # of the refresh under way; events of one session come one by one

    def on_event(self, event: events.ClientEvent) -> None:
        """Record *event*."""
        match event:
            case events.RefreshStarted():
                self._attributes = {"unbroken.reason": event.why}
            case events.TokensRefreshed():
                self._attributes["unbroken.tries"] = event.tries
            case events.RefreshFailed():
                self._attributes["error.type"] = event.error
            case events.RefreshFinished():
                self._record_refresh(event)
            case events.RequestWaited():
                self._waited.record(event.seconds)
        if counter := self._counters.get(type(event)):
            counter.add(1)

    def _record_refresh(self, event: events.RefreshFinished) -> None:
        outcome = {"unbroken.outcome": event.outcome}
        self._refreshes.add(1, outcome)
        self._seconds.record(event.seconds, outcome)
        ended = time.time_ns()
        began = ended - int(event.seconds * 1e9)
        span = self._tracer.start_span("unbroken.refresh", start_time=began, attributes=self._attributes | outcome)
        if event.outcome == "failed":
            span.set_status(Status(StatusCode.ERROR))
        span.end(ended)
        self._attributes = {}
