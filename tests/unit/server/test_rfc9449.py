"""Every MUST of RFC 9449 for a server, by its section; in the words of this project.

Sections 5.2 (registration), 10 (authorization codes) and 12 are about parts that this server does not have.

Modules: server/keys/proof_token.py, server/proofs/nonces.py, server/proofs/verification.py.
"""

from __future__ import annotations

import json
import re
from base64 import urlsafe_b64decode
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.clock import ServerClock
from tests.support.proofs import LEFT_OUT, ClientKey, b64
from unbroken._concurrency import run_sync
from unbroken.errors import InvalidProof
from unbroken.server import Endpoints, MemorySessionStore, ProofPolicy, RequestProof, Sessions
from unbroken.server.http.messages import Request, Response

URL, KEY = "https://id.example.com", ClientKey("Ed25519")
FORM = {"content-type": "application/x-www-form-urlencoded"}
NONCE = re.compile(r"[\x21\x23-\x5B\x5D-\x7E]+")


def authenticate(name: str, password: str) -> str:
    return name


class Server:
    """The endpoints, as HTTP values, and a client with a key."""

    def __init__(self, **policy: Any) -> None:
        self.clock = ServerClock()
        self.sessions = Sessions(MemorySessionStore(), issuer=URL, clock=self.clock, proofs=ProofPolicy(**policy))
        self.endpoints = Endpoints(self.sessions, authenticate, password_grant=True)
        self.nonce = ""

    def proof(self, method: str, path: str, token: str = "", **changed: Any) -> str:
        changed = {"iat": int(self.clock.now), **changed}
        return changed.pop("key", KEY).proof(method, URL + path, token, nonce=self.nonce, **changed)

    def send(self, method: str, path: str, headers: dict[str, str], body: bytes = b"") -> Response:
        response = run_sync(self.endpoints.handle(Request(method, path, headers, body)))
        assert response is not None
        return response

    def token(self, *, dpop: str | None = None, **fields: str) -> Response:
        fields = fields or {"grant_type": "password", "username": "ada", "password": "x"}
        body = "&".join(f"{name}={value}" for name, value in fields.items()).encode()
        proof = self.proof("POST", "/auth/token") if dpop is None else dpop
        return self.send("POST", "/auth/token", FORM | ({"dpop": proof} if proof else {}), body)

    def granted(self) -> dict[str, Any]:
        return dict(json.loads(self.token().body))

    def get(self, token: str, dpop: str | None = None, scheme: str = "DPoP") -> Response:
        proof = self.proof("GET", "/auth/session", token) if dpop is None else dpop
        return self.send("GET", "/auth/session", {"authorization": f"{scheme} {token}", "dpop": proof})


@pytest.fixture
def server() -> Server:
    return Server()


def error_of(response: Response) -> str:
    return str(json.loads(response.body)["error"])


# ---- 4.3: checking proofs --------------------------------------------------------------------------------------------

WRONG: dict[str, Callable[[Server], str]] = {
    "4.3 item 1: one header": lambda server: ", ".join([server.proof("POST", "/auth/token")] * 2),
    "4.3 item 2: one well-formed JWT": lambda server: server.proof("POST", "/auth/token") + ".x",
    "4.3 item 3: jti": lambda server: server.proof("POST", "/auth/token", jti=LEFT_OUT),
    "4.3 item 3: htm": lambda server: server.proof("POST", "/auth/token", htm=LEFT_OUT),
    "4.3 item 3: htu": lambda server: server.proof("POST", "/auth/token", htu=LEFT_OUT),
    "4.3 item 3: iat": lambda server: server.proof("POST", "/auth/token", iat=LEFT_OUT),
    "4.3 item 4: typ": lambda server: server.proof("POST", "/auth/token", head={"typ": "jwt"}),
    "4.3 item 5: not none": lambda server: server.proof("POST", "/auth/token", head={"alg": "none"}),
    "4.3 item 5: asymmetric": lambda server: server.proof("POST", "/auth/token", head={"alg": "HS256"}),
    "4.3 item 5: supported": lambda server: server.proof("POST", "/auth/token", head={"alg": "RS512"}),
    "4.3 item 6: the signature": lambda server: server.proof(
        "POST", "/auth/token", head={"jwk": ClientKey("Ed25519").jwk}
    ),
    "4.3 item 7: no private key": lambda server: server.proof("POST", "/auth/token", head={"jwk": KEY.private_jwk}),
    "4.3 item 8: htm matches": lambda server: server.proof("GET", "/auth/token"),
    "4.3 item 9: htu matches": lambda server: server.proof("POST", "/auth/refresh"),
    "4.3 item 11: the time": lambda server: server.proof("POST", "/auth/token", iat=int(server.clock.now) - 61),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_proof_that_fails_a_check_is_refused_as_section_5_says(server: Server, what: str) -> None:
    response = server.token(dpop=WRONG[what](server))
    assert (response.status, error_of(response)) == (400, "invalid_dpop_proof")


def test_4_3_item_9_query_and_fragment_of_the_request_are_ignored(server: Server) -> None:
    token = server.granted()["access_token"]
    headers = {"authorization": f"DPoP {token}", "dpop": server.proof("GET", "/auth/session", token)}
    response = run_sync(server.endpoints.handle(Request("GET", "/auth/session", headers, query="page=1")))
    assert response is not None
    assert response.status == 200


def test_4_3_item_10_the_nonce_matches_if_the_server_has_given_one() -> None:
    server = Server(require_nonce=True)
    server.nonce = "made-up"
    assert error_of(server.token()) == "use_dpop_nonce"


def test_4_3_item_12_ath_and_key_are_those_of_the_access_token(server: Server) -> None:
    token, other = server.granted()["access_token"], server.granted()["access_token"]
    wrong = server.get(token, server.proof("GET", "/auth/session", other))
    assert (wrong.status, error_of(wrong)) == (401, "invalid_dpop_proof")
    wrong = server.get(token, server.proof("GET", "/auth/session", token, key=ClientKey("Ed25519")))
    assert (wrong.status, error_of(wrong)) == (401, "invalid_token")
    assert server.get(token).status == 200


# ---- 5, 6: tokens ----------------------------------------------------------------------------------------------------


def test_5_a_bound_access_token_has_the_token_type_dpop(server: Server) -> None:
    assert server.granted()["token_type"] == "DPoP"
    assert json.loads(server.token(dpop="").body)["token_type"] == "Bearer"


def test_5_the_refresh_token_of_a_public_client_is_bound(server: Server) -> None:
    fields = {"grant_type": "refresh_token", "refresh_token": server.granted()["refresh_token"]}
    for proof in ("", server.proof("POST", "/auth/token", key=ClientKey("Ed25519"))):
        assert server.token(dpop=proof, **fields).status == 400
    assert json.loads(server.token(**fields).body)["token_type"] == "DPoP"


def test_5_1_the_metadata_name_the_algorithms(server: Server) -> None:
    metadata = server.send("GET", "/.well-known/oauth-authorization-server", {})
    assert "ES256" in json.loads(metadata.body)["dpop_signing_alg_values_supported"]


def test_5_2_a_client_that_always_uses_dpop_is_refused_without_it() -> None:
    server = Server(binding="required")
    assert error_of(server.token(dpop="")) == "invalid_dpop_proof"


def test_6_1_the_access_token_has_the_thumbprint_of_the_key(server: Server) -> None:
    payload = server.granted()["access_token"].split(".")[1]
    assert json.loads(urlsafe_b64decode(payload + "=="))["cnf"] == {"jkt": KEY.jkt}


def test_6_2_introspection_has_the_thumbprint_and_the_type(server: Server) -> None:
    token = server.granted()["access_token"]
    proof = server.proof("POST", "/auth/introspect", token)
    headers = FORM | {"authorization": f"DPoP {token}", "dpop": proof}
    found = json.loads(server.send("POST", "/auth/introspect", headers, f"token={token}".encode()).body)
    assert (found["active"], found["cnf"], found["token_type"]) == (True, {"jkt": KEY.jkt}, "DPoP")


# ---- 7: protected resources ------------------------------------------------------------------------------------------


def test_7_1_the_scheme_is_case_insensitive_and_needs_a_proof(server: Server) -> None:
    token = server.granted()["access_token"]
    assert [server.get(token, scheme=scheme).status for scheme in ("DPoP", "dpop", "DPOP")] == [200] * 3
    assert server.get(token, "").status == 401


def test_7_1_a_challenge_names_scheme_error_and_algorithms(server: Server) -> None:
    header = server.get(server.granted()["access_token"], "x").headers["www-authenticate"]
    assert header.startswith("DPoP ")
    assert 'error="invalid_dpop_proof"' in header
    assert 'algs="ES256 Ed25519 EdDSA"' in header


def test_7_1_both_schemes_are_offered_to_a_request_without_a_token(server: Server) -> None:
    header = server.send("GET", "/auth/session", {}).headers["www-authenticate"]
    assert re.search(r"^Bearer .*, DPoP algs=", header)


def test_7_2_a_bound_token_is_refused_as_bearer(server: Server) -> None:
    token = server.granted()["access_token"]
    for proof in (server.proof("GET", "/auth/session", token), ""):
        assert server.get(token, proof, scheme="Bearer").status == 401


# ---- 8, 9: nonces ----------------------------------------------------------------------------------------------------


def test_8_the_authorization_server_asks_for_a_nonce_with_400() -> None:
    server = Server(require_nonce=True)
    asked = server.token()
    assert (asked.status, error_of(asked)) == (400, "use_dpop_nonce")
    server.nonce = asked.headers["dpop-nonce"]
    assert server.token().status == 200


def test_8_1_a_nonce_has_the_characters_of_the_syntax() -> None:
    nonce = Server(require_nonce=True).token().headers["dpop-nonce"]
    assert NONCE.fullmatch(nonce)


def test_8_2_a_good_response_brings_a_newer_nonce_and_is_not_cached() -> None:
    server = Server(require_nonce=True)
    server.nonce = first = server.token().headers["dpop-nonce"]
    server.clock.now += 30.0
    response = server.token()
    assert (response.status, response.headers["cache-control"]) == (200, "no-store")
    assert response.headers["dpop-nonce"] != first


def test_9_a_resource_server_asks_for_a_nonce_with_401() -> None:
    server = Server(require_nonce=True)
    server.nonce = server.token().headers["dpop-nonce"]
    token, server.nonce = server.granted()["access_token"], ""
    asked = server.get(token)
    assert (asked.status, error_of(asked)) == (401, "use_dpop_nonce")
    assert 'DPoP realm="unbroken", error="use_dpop_nonce"' in asked.headers["www-authenticate"]
    server.nonce = asked.headers["dpop-nonce"]
    assert server.get(token).status == 200


# ---- 11: security ----------------------------------------------------------------------------------------------------


def test_11_1_a_proof_is_accepted_once_within_its_time(server: Server) -> None:
    token = server.granted()["access_token"]
    proof = server.proof("GET", "/auth/session", token)
    assert [server.get(token, proof).status for _ in range(3)] == [200, 401, 401]
    server.clock.now += 120.0
    assert server.get(token, proof).status == 401, "when it is forgotten it is too old"


def test_11_1_a_long_jti_is_refused(server: Server) -> None:
    assert server.token(dpop=server.proof("POST", "/auth/token", jti="j" * 257)).status == 400


def test_11_2_a_proof_from_the_future_is_refused(server: Server) -> None:
    ahead = int(server.clock.now) + 31
    assert server.token(dpop=server.proof("POST", "/auth/token", iat=ahead)).status == 400


def test_11_3_a_nonce_cannot_be_left_out_once_it_is_asked_for() -> None:
    server = Server(require_nonce=True)
    server.nonce = server.token().headers["dpop-nonce"]
    assert server.token().status == 200
    server.nonce = ""
    assert error_of(server.token()) == "use_dpop_nonce"


def test_11_5_a_signed_jwt_of_another_kind_is_no_proof(server: Server) -> None:
    assertion = KEY.sign(b'{"alg":"Ed25519","typ":"JWT"}', json.dumps({"sub": "ada"}).encode())
    assert server.token(dpop=assertion).status == 400
    assert server.token(dpop=server.granted()["access_token"]).status == 400


def test_11_8_the_thumbprint_is_that_of_rfc_7638() -> None:
    key = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}  # RFC 8037, appendix A.3
    head = b64(json.dumps({"typ": "dpop+jwt", "alg": "EdDSA", "jwk": key}).encode())
    proof = RequestProof(f"{head}.{b64(b'{}')}.{b64(bytes(64))}", "POST", "/auth/token")
    with pytest.raises(InvalidProof, match="not signed by the key"):
        Server().sessions.verify_proof(proof)
    from unbroken.server.keys.proof_token import _key_of

    jkt, _ = _key_of({"typ": "dpop+jwt", "alg": "EdDSA", "jwk": key})
    assert jkt == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
