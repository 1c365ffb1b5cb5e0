"""Health, on every face of the server: alive, and ready as long as the store answers."""

from __future__ import annotations

import pytest

from tests.wire.conftest import NO_STORE, Wire
from unbroken.errors import StoreUnavailable


def test_a_server_says_that_it_is_alive_and_ready(wire: Wire) -> None:
    for path in ("/auth/health", "/auth/health/ready"):
        answer = wire.http.get(path)
        assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
        assert NO_STORE.items() <= dict(answer.headers).items()
        assert wire.http.post(path).status_code == 405


def test_a_server_whose_store_is_away_is_alive_and_not_ready(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away() -> None:
        raise StoreUnavailable("db.internal does not answer")

    monkeypatch.setattr(wire.sessions.store, "health", away)
    assert wire.http.get("/auth/health").status_code == 200
    answer = wire.http.get("/auth/health/ready")
    assert (answer.status_code, answer.json()) == (503, {"status": "unavailable"})
