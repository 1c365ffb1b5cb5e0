"""Login and refresh over HTTP: RFC 6749 §4.3, §5 and §6, and what unbroken adds.

Modules: server/http/authentication.py, server/http/login.py.
"""

from __future__ import annotations

from base64 import b64encode

import httpx2
import pytest

from tests.support.faces import NO_STORE, PASSWORD, Wire

REFRESHES = ["/auth/token", "/auth/refresh"]


def refreshed(wire: Wire, path: str, token: str, **headers: str) -> httpx2.Response:
    if path == "/auth/refresh":
        return wire.refresh(token, **headers)
    return wire.http.post(path, data={"grant_type": "refresh_token", "refresh_token": token}, headers=headers)


def basic(client_id: str, secret: str = "") -> dict[str, str]:
    return {"authorization": "Basic " + b64encode(f"{client_id}:{secret}".encode()).decode()}


def has(response: httpx2.Response, headers: dict[str, str]) -> bool:
    return headers.items() <= dict(response.headers).items()


# ---- login -----------------------------------------------------------------------------------------------------------


def test_a_login_returns_a_token_response_that_may_not_be_cached(wire: Wire) -> None:
    response = wire.http.post("/auth/login", json={"username": "ada", "password": PASSWORD, "scope": "read"})
    body = response.json()
    assert body.keys() == {
        "access_token", "token_type", "expires_in", "refresh_token", "refresh_expires_in", "refresh_seq", "scope",
        "device_token",
    }  # fmt: skip
    assert (body["token_type"], body["expires_in"], body["refresh_expires_in"]) == ("Bearer", 1800, 7 * 86400)
    assert (body["refresh_seq"], body["scope"]) == (0, "read")
    assert has(response, NO_STORE)
    assert response.headers["content-type"] == "application/json"


@pytest.mark.parametrize(("name", "password"), [("ada", "wrong"), ("ada", PASSWORD + " ")])
def test_a_wrong_password_is_access_denied_without_a_challenge(wire: Wire, name: str, password: str) -> None:
    response = wire.http.post("/auth/login", json={"username": name, "password": password})
    assert (response.status_code, response.json()["error"]) == (401, "access_denied")
    assert "www-authenticate" not in response.headers
    assert has(response, NO_STORE)


def test_a_login_keeps_what_the_device_is_called_and_where_it_is(wire: Wire) -> None:
    tokens = wire.login("devices", label="Ada's laptop", client_id="shop-app")
    [info] = wire.sessions.list_sessions("devices")
    assert (info.label, info.client_id, info.ip) == ("Ada's laptop", "shop-app", "127.0.0.1")
    assert info.user_agent.startswith("python-httpx")
    assert wire.whoami(tokens["access_token"]).json()["client_id"] == "shop-app"


@pytest.mark.parametrize("scope", ["introspect", "introspect admin", "admin"])
def test_a_scope_is_not_granted_because_it_was_requested(wire: Wire, scope: str) -> None:
    before = len(wire.sessions.list_sessions("eve"))
    fields = {"username": "eve", "password": PASSWORD, "scope": scope}
    login = wire.http.post("/auth/login", json=fields)
    granted = wire.form("/auth/token", grant_type="password", **fields)
    assert {(response.status_code, response.json()["error"]) for response in (login, granted)} == {
        (400, "invalid_scope")
    }
    assert len(wire.sessions.list_sessions("eve")) == before


def test_of_a_scope_the_allowed_part_is_granted_and_said(wire: Wire) -> None:
    fields = {"username": "eve", "password": PASSWORD, "scope": "introspect read admin"}
    login, granted = (
        wire.http.post("/auth/login", json=fields),
        wire.form("/auth/token", grant_type="password", **fields),
    )
    for response in (login, granted):
        assert (response.status_code, response.json()["scope"]) == (200, "read")
        assert wire.whoami(response.json()["access_token"]).json()["scope"] == "read"


@pytest.mark.parametrize("client_id", ["x" * 201, "naïve", "a\nb"])
def test_a_client_id_that_would_not_fit_into_a_token_is_refused(wire: Wire, client_id: str) -> None:
    response = wire.http.post("/auth/login", json={"username": "ada", "password": PASSWORD, "client_id": client_id})
    assert (response.status_code, response.json()["error"]) == (400, "invalid_request")


# ---- refresh ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", REFRESHES)
def test_a_refresh_returns_the_next_generation(wire: Wire, path: str) -> None:
    tokens = wire.login(scope="read write")
    response = refreshed(wire, path, tokens["refresh_token"])
    body = response.json()
    assert (response.status_code, body["refresh_seq"], body["scope"]) == (200, 1, "read write")
    assert body["refresh_token"] != tokens["refresh_token"]
    assert has(response, NO_STORE)
    assert wire.whoami(body["access_token"]).status_code == 200
    assert wire.whoami(tokens["access_token"]).status_code == 200, "the old access token lives to its own end"


@pytest.mark.parametrize("path", REFRESHES)
def test_the_same_idempotency_key_gets_the_same_response_however_late(wire: Wire, path: str) -> None:
    tokens = wire.login(coordinated=True)
    first = refreshed(wire, path, tokens["refresh_token"], **{"idempotency-key": "attempt-1"}).json()
    again = refreshed(wire, path, tokens["refresh_token"], **{"idempotency-key": "attempt-1"}).json()
    assert again["refresh_token"] == first["refresh_token"]


@pytest.mark.parametrize("path", REFRESHES)
@pytest.mark.parametrize("spelled", ['"attempt-1"', '"attempt-1";try=2', "attempt-1"])
def test_an_idempotency_key_is_a_structured_string(wire: Wire, path: str, spelled: str) -> None:
    tokens = wire.login(coordinated=True)
    first = refreshed(wire, path, tokens["refresh_token"], **{"idempotency-key": "attempt-1"}).json()
    again = refreshed(wire, path, tokens["refresh_token"], **{"idempotency-key": spelled}).json()
    assert again["refresh_token"] == first["refresh_token"]


@pytest.mark.parametrize("path", REFRESHES)
def test_a_token_used_again_much_later_ends_the_session(wire: Wire, path: str) -> None:
    tokens = wire.login(coordinated=True)
    newer = refreshed(wire, path, tokens["refresh_token"], **{"idempotency-key": "one"}).json()
    newest = refreshed(wire, path, newer["refresh_token"], **{"idempotency-key": "two"}).json()
    stolen = refreshed(wire, path, tokens["refresh_token"], **{"idempotency-key": "three"})
    assert (stolen.status_code, stolen.json()["error"], stolen.json()["reason"]) == (400, "invalid_grant", "reuse")
    assert has(stolen, NO_STORE)
    assert wire.whoami(newest["access_token"]).json()["reason"] == "revoked"
    assert refreshed(wire, path, newest["refresh_token"]).json()["reason"] == "reuse"


@pytest.mark.parametrize("path", REFRESHES)
@pytest.mark.parametrize("token", ["nonsense", "rt_", "rt_AAAA", "x" * 5000])
def test_what_is_no_refresh_token_is_invalid_grant_malformed(wire: Wire, path: str, token: str) -> None:
    response = refreshed(wire, path, token)
    assert (response.status_code, response.json()["error"], response.json()["reason"]) == (
        400,
        "invalid_grant",
        "malformed",
    )
    assert response.json()["error_description"]


@pytest.mark.parametrize("path", REFRESHES)
def test_a_refresh_after_a_logout_is_refused_with_the_reason_logged_out(wire: Wire, path: str) -> None:
    tokens = wire.login()
    wire.http.post("/auth/logout", json={"refresh_token": tokens["refresh_token"]})
    assert refreshed(wire, path, tokens["refresh_token"]).json()["reason"] == "logged_out"


@pytest.mark.parametrize("path", REFRESHES)
def test_a_missing_refresh_token_is_invalid_request_and_not_invalid_grant(wire: Wire, path: str) -> None:
    assert refreshed(wire, path, "").json()["error"] == "invalid_request"


# ---- RFC 6749's own form ---------------------------------------------------------------------------------------------


def test_scope_can_be_narrowed_for_one_access_token_and_never_widened(wire: Wire) -> None:
    token = wire.login(scope="read write")["refresh_token"]
    narrow = wire.form("/auth/token", grant_type="refresh_token", refresh_token=token, scope="read").json()
    assert narrow["scope"] == "read"
    wide = wire.form("/auth/token", grant_type="refresh_token", refresh_token=narrow["refresh_token"], scope="admin")
    assert (wide.status_code, wide.json()["error"]) == (400, "invalid_scope")
    whole = wire.form("/auth/token", grant_type="refresh_token", refresh_token=narrow["refresh_token"])
    assert whole.json()["scope"] == "read write", "a refused scope spent nothing"


@pytest.mark.parametrize("named", [basic("app"), basic("app", "ignored")])
def test_a_public_client_names_itself_by_basic_or_by_a_field(wire: Wire, named: dict[str, str]) -> None:
    token = wire.login(client_id="app")["refresh_token"]
    fields = {"grant_type": "refresh_token", "refresh_token": token}
    assert wire.http.post("/auth/token", data=fields, headers=named).status_code == 200
    token = wire.login(client_id="app")["refresh_token"]
    assert wire.form("/auth/token", grant_type="refresh_token", refresh_token=token, client_id="app").status_code == 200


@pytest.mark.parametrize("unnamed", [{}, basic("")])
def test_only_the_servers_own_client_may_leave_out_its_name(wire: Wire, unnamed: dict[str, str]) -> None:
    for tokens, status in ((wire.login(), 200), (wire.login(client_id="app"), 400)):
        fields = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
        assert wire.http.post("/auth/token", data=fields, headers=unnamed).status_code == status


def test_another_clients_token_is_refused_and_not_spent(wire: Wire) -> None:
    token = wire.login(client_id="app")["refresh_token"]
    fields = {"grant_type": "refresh_token", "refresh_token": token}
    by_basic = wire.http.post("/auth/token", data=fields, headers=basic("other"))
    by_field = wire.form("/auth/token", client_id="other", **fields)
    assert {response.json()["reason"] for response in (by_basic, by_field)} == {"wrong_client"}
    assert wire.form("/auth/token", client_id="app", **fields).json()["refresh_seq"] == 1


@pytest.mark.parametrize("header", ["Basic %%%", "Basic " + b64encode(b"\xff\xfe:").decode(), "Basic é"])
def test_a_malformed_basic_header_is_invalid_request(wire: Wire, header: str) -> None:
    fields = {"grant_type": "refresh_token", "refresh_token": "x"}
    response = wire.http.post("/auth/token", data=fields, headers={"authorization": header.encode()})
    assert (response.status_code, response.json()["error"]) == (400, "invalid_request")


def test_a_repeated_parameter_is_invalid_request(wire: Wire) -> None:
    token = wire.login()["refresh_token"]
    body = f"grant_type=refresh_token&refresh_token={token}&refresh_token={token}"
    response = wire.http.post(
        "/auth/token", content=body, headers={"content-type": "application/x-www-form-urlencoded"}
    )
    assert (response.status_code, response.json()["error"]) == (400, "invalid_request")
    assert wire.refresh(token).json()["refresh_seq"] == 1, "nothing was spent"


def test_a_parameter_without_a_value_counts_as_absent(wire: Wire) -> None:
    token = wire.login()["refresh_token"]
    fields = {"grant_type": "refresh_token", "refresh_token": token, "scope": "", "client_id": ""}
    assert wire.form("/auth/token", **fields).status_code == 200


def test_json_at_the_token_endpoint_is_invalid_request(wire: Wire) -> None:
    response = wire.http.post("/auth/token", json={"grant_type": "refresh_token", "refresh_token": "x"})
    assert (response.status_code, response.json()["error"]) == (400, "invalid_request")
    assert "application/x-www-form-urlencoded" in response.json()["error_description"]


@pytest.mark.parametrize("grant", ["authorization_code", "client_credentials", "REFRESH_TOKEN"])
def test_other_grants_are_unsupported(wire: Wire, grant: str) -> None:
    response = wire.form("/auth/token", grant_type=grant, refresh_token="x")
    assert (response.status_code, response.json()["error"]) == (400, "unsupported_grant_type")


def test_no_grant_type_is_invalid_request(wire: Wire) -> None:
    assert wire.form("/auth/token", refresh_token="x").json()["error"] == "invalid_request"


def test_the_password_grant_logs_in(wire: Wire) -> None:
    response = wire.form("/auth/token", grant_type="password", username="ada", password=PASSWORD, scope="read")
    assert (response.status_code, response.json()["scope"], response.json()["refresh_seq"]) == (200, "read", 0)
    assert has(response, NO_STORE)


def test_a_wrong_password_in_the_password_grant_is_invalid_grant(wire: Wire) -> None:
    response = wire.form("/auth/token", grant_type="password", username="ada", password="wrong")
    assert (response.status_code, response.json()["error"]) == (400, "invalid_grant")
    assert "www-authenticate" not in response.headers
