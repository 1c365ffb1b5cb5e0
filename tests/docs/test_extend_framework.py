"""The page about frameworks of one's own: its WSGI integration serves the endpoints, and guards the views."""

from __future__ import annotations

import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.docs.pages import ROOT, page
from tests.support.faces import PASSWORD, authorization, threaded
from unbroken.server import http as seam
from unbroken.server.http import MAX_BODY_BYTES

LOGIN = {"username": "ada", "password": PASSWORD}


@pytest.fixture(scope="module")
def http(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx2.Client]:
    example = tmp_path_factory.mktemp("page") / "example.py"
    example.write_text(page("extend/framework.md"))
    app = runpy.run_path(str(example))["app"]
    with threaded(app) as port, httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
        yield client


def tokens(http: httpx2.Client) -> dict[str, Any]:
    response = http.post("/auth/login", json=LOGIN)
    assert response.status_code == 200, response.text
    return response.json()


def test_a_view_needs_an_access_token(http: httpx2.Client) -> None:
    bare = http.get("/orders")
    assert (bare.status_code, bare.headers["www-authenticate"]) == (
        401,
        'Bearer realm="unbroken", DPoP algs="ES256 Ed25519 EdDSA"',
    )
    response = http.get("/orders", headers=authorization(tokens(http)["access_token"]))
    assert (response.status_code, response.text) == (200, "orders of ada")


def test_a_session_is_refreshed_and_logged_out(http: httpx2.Client) -> None:
    first = tokens(http)
    second = http.post("/auth/refresh", json={"refresh_token": first["refresh_token"]}).json()
    assert second["refresh_seq"] > first["refresh_seq"]
    assert http.post("/auth/logout", json={"refresh_token": second["refresh_token"]}).status_code == 204
    refused = http.post("/auth/refresh", json={"refresh_token": second["refresh_token"]})
    assert (refused.status_code, refused.json()["error"]) == (400, "invalid_grant")


def test_each_cookie_is_a_header_of_its_own_and_opens_the_view(http: httpx2.Client) -> None:
    response = http.post("/auth/login", json=LOGIN, headers={"x-unbroken": "1"})
    cookies = [cookie.partition(";")[0] for cookie in response.headers.get_list("set-cookie")]
    names = ["__Secure-unbroken-refresh", "__Host-unbroken-access", "__Secure-unbroken-device"]
    assert [cookie.partition("=")[0] for cookie in cookies] == names
    # The client keeps no secure cookie that came over http, so it is sent by hand.
    assert http.get("/orders", headers={"cookie": "; ".join(cookies)}).text == "orders of ada"
    assert http.get("/orders", headers={"cookie": cookies[0]}).status_code == 401


def test_what_no_endpoint_serves_is_the_applications(http: httpx2.Client) -> None:
    assert [http.get(path).text for path in ("/", "/auth", "/other")] == ["not found"] * 3
    assert http.get("/auth/other").text == "not found"


def test_head_methods_and_long_bodies_are_the_endpoints_affair(http: httpx2.Client) -> None:
    head = http.head("/auth/health")
    assert (head.status_code, head.headers["content-length"], head.content) == (200, "15", b"")
    assert http.get("/auth/login").headers["allow"] == "POST"
    assert http.post("/auth/login", content=b" " * (MAX_BODY_BYTES + 9)).status_code == 413
    assert http.get("/.well-known/jwks.json").json()["keys"]


def test_the_page_names_what_the_seam_exports() -> None:
    text = (ROOT / "docs" / "extend" / "framework.md").read_text()
    unnamed = {"Cookies", "EndpointOptions", "TokenVerifier", "challenge", "error_response"}
    assert [name for name in seam.__all__ if name not in text and name not in unnamed] == []
    assert Path(seam.__file__).name == "__init__.py"
