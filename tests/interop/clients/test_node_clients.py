"""Clients for Node.js and browsers, unmodified: discovery, refreshes one by one and at once, revocation."""

from __future__ import annotations

from typing import Any

import jwt
import pytest

from tests.interop.clients.conftest import AUDIENCE, CLIENT, METADATA, Server, by_node

CLIENTS = ["oauth4webapi.mjs", "openid_client.mjs", "oidc_client_ts.mjs"]
INTROSPECTS = CLIENTS[:2]


def told_by(server: Server, program: str) -> tuple[str, dict[str, Any]]:
    """The session, and what the program found out about it."""
    login, service = server.login(), server.login("service", "introspect")
    return server.sid(login["access_token"]), by_node(
        program,
        url=server.url,
        client_id=CLIENT,
        audience=AUDIENCE,
        metadata=METADATA,
        service_token=service["access_token"],
        **{name: login[name] for name in ("access_token", "refresh_token")},
    )


@pytest.mark.parametrize("program", CLIENTS)
def test_a_client_discovers_refreshes_and_revokes(server: Server, program: str) -> None:
    before = server.hits.copy()
    sid, found = told_by(server, program)
    responses = found["tokens"] + found["together"]
    assert len(responses) == 3 + 8
    for response in responses:
        claims = jwt.decode(response["access_token"], options={"verify_signature": False})
        assert (claims["sid"], claims["scope"], response["scope"]) == (sid, "read", "read")
        assert response["token_type"].lower() == "bearer"
        assert 1700 < response["expires_in"] <= 1800
    refresh_tokens = [response["refresh_token"] for response in found["tokens"]]
    assert len(set(refresh_tokens)) == 3, "the server rotates"
    assert {response["refresh_token"] for response in found["together"]}.isdisjoint(refresh_tokens)
    assert found["refused"]["error"] == "invalid_grant"
    assert found["refused"].get("status", 400) == 400, "not every client says it"
    assert server.hits[METADATA] - before[METADATA] == 1
    [info] = [info for info in server.sessions.list_sessions(include_revoked=True) if info.sid == sid]
    assert info.revoked_why == "logged_out"


@pytest.mark.parametrize("program", INTROSPECTS)
def test_a_client_introspects_with_the_token_of_a_service(server: Server, program: str) -> None:
    sid, found = told_by(server, program)
    assert found["active"].items() >= {"active": True, "sub": "ada", "sid": sid, "scope": "read"}.items()
    assert found["inactive"] == {"active": False}


def test_oauth4webapi_validates_an_access_token_as_rfc_9068_says(server: Server) -> None:
    sid, found = told_by(server, "oauth4webapi.mjs")
    assert found["claims"].items() >= {"iss": server.url, "aud": AUDIENCE, "sub": "ada", "sid": sid}.items()


def test_jose_verifies_an_access_token_by_our_published_keys(server: Server) -> None:
    login = server.login()
    found = by_node("jose.mjs", url=server.url, audience=AUDIENCE, access_token=login["access_token"])
    [key] = server.sessions.keyring().signing
    assert found["header"] == {"alg": key.alg, "kid": key.kid, "typ": "at+jwt"}
    assert (found["payload"]["sub"], found["payload"]["client_id"]) == ("ada", CLIENT)
