"""What OpenAPI says is true: requests made from the description, good and bad ones, are answered as it says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    ignored_auth,
    missing_required_header,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

import unbroken.fastapi
from tests.support.faces import PASSWORD, authenticate, authorization, scopes_of
from unbroken.server import Cookies, MemorySessionStore, Sessions
from unbroken.server.http.static import PARTS
from unbroken.testing import running

METADATA = ("/.well-known/oauth-authorization-server", "/.well-known/oauth-protected-resource")
GOOD = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
CHECKS = [
    *GOOD,
    negative_data_rejection,
    missing_required_header,
    unsupported_method,
    ignored_auth,
]
FEW = settings(max_examples=25, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
FORM, JSON = "application/x-www-form-urlencoded", "application/json"


def application(sessions: Sessions, cookies: Cookies | None) -> FastAPI:
    """Without a guard: it would respond 429 to nearly everything that is tried here."""
    own: dict[str, Any] = {"password_grant": True, "scopes_of": scopes_of, "cookies": cookies, "rate_limit": None}
    app = FastAPI()
    app.include_router(unbroken.fastapi.Auth(sessions, authenticate, **own).router)
    return app


def for_bearers(document: dict[str, Any]) -> dict[str, Any]:
    """Return *document* without the scheme DPoP.

    Where two schemes share the header Authorization, the check for ignored authentication leaves a good token in the
    request that it takes to be without one.
    """
    assert document["components"]["securitySchemes"].pop("DPoP")["scheme"] == "DPoP"
    for operation in (one for item in document["paths"].values() for one in item.values()):
        if "security" in operation:
            operation["security"] = [one for one in operation["security"] if "DPoP" not in one]
    return document


SESSIONS, COOKIES = Sessions(MemorySessionStore()), Cookies("both")
plain = schemathesis.openapi.from_dict(for_bearers(application(SESSIONS, None).openapi()))
with_cookies = schemathesis.openapi.from_dict(for_bearers(application(SESSIONS, COOKIES).openapi()))


@pytest.fixture(scope="module")
def plain_url() -> Iterator[str]:
    with running(application(SESSIONS, None)) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def cookies_url() -> Iterator[str]:
    with running(application(SESSIONS, COOKIES)) as port:
        yield f"http://127.0.0.1:{port}"


def bearer(known: bool) -> dict[str, str]:
    if not known:
        return {}
    return {"authorization": f"Bearer {SESSIONS.create('operator', scope='introspect sessions').access_token}"}


@pytest.mark.parametrize("known", [False, True], ids=["stranger", "operator"])
@plain.parametrize()
@FEW
def test_every_response_is_one_that_is_described(case: schemathesis.Case, plain_url: str, known: bool) -> None:
    case.call_and_validate(base_url=plain_url, headers=bearer(known), checks=CHECKS, timeout=10)


@pytest.mark.parametrize("known", [False, True], ids=["stranger", "operator"])
@with_cookies.parametrize()
@FEW
def test_every_response_of_a_server_with_cookies_is_one_that_is_described(
    case: schemathesis.Case, cookies_url: str, known: bool
) -> None:
    case.call_and_validate(base_url=cookies_url, headers=bearer(known), checks=CHECKS, timeout=10)


class Caller:
    """Makes requests from the description, and sees that the responses are as it says."""

    def __init__(self, described: Any, url: str) -> None:
        self._described, self._url, self.asked = described, url, set[tuple[str, str]]()

    def __call__(self, method: str, path: str, status: int, token: str = "", **parts: Any) -> Any:
        headers = {**parts.pop("headers", {}), **authorization(token)}
        case = self._described[path][method].Case(**parts)
        response = case.call(base_url=self._url, headers=headers, timeout=10)
        assert response.status_code == status, response.text
        case.validate_response(response, checks=GOOD)
        self.asked.add((method, path))
        return (
            response.json()
            if "json" in response.headers.get("content-type", [""])[0] and response.content
            else response
        )


def test_valid_requests_get_the_described_responses(plain_url: str) -> None:
    call = Caller(plain, plain_url)
    who = {"username": "operator", "password": PASSWORD, "scope": "introspect sessions"}
    first = call("POST", "/auth/login", 200, body={**who, "label": "till", "client_id": "app"}, media_type=JSON)
    token, form = first["access_token"], {"media_type": FORM}
    other = call("POST", "/auth/token", 200, body={"grant_type": "password", **who}, **form)
    call(
        "POST",
        "/auth/token",
        200,
        body={"grant_type": "refresh_token", "refresh_token": other["refresh_token"]},
        **form,
    )
    again = {"refresh_token": first["refresh_token"], "client_id": "app"}
    call("POST", "/auth/refresh", 200, body=again, media_type=JSON)
    call("POST", "/auth/introspect", 200, token, body={"token": first["refresh_token"]}, **form)
    call("GET", "/auth/session", 200, token)
    [sid, *_] = [one["sid"] for one in call("GET", "/auth/sessions", 200, token)["sessions"] if not one["current"]]
    call(
        "PATCH", "/auth/sessions/{sid}", 200, token, path_parameters={"sid": sid}, body={"label": "x"}, media_type=JSON
    )
    call("DELETE", "/auth/sessions/{sid}", 204, token, path_parameters={"sid": sid})
    call("DELETE", "/auth/sessions/{sid}", 404, token, path_parameters={"sid": sid})
    assert call("GET", "/auth/revocations", 200, token, query={"after": 0})["revoked"]
    call("POST", "/auth/ticket", 200, token)
    call("POST", "/auth/sessions/revoke-others", 200, token)
    parts = [f"/auth/{part}{end}" for part in PARTS for end in ("", ".map")]
    files = (*parts, "/.well-known/jwks.json")
    for path in ("/auth/health", "/auth/health/ready", *files, *METADATA):
        call("GET", path, 200)
    call("POST", "/auth/revoke", 200, body={"token": "whatever"}, **form)
    call("POST", "/auth/logout", 204, token)
    call("GET", "/auth/session", 401, token)
    described = {(one.ok().method.upper(), one.ok().path) for one in plain.get_all_operations()}
    assert described == call.asked


def test_requests_with_cookies_get_the_described_responses(cookies_url: str) -> None:
    call = Caller(with_cookies, cookies_url)
    who, ours = {"username": "ada", "password": PASSWORD}, {"X-Unbroken": "1"}
    response = call("POST", "/auth/login", 200, body=who, media_type=JSON, headers=ours)
    assert response.keys() >= {"sid", "refresh_seq"}
    assert "refresh_token" not in response
    call("POST", "/auth/refresh", 400, headers=ours)
    call("POST", "/auth/logout", 204, headers=ours)
