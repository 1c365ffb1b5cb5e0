"""Spans and metrics of a session, as OpenTelemetry gets them."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import unbroken.otel
from tests.support.backend import Backend
from tests.support.lively_day import a_lively_day
from tests.support.waiting import until
from unbroken import RefreshWindow, TryLater
from unbroken.events import ClientEvent


def test_open_telemetry_gets_a_span_a_refresh(server: Backend) -> None:
    spans, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracers, meters = TracerProvider(), MeterProvider([reader])
    tracers.add_span_processor(SimpleSpanProcessor(spans))
    session = server.login(window=RefreshWindow(30.0, 3))
    unbroken.otel.observe(session, tracer_provider=tracers, meter_provider=meters)
    a_lively_day(server, session)
    until(lambda: len(spans.get_finished_spans()) == 3)
    first, _, third = (dict(span.attributes or {}) for span in spans.get_finished_spans())
    assert first == {"unbroken.reason": "challenge", "unbroken.tries": 1, "unbroken.outcome": "refreshed"}
    assert third["unbroken.outcome"] == "adopted"
    slow = spans.get_finished_spans()[0]
    assert (slow.end_time or 0) - (slow.start_time or 0) >= 0.2e9
    counted = {metric.name: _sum(metric) for metric in _metrics(reader)}
    assert counted["unbroken.client.refreshes"] == 3
    assert counted["unbroken.client.replays"] == 9
    assert counted["unbroken.client.refresh_storms"] == 1
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
