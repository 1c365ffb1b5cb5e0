"""Metrics of a session, as Prometheus reads them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest
from prometheus_client import CollectorRegistry, generate_latest

import unbroken.prometheus
from tests.support.backend import Backend
from tests.support.waiting import until
from unbroken import MemoryStore, RefreshStorm, RefreshWindow, Session
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
