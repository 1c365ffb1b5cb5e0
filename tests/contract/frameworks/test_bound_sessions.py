"""Sessions that are bound to a key, over HTTP (RFC 9449), in each framework. Clients see the server behind a proxy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from tests.support.faces import FACES, PASSWORD, Wire, authenticate, scopes_of
from tests.support.proofs import ClientKey
from unbroken.server import Cookies, MemorySessionStore, MfaRequired, ProofPolicy, Sessions

URL = "https://id.example.org"  # of the issuer, which is where clients see the server
ALGORITHMS = 'algs="ES256 Ed25519 EdDSA"'
METADATA = "/.well-known/oauth-authorization-server"


class Client:
    """A client with a key."""

    def __init__(self, http: httpx2.Client, alg: str = "Ed25519") -> None:
        self.http, self.key, self.nonce = http, ClientKey(alg), ""

    def send(self, method: str, path: str, token: str = "", proof: str = "", **about: Any) -> httpx2.Response:
        sent = proof or self.key.proof(method, URL + path, token, nonce=self.nonce)
        headers = {"dpop": sent} | ({"authorization": f"DPoP {token}"} if token else {}) | about.pop("headers", {})
        response = self.http.request(method, path, headers=headers, **about)
        self.nonce = response.headers.get("dpop-nonce", self.nonce)
        return response

    def login(self, **more: Any) -> Any:
        response = self.send("POST", "/auth/login", json={"username": "ada", "password": PASSWORD, **more})
        assert response.status_code == 200, response.text
        return response.json()

    def refresh(self, refresh_token: str, path: str = "/auth/refresh", **about: Any) -> httpx2.Response:
        if path == "/auth/refresh":
            return self.send("POST", path, json={"refresh_token": refresh_token}, **about)
        return self.send("POST", path, data={"grant_type": "refresh_token", "refresh_token": refresh_token}, **about)


@pytest.fixture(params=["ES256", "Ed25519", "EdDSA"])
def each(request: pytest.FixtureRequest, wire: Wire) -> Client:
    return Client(wire.http, request.param)


@pytest.fixture
def client(wire: Wire) -> Client:
    return Client(wire.http)


def told(response: httpx2.Response) -> tuple[int, str, str]:
    body = response.json()
    body = body.get("detail", body)
    return response.status_code, body["error"], body.get("reason", "")


def test_a_session_is_bound_used_refreshed_and_ended(each: Client) -> None:
    tokens = each.login(scope="read")
    assert tokens["token_type"] == "DPoP"
    about = each.send("GET", "/auth/session", tokens["access_token"]).json()
    assert (about["sub"], about["cnf"]) == ("ada", {"jkt": each.key.jkt})
    for path in ("/auth/token", "/auth/refresh"):
        response = each.refresh(tokens["refresh_token"], path)
        assert (response.status_code, response.json()["token_type"]) == (200, "DPoP")
        tokens = response.json()
    assert each.send("GET", "/auth/session", tokens["access_token"]).status_code == 200
    assert each.send("POST", "/auth/logout", tokens["access_token"]).status_code == 204
    assert told(each.send("GET", "/auth/session", tokens["access_token"])) == (401, "invalid_token", "revoked")


def test_the_password_grant_binds_too(wire: Wire, client: Client) -> None:
    form = {"grant_type": "password", "username": "ada", "password": PASSWORD}
    assert client.send("POST", "/auth/token", data=form).json()["token_type"] == "DPoP"


def test_the_metadata_name_the_algorithms(wire: Wire) -> None:
    assert wire.http.get(METADATA).json()["dpop_signing_alg_values_supported"] == ["ES256", "Ed25519", "EdDSA"]


def test_a_bad_proof_is_a_400_at_a_token_endpoint(wire: Wire, client: Client) -> None:
    login = {"username": "ada", "password": PASSWORD}
    for proof in ("x", client.key.proof("GET", URL + "/auth/login")):
        response = client.send("POST", "/auth/login", proof=proof, json=login)
        assert told(response)[:2] == (400, "invalid_dpop_proof")
        assert response.headers["cache-control"] == "no-store"
    response = wire.http.post("/auth/refresh", json={"refresh_token": client.login()["refresh_token"]})
    assert told(response) == (400, "invalid_dpop_proof", "missing")


def test_challenges_name_the_scheme_the_reason_and_the_algorithms(wire: Wire, client: Client) -> None:
    token = client.login()["access_token"]
    bare = wire.http.get("/auth/session").headers["www-authenticate"]
    assert bare == f'Bearer realm="unbroken", DPoP {ALGORITHMS}'
    downgraded = wire.whoami(token)
    assert told(downgraded) == (401, "invalid_token", "bound")
    assert downgraded.headers["www-authenticate"].startswith('DPoP realm="unbroken", error="invalid_token"')
    unproven = wire.http.get("/auth/session", headers={"authorization": f"DPoP {token}"})
    assert told(unproven) == (401, "invalid_dpop_proof", "missing")
    header = unproven.headers["www-authenticate"]
    assert header.startswith('DPoP realm="unbroken", error="invalid_dpop_proof"')
    assert header.endswith(f'reason="missing", {ALGORITHMS}')
    bearer = wire.login()["access_token"]
    assert told(client.send("GET", "/auth/session", bearer)) == (401, "invalid_token", "not_bound")
    stranger = Client(wire.http)
    assert told(stranger.send("GET", "/auth/session", token)) == (401, "invalid_token", "wrong_key")


def test_a_narrow_bound_token_is_refused_under_its_own_scheme(wire: Wire, client: Client) -> None:
    token = client.login(scope="read", client_id="app")["access_token"]
    refused = client.send("GET", "/auth/sessions", token)
    assert refused.headers["www-authenticate"].startswith('DPoP realm="unbroken", error="insufficient_scope"')


@pytest.mark.parametrize("path", ["/auth/token", "/auth/refresh"])
def test_a_stolen_refresh_token_is_worth_nothing_and_ends_nothing(wire: Wire, client: Client, path: str) -> None:
    tokens, thief = client.login(), Client(wire.http)
    assert told(thief.refresh(tokens["refresh_token"], path)) == (400, "invalid_grant", "wrong_key")
    for where in ("/auth/revoke", "/auth/logout"):
        form = {"data": {"token": tokens["refresh_token"]}}
        body = form if where == "/auth/revoke" else {"json": {"refresh_token": tokens["refresh_token"]}}
        assert told(thief.send("POST", where, **body))[:2] == (400, "invalid_dpop_proof")
        assert told(wire.http.post(where, **body))[:2] == (400, "invalid_dpop_proof")
    assert client.refresh(tokens["refresh_token"], path).status_code == 200


def test_a_proof_is_good_once(client: Client) -> None:
    tokens = client.login()
    proof = client.key.proof("GET", URL + "/auth/session", tokens["access_token"])
    assert client.send("GET", "/auth/session", tokens["access_token"], proof).status_code == 200
    again = client.send("GET", "/auth/session", tokens["access_token"], proof)
    assert told(again) == (401, "invalid_dpop_proof", "replayed")
    proof = client.key.proof("POST", URL + "/auth/refresh")
    assert client.refresh(tokens["refresh_token"], proof=proof).status_code == 200
    assert told(client.refresh(tokens["refresh_token"], proof=proof)) == (400, "invalid_dpop_proof", "replayed")


def test_a_query_is_not_part_of_the_url(client: Client) -> None:
    token = client.login(client_id="first-party")["access_token"]
    proof = client.key.proof("GET", URL + "/auth/sessions", token)
    assert client.send("GET", "/auth/sessions?limit=3", token, proof).status_code == 200


def test_introspection_shows_the_key(wire: Wire, client: Client) -> None:
    tokens = client.login()
    operator = wire.login("operator", scope="introspect")["access_token"]
    found = wire.form("/auth/introspect", operator, token=tokens["access_token"]).json()
    assert (found["active"], found["token_type"], found["cnf"]) == (True, "DPoP", {"jkt": client.key.jkt})
    found = wire.form("/auth/introspect", operator, token=tokens["refresh_token"]).json()
    assert (found["active"], found["cnf"]) == (True, {"jkt": client.key.jkt})


def test_the_list_of_devices_says_which_are_bound(wire: Wire, client: Client) -> None:
    token = client.login()["access_token"]
    [mine] = [one for one in client.send("GET", "/auth/sessions", token).json()["sessions"] if one["current"]]
    assert mine["bound"] is True
    assert "jkt" not in mine


def test_a_ticket_of_a_bound_token_is_redeemed_without_a_proof(wire: Wire, client: Client) -> None:
    token = client.login()["access_token"]
    assert wire.form("/auth/ticket", token).status_code == 401, "as Bearer it buys none"
    ticket = client.send("POST", "/auth/ticket", token).json()["ticket"]
    assert wire.sessions.redeem(ticket).jkt == client.key.jkt


# ---- other settings --------------------------------------------------------------------------------------------------


@pytest.fixture(params=sorted(FACES), scope="module")
def strict(request: pytest.FixtureRequest) -> Iterator[Wire]:
    """Proofs with nonces, required of one client; pages of another origin; tokens in cookies; MFA for one user."""
    policy = ProofPolicy(clients={"app": "required", "old": "off"}, require_nonce=True)
    sessions = Sessions(MemorySessionStore(), issuer=URL, proofs=policy)

    def directory(name: str, password: str) -> Any:
        found = authenticate(name, password)
        return MfaRequired(found) if found == "careful" else found

    settings = {
        "cookies": Cookies("refresh", secure=False),
        "origins": ["https://app.example.com"],
        "verify_mfa": lambda subject, kind, code: code == "123456",
        "scopes_of": scopes_of,
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.support.faces.authenticate", directory)
        with (
            FACES[request.param](sessions, **settings) as port,
            httpx2.Client(base_url=f"http://127.0.0.1:{port}") as http,
        ):
            yield Wire(f"http://127.0.0.1:{port}", http, sessions)


def test_a_nonce_costs_one_repetition_and_comes_with_each_response(strict: Wire) -> None:
    client, login = Client(strict.http), {"username": "ada", "password": PASSWORD}
    first = client.send("POST", "/auth/login", json=login)
    assert told(first)[:2] == (400, "use_dpop_nonce")
    assert first.headers["dpop-nonce"] == client.nonce
    tokens = client.login()
    client.nonce = ""
    asked = client.send("GET", "/auth/session", tokens["access_token"])
    assert told(asked)[:2] == (401, "use_dpop_nonce")
    assert 'DPoP realm="unbroken", error="use_dpop_nonce"' in asked.headers["www-authenticate"]
    answer = client.send("GET", "/auth/session", tokens["access_token"])
    assert (answer.status_code, answer.headers["dpop-nonce"]) == (200, client.nonce)
    assert "dpop-nonce" not in strict.http.get(METADATA).headers


def test_a_client_that_must_bind_its_sessions(strict: Wire) -> None:
    fields = {"username": "ada", "password": PASSWORD, "client_id": "app"}
    assert told(strict.http.post("/auth/login", json=fields)) == (400, "invalid_dpop_proof", "missing")
    client = Client(strict.http)
    client.send("POST", "/auth/login", json=fields)
    assert client.login(client_id="app")["token_type"] == "DPoP"


def test_a_client_whose_proofs_are_ignored(strict: Wire) -> None:
    fields = {"username": "ada", "password": PASSWORD, "client_id": "old"}
    response = strict.http.post("/auth/login", json=fields, headers={"dpop": "whatever"})
    assert response.json()["token_type"] == "Bearer"
    again = {"refresh_token": response.json()["refresh_token"], "client_id": "old"}
    assert strict.http.post("/auth/refresh", json=again, headers={"dpop": "whatever"}).status_code == 200


def test_a_cookie_may_be_bound_to_the_key_of_its_page(strict: Wire) -> None:
    client, login = Client(strict.http), {"username": "ada", "password": PASSWORD}
    client.send("POST", "/auth/login", json=login)
    page = {"x-unbroken": "1"}
    response = client.send("POST", "/auth/login", json=login, headers=page)
    assert (response.json()["token_type"], "refresh_token" in response.json()) == ("DPoP", False)
    copied = dict(strict.http.cookies)
    assert told(strict.http.post("/auth/refresh", headers=page)) == (400, "invalid_dpop_proof", "missing")
    assert dict(strict.http.cookies) == copied, "no error touches a cookie"
    assert client.send("POST", "/auth/refresh", headers=page).json()["token_type"] == "DPoP"
    assert told(strict.http.post("/auth/logout", headers=page))[:2] == (400, "invalid_dpop_proof")
    assert client.send("POST", "/auth/logout", headers=page).status_code == 204
    strict.http.cookies.clear()


def test_both_requests_of_a_login_with_mfa_prove_one_key(strict: Wire) -> None:
    client, other = Client(strict.http), Client(strict.http)
    login = {"username": "careful", "password": PASSWORD}
    client.send("POST", "/auth/login", json=login)
    step = client.send("POST", "/auth/login", json=login)
    other.nonce = client.nonce
    code = {"mfa_token": step.json()["mfa_token"], "code": "123456"}
    assert told(strict.http.post("/auth/login/step", json=code)) == (400, "invalid_dpop_proof", "missing")
    assert told(other.send("POST", "/auth/login/step", json=code)) == (400, "invalid_dpop_proof", "wrong_key")
    assert client.send("POST", "/auth/login/step", json=code).json()["token_type"] == "DPoP"


def test_pages_of_other_origins_may_send_proofs_and_read_nonces(strict: Wire) -> None:
    origin = {"origin": "https://app.example.com"}
    preflight = strict.http.options("/auth/token", headers=origin | {"access-control-request-method": "POST"})
    assert "DPoP" in preflight.headers["access-control-allow-headers"]
    answer = Client(strict.http).send("POST", "/auth/refresh", json={"refresh_token": "x"}, headers=origin)
    exposed = answer.headers["access-control-expose-headers"]
    assert "DPoP-Nonce" in exposed
    assert "WWW-Authenticate" in exposed


@pytest.mark.parametrize("face", sorted(FACES))
def test_a_session_in_two_cookies_cannot_be_bound(face: str) -> None:
    sessions = Sessions(MemorySessionStore(), issuer=URL)
    settings = {"cookies": Cookies("both", secure=False)}
    with FACES[face](sessions, **settings) as port, httpx2.Client(base_url=f"http://127.0.0.1:{port}") as http:
        login = {"username": "ada", "password": PASSWORD}
        response = Client(http).send("POST", "/auth/login", json=login, headers={"x-unbroken": "1"})
        assert told(response)[:2] == (400, "invalid_request")
        assert "cannot be bound" in response.text
