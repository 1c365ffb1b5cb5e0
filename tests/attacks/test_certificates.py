"""Attacks on access tokens that are bound to a TLS certificate (RFC 8705 §3), in each framework and in a service.

An attacker has a copy of the token, which names the hash of the certificate, and can send what headers he likes. He has
no key of this certificate, and does not know the secret of the proxy.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from tests.support.attacks import Attacks
from tests.support.faces import FACES
from tests.support.proofs import ClientKey
from unbroken.errors import ConfigurationError, InvalidToken
from unbroken.server import Claims, MemorySessionStore, ProofPolicy, RequestProof, Sessions
from unbroken.server.http.authentication import RequestAuthenticator
from unbroken.server.http.messages import Request, Response
from unbroken.verifier import Verifier

URL = "https://id.example.org"
SECRET = "of-the-proxy-0123456789"
HEADER = "x-client-certificate"
POLICY = ProofPolicy(certificate_header=HEADER, certificate_secret=SECRET)
DIGEST, OTHER = (hashlib.sha256(name).digest() for name in (b"the user", b"the thief"))


def b64(digest: bytes) -> str:
    return urlsafe_b64encode(digest).rstrip(b"=").decode()


def bind(info: Any) -> dict[str, object]:
    return {"cnf": {"x5t#S256": b64(DIGEST)}} if info.client_id == "robot" else {}


FORGED = {
    "no header": [],
    "the hash alone": [(HEADER, b64(DIGEST))],
    "in hexadecimal": [(HEADER, DIGEST.hex())],
    "a guessed secret": [(HEADER, f"of-the-proxy {b64(DIGEST)}")],
    "an empty secret": [(HEADER, f"- {b64(DIGEST)}")],
    "the certificate of another": [(HEADER, f"{SECRET} {OTHER.hex()}")],
    "the proxy appends to what came": [(HEADER, b64(DIGEST)), (HEADER, f"{SECRET} {OTHER.hex()}")],
    "what came follows": [(HEADER, f"{SECRET} {OTHER.hex()}"), (HEADER, b64(DIGEST))],
    "the proxy has no certificate": [(HEADER, SECRET)],
    "a header of another name": [("client-cert", f"{SECRET} {b64(DIGEST)}")],
    "two hashes": [(HEADER, f"{SECRET} {OTHER.hex()} {b64(DIGEST)}")],
    "an odd text": [(HEADER, "\u00e4" * 40)],
    "a long one": [(HEADER, "a" * 5000)],
}


class Target:
    def __init__(self, http: httpx2.Client, sessions: Sessions) -> None:
        self.http = http
        self.bound = sessions.create("ada", client_id="robot", scope="sessions").access_token
        self.free = sessions.create("ada", scope="sessions").access_token

    def get(self, headers: list[tuple[str, str]], token: str = "", scheme: str = "Bearer") -> Any:
        sent = [("authorization", f"{scheme} {token or self.bound}"), *headers]
        return self.http.get("/auth/session", headers=[(name, value.encode()) for name, value in sent])


@pytest.fixture(params=sorted(FACES), scope="module")
def target(request: pytest.FixtureRequest) -> Iterator[Target]:
    with (
        Sessions(MemorySessionStore(), issuer=URL, proofs=POLICY, claims=bind) as sessions,
        FACES[request.param](sessions) as port,
        httpx2.Client(base_url=f"http://127.0.0.1:{port}") as http,
    ):
        yield Target(http, sessions)


@pytest.mark.parametrize("forged", sorted(FORGED))
def test_a_copied_token_without_its_certificate_is_refused(target: Target, attacks: Attacks, forged: str) -> None:
    attacks.try_one()
    response = target.get(FORGED[forged])
    assert (response.status_code, 'reason="certificate"' in response.headers["www-authenticate"]) == (401, True)
    assert SECRET not in response.text
    assert target.get(FORGED[forged], target.free).status_code == 200, "a token that is not bound needs none"
    for hash_ in (b64(DIGEST), DIGEST.hex(), DIGEST.hex(":"), b64encode(DIGEST).decode()):
        good = target.get([(HEADER, f"{SECRET} {hash_}")])
        assert (good.status_code, good.json().get("cnf")) == (200, {"x5t#S256": b64(DIGEST)})


def test_a_good_request_opens_no_cache_for_the_next(target: Target, attacks: Attacks) -> None:
    for _ in range(3):
        assert target.get([(HEADER, f"{SECRET} {b64(DIGEST)}")]).status_code == 200
        attacks.try_one()
        assert target.get([]).status_code == 401


def test_a_proof_of_a_key_of_the_thief_replaces_no_certificate(target: Target, attacks: Attacks) -> None:
    thief = ClientKey()
    attacks.try_one()
    proof = thief.proof("GET", URL + "/auth/session", target.bound)
    assert target.get([("dpop", proof)], scheme="DPoP").status_code == 401


@pytest.mark.parametrize("certificate", ["", b64(OTHER), DIGEST.hex()])
@pytest.mark.parametrize("policy", [ProofPolicy(), POLICY])
def test_code_that_was_written_before_refuses_such_a_token(
    attacks: Attacks, certificate: str, policy: ProofPolicy
) -> None:
    with Sessions(MemorySessionStore(), issuer=URL, proofs=policy, claims=bind) as sessions:
        token = sessions.create("ada", client_id="robot").access_token
        for proof in (None, RequestProof("", "GET", "/")):
            attacks.try_one()
            with pytest.raises(InvalidToken, match="certificate"):
                sessions.verify(token, proof, certificate)
            assert sessions.verify_cached(token) is None
        assert sessions.verify(token, certificate=b64(DIGEST)).certificate == b64(DIGEST)


def test_a_token_that_is_bound_to_both_needs_both(attacks: Attacks) -> None:
    key = ClientKey()

    def both(info: Any) -> dict[str, object]:
        return {"cnf": {"x5t#S256": b64(DIGEST)}}

    with Sessions(MemorySessionStore(), issuer=URL, proofs=POLICY, claims=both) as sessions:
        proof = RequestProof(key.proof("POST", URL + "/auth/login"), "POST", "/auth/login")
        attacks.try_one()
        with pytest.raises(ConfigurationError, match="cnf"):
            sessions.create("ada", proof=sessions.verify_proof(proof))


@pytest.mark.parametrize(
    "confirmation",
    [{"jkt": b64(DIGEST)}, {}, {"x5t#S256": ""}, {"x5t#S256": "AAAA"}, {"x5t#S256": 1}, {"x5t": b64(DIGEST)}, "x", None,
     {"x5t#S256": b64(DIGEST), "jkt": b64(OTHER)}],
)  # fmt: skip
def test_a_hook_binds_to_certificates_and_to_nothing_else(attacks: Attacks, confirmation: object) -> None:
    attacks.try_one()
    with (
        Sessions(MemorySessionStore(), issuer=URL, claims=lambda info: {"cnf": confirmation}) as sessions,
        pytest.raises(ConfigurationError, match="cnf"),
    ):
        sessions.create("ada")


@pytest.mark.parametrize("face", ["starlette"])
def test_a_service_that_only_verifies_wants_the_certificate_too(attacks: Attacks, face: str) -> None:
    with (
        Sessions(MemorySessionStore(), issuer=URL, audience="shop", claims=bind) as sessions,
        FACES[face](sessions) as port,
    ):
        url = f"http://127.0.0.1:{port}/.well-known/jwks.json"
        verifier = Verifier(url, issuer=URL, audience="shop", proofs=POLICY)
        authenticator = RequestAuthenticator(verifier)
        token = sessions.create("ada", client_id="robot").access_token
        for headers in FORGED.values():
            attacks.try_one()
            joined: dict[str, str] = {}
            for name, value in headers:  # as each framework joins them
                joined[name] = f"{joined[name]}, {value}" if name in joined else value
            refused = authenticator.authenticate_blocking(
                Request("GET", "/orders", {"authorization": f"Bearer {token}", **joined})
            )
            assert isinstance(refused, Response)
            assert (refused.status, "certificate" in refused.headers["www-authenticate"]) == (401, True)
        good = {"authorization": f"Bearer {token}", HEADER: f"{SECRET} {DIGEST.hex()}"}
        claims = authenticator.authenticate_blocking(Request("GET", "/orders", good))
        assert isinstance(claims, Claims)
        assert claims.certificate == b64(DIGEST)
