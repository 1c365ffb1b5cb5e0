"""What a server tells Prometheus and OpenTelemetry: each event once, each operation of the store, and no secret."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client import CollectorRegistry, generate_latest

import unbroken.otel
import unbroken.prometheus
from unbroken.errors import InvalidGrant, StoreUnavailable
from unbroken.server import MemorySessionStore, Policy, Sessions, events
from unbroken.server.core.rotation import Verdict
from unbroken.server.http.health import HealthEndpoints
from unbroken.server.metrics import COUNTERS, LABEL_VALUES, OPERATIONS, counted, time_store
from unbroken.server.stores import SessionStore
from unbroken.server.stores.encrypted_keys import encrypted_keys, new_key


class Moody(MemorySessionStore):
    """A store that can be told to fail."""

    fails = False

    async def health(self) -> None:
        if self.fails:
            raise StoreUnavailable("it does not respond")


def a_day(sessions: Sessions) -> list[str]:
    """Two logins, three refreshes, a retry, a forged token, a theft, a logout; all tokens that there were."""
    ada, bob = sessions.create("ada"), sessions.create("bob")
    first = ada
    for attempt in ("a1", "a2", "a3"):
        ada = sessions.refresh(ada.refresh_token, idempotency_key=attempt)
    for text in ("rt_forged", first.refresh_token, ada.refresh_token):
        with pytest.raises(InvalidGrant):
            sessions.refresh(text)
    sessions.logout(refresh_token=bob.refresh_token)
    return [ada.refresh_token, ada.access_token, bob.refresh_token, bob.access_token, "ada", "bob"]


def lived(store: SessionStore) -> Sessions:
    return Sessions(store, policy=Policy(grace=0.0))


EXPECTED: dict[tuple[str, str], int] = {
    ("logins", ""): 2,
    ("refreshes", "rotated"): 3,
    ("refresh_refusals", "malformed"): 1,
    ("refresh_refusals", "reuse"): 2,
    ("reuse_detected", ""): 1,
    ("sessions_ended", "reuse"): 1,
    ("sessions_ended", "logged_out"): 1,
}
# Statements of R1: three rotate, one meets a reuse; the first of them is of a session that was not read yet. The last
# refresh is of a session that is known to have ended.
ROTATIONS = (3, 1)


@pytest.mark.parametrize("encrypted", [False, True])
def test_prometheus_counts_what_a_server_does(encrypted: bool) -> None:
    registry, moody = CollectorRegistry(), Moody()
    sessions = lived(encrypted_keys(moody, new_key()) if encrypted else moody)
    unbroken.prometheus.observe_sessions(sessions, registry=registry)
    secrets = a_day(sessions)
    for (name, value), count in EXPECTED.items():
        labels = {COUNTERS[name][1]: value} if value else {}
        assert registry.get_sample_value(f"unbroken_server_{name}_total", labels) == count, (name, value)
    times = [
        registry.get_sample_value("unbroken_server_store_seconds_count", {"operation": name})
        for name in ("rotate", "rotate_returning")
    ]
    assert tuple(times) == ROTATIONS
    assert registry.get_sample_value("unbroken_server_store_seconds_count", {"operation": "insert"}) == 2
    moody.fails = True
    with pytest.raises(StoreUnavailable):
        sessions.store.health().send(None)
    assert registry.get_sample_value("unbroken_server_store_failures_total", {"operation": "health"}) == 1
    told = generate_latest(registry).decode()
    assert [secret for secret in secrets if secret in told] == []


def test_several_servers_add_up_in_one_registry() -> None:
    registry = CollectorRegistry()
    for _ in range(2):
        sessions = lived(MemorySessionStore())
        unbroken.prometheus.observe_sessions(sessions, registry=registry)
        sessions.create("ada")
    assert registry.get_sample_value("unbroken_server_logins_total") == 2


def test_open_telemetry_counts_what_prometheus_counts() -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    sessions = lived(MemorySessionStore())
    unbroken.otel.observe_sessions(sessions, meter_provider=provider)
    secrets = a_day(sessions)
    data: Any = reader.get_metrics_data()
    metrics = {
        one.name: one for resource in data.resource_metrics for scope in resource.scope_metrics for one in scope.metrics
    }
    found = {
        (name.removeprefix("unbroken.server."), next(iter(dict(point.attributes).values()), "")): point.value
        for name, metric in metrics.items()
        if name != "unbroken.server.store.duration"
        for point in metric.data.data_points
    }
    assert found == EXPECTED
    times = {
        dict(point.attributes)["unbroken.operation"]: point.count
        for point in metrics["unbroken.server.store.duration"].data.data_points
    }
    assert (times["rotate"], times["rotate_returning"]) == ROTATIONS
    assert [secret for secret in secrets if secret in str(data)] == []
    provider.shutdown()


def test_every_event_is_counted_and_every_label_has_few_values() -> None:
    kinds = [kind for kind in vars(events).values() if isinstance(kind, type) and issubclass(kind, events.ServerEvent)]
    for kind in kinds:
        event = kind("sid", "subject")
        assert bool(counted(event)) is (kind is not events.ServerEvent), kind
    assert counted(events.SessionRevoked("s", "ada", "an application's own words")) == [("sessions_ended", "other")]
    assert counted(events.LoginFailed(why="ada is on holiday")) == [("login_refusals", "other")]
    made = {verdict.value for verdict in Verdict} - {"unproven", "dead", "reused"}  # which refuse
    assert made == LABEL_VALUES["verdict"]


def test_every_coroutine_of_a_store_but_its_end_is_timed() -> None:
    import inspect

    from unbroken.server.stores import SessionStore as Port

    named = {name for name, method in vars(Port).items() if inspect.iscoroutinefunction(method)}
    assert named - set(OPERATIONS) == {"aclose"}
    store, heard = MemorySessionStore(), []
    time_store(store, lambda name, seconds, failed: heard.append((name, seconds >= 0, failed)))
    anyio.run(store.keys)
    assert heard == [("keys", True, False)]


def test_asking_for_health_is_counted_as_an_operation_too() -> None:
    registry, sessions = CollectorRegistry(), Sessions(MemorySessionStore())
    unbroken.prometheus.observe_sessions(sessions, registry=registry)

    async def ready() -> int:
        return (await HealthEndpoints(sessions).routes[1].handler(Any, "")).status  # type: ignore[arg-type]

    assert anyio.run(ready) == 200
    assert registry.get_sample_value("unbroken_server_store_seconds_count", {"operation": "health"}) == 1
