"""Metrics for Prometheus: of client sessions, and of a server's sessions.

observe(session)                       # a client session; in the default registry
observe(session, registry=registry)    # in another registry
observe_sessions(sessions)             # the sessions of a server

Every name begins with ``unbroken_client_`` or ``unbroken_server_``. No label holds a secret, a user or a URL. For a
server of several processes, prometheus_client adds up by its multiprocess mode (``PROMETHEUS_MULTIPROC_DIR``).
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

try:
    from prometheus_client import REGISTRY, Counter, Histogram
except ImportError as error:
    raise ImportError("unbroken.prometheus needs prometheus-client: pip install 'unbroken[prometheus]'") from error

from prometheus_client.registry import CollectorRegistry

from unbroken._arguments import checked, wrong_type
from unbroken.client.core import events
from unbroken.client.session import Session, require_session

if TYPE_CHECKING:  # a program that is only a client has not installed what the server needs
    from unbroken.server.core.events import ServerEvent
    from unbroken.server.sessions import Sessions

__all__ = ["observe", "observe_sessions"]

STORE_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
COUNTERS_BY_EVENT: dict[type[events.ClientEvent], tuple[str, str]] = {
    events.RefreshJoined: ("joined_waiters", "Requests that joined a refresh already under way"),
    events.RequestReplayed: ("replays", "Challenged requests that were sent again"),
    events.RequestNotReplayed: ("not_replayed", "Challenged requests whose body could be sent only once"),
    events.LateChallenge: ("late_challenges", "Challenges to older tokens, which needed no refresh"),
    events.TokensAdopted: ("adoptions", "Refreshes that found newer tokens in the store"),
    events.LateTokensDiscarded: ("late_tokens_discarded", "New tokens that arrived after a logout or another login"),
    events.RefreshStormStopped: ("refresh_storms", "Refreshes refused because there were too many in a short time"),
    events.SessionEnded: ("sessions_ended", "Sessions that the server ended"),
}


class _Metrics:
    """The client's metrics in one registry, created once for all observed sessions."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._refreshes = Counter(
            "unbroken_client_refreshes",
            "Refreshes by outcome: refreshed, adopted, failed or over",
            ["outcome"],
            registry=registry,
        )
        self._seconds = Histogram(
            "unbroken_client_refresh_seconds", "Duration of a refresh", buckets=BUCKETS, registry=registry
        )
        self._waited = Histogram(
            "unbroken_client_waiting_seconds",
            "Time that a request waited for a refresh",
            buckets=BUCKETS,
            registry=registry,
        )
        self._counters = {
            event: Counter(f"unbroken_client_{name}", text, registry=registry)
            for event, (name, text) in COUNTERS_BY_EVENT.items()
        }

    def on_event(self, event: events.ClientEvent) -> None:
        """Count *event*."""
        match event:
            case events.RefreshFinished():
                self._refreshes.labels(event.outcome).inc()
                self._seconds.observe(event.seconds)
            case events.RequestWaited():
                self._waited.observe(event.seconds)
            case _ if counter := self._counters.get(type(event)):
                counter.inc()


_metrics: weakref.WeakKeyDictionary[Any, _Metrics] = weakref.WeakKeyDictionary()  # by registry


def observe(session: Session, *, registry: CollectorRegistry = REGISTRY) -> None:
    """Count in *registry* what *session* does; several sessions add up."""
    require_session(session, "observe")
    metrics = _metrics.get(registry)
    if metrics is None:
        metrics = _metrics[registry] = _Metrics(registry)
    session.add_listener(metrics.on_event)


class _ServerMetrics:
    """The server's metrics in one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        from unbroken.server.metrics import COUNTERS, counted  # noqa: PLC0415  # see above

        self._counted = counted
        self._counters = {
            name: Counter(f"unbroken_server_{name}", text, [label] if label else [], registry=registry)
            for name, (text, label) in COUNTERS.items()
        }
        self._seconds = Histogram(
            "unbroken_server_store_seconds",
            "Duration of an operation of the store",
            ["operation"],
            buckets=STORE_BUCKETS,
            registry=registry,
        )
        self._failures = Counter(
            "unbroken_server_store_failures", "Operations of the store that failed", ["operation"], registry=registry
        )

    def on_event(self, event: ServerEvent) -> None:
        """Count *event*."""
        for name, label in self._counted(event):
            self.count(name, label)

    def count(self, name: str, label: str) -> None:
        """Add one to the counter *name*."""
        counter = self._counters[name]
        (counter.labels(label) if label else counter).inc()

    def on_store_operation(self, operation: str, seconds: float, failed: bool) -> None:
        """Count one *operation* of the store."""
        self._seconds.labels(operation).observe(seconds)
        if failed:
            self._failures.labels(operation).inc()


_server_metrics: weakref.WeakKeyDictionary[Any, _ServerMetrics] = weakref.WeakKeyDictionary()  # by registry


@checked()
def observe_sessions(sessions: Sessions, *, registry: CollectorRegistry = REGISTRY) -> None:
    """Count in *registry* what a server does with *sessions*, and time its store; several servers add up."""
    from unbroken.server.metrics import count_drops, time_store  # noqa: PLC0415  # see above
    from unbroken.server.sessions import Sessions  # noqa: PLC0415  # see above

    if not isinstance(sessions, Sessions):
        raise wrong_type("sessions", "a Sessions", sessions)

    metrics = _server_metrics.get(registry)
    if metrics is None:
        metrics = _server_metrics[registry] = _ServerMetrics(registry)
    count_drops(sessions.listeners, metrics.count)
    sessions.add_listener(metrics.on_event)
    time_store(sessions.store, metrics.on_store_operation)
