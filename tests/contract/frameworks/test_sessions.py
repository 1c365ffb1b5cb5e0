"""Logout, revocation, introspection, "your devices", and what others need to know, over HTTP.

Modules: server/http/introspection.py, server/http/discovery.py.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.faces import NO_STORE, Wire, authorization

# ---- logout (and RFC 7009) -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["bearer", "body", "both"])
def test_a_logout_ends_the_session_at_once_and_can_be_repeated(wire: Wire, by: str) -> None:
    tokens = wire.login()
    headers = authorization(tokens["access_token"]) if by != "body" else {}
    body = {"refresh_token": tokens["refresh_token"]} if by != "bearer" else None
    for _ in range(2):
        response = wire.http.post("/auth/logout", headers=headers, **({"json": body} if body else {}))
        assert (response.status_code, response.content) == (204, b"")
    assert wire.whoami(tokens["access_token"]).json()["reason"] == "revoked"
    assert wire.refresh(tokens["refresh_token"]).json()["reason"] == "logged_out"


def test_an_old_generation_logs_out_too(wire: Wire) -> None:
    old = wire.login()
    new = wire.refresh(old["refresh_token"]).json()
    assert wire.http.post("/auth/logout", json={"refresh_token": old["refresh_token"]}).status_code == 204
    assert wire.refresh(new["refresh_token"]).json()["reason"] == "logged_out"


def test_a_logout_of_nothing_is_invalid_request(wire: Wire) -> None:
    response = wire.http.post("/auth/logout")
    assert (response.status_code, response.json()["error"]) == (400, "invalid_request")


def test_a_logout_by_rubbish_is_challenged_and_by_an_unknown_refresh_token_is_not(wire: Wire) -> None:
    response = wire.http.post("/auth/logout", headers=authorization("rubbish"))
    assert (response.status_code, response.json()["reason"]) == (401, "malformed")
    assert 'error="invalid_token"' in response.headers["www-authenticate"]
    assert wire.http.post("/auth/logout", json={"refresh_token": "rubbish"}).status_code == 204


@pytest.mark.parametrize("which", ["access_token", "refresh_token"])
@pytest.mark.parametrize("hint", ["", "access_token", "refresh_token", "unheard_of"])
def test_revoking_either_token_ends_the_session_whatever_the_hint(wire: Wire, which: str, hint: str) -> None:
    tokens = wire.login()
    response = wire.form("/auth/revoke", token=tokens[which], token_type_hint=hint)
    assert (response.status_code, response.content) == (200, b"")
    assert wire.whoami(tokens["access_token"]).status_code == 401
    assert wire.refresh(tokens["refresh_token"]).status_code == 400


def test_revoking_an_unknown_token_is_200_and_none_is_invalid_request(wire: Wire) -> None:
    assert wire.form("/auth/revoke", token="unknown").status_code == 200
    response = wire.form("/auth/revoke", token_type_hint="access_token")
    assert (response.status_code, response.json()["error"]) == (400, "invalid_request")


# ---- introspection (RFC 7662) ----------------------------------------------------------------------------------------


def introspected(wire: Wire, caller: dict[str, Any], token: str) -> dict[str, Any]:
    response = wire.form("/auth/introspect", caller["access_token"], token=token)
    assert response.status_code == 200
    assert NO_STORE.items() <= dict(response.headers).items()
    return response.json()


def test_a_caller_sees_its_own_tokens(wire: Wire) -> None:
    tokens = wire.login(scope="read")
    access = introspected(wire, tokens, tokens["access_token"])
    assert (access["active"], access["sub"], access["scope"], access["token_type"]) == (True, "ada", "read", "Bearer")
    assert {"iss", "aud", "exp", "iat", "client_id", "sid"} <= access.keys()
    assert introspected(wire, tokens, tokens["refresh_token"])["sub"] == "ada"


def test_other_subjects_tokens_are_inactive_without_the_scope_introspect(wire: Wire) -> None:
    ada, eve, operator = wire.login("ada"), wire.login("eve", scope="read"), wire.login("operator", scope="introspect")
    for token in (ada["access_token"], ada["refresh_token"]):
        assert introspected(wire, eve, token) == {"active": False}
        assert introspected(wire, operator, token)["sub"] == "ada"


def test_dead_and_unknown_tokens_are_inactive(wire: Wire) -> None:
    caller, gone = wire.login("ada"), wire.login("ada")
    spent = wire.login("ada", coordinated=True)["refresh_token"]
    wire.refresh(spent, **{"idempotency-key": "one"})
    wire.form("/auth/revoke", token=gone["access_token"])
    for token in ("unknown", gone["access_token"], gone["refresh_token"], spent):
        assert introspected(wire, caller, token) == {"active": False}


def test_looking_at_a_refresh_token_spends_nothing(wire: Wire) -> None:
    tokens = wire.login()
    for _ in range(3):
        introspected(wire, tokens, tokens["refresh_token"])
    assert wire.refresh(tokens["refresh_token"]).json()["refresh_seq"] == 1


def test_introspection_needs_a_token_and_something_to_look_at(wire: Wire) -> None:
    assert (
        wire.form("/auth/introspect", token="x").headers["www-authenticate"]
        == 'Bearer realm="unbroken", DPoP algs="ES256 Ed25519 EdDSA"'
    )
    assert wire.form("/auth/introspect", "rubbish", token="x").json()["error"] == "invalid_token"
    assert wire.form("/auth/introspect", wire.login()["access_token"]).json()["error"] == "invalid_request"


# ---- who am I, and my devices ----------------------------------------------------------------------------------------


def test_whoami_returns_the_claims_of_the_access_token(wire: Wire) -> None:
    tokens = wire.login(scope="read", client_id="app")
    who = wire.whoami(tokens["access_token"]).json()
    assert (who["sub"], who["scope"], who["client_id"]) == ("ada", "read", "app")
    assert (who["iss"], who["aud"]) == ("https://id.example.org", "shop")
    assert who["exp"] - who["iat"] in (1800, 1801), "the end is rounded up to whole seconds"


def test_no_token_gets_a_bare_challenge(wire: Wire) -> None:
    for headers in ({}, {"authorization": "Bearer"}, {"authorization": "Basic YTpi"}):
        response = wire.http.get("/auth/session", headers=headers)
        assert (response.status_code, response.headers["www-authenticate"]) == (
            401,
            'Bearer realm="unbroken", DPoP algs="ES256 Ed25519 EdDSA"',
        )
        assert response.json() == {"error": "unauthorized"}


def test_a_bad_token_gets_a_challenge_with_its_reason(wire: Wire) -> None:
    response = wire.whoami("rubbish")
    assert response.headers["www-authenticate"] == (
        'Bearer realm="unbroken", error="invalid_token", '
        'error_description="this is not an access token of this server", reason="malformed"'
    )
    assert (response.json()["error"], response.json()["reason"]) == ("invalid_token", "malformed")
    assert NO_STORE.items() <= dict(response.headers).items()


def test_a_token_of_a_retired_key_is_revoked(wire: Wire) -> None:
    tokens = wire.login()
    kid = wire.sessions.keyring().signing[-1].kid
    wire.sessions.rotate_keys(publish_ahead=0.0)
    wire.sessions.retire_key(kid)
    assert wire.whoami(tokens["access_token"]).json()["reason"] == "revoked"
    assert wire.whoami(wire.refresh(tokens["refresh_token"]).json()["access_token"]).status_code == 200


def test_the_authorization_header_counts_once(wire: Wire) -> None:
    good = f"Bearer {wire.login()['access_token']}"
    for both in ([good, "Bearer other"], ["Bearer other", good], [good, good]):
        response = wire.http.get("/auth/session", headers=[("authorization", value) for value in both])
        assert response.status_code == 401


def test_my_devices_are_mine_and_the_current_one_is_marked(wire: Wire) -> None:
    wire.sessions.revoke_subject("grace")
    here, there, other = wire.login("grace", label="here"), wire.login("grace", label="there"), wire.login("heidi")
    listed = wire.http.get("/auth/sessions", headers=authorization(here["access_token"])).json()["sessions"]
    assert {(one["label"], one["current"]) for one in listed} == {("here", True), ("there", False)}
    texts = [tokens[name] for tokens in (here, there, other) for name in ("access_token", "refresh_token")]
    assert not any(text in str(listed) for text in texts)


def test_my_devices_come_in_pages(wire: Wire) -> None:
    wire.sessions.revoke_subject("paige")
    tokens = [wire.login("paige", label=str(number)) for number in range(5)]
    headers = authorization(tokens[0]["access_token"])
    labels: list[str] = []
    query: dict[str, str] = {"limit": "2"}
    for count in (2, 2, 1):
        body = wire.http.get("/auth/sessions", params=query, headers=headers).json()
        assert len(body["sessions"]) == count
        labels += [one["label"] for one in body["sessions"]]
        query["cursor"] = body.get("next", "")
    assert "next" not in body
    assert sorted(labels) == ["0", "1", "2", "3", "4"]
    assert "next" not in wire.http.get("/auth/sessions", headers=headers).json(), "a short list is one page"


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=1001", "limit=x", "limit=-1", "limit=1&limit=2", "cursor=x", "cursor=nan_x", "limit=%C2%B2"],
)
def test_a_page_that_cannot_be_is_refused(wire: Wire, query: str) -> None:
    headers = authorization(wire.login("paige")["access_token"])
    response = wire.http.get(f"/auth/sessions?{query}", headers=headers)
    assert response.status_code == 400
    assert response.json()["error"] == "invalid_request"


def test_a_session_is_ended_by_its_owner_alone(wire: Wire) -> None:
    mine, mallory = wire.login("ivan"), wire.login("mallory")
    sid = wire.whoami(mine["access_token"]).json()["sid"]
    path = f"/auth/sessions/{sid}"
    refused = wire.http.delete(path, headers=authorization(mallory["access_token"]))
    assert (refused.status_code, refused.json()["error"]) == (404, "not_found")
    assert wire.http.delete(path).status_code == 401
    assert wire.whoami(mine["access_token"]).status_code == 200
    assert wire.http.delete(path, headers=authorization(mine["access_token"])).status_code == 204
    assert wire.whoami(mine["access_token"]).json()["reason"] == "revoked"


@pytest.mark.parametrize("sid", ["unknown", "revoke-others", "%00", "..", "x" * 500])
def test_an_unknown_session_is_404(wire: Wire, sid: str) -> None:
    response = wire.http.delete(f"/auth/sessions/{sid}", headers=authorization(wire.login()["access_token"]))
    assert response.status_code in (404, 405)  # ".." is another path


def test_all_others_are_ended_and_this_one_stays(wire: Wire) -> None:
    wire.sessions.revoke_subject("judy")
    here, others = wire.login("judy"), [wire.login("judy") for _ in range(3)]
    response = wire.http.post("/auth/sessions/revoke-others", headers=authorization(here["access_token"]))
    assert response.json() == {"revoked": 3}
    assert wire.whoami(here["access_token"]).status_code == 200
    assert {wire.whoami(other["access_token"]).status_code for other in others} == {401}


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/auth/session"), ("GET", "/auth/sessions"), ("DELETE", "/auth/sessions/x"),
     ("POST", "/auth/sessions/revoke-others"), ("POST", "/auth/introspect")],
)  # fmt: skip
def test_a_protected_endpoint_without_a_token_responds_with_a_challenge(wire: Wire, method: str, path: str) -> None:
    response = wire.http.request(method, path)
    assert (response.status_code, response.headers["www-authenticate"]) == (
        401,
        'Bearer realm="unbroken", DPoP algs="ES256 Ed25519 EdDSA"',
    )


# ---- what others need to know ----------------------------------------------------------------------------------------


def test_the_keys_are_public_cacheable_and_without_secrets(wire: Wire) -> None:
    response = wire.http.get("/.well-known/jwks.json")
    assert response.headers["cache-control"] == "public, max-age=300"
    assert response.json()["keys"]
    for key in response.json()["keys"]:
        assert key.keys() == {"kty", "crv", "x", "kid", "use", "alg"}


def test_the_metadata_names_endpoints_that_exist(wire: Wire) -> None:
    response = wire.http.get("/.well-known/oauth-authorization-server")
    facts = response.json()
    assert facts["issuer"] == "https://id.example.org"
    assert facts["grant_types_supported"] == ["refresh_token", "password"]
    assert "response_types_supported" in facts
    assert response.headers["cache-control"] == "public, max-age=300"
    for name, url in facts.items():
        if name.endswith("_endpoint"):
            path = url.removeprefix("https://id.example.org")
            assert wire.http.post(path).status_code in (400, 401)
    assert wire.http.get(facts["jwks_uri"].removeprefix("https://id.example.org")).status_code == 200


def test_the_metadata_of_the_api_names_its_authorization_server(wire: Wire) -> None:
    response = wire.http.get("/.well-known/oauth-protected-resource")
    assert response.headers["cache-control"] == "public, max-age=300"
    assert response.json() == {
        "resource": "https://id.example.org",
        "authorization_servers": ["https://id.example.org"],
        "bearer_methods_supported": ["header"],
    }


@pytest.mark.parametrize("sid", ["%00", "a" * 500, "%ff", "%ed%a0%80"])
def test_a_malformed_sid_is_not_found(wire: Wire, sid: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bearer = authorization(wire.login()["access_token"])

    def asked(*_: Any, **__: Any) -> Any:
        raise AssertionError("the store was asked for it")

    monkeypatch.setattr(wire.sessions.store, "sessions", asked)
    assert wire.http.delete(f"/auth/sessions/{sid}", headers=bearer).status_code == 404
    assert wire.http.patch(f"/auth/sessions/{sid}", json={"label": "x"}, headers=bearer).status_code == 404
