"""Counters for Prometheus: what a session does, told in numbers.

observe(session)                       # into the default registry
observe(session, registry=registry)    # into one's own

Every name begins with ``unbroken_client_``. No label holds a secret, a user or a URL.
"""

from __future__ import annotations

import weakref
from typing import Any

from prometheus_client import REGISTRY, Counter, Histogram
from prometheus_client.registry import CollectorRegistry

from unbroken.client import events
from unbroken.client.session import Session

__all__ = ["observe"]

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
COUNTED: dict[type[events.Event], tuple[str, str]] = {
    events.Joined: ("joined_waiters", "Requests that waited for a renewal that was already under way"),
    events.Replayed: ("replays", "Challenged requests that were sent again"),
    events.NotReplayed: ("not_replayed", "Challenged requests whose body could be sent only once"),
    events.LateChallenge: ("late_challenges", "Challenges to older tokens, answered without an exchange"),
    events.Adopted: ("adoptions", "Renewals that found newer tokens in the store"),
    events.LateTokensDropped: ("late_tokens_dropped", "Tokens that arrived after a logout or another login"),
    events.StormStopped: ("storms", "Renewals refused because there were too many in a short time"),
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

    def hear(self, event: events.Event) -> None:
        match event:
            case events.RenewalOver():
                self._renewals.labels(event.outcome).inc()
                self._seconds.observe(event.seconds)
                if event.outcome == "renewed":
                    self._exchanges.inc()
            case events.Waited():
                self._waited.observe(event.seconds)
            case _ if counter := self._counters.get(type(event)):
                counter.inc()


_made: weakref.WeakKeyDictionary[Any, _Metrics] = weakref.WeakKeyDictionary()


def observe(session: Session, *, registry: CollectorRegistry = REGISTRY) -> None:
    """Counts what *session* does in *registry*; several sessions add up."""
    metrics = _made.get(registry)
    if metrics is None:
        metrics = _made[registry] = _Metrics(registry)
    session.listen(metrics.hear)
