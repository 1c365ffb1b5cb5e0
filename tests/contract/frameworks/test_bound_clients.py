"""Our client at servers that demand proofs, in each framework: a bound session from its login to its logout."""

from __future__ import annotations

from collections.abc import Iterator

import httpx2
import pytest

from tests.support.faces import FACES, PASSWORD, authenticate
from unbroken import ConfigurationError, ProofKey, Session, SessionOver
from unbroken.httpx2 import SessionAuth
from unbroken.server import MemorySessionStore, ProofPolicy, Sessions

assert authenticate("ada", PASSWORD)


@pytest.fixture(params=[False, True], ids=["no nonces", "nonces"], scope="module")
def policy(request: pytest.FixtureRequest) -> ProofPolicy:
    return ProofPolicy("required", require_nonce=request.param)


@pytest.fixture(params=sorted(FACES), scope="module")
def url(request: pytest.FixtureRequest, policy: ProofPolicy) -> Iterator[str]:
    sessions = Sessions(MemorySessionStore(), proofs=policy)
    with FACES[request.param](sessions) as port:
        yield f"http://127.0.0.1:{port}"
    assert not [one for one in sessions.list_sessions(include_revoked=True) if one.revoked_why == "reuse"]


def test_a_bound_session_is_used_refreshed_and_ended(url: str) -> None:
    session = Session(url, proof_key=ProofKey.in_memory(), require_bound=True)
    session.login("ada", PASSWORD)
    with httpx2.Client(auth=SessionAuth(session), timeout=30) as client:
        for _ in range(3):
            assert client.get(url + "/auth/session?x=1").json()["sub"] == "ada"
            session.newer_token(session.token())
        headers = session.request_headers("GET", url + "/auth/session")
        bare = httpx2.get(url + "/auth/session", headers=headers, timeout=30)
        assert bare.status_code == 200 or "use_dpop_nonce" in bare.text
        assert session.logout()
        with pytest.raises(SessionOver):
            client.get(url + "/auth/session")


def test_a_session_without_a_key_is_told_so(url: str) -> None:
    with pytest.raises(ConfigurationError, match="proof_key"):
        Session(url).login("ada", PASSWORD)
