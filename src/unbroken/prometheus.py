"""Counters for Prometheus: what a session does, and what a server does with its sessions, told in numbers.

observe(session)                       # of the client; into the default registry
observe(session, registry=registry)    # into one's own
observe_sessions(sessions)             # of the server

Every name begins with ``unbroken_client_`` or ``unbroken_server_``. No label holds a secret, a user or a URL. Where a
server has several processes, prometheus_client adds them up by its multiprocess mode (``PROMETHEUS_MULTIPROC_DIR``).
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from prometheus_client import REGISTRY, Counter, Histogram
from prometheus_client.registry import CollectorRegistry

from unbroken.client.core import events
from unbroken.client.session import Session

if TYPE_CHECKING:  # whoever is a client only has not installed what a server needs
    from unbroken.server.core.events import ServerEvent
    from unbroken.server.sessions import Sessions

__all__ = ["observe", "observe_sessions"]

STORE_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
COUNTED: dict[type[events.ClientEvent], tuple[str, str]] = {
    events.RefreshJoined: ("joined_waiters", "Requests that waited for a renewal that was already under way"),
    events.RequestReplayed: ("replays", "Challenged requests that were sent again"),
    events.RequestNotReplayed: ("not_replayed", "Challenged requests whose body could be sent only once"),
    events.LateChallenge: ("late_challenges", "Challenges to older tokens, answered without an exchange"),
    events.TokensAdopted: ("adoptions", "Renewals that found newer tokens in the store"),
    events.LateTokensDiscarded: ("late_tokens_dropped", "Tokens that arrived after a logout or another login"),
    events.RefreshStormStopped: ("storms", "Renewals refused because there were too many in a short time"),
    events.SessionEnded: ("sessions_ended", "Sessions that the server ended"),
}


class _Metrics:
    """The metrics of one registry; made once, however many sessions are observed."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._exchanges = Counter(
            "unbroken_client_exchanges", "Refresh requests that brought tokens", registry=registry
        )
        self._renewals = Counter("unbroken_client_renewals", "Renewals by outcome", ["outcome"], registry=registry)
        self._seconds = Histogram(
            "unbroken_client_renewal_seconds", "How long a renewal took", buckets=BUCKETS, registry=registry
        )
        self._waited = Histogram(
            "unbroken_client_waiting_seconds", "How long requests waited for one", buckets=BUCKETS, registry=registry
        )
        self._counters = {
            kind: Counter(f"unbroken_client_{name}", about, registry=registry)
            for kind, (name, about) in COUNTED.items()
        }

    def hear(self, event: events.ClientEvent) -> None:
        match event:
            case events.RefreshFinished():
                self._renewals.labels(event.outcome).inc()
                self._seconds.observe(event.seconds)
                if event.outcome == "renewed":
                    self._exchanges.inc()
            case events.RequestWaited():
                self._waited.observe(event.seconds)
            case _ if counter := self._counters.get(type(event)):
                counter.inc()


_made: weakref.WeakKeyDictionary[Any, _Metrics] = weakref.WeakKeyDictionary()


def observe(session: Session, *, registry: CollectorRegistry = REGISTRY) -> None:
    """Counts what *session* does in *registry*; several sessions add up."""
    metrics = _made.get(registry)
    if metrics is None:
        metrics = _made[registry] = _Metrics(registry)
    session.add_listener(metrics.hear)


class _ServerMetrics:
    """The server's metrics of one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        from unbroken.server.metrics import COUNTERS, counted  # noqa: PLC0415  # see above

        self._counted = counted
        self._counters = {
            name: Counter(f"unbroken_server_{name}", about, [label] if label else [], registry=registry)
            for name, (about, label) in COUNTERS.items()
        }
        self._seconds = Histogram(
            "unbroken_server_store_seconds",
            "How long the store took for an operation",
            ["operation"],
            buckets=STORE_BUCKETS,
            registry=registry,
        )
        self._failures = Counter(
            "unbroken_server_store_failures", "Operations of the store that failed", ["operation"], registry=registry
        )

    def hear(self, event: ServerEvent) -> None:
        for name, label in self._counted(event):
            counter = self._counters[name]
            (counter.labels(label) if label else counter).inc()

    def time(self, operation: str, seconds: float, failed: bool) -> None:
        self._seconds.labels(operation).observe(seconds)
        if failed:
            self._failures.labels(operation).inc()


_server_made: weakref.WeakKeyDictionary[Any, _ServerMetrics] = weakref.WeakKeyDictionary()


def observe_sessions(sessions: Sessions, *, registry: CollectorRegistry = REGISTRY) -> None:
    """Counts what a server does with *sessions* in *registry*, and how long its store takes; several add up."""
    from unbroken.server.metrics import time_store  # noqa: PLC0415

    metrics = _server_made.get(registry)
    if metrics is None:
        metrics = _server_made[registry] = _ServerMetrics(registry)
    sessions.add_listener(metrics.hear)
    time_store(sessions.store, metrics.time)
