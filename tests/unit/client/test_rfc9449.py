"""Every MUST of RFC 9449 for a client, by its section; in the words of this project."""

from __future__ import annotations

import hashlib
import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from tests.support.bound_api import ALGORITHMS, claims_of, header_of
from tests.support.proofs import ath
from unbroken import (
    BadResponse,
    HttpRequest,
    HttpResponse,
    ProofKey,
    ResponseLost,
    Session,
    SessionOver,
    TryLater,
    oauth2,
)
from unbroken.httpx2 import SessionAuth
from unbroken.server.keys.proof_token import ProofReader
from unbroken.testing import ManualClock

URL = "https://as.example.org"
API = "https://api.example.org"
JSON = {"content-type": "application/json"}
Answer = Callable[[HttpRequest], HttpResponse | None]


class Server:
    """A token endpoint that keeps what it was sent. ``answers`` are given first, in order."""

    def __init__(self, token_type: str = "DPoP") -> None:
        self.token_type, self.sent, self.answers = token_type, list[HttpRequest](), list[Answer]()

    def __call__(self, request: HttpRequest, _: float) -> HttpResponse:
        self.sent.append(request)
        if self.answers and (answer := self.answers.pop(0)(request)):
            return answer
        number = len(self.sent)
        body = {"access_token": f"A{number}", "refresh_token": f"R{number}", "token_type": self.token_type}
        return HttpResponse(200, JSON, json.dumps(body | {"expires_in": 1800}).encode())

    @property
    def proofs(self) -> list[str]:
        return [request.headers.get("dpop", "") for request in self.sent]

    def refuse(self, error: str, status: int = 400, **headers: str) -> None:
        body = json.dumps({"error": error}).encode()
        self.answers.append(lambda _: HttpResponse(status, JSON | headers, body))


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def key() -> ProofKey:
    return ProofKey.in_memory()


@pytest.fixture
def session(server: Server, key: ProofKey) -> Session:
    return session_at(server, key)


def session_at(server: Server, key: ProofKey | None, **settings: Any) -> Session:
    dialect = oauth2(URL + "/token", client_id="app", revocation_endpoint=URL + "/revoke", origins=(API,))
    return Session(dialect, send=server, proof_key=key, **settings)


def claims(request: httpx2.Request) -> dict[str, Any]:
    return claims_of(request.headers["dpop"])


def nonce_challenge(nonce: str) -> httpx2.Response:
    return httpx2.Response(401, headers={"www-authenticate": 'DPoP error="use_dpop_nonce"', "dpop-nonce": nonce})


def api(session: Session, answer: Callable[[httpx2.Request], httpx2.Response]) -> httpx2.Client:
    return httpx2.Client(auth=SessionAuth(session), transport=httpx2.MockTransport(answer))


# ---- 4.1 and 4.2: the proof ------------------------------------------------------------------------------------------


def test_4_1_a_request_has_one_header_with_one_jwt(session: Session, server: Server) -> None:
    session.login("ada", "x")
    [proof] = server.proofs
    assert re.fullmatch(r"[\w-]+\.[\w-]+\.[\w-]+", proof)
    assert [name for name in server.sent[0].headers if name.lower() == "dpop"] == ["dpop"]


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_4_2_the_header_names_type_algorithm_and_public_key(alg: Any) -> None:
    server, key = Server(), ProofKey.in_memory(alg)
    session_at(server, key).login("ada", "x")
    header = header_of(server.proofs[0])
    assert (header["typ"], header["alg"], header["jwk"]) == ("dpop+jwt", alg, key.public_jwk)
    assert header.keys() == {"typ", "alg", "jwk"}


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_4_2_the_algorithm_is_asymmetric_and_the_signature_good(alg: Any) -> None:
    server, key = Server(), ProofKey.in_memory(alg)
    session_at(server, key).login("ada", "x")
    assert ProofReader().read(server.proofs[0]).jkt == key.thumbprint


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_4_2_the_header_has_no_private_key(alg: Any) -> None:
    key = ProofKey.in_memory(alg)
    assert not {"d", "p", "q", "dp", "dq", "qi", "k"} & key.public_jwk.keys()


def test_4_2_jti_is_unique_with_96_random_bits_or_more(session: Session, server: Server) -> None:
    for _ in range(50):
        session.login("ada", "x")
    ids = [claims_of(proof)["jti"] for proof in server.proofs]
    assert len(set(ids)) == 50
    assert min(len(urlsafe_b64decode(one + "==")) for one in ids) >= 12


def test_4_2_htm_htu_and_iat_are_those_of_the_request(session: Session, server: Server) -> None:
    session.login("ada", "x")
    found = claims_of(server.proofs[0])
    assert (found["htm"], found["htu"], type(found["iat"])) == ("POST", URL + "/token", int)


@pytest.mark.parametrize("url", ["/a?b=c", "/a?", "/a#d", "/a?b=c#d", ""])
def test_4_2_htu_has_neither_query_nor_fragment(session: Session, url: str) -> None:
    session.login("ada", "x")
    headers = session.request_headers("GET", API + url)
    assert claims_of(headers["DPoP"])["htu"] == API + (url.partition("?")[0].partition("#")[0] or "/")


def test_4_2_htu_has_the_host_as_it_is_sent(server: Server, key: ProofKey) -> None:
    session = session_at(server, key, origins=("https://bücher.example:8443",))
    session.login("ada", "x")
    headers = session.request_headers("GET", "https://bücher.example:8443/a?b")
    assert claims_of(headers["DPoP"])["htu"] == "https://xn--bcher-kva.example:8443/a"


def test_4_2_ath_is_the_hash_of_the_access_token(session: Session) -> None:
    session.login("ada", "x")
    assert claims_of(session.request_headers("GET", API)["DPoP"])["ath"] == ath("A1")


def test_4_2_a_token_request_has_no_ath(session: Session, server: Server) -> None:
    session.login("ada", "x")
    session.newer_token("A1")
    assert not any("ath" in claims_of(proof) for proof in server.proofs)


def test_4_2_a_nonce_that_was_given_is_in_the_proof(session: Session, server: Server) -> None:
    server.refuse("use_dpop_nonce", **{"dpop-nonce": "n-1"})
    session.login("ada", "x")
    assert [claims_of(proof).get("nonce") for proof in server.proofs] == [None, "n-1"]


# ---- 5: token requests -----------------------------------------------------------------------------------------------


def test_5_each_token_request_has_a_proof_of_one_key(session: Session, server: Server, key: ProofKey) -> None:
    session.login("ada", "x")
    session.newer_token("A1")
    session.logout()
    assert [request.url for request in server.sent] == [URL + "/token", URL + "/token", URL + "/revoke"]
    assert {ProofReader().read(proof).jkt for proof in server.proofs} == {key.thumbprint}


def test_5_a_refresh_that_is_repeated_has_a_new_proof_and_the_same_idempotency_key(
    session: Session, server: Server
) -> None:
    session.login("ada", "x")

    def lost(_: HttpRequest) -> HttpResponse:
        raise ResponseLost("the response was lost")

    server.answers = [lost]
    session.newer_token("A1")
    [_, first, second] = server.sent
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"]
    assert claims_of(first.headers["dpop"])["jti"] != claims_of(second.headers["dpop"])["jti"]


def test_5_the_token_type_says_whether_the_tokens_are_bound(key: ProofKey) -> None:
    for token_type, scheme in (("DPoP", "DPoP"), ("dpop", "DPoP"), ("Bearer", "Bearer")):
        session = session_at(Server(token_type), key)
        session.login("ada", "x")
        headers = session.request_headers("GET", API)
        assert headers["Authorization"].startswith(scheme + " ")
        assert ("DPoP" in headers) is (scheme == "DPoP")


def test_5_tokens_that_must_be_bound_and_are_not_are_discarded(key: ProofKey) -> None:
    server = Server("Bearer")
    session = session_at(server, key, require_bound=True)
    with pytest.raises(BadResponse, match="does not know DPoP"):
        session.login("ada", "x")
    assert session.status.state == "over"
    assert server.sent[-1].url == URL + "/revoke", "nor do they stay alive at the server"


def test_5_a_refresh_whose_tokens_must_be_bound_and_are_not_is_an_error(server: Server, key: ProofKey) -> None:
    session = session_at(server, key, require_bound=True)
    session.login("ada", "x")
    server.token_type = "Bearer"
    with pytest.raises(BadResponse):
        session.newer_token("A1")
    assert session.request_headers("GET", API)["Authorization"] == "DPoP A1", "no downgrade"


def test_5_a_refused_proof_does_not_end_the_session(session: Session, server: Server) -> None:
    session.login("ada", "x")
    for _ in range(3):
        server.refuse("invalid_dpop_proof")
    with pytest.raises(TryLater, match="invalid_dpop_proof"):
        session.newer_token("A1")
    assert session.token() == "A1"
    assert len(set(server.proofs)) == len(server.proofs) == 4


def test_5_another_key_is_a_clear_error_and_the_store_keeps_its_tokens(server: Server, key: ProofKey) -> None:
    over: list[str] = []
    session = session_at(server, key, on_session_over=over.append)
    session.login("ada", "x")
    body = json.dumps({"error": "invalid_grant", "reason": "wrong_key", "error_description": "bound to another"})
    server.answers = [lambda _: HttpResponse(400, JSON, body.encode())]
    with pytest.raises(SessionOver, match="another key") as caught:
        session.newer_token("A1")
    assert caught.value.reason == "wrong_key"
    assert session.store.load().tokens is not None
    with pytest.raises(SessionOver, match="another key"):
        session.token()
    assert len(server.sent) == 2, "a key that is wrong is not tried again and again"
    assert over == ["wrong_key"]


# ---- 6 and 7: requests to the API ------------------------------------------------------------------------------------


def test_7_1_the_scheme_is_dpop_and_the_proof_beside_it(session: Session) -> None:
    session.login("ada", "x")
    seen: list[httpx2.Request] = []
    with api(session, lambda request: seen.append(request) or httpx2.Response(200)) as client:  # type: ignore[func-returns-value]
        client.get(API + "/orders?x=1")
    [request] = seen
    assert request.headers["authorization"] == "DPoP A1"
    assert claims(request) | {"jti": "", "iat": 0} == {
        "jti": "",
        "htm": "GET",
        "htu": API + "/orders",
        "iat": 0,
        "ath": ath("A1"),
    }


def test_7_1_each_request_has_a_proof_of_its_own(session: Session) -> None:
    session.login("ada", "x")
    proofs: list[str] = []
    with api(session, lambda request: proofs.append(request.headers["dpop"]) or httpx2.Response(200)) as client:  # type: ignore[func-returns-value]
        for _ in range(10):
            client.get(API + "/orders")
    assert len({claims_of(proof)["jti"] for proof in proofs}) == 10


def test_7_1_a_proof_that_was_refused_is_no_reason_to_refresh(session: Session, server: Server) -> None:
    session.login("ada", "x")
    refusal = {"www-authenticate": 'DPoP error="invalid_dpop_proof"'}
    with api(session, lambda request: httpx2.Response(401, headers=refusal)) as client:
        assert client.get(API + "/orders").status_code == 401
    assert len(server.sent) == 1


@pytest.mark.parametrize("challenge", ['DPoP error="invalid_token"', 'Bearer error="invalid_token", DPoP algs="ES256"'])
def test_7_1_a_rejected_token_is_refreshed_for(session: Session, challenge: str) -> None:
    session.login("ada", "x")
    seen: list[str] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request.headers["authorization"])
        return httpx2.Response(200 if len(seen) > 1 else 401, headers={"www-authenticate": challenge})

    with api(session, answer) as client:
        assert client.get(API + "/orders").status_code == 200
    assert seen == ["DPoP A1", "DPoP A2"]


# ---- 8 and 9: nonces -------------------------------------------------------------------------------------------------


def test_8_a_nonce_is_answered_once_and_not_for_ever(session: Session, server: Server) -> None:
    for number in range(4):
        server.refuse("use_dpop_nonce", **{"dpop-nonce": f"n{number}"})
    with pytest.raises(Exception, match="use_dpop_nonce"):
        session.login("ada", "x")
    assert [claims_of(proof).get("nonce") for proof in server.proofs] == [None, "n0"]


def test_8_a_request_for_a_nonce_without_one_is_not_repeated(session: Session, server: Server) -> None:
    server.refuse("use_dpop_nonce")
    with pytest.raises(Exception, match="use_dpop_nonce"):
        session.login("ada", "x")
    assert len(server.sent) == 1


@pytest.mark.parametrize("nonce", ["", "a b", 'a"b', "a\\b", "ä", "x" * 2000])
def test_8_1_what_is_no_nonce_is_ignored(session: Session, server: Server, nonce: str) -> None:
    server.refuse("use_dpop_nonce", **{"dpop-nonce": nonce})
    with pytest.raises(Exception, match="use_dpop_nonce"):
        session.login("ada", "x")
    assert len(server.sent) == 1


def test_8_2_the_newest_nonce_is_the_one_that_is_used(session: Session, server: Server) -> None:
    session.login("ada", "x")
    tokens = json.dumps({"access_token": "B", "refresh_token": "S", "token_type": "DPoP"}).encode()
    server.answers = [lambda _: HttpResponse(200, JSON | {"dpop-nonce": "next"}, tokens)]
    session.newer_token("A1")
    session.newer_token("B")
    assert [claims_of(proof).get("nonce") for proof in server.proofs] == [None, None, "next"]


def test_8_and_9_each_server_has_nonces_of_its_own(session: Session, server: Server) -> None:
    server.refuse("use_dpop_nonce", **{"dpop-nonce": "of-the-as"})
    session.login("ada", "x")
    seen: list[Any] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(claims(request).get("nonce"))
        return nonce_challenge("of-the-rs") if len(seen) == 1 else httpx2.Response(200)

    with api(session, answer) as client:
        client.get(API + "/orders")
    session.newer_token("A2")
    assert seen == [None, "of-the-rs"]
    assert claims_of(server.proofs[-1])["nonce"] == "of-the-as"


def test_9_a_nonce_of_the_api_is_no_challenge_of_the_token(session: Session, server: Server) -> None:
    session.login("ada", "x")
    answers = iter([nonce_challenge("n"), httpx2.Response(200, headers={"dpop-nonce": "m"}), httpx2.Response(200)])
    seen: list[Any] = []
    with api(session, lambda request: seen.append(claims(request).get("nonce")) or next(answers)) as client:  # type: ignore[func-returns-value]
        assert [client.post(API + "/orders", content=b"x").status_code for _ in range(2)] == [200, 200]
    assert seen == [None, "n", "m"]
    assert len(server.sent) == 1


def test_9_a_nonce_and_a_rejected_token_in_one_request(session: Session) -> None:
    session.login("ada", "x")
    rejected = {"www-authenticate": 'DPoP error="invalid_token"', "dpop-nonce": "m"}
    answers = iter([nonce_challenge("n"), httpx2.Response(401, headers=rejected), nonce_challenge("o")])
    seen: list[Any] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append((request.headers["authorization"], claims(request).get("nonce")))
        return next(answers, httpx2.Response(200))

    with api(session, answer) as client:
        assert client.post(API + "/orders", content=b"x").status_code == 200
    assert seen == [("DPoP A1", None), ("DPoP A1", "n"), ("DPoP A2", "m"), ("DPoP A2", "o")]


# ---- 10 and 11 -------------------------------------------------------------------------------------------------------


def test_10_an_authorization_request_names_the_key(server: Server, key: ProofKey) -> None:
    dialect = oauth2(URL + "/token", client_id="app", authorization_endpoint=URL + "/authorize", origins=(API,))
    session, shown = Session(dialect, send=server, proof_key=key), list[str]()
    with pytest.raises(TryLater):
        session.login_in_browser(open_url=lambda _: None, show=shown.append, timeout=0.05)
    canonical = json.dumps(key.public_jwk, sort_keys=True, separators=(",", ":")).encode()
    jkt = urlsafe_b64encode(hashlib.sha256(canonical).digest()).decode().rstrip("=")
    assert f"dpop_jkt={jkt}" in shown[0]
    assert jkt == key.thumbprint


def test_11_1_the_time_of_a_proof_is_that_of_the_request(server: Server, key: ProofKey) -> None:
    clock = ManualClock()
    session = session_at(server, key, clock=clock)
    session.login("ada", "x")
    clock.advance(100)
    session.newer_token("A1")
    first, second = (claims_of(proof)["iat"] for proof in server.proofs)
    assert second - first == 100
    assert abs(first - clock.wall() + 100) <= 1


def test_11_7_errors_repeat_no_token(session: Session, server: Server) -> None:
    session.login("ada", "x")

    def repeats(request: HttpRequest) -> HttpResponse:
        body = {"error": "invalid_request", "error_description": f"{request.headers['dpop']} A1 R1"}
        return HttpResponse(400, JSON, json.dumps(body).encode())

    server.answers = [repeats] * 3
    with pytest.raises(TryLater) as caught:
        session.newer_token("A1")
    said = str(caught.value)
    assert not any(secret in said for secret in ("A1", "R1"))
