"""Attacks on proofs of possession (RFC 9449 §11): forged, mixed, stretched, replayed, downgraded.

None is accepted, none is a 5xx, and none ends the session.

An attacker has whatever a log, a proxy or a copied file gives him: tokens, and whole requests with their proofs. He has
keys of his own, and not the key of the user.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import socket
import threading
import time
from base64 import urlsafe_b64decode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils
from cryptography.hazmat.primitives.hashes import SHA256

from tests.support.attacks import Attacks
from tests.support.faces import FACES, PASSWORD
from tests.support.proofs import LEFT_OUT, ClientKey, ath, b64
from unbroken.errors import InvalidProof, InvalidToken
from unbroken.server import MemorySessionStore, ProofPolicy, RequestProof, Sessions, SqliteSessionStore
from unbroken.server.keys.proof_token import ProofReader
from unbroken.server.proofs import replays

URL = "https://id.example.org"
WHERE = URL + "/auth/session"
USER, THIEF = ClientKey(), ClientKey()
RSA_KEY = rsa.generate_private_key(65537, 2048)
Make = Callable[[str], str]


class Target:
    """A server with one bound session: tokens that an attacker has, and what only the user has."""

    def __init__(self, http: httpx2.Client, sessions: Sessions) -> None:
        self.http, self.sessions = http, sessions
        proof = USER.proof("POST", URL + "/auth/login")
        login = {"username": "ada", "password": PASSWORD}
        response = http.post("/auth/login", json=login, headers={"dpop": proof})
        assert response.status_code == 200, response.text
        self.access, self.refresh = response.json()["access_token"], response.json()["refresh_token"]

    def get(self, proof: str | list[str], token: str = "", scheme: str = "DPoP", path: str = "/auth/session") -> Any:
        proofs = [proof] if isinstance(proof, str) else proof
        headers = [("authorization", f"{scheme} {token or self.access}"), *(("dpop", one) for one in proofs)]
        return self.http.get(path, headers=headers)

    def post_refresh(self, proof: str, path: str = "/auth/token") -> Any:
        form = {"grant_type": "refresh_token", "refresh_token": self.refresh}
        return self.http.post(path, data=form, headers={"dpop": proof})

    def assert_alive(self) -> None:
        assert self.get(USER.proof("GET", WHERE, self.access)).status_code == 200
        good = USER.proof("POST", URL + "/auth/token")
        response = self.post_refresh(good)
        assert response.status_code == 200, response.text
        self.access, self.refresh = response.json()["access_token"], response.json()["refresh_token"]


@pytest.fixture(params=sorted(FACES), scope="module")
def target(request: pytest.FixtureRequest) -> Iterator[Target]:
    with (
        Sessions(MemorySessionStore(), issuer=URL) as sessions,
        FACES[request.param](sessions) as port,
        httpx2.Client(base_url=f"http://127.0.0.1:{port}") as http,
    ):
        yield Target(http, sessions)


# ---- one proof, wrong in one way -------------------------------------------------------------------------------------


def rs256(token: str) -> str:
    """Signed by an RSA key, which is not among our algorithms."""
    key = RSA_KEY
    numbers = key.public_key().public_numbers()
    jwk = {"kty": "RSA", "n": b64(numbers.n.to_bytes(256)), "e": "AQAB"}
    head = json.dumps({"typ": "dpop+jwt", "alg": "RS256", "jwk": jwk}).encode()
    message = f"{b64(head)}.{b64(claims(token))}"
    return f"{message}.{b64(key.sign(message.encode(), padding.PKCS1v15(), SHA256()))}"


def claims(token: str, **changed: Any) -> bytes:
    right = {
        "jti": f"jti {time.monotonic_ns()}",
        "htm": "GET",
        "htu": WHERE,
        "iat": int(time.time()),
        "ath": ath(token),
    }
    return json.dumps(right | changed).encode()


def hs256(secret: bytes, **jwk: Any) -> Make:
    """Algorithm confusion: a MAC under what a server may hold for a key."""

    def make(token: str) -> str:
        head = json.dumps({"typ": "dpop+jwt", "alg": "HS256", "jwk": USER.jwk | jwk}).encode()
        message = f"{b64(head)}.{b64(claims(token))}"
        return f"{message}.{b64(hmac.digest(secret, message.encode(), 'sha256'))}"

    return make


def user(**changed: Any) -> Make:
    """The user's own proof with other members; a function gives a time."""
    return lambda token: USER.proof(
        "GET", WHERE, token, **{name: one() if callable(one) else one for name, one in changed.items()}
    )


def raw(head: str | None = None, payload: str | None = None) -> Make:
    """The user's signature under other bytes, which a careless parser takes for the right ones."""

    def make(token: str) -> str:
        own_head = json.dumps({"typ": "dpop+jwt", "alg": "ES256", "jwk": USER.jwk})
        return USER.sign((head or own_head).encode(), (payload or claims(token).decode()).encode())

    return make


def without_signature(token: str) -> str:
    return USER.proof("GET", WHERE, token).rpartition(".")[0] + "."


def none_alg(alg: str) -> Make:
    return lambda token: USER.proof("GET", WHERE, token, head={"alg": alg}).rpartition(".")[0] + "."


def users_key_thiefs_signature(token: str) -> str:
    return THIEF.proof("GET", WHERE, token, head={"jwk": USER.jwk})


def der_signature(token: str) -> str:
    message = USER.proof("GET", WHERE, token).rpartition(".")[0]
    return f"{message}.{b64(USER.private.sign(message.encode(), ec.ECDSA(SHA256())))}"


def zero_signature(token: str) -> str:
    return USER.proof("GET", WHERE, token).rpartition(".")[0] + "." + b64(bytes(64))


def cut(count: int) -> Make:
    return lambda token: USER.proof("GET", WHERE, token)[:-count]


def padded(token: str) -> str:
    return USER.proof("GET", WHERE, token) + "=="


def other_point(token: str) -> str:
    """A point that is not on the curve."""
    return USER.proof("GET", WHERE, token, head={"jwk": USER.jwk | {"y": USER.jwk["x"]}})


def the_access_token(token: str) -> str:
    return token


def a_jwt_of_another_type(token: str) -> str:
    return USER.proof("GET", WHERE, token, head={"typ": "JWT"})


NOW = time.time
SINGLE: dict[str, Make] = {
    "empty": lambda token: "",
    "no jwt": lambda token: "proof",
    "two dots": lambda token: "..",
    "the access token itself": the_access_token,
    "another type": a_jwt_of_another_type,
    "no type": user(head={"typ": LEFT_OUT}),
    "a type that is no text": user(head={"typ": ["dpop+jwt"]}),
    "alg none": none_alg("none"),
    "alg None": none_alg("None"),
    "alg empty": none_alg(""),
    "no alg": user(head={"alg": LEFT_OUT}),
    "alg that is no text": user(head={"alg": 1}),
    "alg of another curve": user(head={"alg": "ES384"}),
    "alg of another key type": user(head={"alg": "EdDSA"}),
    "RS256": rs256,
    "HS256 with the public key": hs256(json.dumps(USER.jwk).encode()),
    "HS256 with its x": hs256(USER.jwk["x"].encode()),
    "HS256 with an own secret": hs256(b"k" * 32, kty="oct", k=b64(b"k" * 32)),
    "a critical header": user(head={"crit": ["exp"], "exp": 1}),
    "no key": user(head={"jwk": LEFT_OUT}),
    "a key that is no object": user(head={"jwk": "key"}),
    "a private key": user(head={"jwk": USER.private_jwk}),
    "a private key of another type": user(head={"jwk": USER.jwk | {"p": "AQAB"}}),
    "a symmetric key beside": user(head={"jwk": USER.jwk | {"k": "AQAB"}}),
    "a key with a wrong kty": user(head={"jwk": USER.jwk | {"kty": "OKP"}}),
    "a key with a wrong crv": user(head={"jwk": USER.jwk | {"crv": "P-384"}}),
    "a key for another alg": user(head={"jwk": USER.jwk | {"alg": "RS256"}}),
    "a key that is too short": user(head={"jwk": USER.jwk | {"x": USER.jwk["x"][:40]}}),
    "a key with padding": user(head={"jwk": USER.jwk | {"x": USER.jwk["x"] + "="}}),
    "a key with a number": user(head={"jwk": USER.jwk | {"x": 5}}),
    "no point of the curve": other_point,
    "no signature": without_signature,
    "a signature of zeros": zero_signature,
    "a DER signature": der_signature,
    "a signature that is cut": cut(4),
    "padding": padded,
    "the user's key and another signature": users_key_thiefs_signature,
    "the thief's own": lambda token: THIEF.proof("GET", WHERE, token),
    "two keys in one header": raw(
        head=f'{{"typ":"dpop+jwt","alg":"ES256","jwk":{json.dumps(THIEF.jwk)},"jwk":{json.dumps(USER.jwk)}}}'
    ),
    "a claim twice": lambda token: raw(payload=f'{{"htm":"POST",{claims(token).decode()[1:]}')(token),
    "no jti": user(jti=LEFT_OUT),
    "an empty jti": user(jti=""),
    "a jti that is no text": user(jti=7),
    "a long jti": user(jti="j" * 257),
    "no htm": user(htm=LEFT_OUT),
    "another method": user(htm="POST"),
    "the method in another case": user(htm="get"),
    "a method in a list": user(htm=["GET"]),
    "no htu": user(htu=LEFT_OUT),
    "htu that is no text": user(htu=[WHERE]),
    "no iat": user(iat=LEFT_OUT),
    "iat as text": user(iat=str(int(NOW()))),
    "iat true": user(iat=True),
    "iat that is not finite": lambda token: raw(payload=claims(token).decode().replace('"iat":', '"iat": NaN, "was":'))(
        token
    ),
    "iat that overflows": lambda token: raw(payload=claims(token).decode().replace('"iat":', '"iat": 1e999, "was":'))(
        token
    ),
    "a negative iat": user(iat=-1),
    "too old": user(iat=lambda: int(NOW()) - 65),
    "an hour old": user(iat=lambda: int(NOW()) - 3600),
    "from the future": user(iat=lambda: int(NOW()) + 40),
    "from far away": user(iat=253_402_300_799),
    "no ath": user(ath=LEFT_OUT),
    "an empty ath": user(ath=""),
    "ath of another token": user(ath=ath("another")),
    "ath in hexadecimal": lambda token: user(ath=hashlib.sha256(token.encode()).hexdigest())(token),
    "ath with padding": lambda token: user(ath=ath(token) + "=")(token),
    "ath null": user(ath=None),
    "oversized": user(more="x" * 4096),
    "deep": raw(payload='{"a":' + "[" * 900 + "]" * 900 + "}"),
    "not utf-8": lambda token: USER.sign(b'{"typ":"dpop+jwt","alg":"ES256"}', b"\xff\xfe{}"),
    "a lone surrogate": raw(payload=f'{{"jti":"\\ud800","htm":"GET","htu":"{WHERE}","iat":{int(NOW())}}}'),
    "an array": raw(payload="[]"),
    "html": lambda token: "<script>alert(1)</script>",
}
OTHER_URLS = {
    "another host": "https://id.example.net/auth/session",
    "another scheme": "http://id.example.org/auth/session",
    "another port": "https://id.example.org:8443/auth/session",
    "port zero": "https://id.example.org:0/auth/session",
    "no port number": "https://id.example.org:x/auth/session",
    "a port that is too large": "https://id.example.org:65979/auth/session",
    "a trailing dot": "https://id.example.org./auth/session",
    "a user": "https://x@id.example.org/auth/session",
    "another host after a user": "https://id.example.org@evil.example/auth/session",
    "another host before a backslash": "https://evil.example\\@id.example.org/auth/session",
    "the path in another case": "https://id.example.org/auth/Session",
    "a slash more": "https://id.example.org/auth/session/",
    "two slashes": "https://id.example.org//auth/session",
    "an encoded slash": "https://id.example.org/auth%2Fsession",
    "an encoded percent": "https://id.example.org/auth/%2573ession",
    "dot segments": "https://id.example.org/x/../auth/session",
    "encoded dot segments": "https://id.example.org/x/%2e%2e/auth/session",
    "the path in the query": "https://id.example.org/?/auth/session",
    "the path in the fragment": "https://id.example.org/#/auth/session",
    "a path parameter": "https://id.example.org/auth/session;x=1",
    "a path alone": "/auth/session",
    "no scheme": "//id.example.org/auth/session",
    "the origin": "https://id.example.org",
    "a space": " https://id.example.org/auth/session",
    "a line break": "https://id.example.org/auth/ses\nsion",
    "a tab": "https://id.example.org/auth/\tsession",
    "a NUL": "https://id.example.org/auth/session\0",
    "full-width letters": "https://id.example.org/auth/ｓession",
    "a look-alike host": "https://іd.example.org/auth/session",
    "a websocket": "wss://id.example.org/auth/session",
    "a file": "file:///auth/session",
    "an IPv6 host": "https://[::1]/auth/session",
    "an open bracket": "https://[::1/auth/session",
    "where the server listens": "http://127.0.0.1/auth/session",
    "a long host": f"https://{'a' * 2000}/auth/session",
}
SAME_URLS = {
    "capitals in scheme and host": "HTTPS://ID.Example.ORG/auth/session",
    "the default port": "https://id.example.org:443/auth/session",
    "an encoded letter": "https://id.example.org/auth/%73ession",
    "a query": "https://id.example.org/auth/session?x=1",
    "a fragment": "https://id.example.org/auth/session#x",
}


def test_a_wrong_proof_is_refused(target: Target, attacks: Attacks) -> None:
    for what, make in SINGLE.items():
        attacks.try_one()
        response = target.get(make(target.access))
        assert response.status_code == 401, (what, response.text)
        assert response.json()["error"] in ("invalid_dpop_proof", "invalid_token"), what
        assert response.headers["www-authenticate"].startswith('DPoP realm="unbroken", error='), what
        assert len(response.headers["www-authenticate"]) < 300, "nothing of the proof is repeated"


def test_a_proof_for_another_url_is_refused(target: Target, attacks: Attacks) -> None:
    for what, url in OTHER_URLS.items():
        attacks.try_one()
        response = target.get(USER.proof("GET", url, target.access))
        assert (response.status_code, response.json()["error"]) == (401, "invalid_dpop_proof"), what


def test_another_spelling_of_the_same_url_is_no_other_url(target: Target, attacks: Attacks) -> None:
    for what, url in SAME_URLS.items():
        proof = USER.proof("GET", url, target.access)
        assert target.get(proof).status_code == 200, what
        attacks.try_one()  # and it is one proof
        assert target.get(proof).json()["reason"] == "replayed"


def test_only_one_header_is_a_proof(target: Target, attacks: Attacks) -> None:
    for headers in (
        [USER.proof("GET", WHERE, target.access), THIEF.proof("GET", WHERE, target.access)],
        [THIEF.proof("GET", WHERE, target.access), USER.proof("GET", WHERE, target.access)],
        [USER.proof("GET", WHERE, target.access)] * 2,
        ["", USER.proof("GET", WHERE, target.access)],
        [f"{USER.proof('GET', WHERE, target.access)}, {USER.proof('GET', WHERE, target.access)}"],
    ):
        attacks.try_one()
        response = target.get(headers)
        assert (response.status_code, response.json()["error"]) == (401, "invalid_dpop_proof")


def test_a_wrong_proof_at_a_refresh_spends_nothing_and_ends_nothing(target: Target, attacks: Attacks) -> None:
    for what, make in SINGLE.items():
        if "ath" in what or what == "another method":  # right at a token endpoint, or made for another place
            continue
        attacks.try_one()
        response = target.post_refresh(make(target.access))
        assert response.status_code == 400, (what, response.text)
        assert response.json()["error"] in ("invalid_dpop_proof", "invalid_grant"), what
    target.assert_alive()


# ---- requests that are mixed, moved and repeated ---------------------------------------------------------------------


def test_a_proof_moves_to_no_other_request(target: Target, attacks: Attacks) -> None:
    other = target.sessions.create("eve", proof=target.sessions.verify_proof(own_login(THIEF)))
    moved = {
        "to another path": lambda: target.get(USER.proof("GET", WHERE, target.access), path="/auth/sessions"),
        "to another token of another key": lambda: target.get(
            USER.proof("GET", WHERE, target.access), other.access_token
        ),
        "the thief's proof for his own token": lambda: target.get(THIEF.proof("GET", WHERE, other.access_token)),
        "from a login": lambda: target.get(USER.proof("POST", URL + "/auth/login")),
        "from a refresh": lambda: target.get(USER.proof("POST", URL + "/auth/token")),
        "to a refresh": lambda: target.post_refresh(USER.proof("GET", WHERE, target.access)),
        "to the other refresh": lambda: target.post_refresh(USER.proof("POST", URL + "/auth/refresh")),
    }
    for what, send in moved.items():
        attacks.try_one()
        response = send()
        assert response.status_code in (400, 401), what
        assert response.json()["error"] in ("invalid_dpop_proof", "invalid_token"), what
    target.assert_alive()


def own_login(key: ClientKey) -> RequestProof:
    return RequestProof(key.proof("POST", URL + "/auth/login"), "POST", "/auth/login")


def test_a_bound_token_passes_as_nothing_else(target: Target, attacks: Attacks) -> None:
    good = USER.proof("GET", WHERE, target.access)
    for scheme in ("Bearer", "bearer", "BEARER"):
        attacks.try_one()
        response = target.get(good, scheme=scheme)  # RFC 9449 §7.2: no downgrade
        assert (response.status_code, response.json()["reason"]) == (401, "bound")
        attacks.try_one()
        assert (
            target.http.get("/auth/session", headers={"authorization": f"{scheme} {target.access}"}).status_code == 401
        )
    attacks.try_one()
    doubled = [("authorization", f"DPoP {target.access}"), ("authorization", f"Bearer {target.access}")]
    assert target.http.get("/auth/session", headers=doubled).status_code == 401
    attacks.try_one()
    with pytest.raises(InvalidToken):
        target.sessions.verify(target.access)
    with pytest.raises(InvalidToken):
        target.sessions.ticket(target.access)
    assert target.sessions.verify_cached(target.access) is None


def test_the_key_in_a_token_cannot_be_swapped(target: Target, attacks: Attacks) -> None:
    head, payload, signature = target.access.split(".")
    body = json.loads(urlsafe_b64decode(payload + "=="))
    for confirmation in ({"jkt": THIEF.jkt}, {}, None):
        changed = (
            {**body, "cnf": confirmation} if confirmation is not None else {k: v for k, v in body.items() if k != "cnf"}
        )
        forged = f"{head}.{b64(json.dumps(changed).encode())}.{signature}"
        attacks.try_one()
        assert target.get(THIEF.proof("GET", WHERE, forged), forged).json()["reason"] == "malformed"
        attacks.try_one()
        assert target.http.get("/auth/session", headers={"authorization": f"Bearer {forged}"}).status_code == 401


def test_a_whole_request_is_good_once_also_for_many_at_once(
    target: Target, attacks: Attacks, size: Callable[[int, int], int]
) -> None:
    for _ in range(size(3, 30)):
        proof, statuses = USER.proof("GET", WHERE, target.access), list[int]()

        def send(proof: str = proof, statuses: list[int] = statuses) -> None:
            with httpx2.Client(base_url=target.http.base_url) as http:
                headers = {"authorization": f"DPoP {target.access}", "dpop": proof}
                statuses.append(http.get("/auth/session", headers=headers).status_code)

        threads = [threading.Thread(target=send) for _ in range(8)]
        for thread in threads:
            attacks.try_one()
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(statuses) == [200] + [401] * 7


def test_a_copied_refresh_is_refused_and_ends_nothing(target: Target, attacks: Attacks) -> None:
    old, proof = target.refresh, USER.proof("POST", URL + "/auth/token")
    response = target.post_refresh(proof)
    target.access, target.refresh = response.json()["access_token"], response.json()["refresh_token"]
    target.assert_alive()
    form = {"grant_type": "refresh_token", "refresh_token": old}
    for _ in range(5):
        attacks.try_one()
        copied = target.http.post("/auth/token", data=form, headers={"dpop": proof})
        assert (copied.status_code, copied.json()["reason"]) == (400, "replayed")
    target.assert_alive()


def test_a_stolen_refresh_token_buys_nothing_and_ends_nothing(target: Target, attacks: Attacks) -> None:
    stolen = [target.refresh]
    for _ in range(3):
        target.assert_alive()
        stolen.append(target.refresh)
    for token in stolen:  # the newest one, and used ones, which would be reuse in other hands
        for path in ("/auth/token", "/auth/refresh"):
            form = {"grant_type": "refresh_token", "refresh_token": token}
            body = {"data": form} if path == "/auth/token" else {"json": {"refresh_token": token}}
            for proof in ("", THIEF.proof("POST", URL + path), USER.proof("POST", URL + path, iat=int(NOW()) - 300)):
                attacks.try_one()
                response = target.http.post(path, headers={"dpop": proof} if proof else {}, **body)
                assert response.status_code == 400
                assert response.json()["error"] in ("invalid_dpop_proof", "invalid_grant")
                assert "access_token" not in response.text
    target.assert_alive()


def test_no_token_ends_a_bound_session_without_the_key(target: Target, attacks: Attacks) -> None:
    for proof in ({}, {"dpop": "junk"}, {"dpop": THIEF.proof("POST", URL + "/auth/logout")}):
        for token in (target.access, target.refresh):
            attacks.try_one()
            assert target.http.post("/auth/revoke", data={"token": token}, headers=proof).status_code == 400
        attacks.try_one()
        body = {"refresh_token": target.refresh}
        assert target.http.post("/auth/logout", json=body, headers=proof).status_code == 400
        for scheme in ("Bearer", "DPoP"):
            attacks.try_one()
            headers = {"authorization": f"{scheme} {target.access}", **proof}
            assert target.http.post("/auth/logout", headers=headers).status_code in (400, 401)
            sid = target.sessions.inspect_access(target.access).sid
            attacks.try_one()
            assert target.http.delete(f"/auth/sessions/{sid}", headers=headers).status_code == 401
    target.assert_alive()


# ---- a node beside ---------------------------------------------------------------------------------------------------


def test_a_write_is_good_once_on_all_nodes(tmp_path: Path, attacks: Attacks) -> None:
    store = f"sqlite:///{tmp_path}/store.db"
    with Sessions(store, issuer=URL) as one, Sessions(store, issuer=URL) as other:
        token = one.create("ada", proof=one.verify_proof(own_login(USER))).access_token
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            proof = RequestProof(USER.proof(method, URL + "/orders", token), method, "/orders")
            assert one.verify(token, proof).subject == "ada"
            attacks.try_one()
            with pytest.raises(InvalidProof, match="used before"):
                other.verify(token, proof)


def test_a_read_is_good_once_on_all_nodes_where_the_policy_says_so(tmp_path: Path, attacks: Attacks) -> None:
    store, policy = SqliteSessionStore(tmp_path / "store.db"), ProofPolicy(replays="all")
    nodes = [Sessions(store, issuer=URL, proofs=policy, encryption_key="none") for _ in range(2)]
    token = nodes[0].create("ada", proof=nodes[0].verify_proof(own_login(USER))).access_token
    proof = RequestProof(USER.proof("GET", URL + "/orders", token), "GET", "/orders")
    assert nodes[0].verify(token, proof)
    attacks.try_one()
    with pytest.raises(InvalidProof, match="used before"):
        nodes[1].verify(token, proof)


def test_one_key_cannot_use_up_the_jti_of_another(attacks: Attacks) -> None:
    sessions = Sessions(MemorySessionStore(), issuer=URL)
    tokens = {
        key: sessions.create("ada", proof=sessions.verify_proof(own_login(key))).access_token for key in (USER, THIEF)
    }
    for key, token in reversed(tokens.items()):
        attacks.try_one()
        proof = RequestProof(key.proof("GET", URL + "/orders", token, jti="the same"), "GET", "/orders")
        assert sessions.verify(token, proof).jkt == key.jkt


def test_a_flood_of_good_proofs_fills_no_memory_and_lets_none_pass_twice(
    attacks: Attacks, size: Callable[[int, int], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    most = size(200, 5000)
    monkeypatch.setattr(replays.ReplayCache.__init__, "__defaults__", (most,))
    sessions, key = Sessions(MemorySessionStore(), issuer=URL), ClientKey("Ed25519")
    token = sessions.create("ada", proof=sessions.verify_proof(own_login(key))).access_token
    now = int(time.time())
    first = [request(key, token, now - 30) for _ in range(20)]
    for proof in first:
        assert sessions.verify(token, proof)
    for number in range(most * 2):
        attacks.try_one()
        sessions.verify(token, request(key, token, now - 20 + number * 20 // (most * 2)))
    assert len(sessions.proofs._replays) <= most
    for proof in first:
        attacks.try_one()
        with pytest.raises(InvalidProof):
            sessions.verify(token, proof)
    assert sessions.verify(token, request(key, token, int(time.time()))), "the present is not affected"


def request(key: ClientKey, token: str, iat: int) -> RequestProof:
    return RequestProof(key.proof("GET", URL + "/orders", token, iat=iat), "GET", "/orders")


def test_strangers_fill_no_memory_at_all(target: Target, attacks: Attacks) -> None:
    before = len(target.sessions.proofs._replays)
    for _ in range(8):
        attacks.try_one()
        stranger = ClientKey("Ed25519")
        login = {"username": "ada", "password": "wrong"}
        proof = stranger.proof("POST", URL + "/auth/login")
        assert target.http.post("/auth/login", json=login, headers={"dpop": proof}).status_code in (401, 429)
        target.get(stranger.proof("GET", WHERE, target.access))
        form = {"grant_type": "refresh_token", "refresh_token": "rt_junk"}
        proof = stranger.proof("POST", URL + "/auth/token")
        assert target.http.post("/auth/token", data=form, headers={"dpop": proof}).status_code == 400
    assert len(target.sessions.proofs._replays) == before


def test_strangers_fill_the_memory_of_keys_with_nothing_long(attacks: Attacks, size: Callable[[int, int], int]) -> None:
    reader, key = ProofReader(), ClientKey("Ed25519")
    claims = json.dumps({"jti": "j", "htm": "GET", "htu": URL, "iat": 1}).encode()
    for number in range(size(100, 20_000)):
        attacks.try_one()
        jwk = {**key.jwk, "kid": f"{number}-" + "x" * 2000}
        reader.read(key.sign(json.dumps({"typ": "dpop+jwt", "alg": "Ed25519", "jwk": jwk}).encode(), claims))
    assert sum(map(len, reader._keys)) < 10_000
    assert reader.read(key.proof("GET", URL)).jkt == key.jkt
    assert len(reader._keys) == 1, "the header of an honest client is remembered"


# ---- nonces ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def strict() -> Sessions:
    return Sessions(MemorySessionStore(), issuer=URL, proofs=ProofPolicy(require_nonce=True))


def nonce_of(sessions: Sessions) -> str:
    sessions.keyring()
    return sessions.proofs.newest_nonce()


def test_no_nonce_can_be_made_up(strict: Sessions, attacks: Attacks) -> None:
    good = nonce_of(strict)
    bits = bytearray(urlsafe_b64decode(good + "=="))
    forged = [good[:-1], good + "A", good + "=", good.lower(), "", "0", " ", "x" * 34, good + "," + good]
    for at in range(len(bits)):
        other = bytearray(bits)
        other[at] ^= 1
        forged.append(b64(bytes(other)))
    forged.append(nonce_of(Sessions(MemorySessionStore(), issuer=URL, proofs=ProofPolicy(require_nonce=True))))
    for nonce in forged:
        attacks.try_one()
        proof = RequestProof(USER.proof("POST", URL + "/auth/login", nonce=nonce), "POST", "/auth/login")
        with pytest.raises(InvalidProof) as refused:
            strict.verify_proof(proof)
        assert refused.value.code == "use_dpop_nonce", nonce
    right = RequestProof(USER.proof("POST", URL + "/auth/login", nonce=good), "POST", "/auth/login")
    assert strict.verify_proof(right)


def test_a_proof_that_was_signed_ahead_is_worth_nothing(attacks: Attacks) -> None:
    """Somebody who had the key for a moment has signed proofs for later (RFC 9449 §11.2): they lack the nonces."""
    times = [time.time()]
    sessions = Sessions(
        MemorySessionStore(), issuer=URL, proofs=ProofPolicy(require_nonce=True), clock=lambda: times[0]
    )
    nonce = nonce_of(sessions)
    ahead = [
        RequestProof(
            USER.proof("POST", URL + "/auth/login", nonce=nonce, iat=int(times[0]) + late), "POST", "/auth/login"
        )
        for late in range(0, 3600, 60)
    ]
    times[0] += 61
    for proof in ahead:
        attacks.try_one()
        times[0] += 60
        with pytest.raises(InvalidProof) as refused:
            sessions.verify_proof(proof)
        assert refused.value.code == "use_dpop_nonce"


def test_a_nonce_does_not_make_a_proof_good_twice(strict: Sessions, attacks: Attacks) -> None:
    nonce = nonce_of(strict)
    login = RequestProof(USER.proof("POST", URL + "/auth/login", nonce=nonce), "POST", "/auth/login")
    token = strict.create("ada", proof=strict.verify_proof(login)).access_token
    proof = RequestProof(USER.proof("GET", URL + "/orders", token, nonce=nonce), "GET", "/orders")
    assert strict.verify(token, proof)
    attacks.try_one()
    with pytest.raises(InvalidProof, match="used before"):
        strict.verify(token, proof)


# ---- the raw wire ----------------------------------------------------------------------------------------------------


def test_the_host_header_does_not_decide_which_url_is_meant(target: Target, attacks: Attacks) -> None:
    for host in ("evil.example", "id.example.net", "localhost", "127.0.0.1", "id.example.org:8443", "", "[::1", "a b"):
        attacks.try_one()
        named = f"https://{host}/auth/session"
        proof = USER.proof("GET", named, target.access)
        status = over_the_wire(target, host, proof, "x-forwarded-host: evil.example", "x-forwarded-proto: http")
        assert status in (400, 401), host
    good = USER.proof("GET", WHERE, target.access)
    assert over_the_wire(target, "whatever.example", good) == 200


def over_the_wire(target: Target, host: str, proof: str, *more: str) -> int:
    base = target.http.base_url
    lines = ["GET /auth/session HTTP/1.1", f"Host: {host}", f"Authorization: DPoP {target.access}", f"DPoP: {proof}"]
    with socket.create_connection((base.host, base.port), timeout=10) as connection:
        connection.sendall("\r\n".join([*lines, *more, "Connection: close", "", ""]).encode())
        return int(connection.makefile("rb").readline().split()[1])


def test_a_twin_of_a_signature_is_the_same_proof(target: Target, attacks: Attacks) -> None:
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    message = USER.proof("GET", WHERE, target.access).rpartition(".")[0]
    r, s = utils.decode_dss_signature(USER.private.sign(message.encode(), ec.ECDSA(SHA256())))
    assert target.get(f"{message}.{b64(r.to_bytes(32) + s.to_bytes(32))}").status_code == 200
    attacks.try_one()
    twin = target.get(f"{message}.{b64(r.to_bytes(32) + (order - s).to_bytes(32))}")
    assert twin.json()["reason"] == "replayed"
