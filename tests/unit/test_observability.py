"""What a session tells: events in their order, counters, spans; and never a secret."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry, generate_latest

import unbroken.otel
import unbroken.prometheus
from tests.support.backend import Backend
from unbroken import MemoryStore, RefreshStorm, RefreshWindow, Session, TryLater
from unbroken.client.core.events import ClientEvent
from unbroken.httpx2 import SessionAuth


def a_lively_day(server: Backend, session: Session) -> None:
    """Two exchanges, a sibling's renewal, waiters, replays, a failure and a storm."""
    with httpx2.Client(auth=SessionAuth(session), timeout=20) as client, ThreadPoolExecutor(8) as pool:
        server.expire()
        server.slow_next(0.2)
        assert set(pool.map(lambda _: client.get(server.url + "/echo").status_code, range(8))) == {200}
        server.expire()
        assert client.post(server.url + "/echo", content=iter([b"once"])).status_code == 401
        sent = session._authorize()
        server.expire()
        Session(server.url, session.store).newer_token(sent.tokens.access_token)
        assert client.get(server.url + "/echo").status_code == 200
        session._handle_challenge(sent, "a late one")
        server.expire()
        with pytest.raises(RefreshStorm):
            client.get(server.url + "/echo")


def until(condition: Callable[[], bool]) -> None:
    ends = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < ends, "it did not happen"
        time.sleep(0.01)


def test_prometheus_counts_what_happened(server: Backend) -> None:
    registry = CollectorRegistry()
    session = server.login(store=MemoryStore(), window=RefreshWindow(30.0, 3))
    unbroken.prometheus.observe(session, registry=registry)
    a_lively_day(server, session)
    until(lambda: registry.get_sample_value("unbroken_client_renewal_seconds_count") == 3)

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"unbroken_client_{name}", labels)

    assert value("exchanges_total") == 2
    assert value("renewals_total", outcome="renewed") == 2
    assert value("renewals_total", outcome="adopted") == value("adoptions_total") == 1
    assert value("joined_waiters_total") == 7
    assert value("waiting_seconds_count") == 10
    assert value("replays_total") == 9
    assert value("not_replayed_total") == value("late_challenges_total") == value("storms_total") == 1
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
    until(lambda: registry.get_sample_value("unbroken_client_exchanges_total") == 2)


def test_open_telemetry_gets_a_span_a_renewal(server: Backend) -> None:
    spans, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracers, meters = TracerProvider(), MeterProvider([reader])
    tracers.add_span_processor(SimpleSpanProcessor(spans))
    session = server.login(window=RefreshWindow(30.0, 3))
    unbroken.otel.observe(session, tracer_provider=tracers, meter_provider=meters)
    a_lively_day(server, session)
    until(lambda: len(spans.get_finished_spans()) == 3)
    first, _, third = (dict(span.attributes or {}) for span in spans.get_finished_spans())
    assert first == {"unbroken.reason": "challenge", "unbroken.tries": 1, "unbroken.outcome": "renewed"}
    assert third["unbroken.outcome"] == "adopted"
    slow = spans.get_finished_spans()[0]
    assert (slow.end_time or 0) - (slow.start_time or 0) >= 0.2e9
    counted = {metric.name: _sum(metric) for metric in _metrics(reader)}
    assert counted["unbroken.client.exchanges"] == 2
    assert counted["unbroken.client.replays"] == 9
    assert counted["unbroken.client.storms"] == 1
    tracers.shutdown()
    meters.shutdown()


def _metrics(reader: InMemoryMetricReader) -> list[Any]:
    data = reader.get_metrics_data()
    assert data is not None
    return [
        metric for resource in data.resource_metrics for scope in resource.scope_metrics for metric in scope.metrics
    ]


def _sum(metric: Any) -> float:
    return sum(getattr(point, "value", getattr(point, "count", 0)) for point in metric.data.data_points)


def test_a_failure_is_told_with_its_outcome(server: Backend) -> None:
    events: list[ClientEvent] = []
    session = server.login(on_event=events.append)
    server.expire()
    for _ in range(3):
        server.fail_next(500)
    with pytest.raises(TryLater):
        session.newer_token(session.token())
    until(lambda: any(getattr(event, "outcome", "") == "failed" for event in events))


def test_in_steady_use_nobody_waits_and_nobody_is_challenged() -> None:
    """Four tokens of two seconds, ten threads that never pause: each renewal runs behind the requests."""
    events: list[ClientEvent] = []
    with Backend(access_ttl=2.0) as server:
        session = server.login(on_event=events.append)
        statuses: list[int] = []
        with httpx2.Client(auth=SessionAuth(session), timeout=20) as client, ThreadPoolExecutor(10) as pool:

            def work(_: int) -> None:
                ends = time.monotonic() + 7.5
                while time.monotonic() < ends:
                    statuses.append(client.get(server.url + "/echo").status_code)
                    time.sleep(0.02)

            list(pool.map(work, range(10)))
        kinds = [type(event).__name__ for event in events]
        assert set(statuses) == {200}
        assert kinds.count("TokensRefreshed") == server.exchanges >= 4
        assert "Replayed" not in kinds, "no challenge was ever seen"
        assert "RequestWaited" not in kinds, "no request waited for an exchange"
