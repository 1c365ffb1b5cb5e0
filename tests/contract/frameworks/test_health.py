"""Health, on every face of the server: alive, and ready as long as the store responds."""

from __future__ import annotations

import pytest

from tests.support.faces import NO_STORE, Wire
from unbroken.errors import StoreUnavailable


def test_the_health_checks_of_a_working_server_succeed(wire: Wire) -> None:
    for path in ("/auth/health", "/auth/health/ready"):
        response = wire.http.get(path)
        assert (response.status_code, response.json()) == (200, {"status": "ok"})
        assert NO_STORE.items() <= dict(response.headers).items()
        assert wire.http.post(path).status_code == 405


PUBLIC = ("/auth/health", "/auth/health/ready", "/.well-known/jwks.json", "/auth/unbroken.js")


@pytest.mark.parametrize("path", PUBLIC)
def test_a_probe_may_ask_by_head(wire: Wire, path: str) -> None:
    plain = {"accept-encoding": "identity"}  # a client reads what is compressed as longer than it was sent
    asked, got = wire.http.head(path, headers=plain), wire.http.get(path, headers=plain)
    assert (asked.status_code, asked.content) == (200, b"")
    for name in ("content-type", "content-length", "cache-control"):
        assert asked.headers[name] == got.headers[name]
    assert int(got.headers["content-length"]) == len(got.content)


def test_head_is_refused_as_get_is_and_where_there_is_no_get(wire: Wire) -> None:
    refused = wire.http.head("/auth/session")
    assert (refused.status_code, refused.content) == (401, b"")
    assert refused.headers["www-authenticate"].startswith("Bearer")
    assert wire.http.head("/auth/login").status_code == 405


def test_a_server_whose_store_is_away_is_alive_and_not_ready(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away() -> None:
        raise StoreUnavailable("db.internal does not respond")

    monkeypatch.setattr(wire.sessions.store, "health", away)
    assert wire.http.get("/auth/health").status_code == 200
    response = wire.http.get("/auth/health/ready")
    assert (response.status_code, response.json()) == (503, {"status": "unavailable"})
    assert 0 < int(response.headers["retry-after"]) <= 30
    asked = wire.http.head("/auth/health/ready")
    assert (asked.status_code, asked.content, asked.headers["retry-after"]) == (
        503,
        b"",
        response.headers["retry-after"],
    )
