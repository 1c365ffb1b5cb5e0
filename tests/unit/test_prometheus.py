"""Metrics of a session, as Prometheus reads them."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest

import unbroken.prometheus
from tests.support.backend import Backend
from tests.support.lively_day import a_lively_day
from tests.support.waiting import until
from unbroken import MemoryStore, RefreshWindow


def test_prometheus_counts_what_happened(server: Backend) -> None:
    registry = CollectorRegistry()
    session = server.login(store=MemoryStore(), window=RefreshWindow(30.0, 3))
    unbroken.prometheus.observe(session, registry=registry)
    a_lively_day(server, session)
    until(lambda: registry.get_sample_value("unbroken_client_refresh_seconds_count") == 3)

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"unbroken_client_{name}", labels)

    assert value("refreshes_total", outcome="refreshed") == 2
    assert value("refreshes_total", outcome="adopted") == value("adoptions_total") == 1
    assert value("joined_waiters_total") == 7
    assert value("waiting_seconds_count") == 10
    assert value("replays_total") == 9
    assert value("not_replayed_total") == value("late_challenges_total") == value("refresh_storms_total") == 1
    stored = session.store.load().tokens
    assert stored is not None
    assert stored.access_token.encode() not in generate_latest(registry)


def test_several_sessions_add_up_in_one_registry(server: Backend) -> None:
    registry = CollectorRegistry()
    for name in ("ada", "bob"):
        session = server.login(name)
        unbroken.prometheus.observe(session, registry=registry)
        server.expire()
        session.newer_token(session.token())
    until(lambda: registry.get_sample_value("unbroken_client_refreshes_total", {"outcome": "refreshed"}) == 2)
