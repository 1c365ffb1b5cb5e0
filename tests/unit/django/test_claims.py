"""``current_claims``: in a view with the middleware, in one with the decorator, and in one with neither."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from django.http import HttpResponse
from django.test import Client, override_settings
from django.urls import path

from tests.support import django_project
from tests.support.backend import running
from tests.support.django_project import chosen

django_project.set_up()

from unbroken.django import access_token_required, current_claims, sessions  # noqa: E402  # needs the settings


def plain(request: Any) -> HttpResponse:
    return HttpResponse(current_claims(request).subject)


async def later(request: Any) -> HttpResponse:
    return HttpResponse(current_claims(request, scope="write").subject)


PAGES = [path("plain", plain), path("later", later), path("decorated", access_token_required(plain))]
WITHOUT = [one for one in django_project.MIDDLEWARE if not one.startswith("unbroken")]


@pytest.fixture(autouse=True)
def project() -> Iterator[None]:
    with chosen(*PAGES, STORE="memory:", IS_ACTIVE=None):
        yield


def headers(scope: str = "") -> dict[str, str]:
    return {"authorization": f"Bearer {sessions().create('ada', scope=scope).access_token}"}


def test_current_claims_are_those_of_the_request() -> None:
    assert Client().get("/plain", headers=headers()).content == b"ada"
    assert Client().get("/later", headers=headers("write")).content == b"ada"


@pytest.mark.parametrize("page", ["/plain", "/later"])
def test_a_request_without_a_good_token_gets_a_challenge(page: str) -> None:
    bare = Client().get(page)
    assert (bare.status_code, bare.headers["www-authenticate"]) == (
        401,
        'Bearer realm="unbroken", DPoP algs="ES256 Ed25519 EdDSA"',
    )
    bad = Client().get(page, headers={"authorization": "Bearer junk"})
    assert (bad.status_code, bad.json()["reason"]) == (401, "malformed")


def test_too_little_scope_is_a_403_with_a_challenge() -> None:
    response = Client().get("/later", headers=headers("read"))
    assert (response.status_code, response.json()) == (403, {"error": "insufficient_scope", "scope": "write"})


def test_current_claims_work_in_an_event_loop() -> None:
    with (
        running(django_project.application("asgi")) as port,
        httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as http,
    ):
        for page in ("/plain", "/later"):
            assert http.get(page).status_code == 401
            assert http.get(page, headers=headers("write")).text == "ada"


def test_current_claims_need_no_middleware_behind_the_decorator() -> None:
    with override_settings(MIDDLEWARE=WITHOUT):
        assert Client().get("/decorated", headers=headers()).content == b"ada"


def test_without_middleware_and_decorator_the_error_says_what_to_add() -> None:
    with (
        override_settings(MIDDLEWARE=WITHOUT),
        pytest.raises(RuntimeError, match="AccessTokenMiddleware in MIDDLEWARE"),
    ):
        Client().get("/plain", headers=headers())
