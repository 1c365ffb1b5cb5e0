"""The list of what was revoked, for services that verify tokens by themselves."""

from __future__ import annotations

import time

import pytest

from tests.support.faces import Wire, authorization

FEED = "/auth/revocations"


def test_the_revocation_list_has_what_was_revoked_since_the_cursor(wire: Wire) -> None:
    me = authorization(wire.login("operator", scope="introspect")["access_token"])
    before = wire.http.get(FEED, headers=me).json()
    token = wire.login()["access_token"]
    sid = wire.whoami(token).json()["sid"]
    assert wire.form("/auth/revoke", token=token).status_code == 200
    response = wire.http.get(FEED, params={"after": before["cursor"]}, headers=me)
    assert (response.status_code, response.headers["cache-control"]) == (200, "no-store")
    [entry] = [one for one in response.json()["revoked"] if one["sid"] == sid]
    assert 1700 < entry["until"] - time.time() < 1900
    cursor = response.json()["cursor"]
    assert sid not in {one["sid"] for one in wire.http.get(f"{FEED}?after={cursor}", headers=me).json()["revoked"]}
    assert sid in {one["sid"] for one in wire.http.get(f"{FEED}?after=0", headers=me).json()["revoked"]}


def test_the_revocation_list_needs_the_scope_introspect(wire: Wire) -> None:
    assert wire.http.get(FEED).status_code == 401
    response = wire.http.get(FEED, headers=authorization(wire.login(scope="read write")["access_token"]))
    assert (response.status_code, response.json()["error"]) == (403, "insufficient_scope")
    assert 'scope="introspect"' in response.headers["www-authenticate"]


@pytest.mark.parametrize("after", ["x", "-1", "1.5", "²", "9" * 19, "1" * 5000, "1&after=2", "%00"])
def test_a_cursor_that_was_never_issued_is_invalid_request(wire: Wire, after: str) -> None:
    me = authorization(wire.login("operator", scope="introspect")["access_token"])
    response = wire.http.get(f"{FEED}?after={after}", headers=me)
    assert (response.status_code, response.json()["error"]) == (400, "invalid_request")
