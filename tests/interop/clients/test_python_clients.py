"""Python's OAuth 2.0 clients, unmodified: they refresh by themselves and when told to, one by one and at once."""

from __future__ import annotations

import json
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from anyio import create_task_group
from authlib.integrations.httpx_client import AsyncOAuth2Client, OAuth2Client
from authlib.integrations.requests_client import OAuth2Session as AuthlibSession
from joserfc.jwk import KeySet
from joserfc.jwt import JWTClaimsRegistry, decode
from oauthlib.oauth2 import InvalidGrantError, LegacyApplicationClient, TokenExpiredError, WebApplicationClient
from requests_oauthlib import OAuth2Session

from tests.interop.clients.conftest import AUDIENCE, CLIENT, METADATA, Server, together
from tests.support.backend import PASSWORD

PUBLIC: dict[str, Any] = {"client_id": CLIENT, "token_endpoint_auth_method": "none"}


@pytest.fixture
def anyio_backend() -> str:
    """Authlib's client waits by an asyncio lock."""
    return "asyncio"


@pytest.fixture(autouse=True)
def _loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """oauthlib and Authlib want to be told that plain http is meant."""
    monkeypatch.setenv("OAUTHLIB_INSECURE_TRANSPORT", "1")
    monkeypatch.setenv("AUTHLIB_INSECURE_TRANSPORT", "1")


def metadata(server: Server) -> dict[str, Any]:
    """Where everything is, as RFC 8414 says."""
    with urllib.request.urlopen(server.url + METADATA, timeout=10) as response:
        return json.load(response)


# ---- Authlib ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [OAuth2Client, AuthlibSession])
def test_authlib_refreshes_each_expired_token_by_itself(server: Server, kind: Callable[..., Any]) -> None:
    told: list[dict[str, Any]] = []
    endpoint = metadata(server)["token_endpoint"]
    with kind(
        **PUBLIC, token=server.expired(), token_endpoint=endpoint, update_token=lambda t, **_: told.append(t)
    ) as client:
        for _ in range(4):
            assert client.get(server.me).json()["sub"] == "ada"
            client.token = {**client.token, "expires_at": time.time() - 10}
    assert [token["refresh_seq"] for token in told] == [1, 2, 3, 4]


@pytest.mark.parametrize("kind", [OAuth2Client, AuthlibSession])
def test_authlib_in_threads_that_all_refresh_at_once(server: Server, kind: Callable[..., Any]) -> None:
    token = server.expired()

    def one() -> int:
        with kind(**PUBLIC, token=token, token_endpoint=server.token_url) as client:
            return client.get(server.me).status_code

    assert together(one) == [200] * 8


@pytest.mark.anyio
async def test_authlib_in_tasks_refreshes_once(server: Server) -> None:
    responses: list[int] = []
    before = server.hits["/auth/token"]
    async with AsyncOAuth2Client(**PUBLIC, token=server.expired(), token_endpoint=server.token_url) as client:

        async def one() -> None:
            responses.append((await client.get(server.me)).status_code)

        for refresh in range(3):
            async with create_task_group() as group:
                for _ in range(20):
                    group.start_soon(one)
            assert server.hits["/auth/token"] - before == refresh + 1
            client.token = {**client.token, "expires_at": time.time() - 10}
    assert responses == [200] * 60


@pytest.mark.parametrize("kind", [OAuth2Client, AuthlibSession])
def test_authlib_logs_in_introspects_and_revokes(server: Server, kind: Callable[..., Any]) -> None:
    service = server.login("service", "introspect")["access_token"]
    where = metadata(server)
    with kind(**PUBLIC, scope="read") as client:
        token = client.fetch_token(where["token_endpoint"], username="ada", password=PASSWORD, grant_type="password")
        assert (token["token_type"], token["scope"], token["expires_in"]) == ("Bearer", "read", 1800)

        def asks(_: Any, method: str, uri: str, headers: Any, body: str) -> tuple[str, Any, str]:
            return uri, {**headers, "authorization": f"Bearer {service}"}, body

        client.register_client_auth_method(("service", asks))
        client.token_endpoint_auth_method = "service"
        found = client.introspect_token(where["introspection_endpoint"], token=token["access_token"]).json()
        assert (found["active"], found["sub"]) == (True, "ada")
        client.token_endpoint_auth_method = "none"
        assert client.revoke_token(where["revocation_endpoint"], token=token["refresh_token"]).status_code == 200
        assert client.get(server.me).json()["reason"] == "revoked"


# ---- requests-oauthlib -----------------------------------------------------------------------------------------------


def test_requests_oauthlib_refreshes_each_expired_token_by_itself(server: Server) -> None:
    told: list[dict[str, Any]] = []
    with OAuth2Session(
        CLIENT,
        token=server.expired(),
        auto_refresh_url=server.token_url,
        auto_refresh_kwargs={"client_id": CLIENT},
        token_updater=told.append,
    ) as client:
        for _ in range(4):
            assert client.get(server.me).json()["sub"] == "ada"
            client.token = {**client.token, "expires_at": time.time() - 10}
    assert [token["refresh_seq"] for token in told] == [1, 2, 3, 4]


def test_requests_oauthlib_in_threads_that_all_refresh_at_once(server: Server) -> None:
    token = server.expired()

    def one() -> int:
        more = {"auto_refresh_kwargs": {"client_id": CLIENT}, "token_updater": lambda _: None}
        with OAuth2Session(CLIENT, token=token, auto_refresh_url=server.token_url, **more) as client:
            return client.get(server.me).status_code

    assert together(one) == [200] * 8


def test_requests_oauthlib_logs_in_by_password(server: Server) -> None:
    with OAuth2Session(client=LegacyApplicationClient(CLIENT, scope=["read"])) as client:
        token = client.fetch_token(server.token_url, username="ada", password=PASSWORD, include_client_id=True)
        assert token["scope"] == ["read"]
        assert client.refresh_token(server.token_url, client_id=CLIENT)["refresh_seq"] == 1


def test_requests_oauthlib_is_told_that_the_grant_is_invalid(server: Server) -> None:
    with (
        OAuth2Session(CLIENT, token=server.expired()) as client,
        pytest.raises(InvalidGrantError),
    ):
        client.refresh_token(server.token_url, refresh_token="nonsense", client_id=CLIENT)


# ---- oauthlib alone --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", ["read", "read write", None])
def test_oauthlib_by_hand_over_the_standard_library(server: Server, scope: str | None) -> None:
    token = server.login(scope=scope or "")
    asked = scope.split() if scope else None
    client = WebApplicationClient(CLIENT, token=token, scope=asked)
    for seq in range(1, 4):
        url, headers, body = client.prepare_refresh_token_request(server.token_url, client.token["refresh_token"])
        request = urllib.request.Request(url, f"{body}&client_id={CLIENT}".encode(), headers)
        with urllib.request.urlopen(request, timeout=10) as response:
            fresh = client.parse_request_body_response(response.read().decode(), scope=asked)
        assert fresh["refresh_seq"] == seq
        url, headers, _ = client.add_token(server.me, http_method="GET")
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as response:
            assert json.load(response)["scope"] == (scope or "read write"), "all, if none was asked for"
    client.populate_token_attributes({**client.token, "expires_at": time.time() - 10})
    with pytest.raises(TokenExpiredError):
        client.add_token(server.me, http_method="GET")
    url, headers, body = client.prepare_token_revocation_request(server.revoke_url, client.refresh_token)
    with urllib.request.urlopen(urllib.request.Request(url, body.encode(), headers), timeout=10) as response:
        assert response.status == 200


def test_a_scope_may_be_narrowed_by_a_refresh(server: Server) -> None:
    token = server.login(scope="read write")
    client = WebApplicationClient(CLIENT, token=token, scope=["read", "write"])
    _, headers, body = client.prepare_refresh_token_request(server.token_url, token["refresh_token"], scope=["read"])
    request = urllib.request.Request(server.token_url, f"{body}&client_id={CLIENT}".encode(), headers)
    with urllib.request.urlopen(request, timeout=10) as response:
        assert client.parse_request_body_response(response.read().decode(), scope=["read"])["scope"] == ["read"]


# ---- access tokens, by our published keys ----------------------------------------------------------------------------


def test_pyjwt_verifies_by_the_jwks_url(server: Server) -> None:
    token = server.login()["access_token"]
    key = jwt.PyJWKClient(metadata(server)["jwks_uri"]).get_signing_key_from_jwt(token)
    algorithms = metadata(server)["access_token_signing_alg_values_supported"]
    body = jwt.decode(token, key, algorithms=algorithms, audience=AUDIENCE, issuer=server.url)
    assert (body["sub"], body["client_id"]) == ("ada", CLIENT)


@pytest.mark.filterwarnings("ignore:EdDSA is deprecated")  # in favour of a name that few verifiers know yet
def test_joserfc_verifies_by_the_jwks(server: Server) -> None:
    token = server.login()["access_token"]
    with urllib.request.urlopen(metadata(server)["jwks_uri"], timeout=10) as response:
        keys = KeySet.import_key_set(json.load(response))
    [alg] = [key.get("alg") for key in keys.keys]
    found = decode(token, keys, algorithms=[str(alg)])
    needed: dict[str, Any] = {"essential": True}
    claims = JWTClaimsRegistry(iss={**needed, "value": server.url}, aud={**needed, "value": AUDIENCE}, exp=needed)
    claims.validate(found.claims)
    assert (found.header["typ"], found.claims["sub"]) == ("at+jwt", "ada")


def test_a_body_by_any_common_encoder_is_understood(server: Server) -> None:
    token = server.login()["refresh_token"]
    form = {"grant_type": "refresh_token", "refresh_token": token, "client_id": CLIENT}
    for body in (urllib.parse.urlencode(form), "&".join(f"{name}={value}" for name, value in form.items())):
        headers = {"content-type": "application/x-www-form-urlencoded; charset=UTF-8"}
        request = urllib.request.Request(server.token_url, body.encode(), headers)
        with urllib.request.urlopen(request, timeout=10) as response:
            assert json.load(response)["refresh_seq"] == 1
