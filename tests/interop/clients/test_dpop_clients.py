"""Clients that prove a key (DPoP, RFC 9449), unmodified: a login, refreshes, requests, with nonces and without."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import requests
from requests_oauth2client import OAuth2Client
from starlette.applications import Starlette

from tests.interop.clients.conftest import AUDIENCE, CLIENT, authenticate, by_node, scopes_of
from tests.support.backend import PASSWORD, running
from unbroken.server import MemorySessionStore, ProofPolicy, Sessions
from unbroken.starlette import routes

PROGRAMS = ["dpop_oauth4webapi.mjs", "dpop_openid_client.mjs"]
ALGORITHMS = ["ES256", "Ed25519"]


@pytest.fixture(scope="module", params=[False, True], ids=["no nonces", "nonces"])
def bound(request: pytest.FixtureRequest) -> Iterator[Sessions]:
    """A server that demands proofs of the client, and takes a proof once on all nodes."""
    made = list[Any]()
    policy = ProofPolicy(clients={CLIENT: "required"}, require_nonce=request.param, replays="all")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await made[0](scope, receive, send)

    with running(app) as port:
        sessions = Sessions(MemorySessionStore(), issuer=f"http://127.0.0.1:{port}", audience=AUDIENCE, proofs=policy)
        made.append(Starlette(routes=routes(sessions, authenticate, password_grant=True, scopes_of=scopes_of)))
        yield sessions


@pytest.fixture
def server() -> None:
    """None of the other tests of this folder: ``bound`` is the server here."""


@pytest.fixture(autouse=True)
def _no_alarm(bound: Sessions) -> Iterator[None]:
    """No honest client ever looks like a thief."""
    yield
    assert not [info for info in bound.list_sessions(include_revoked=True) if info.revoked_why == "reuse"]


@pytest.mark.parametrize("alg", ALGORITHMS)
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_client_for_node_and_browsers_proves_its_key(bound: Sessions, program: str, alg: str) -> None:
    about = {"url": bound.issuer, "client_id": CLIENT, "username": "ada", "password": PASSWORD, "alg": alg}
    found = by_node(program, **about)
    assert found["algs"] == ["ES256", "Ed25519", "EdDSA"]
    assert [one["token_type"].lower() for one in found["tokens"]] == ["dpop"] * 5
    assert [one["refresh_seq"] for one in found["tokens"]] == [0, 1, 2, 3, 4]
    for claims in (found["claims"], *found["together"]):
        assert (claims["sub"], claims["cnf"]) == ("ada", {"jkt": found["jkt"]})
    assert found["stolen"] == {"error": "invalid_grant", "status": 400}
    assert found["bearer"] == 401
    assert found.get("repetitions", 1) <= 2, "one for each key"


@pytest.mark.parametrize("alg", ["ES256"])
def test_requests_oauth2client_proves_its_key(bound: Sessions, alg: str) -> None:
    client = OAuth2Client(
        bound.issuer + "/auth/token",
        client_id=CLIENT,
        revocation_endpoint=bound.issuer + "/auth/revoke",
        dpop_bound_access_tokens=True,
        dpop_alg=alg,
        testing=True,
    )
    token = client.resource_owner_password("ada", PASSWORD)
    for _ in range(3):
        token = client.refresh_token(token)
        about = requests.get(bound.issuer + "/auth/session?x=1", auth=token, timeout=10).json()
        assert (about["sub"], about["cnf"]) == ("ada", {"jkt": token.dpop_key.dpop_jkt})
    refused = requests.get(
        bound.issuer + "/auth/session", headers={"authorization": f"Bearer {token.access_token}"}, timeout=10
    )
    assert refused.status_code == 401
    form = {"grant_type": "refresh_token", "refresh_token": token.refresh_token, "client_id": CLIENT}
    stolen = requests.post(bound.issuer + "/auth/token", data=form, timeout=10)
    assert (stolen.status_code, stolen.json()["error"]) == (400, "invalid_dpop_proof")
    assert client.refresh_token(token).token_type.lower() == "dpop"
