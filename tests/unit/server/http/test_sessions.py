"""The endpoints about sessions, as values. Over HTTP: tests/contract/frameworks."""

from __future__ import annotations

import pytest

from tests.support.logins import CaseSensitiveLogins
from unbroken._concurrency import run_sync
from unbroken.server.http.messages import Request

JSON = {"content-type": "application/json"}


@pytest.mark.parametrize("sid", ["", "\0", "a" * 65, "a/b", "\ud800", "..", "a\n"])
def test_a_malformed_sid_reaches_no_store(sid: str) -> None:
    logins = CaseSensitiveLogins()
    for route in logins.endpoints.routes:
        if "{sid}" in route.path:
            response = run_sync(
                logins.endpoints.respond(route, Request(route.method, "/auth/sessions/x", JSON, b"{}"), sid)
            )
            assert response.status == 404
