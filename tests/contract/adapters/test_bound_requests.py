"""Requests of bound sessions, on every adapter: a proof for each try, and one repetition for a nonce."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

import pytest
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.support.adapters import Client
from tests.support.bound_api import ALGORITHMS, BoundApi, bound_api, claims_of
from unbroken import ProofKey, Session
from unbroken._time import Clock
from unbroken.starlette import current_claims
from unbroken.testing import ManualClock

Connect = Callable[[Session], Client]


@pytest.fixture
def api() -> Iterator[BoundApi]:
    with bound_api() as made:
        yield made


@pytest.fixture
def strict() -> Iterator[BoundApi]:
    """A server that wants its nonce in each proof, and remembers each proof on all nodes."""
    with bound_api(require_nonce=True, replays="all") as made:
        yield made


def served(route: Route) -> AbstractContextManager[BoundApi]:
    """A server with one more route."""
    return bound_api(more=[route])


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_each_request_proves_the_key_for_its_method_url_and_token(api: BoundApi, connect: Connect, alg: Any) -> None:
    key = ProofKey.in_memory(alg)
    session = api.login(key)
    client = connect(session)
    for _ in range(3):
        response = client.request("POST", f"{api.url}/me?x=1&y=a%2Fb", content=b"hello")
        assert (response.status, response.json) == (200, {"sub": "ada", "jkt": key.thumbprint, "body": "hello"})
    [*_, last] = api.of("/me")
    assert last.authorization == f"DPoP {session.token()}"
    claims = claims_of(last.proof)
    assert (claims["htm"], claims["htu"]) == ("POST", f"{api.url}/me")
    assert api.all_proofs_differ()


def test_a_path_is_proven_as_it_is_sent(connect: Connect) -> None:
    async def name(request: Any) -> Any:
        return JSONResponse({"sub": current_claims(request).subject})

    with served(Route("/files/{name:path}", name)) as api:
        client = connect(api.login())
        for path in ("a%20b", "a%2Fb", "%C3%A9t%C3%A9", "a:b@c;d,e", "~x'(y)!*", "/"):
            assert client.request("GET", f"{api.url}/files/{path}").status == 200, path


def test_a_nonce_costs_one_repetition_and_is_no_challenge(strict: BoundApi, connect: Connect) -> None:
    events: list[str] = []
    session = strict.login(on_event=lambda event: events.append(event.kind))
    assert [one.path for one in strict.seen] == ["/auth/login"] * 2, "one repetition, with the nonce of the server"
    session._prover._known.clear()
    client, token = connect(session), session.token()
    assert client.request("POST", strict.url + "/me", content=b"once").json["body"] == "once"
    assert len(strict.of("/me")) == 2
    for _ in range(3):
        assert client.request("GET", strict.url + "/me").status == 200
    assert len(strict.of("/me")) == 5, "the nonce is known now"
    assert session.token() == token
    assert not strict.of("/auth/refresh")
    assert strict.all_proofs_differ()
    assert not [kind for kind in events if "refresh" in kind or "challenge" in kind]


def test_many_requests_at_once_learn_the_nonce(strict: BoundApi, connect: Connect, pool: ThreadPoolExecutor) -> None:
    session = strict.login()
    session._prover._known.clear()
    client = connect(session)
    found = list(pool.map(lambda _: client.request("GET", strict.url + "/me").status, range(20)))
    assert found == [200] * 20
    assert len(strict.of("/me")) <= 40
    assert strict.all_proofs_differ()


def test_a_body_that_can_be_sent_once_is_not_sent_twice_for_a_nonce(strict: BoundApi, connect: Connect) -> None:
    session = strict.login()
    session._prover._known.clear()
    client, url = connect(session), strict.url + "/me"
    response = client.request("POST", url, content=iter([b"once"]))
    assert response.status == 401
    assert response.why_not_replayed is not None
    assert response.why_not_replayed.refreshed, "to make it anew helps"
    assert "another proof" in str(response.why_not_replayed)
    assert [one.body for one in strict.of("/me")] == [b"once"]
    assert client.request("POST", url, content=iter([b"once more"])).json["body"] == "once more"
    assert not strict.of("/auth/refresh")


@pytest.mark.parametrize("connect", ["httpx2", "requests", "aiohttp"], indirect=True)
def test_a_file_is_sent_again_from_where_it_stood(strict: BoundApi, connect: Connect) -> None:
    session = strict.login()
    session._prover._known.clear()
    file = io.BytesIO(b"skipped and sent")
    file.seek(len(b"skipped "))
    assert connect(session).request("POST", strict.url + "/me", content=file).json["body"] == "and sent"


def test_a_challenge_is_refreshed_for_and_each_try_has_its_own_proof(strict: BoundApi, connect: Connect) -> None:
    session = strict.login()
    client, before = connect(session), session.token()
    strict.expire()
    assert client.request("POST", strict.url + "/me", content=b"again").json["body"] == "again"
    first, second = strict.of("/me")
    assert claims_of(first.proof)["ath"] != claims_of(second.proof)["ath"]
    assert session.token() != before
    assert len(strict.of("/auth/refresh")) == 1
    assert strict.all_proofs_differ()
    assert strict.alarms() == 0


def test_a_redirect_within_the_origin_is_proven_for_its_own_url(api: BoundApi, connect: Connect) -> None:
    client = connect(api.login())
    for status in (307, 303):
        response = client.request("POST", f"{api.url}/redirect?to=/me&status={status}", content=b"hello")
        assert (response.status, response.json["body"]) == (200, "hello" if status == 307 else "")
    for one in api.of("/me"):
        assert not one.proof or claims_of(one.proof)["htu"] in (f"{api.url}/me", f"{api.url}/redirect")
    assert claims_of(api.of("/me")[-1].proof)["htm"] == "GET"
    assert api.all_proofs_differ(), "no hop carries the proof of another"


def test_each_hop_of_a_redirect_is_proven_also_with_nonces(strict: BoundApi, connect: Connect) -> None:
    session = strict.login()
    session._prover._known.clear()
    hop = f"{strict.url}/redirect?to="
    response = connect(session).request("POST", f"{hop}/redirect?to=/me", content=b"hello")
    assert (response.status, response.json["body"]) == (200, "hello")
    assert strict.all_proofs_differ()
    assert not strict.of("/auth/refresh")


def test_neither_token_nor_proof_follows_a_redirect_to_another_origin(api: BoundApi, connect: Connect) -> None:
    with bound_api() as elsewhere:
        client = connect(api.login())
        assert client.request("GET", f"{api.url}/redirect?to={elsewhere.url}/open").status == 200
        [arrived] = elsewhere.seen
        assert (arrived.authorization, arrived.proof) == ("", "")


def test_each_origin_has_its_own_nonce(strict: BoundApi, connect: Connect) -> None:
    async def tell(request: Any) -> Any:
        return Response(b"", 200, {"dpop-nonce": "theirs"})

    with served(Route("/told", tell)) as other:
        client = connect(strict.login(origins=(other.url,)))
        for url in (other.url + "/told", strict.url + "/me") * 2:
            assert client.request("GET", url).status == 200
        assert [claims_of(one.proof).get("nonce") for one in other.seen] == [None, "theirs"]
        assert len(strict.of("/me")) == 2, "its nonce is still known"


@pytest.mark.parametrize("ahead", [-7200.0, -90.0, 3600.0], ids=["two hours behind", "90 s behind", "an hour ahead"])
def test_a_wrong_clock_is_learnt_from_the_server(api: BoundApi, connect: Connect, ahead: float) -> None:
    clock = Clock(lambda: time.time() + ahead, time.monotonic)
    session = api.login(clock=clock)
    assert len(api.of("/auth/login")) == 2, "one repetition"
    client = connect(session)
    assert [client.request("GET", api.url + "/me").status for _ in range(2)] == [200, 200]
    assert len(api.of("/me")) == 2
    session._prover._known.clear()
    assert client.request("POST", api.url + "/me", content=b"x").status == 200
    assert len(api.of("/me")) == 4, "a response of the API tells the time, too"
    assert len(api.of("/auth/refresh")) == 0


def test_a_session_of_a_server_that_binds_nothing_goes_on_as_bearer(connect: Connect) -> None:
    with bound_api(binding="off") as api:
        session = api.login()
        assert connect(session).request("GET", api.url + "/me").json == {"sub": "ada", "jkt": "", "body": ""}
        [arrived] = api.of("/me")
        assert (arrived.authorization, arrived.proof) == (f"Bearer {session.token()}", "")


def test_an_ageing_token_is_refreshed_with_a_proof(strict: BoundApi, connect: Connect, clock: ManualClock) -> None:
    session = strict.login(clock=clock)
    client, before = connect(session), session.token()
    clock.advance(1795)  # the server's clock stands, so the proof is from the future, until its nonce counts
    assert client.request("GET", strict.url + "/me").status == 200
    assert session.token() != before
    assert strict.all_proofs_differ()


def test_a_server_that_asks_for_ever_gets_one_repetition(connect: Connect) -> None:
    async def never(request: Any) -> Any:
        headers = {"www-authenticate": 'DPoP error="use_dpop_nonce"', "dpop-nonce": f"n{len(server.seen)}"}
        return Response(b"no", 401, headers)

    with served(Route("/never", never, methods=["POST"])) as server:
        response = connect(server.login()).request("POST", server.url + "/never", content=b"x")
        assert (response.status, response.body) == (401, b"no")
        assert [claims_of(one.proof).get("nonce") for one in server.of("/never")] == [None, "n2"]
        assert not server.of("/auth/refresh")
