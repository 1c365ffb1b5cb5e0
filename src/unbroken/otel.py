"""Spans and metrics for OpenTelemetry: one span a renewal, with its reason, its outcome and its tries.

observe(session)             # of the client; with the global providers, or with one's own
observe_sessions(sessions)   # of the server: metrics only

Spans are named ``unbroken.renewal``, metrics ``unbroken.client.…`` and ``unbroken.server.…``. No attribute holds a
secret, a user or a URL.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from opentelemetry import metrics, trace
from opentelemetry.trace import Status, StatusCode

from unbroken.client.core import events
from unbroken.client.session import Session

if TYPE_CHECKING:  # whoever is a client only has not installed what a server needs
    from unbroken.server.sessions import Sessions

__all__ = ["observe", "observe_sessions"]

COUNTED: dict[type[events.ClientEvent], str] = {
    events.RefreshJoined: "unbroken.client.joined_waiters",
    events.RequestReplayed: "unbroken.client.replays",
    events.RequestNotReplayed: "unbroken.client.not_replayed",
    events.LateChallenge: "unbroken.client.late_challenges",
    events.TokensAdopted: "unbroken.client.adoptions",
    events.LateTokensDiscarded: "unbroken.client.late_tokens_dropped",
    events.RefreshStormStopped: "unbroken.client.storms",
    events.SessionEnded: "unbroken.client.sessions_ended",
}


def observe(
    session: Session,
    *,
    tracer_provider: trace.TracerProvider | None = None,
    meter_provider: metrics.MeterProvider | None = None,
) -> None:
    """Tells OpenTelemetry what *session* does."""
    session.add_listener(
        _Told(trace.get_tracer("unbroken", tracer_provider=tracer_provider), _meter(meter_provider)).hear
    )


def observe_sessions(sessions: Sessions, *, meter_provider: metrics.MeterProvider | None = None) -> None:
    """Tells OpenTelemetry what a server does with *sessions*, and how long its store takes."""
    from unbroken.server.metrics import COUNTERS, counted, time_store  # noqa: PLC0415  # see above

    meter = _meter(meter_provider)
    counters = {name: meter.create_counter(f"unbroken.server.{name}") for name in COUNTERS}
    seconds = meter.create_histogram("unbroken.server.store.duration", unit="s")

    def hear(event: Any) -> None:
        for name, value in counted(event):
            label = COUNTERS[name][1]
            counters[name].add(1, {f"unbroken.{label}": value} if label else {})

    def time(operation: str, took: float, failed: bool) -> None:
        about = {"unbroken.operation": operation}
        seconds.record(took, about | ({"error.type": "store"} if failed else {}))

    sessions.add_listener(hear)
    time_store(sessions.store, time)


def _meter(provider: metrics.MeterProvider | None) -> metrics.Meter:
    return metrics.get_meter("unbroken", meter_provider=provider)


class _Told:
    """Events into instruments. A renewal's span is made when it is over, with the time at which it began."""

    def __init__(self, tracer: trace.Tracer, meter: metrics.Meter) -> None:
        self._tracer = tracer
        self._seconds = meter.create_histogram("unbroken.client.refresh_coordinator.duration", unit="s")
        self._waited = meter.create_histogram("unbroken.client.waiting.duration", unit="s")
        self._exchanges = meter.create_counter("unbroken.client.exchanges")
        self._counters = {kind: meter.create_counter(name) for kind, name in COUNTED.items()}
        self._about: dict[str, Any] = {}  # of the renewal that is being told; they are told one after the other

    def hear(self, event: events.ClientEvent) -> None:
        match event:
            case events.RefreshStarted():
                self._about = {"unbroken.reason": event.why}
            case events.TokensRefreshed():
                self._about["unbroken.tries"] = event.tries
            case events.RefreshFailed():
                self._about["error.type"] = event.error
            case events.RefreshFinished():
                self._over(event)
            case events.RequestWaited():
                self._waited.record(event.seconds)
        if counter := self._counters.get(type(event)):
            counter.add(1)

    def _over(self, event: events.RefreshFinished) -> None:
        outcome = {"unbroken.outcome": event.outcome}
        self._seconds.record(event.seconds, outcome)
        if event.outcome == "renewed":
            self._exchanges.add(1)
        ended = time.time_ns()
        span = self._tracer.start_span(
            "unbroken.renewal", start_time=ended - int(event.seconds * 1e9), attributes=self._about | outcome
        )
        if event.outcome == "failed":
            span.set_status(Status(StatusCode.ERROR))
        span.end(ended)
        self._about = {}
