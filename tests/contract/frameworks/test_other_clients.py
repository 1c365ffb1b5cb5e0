"""Programs that never heard of unbroken: PyJWT verifies our tokens, Authlib's clients hold our sessions."""

from __future__ import annotations

import time
from typing import Any

import httpx
import jwt
import pytest
from authlib.integrations.httpx_client import OAuth2Client, OAuthError

from tests.support.faces import PASSWORD, Wire


def client_of(wire: Wire, **more: Any) -> OAuth2Client:
    return OAuth2Client(token_endpoint=wire.url + "/auth/token", base_url=wire.url, **more)


def test_pyjwt_verifies_our_access_token_by_our_published_keys(wire: Wire) -> None:
    token = wire.login(scope="read", client_id="app")["access_token"]
    keys = jwt.PyJWKSet.from_dict(wire.http.get("/.well-known/jwks.json").json())
    head = jwt.get_unverified_header(token)
    key = next(key for key in keys.keys if key.key_id == head["kid"])
    required = {"require": ["iss", "exp", "aud", "sub", "client_id", "iat", "jti"]}  # RFC 9068 §2.2
    body = jwt.decode(
        token, key, algorithms=["EdDSA"], audience="shop", issuer="https://id.example.org", options=required
    )
    assert (head["typ"], head["alg"], head["kid"]) == ("at+jwt", "EdDSA", key.key_id)
    assert (body["sub"], body["client_id"], body["scope"]) == ("ada", "app", "read")


@pytest.mark.parametrize("method", ["none", "client_secret_basic", "client_secret_post"])
def test_authlib_refreshes_by_every_way_to_name_a_public_client(wire: Wire, method: str) -> None:
    token = wire.login(client_id="app")
    with client_of(wire, client_id="app", client_secret="", token_endpoint_auth_method=method) as client:
        fresh = client.refresh_token(wire.url + "/auth/token", refresh_token=token["refresh_token"])
    assert fresh["refresh_seq"] == 1
    assert wire.whoami(fresh["access_token"]).status_code == 200


def test_authlib_refreshes_an_expired_token_by_itself(wire: Wire) -> None:
    token = {**wire.login(client_id="app"), "expires_at": int(time.time()) - 10}
    told: list[dict[str, Any]] = []
    with client_of(
        wire,
        client_id="app",
        token_endpoint_auth_method="none",
        token=token,
        update_token=lambda new, **_: told.append(new),
    ) as client:
        assert client.get("/auth/session").json()["sub"] == "ada"
        assert client.get("/auth/session").status_code == 200
    assert [new["refresh_seq"] for new in told] == [1]


def test_authlib_logs_in_by_the_password_grant_revokes_and_introspects(wire: Wire) -> None:
    with client_of(wire, client_id="app", token_endpoint_auth_method="none", scope="read") as client:
        token = client.fetch_token(username="ada", password=PASSWORD, grant_type="password")
        assert (token["token_type"], token["scope"]) == ("Bearer", "read")
        revoked: httpx.Response = client.revoke_token(wire.url + "/auth/revoke", token=token["refresh_token"])
        assert revoked.status_code == 200
        assert client.get("/auth/session").json()["reason"] == "revoked"


def test_authlib_understands_why_a_refresh_is_refused(wire: Wire) -> None:
    with (
        client_of(wire, client_id="app", token_endpoint_auth_method="none") as client,
        pytest.raises(OAuthError, match="invalid_grant"),
    ):
        client.refresh_token(wire.url + "/auth/token", refresh_token="nonsense")
