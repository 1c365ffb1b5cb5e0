"""Requests in Django: whose they are, what is refused, and the endpoints among a project's own. See also tests/wire.

Modules: django/convert.py, django/decorators.py, django/middleware.py, django/urls.py.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from django.core.handlers.asgi import ASGIRequest
from django.db import connections
from django.http import HttpRequest
from django.test import AsyncClient, Client, override_settings
from django.urls import resolve, reverse

from tests.support import django_project
from tests.support.django_project import PASSWORD, chosen
from tests.unit.django.conftest import JSON, LOGIN, User, login, token_of
from unbroken.django import sessions
from unbroken.django.convert import to_request, to_response
from unbroken.django.runtime import route_table
from unbroken.errors import StoreUnavailable
from unbroken.server.http.messages import Response as Value


@pytest.mark.parametrize("page", ["/public", "/public-async"])
def test_every_request_has_the_user_of_its_token(http: httpx2.Client, ada: Any, page: str) -> None:
    assert http.get(page, headers=login(http)).json() == {"user": "ada", "auth": str(ada.pk)}
    for headers in ({}, {"authorization": "Bearer nonsense"}):
        assert http.get(page, headers=headers).json() == {"user": "AnonymousUser", "auth": None}


@pytest.mark.parametrize("page", ["/orders", "/later", "/rest"])
def test_no_token_and_a_bad_token_are_challenged_with_a_json_body(http: httpx2.Client, page: str) -> None:
    none, bad = http.get(page), http.get(page, headers={"authorization": "Bearer nonsense"})
    assert (none.status_code, none.headers["www-authenticate"]) == (
        401,
        'Bearer realm="unbroken", DPoP algs="ES256 Ed25519 EdDSA"',
    )
    assert (bad.status_code, bad.headers["content-type"]) == (401, "application/json")
    assert (bad.json()["error"], bad.json()["reason"]) == ("invalid_token", "malformed")
    assert 'reason="malformed"' in bad.headers["www-authenticate"]


@pytest.mark.parametrize(("page", "scope"), [("/later", "write"), ("/rest", "read")])
def test_too_little_scope_is_403_and_says_what_is_missing(http: httpx2.Client, page: str, scope: str) -> None:
    answer = http.get(page, headers=login(http, scope="read" if scope == "write" else "write"))
    detail = {"detail": "the access token lacks scope"} if page == "/rest" else {}
    assert (answer.status_code, answer.json()) == (403, {**detail, "error": "insufficient_scope", "scope": scope})
    challenge = f'Bearer realm="unbroken", error="insufficient_scope", scope="{scope}"'
    assert answer.headers["www-authenticate"] == challenge


def test_the_cookie_of_the_admin_stays_good_and_a_token_goes_before_it(ada: Any) -> None:
    browser, other = Client(), User.objects.create_user("grace", password=PASSWORD)
    browser.force_login(ada)
    assert browser.get("/public").json() == {"user": "ada", "auth": None}
    assert browser.get("/public", headers=token_of(other)).json() == {"user": "grace", "auth": str(other.pk)}
    assert browser.get("/public", headers={"authorization": "Bearer bad"}).json()["user"] == "AnonymousUser"
    assert browser.get("/orders").status_code == 401, "Django's cookie is no access token"


def test_neither_the_endpoints_nor_views_for_tokens_ask_for_a_csrf_token(ada: Any) -> None:
    strict = Client(enforce_csrf_checks=True)
    token = strict.post("/auth/login", LOGIN, **JSON).json()["access_token"]
    for page in ("/class", "/rest"):
        answer = strict.post(page, headers={"authorization": f"Bearer {token}"})
        assert b"CSRF" not in answer.content
        assert answer.status_code in (200, 403)
    assert strict.post("/class").status_code == 401


def test_a_store_that_does_not_respond_is_503_and_not_a_logout(http: httpx2.Client, ada: Any) -> None:
    headers = token_of(ada)

    async def dead(_: str) -> Any:
        raise StoreUnavailable("the database is locked", retry_after=2)

    sessions().averify = dead  # type: ignore[method-assign]
    for page in ("/orders", "/rest"):
        answer = http.get(page, headers=headers)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
        assert answer.json()["error"] == "temporarily_unavailable"


def test_views_work_without_the_middleware(ada: Any) -> None:
    with override_settings(MIDDLEWARE=[]):
        assert Client().post("/class", headers=token_of(ada)).json() == {"sub": str(ada.pk)}
        assert Client().get("/rest", headers=token_of(ada, "read")).json()["user"] == "ada"
        assert Client().get("/rest").status_code == 401


def test_permissions_for_scopes_can_be_combined(ada: Any) -> None:
    assert Client().get("/either", headers=token_of(ada, "read")).status_code == 200
    assert Client().get("/either", headers=token_of(ada, "pay")).status_code == 403


def test_endpoints_are_open_where_djangos_own_login_is_required_everywhere(ada: Any) -> None:
    everywhere = [*django_project.MIDDLEWARE, "django.contrib.auth.middleware.LoginRequiredMiddleware"]
    with override_settings(MIDDLEWARE=everywhere):
        assert Client().post("/auth/login", LOGIN, **JSON).status_code == 200
        assert Client().get("/orders").status_code == 401
        assert Client().get("/public").status_code == 302


# ---- endpoints -------------------------------------------------------------------------------------------------------


def test_the_endpoints_have_names_and_another_prefix_if_wanted() -> None:
    assert reverse("unbroken:end_session", args=["x"]) == "/auth/sessions/x"
    with chosen(STORE="memory:", PREFIX="/id"):
        assert reverse("unbroken:login") == "/id/login"
        assert Client().post("/id/login", LOGIN, **JSON).status_code == 200


def test_every_endpoint_can_be_found_by_its_name() -> None:
    for route in route_table().routes:
        arguments = ["x"] if "{sid}" in route.path else []
        assert resolve(reverse(f"unbroken:{route.name}", args=arguments)).url_name


def test_a_smaller_limit_of_the_project_holds_too(http: httpx2.Client) -> None:
    with override_settings(DATA_UPLOAD_MAX_MEMORY_SIZE=10):
        answer = http.post("/auth/login", json=LOGIN)
    assert (answer.status_code, answer.json()["error"]) == (413, "invalid_request")


def test_head_gets_the_status_and_headers_of_get() -> None:
    assert Client().head("/.well-known/jwks.json").status_code == 200


def test_a_middleware_may_look_at_a_body_before_and_after() -> None:
    with override_settings(MIDDLEWARE=[f"{__name__}.curious"]):
        assert Client().post("/auth/login", LOGIN, **JSON).headers["x-body"] == json.dumps(LOGIN)


def curious(get_response: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:
    def middleware(request: HttpRequest) -> Any:
        response = get_response(request)
        response["x-body"] = request.body.decode()
        return response

    return middleware


def test_the_endpoints_work_with_a_transaction_around_each_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(connections.settings["default"], "ATOMIC_REQUESTS", True)
    assert Client().post("/auth/login", LOGIN, **JSON).status_code == 200
    client = AsyncClient()
    answer = asyncio.run(client.post("/auth/login", LOGIN, **JSON))
    assert answer.status_code == 200


def test_an_async_view_is_chosen_in_an_event_loop_and_a_plain_one_elsewhere() -> None:
    async def within() -> Any:
        return resolve("/auth/login").func

    assert asyncio.iscoroutinefunction(asyncio.run(within()))
    assert not asyncio.iscoroutinefunction(resolve("/auth/login").func)


def test_cookies_of_the_endpoints_arrive_one_header_each() -> None:
    set_cookie = (
        "__Host-a=1; Path=/; Max-Age=60; HttpOnly; SameSite=Strict; Secure",
        "a=2; Path=/auth; Max-Age=0",
        "a=3; Path=/api",
    )
    response = to_response(Value(204, {"cache-control": "no-store"}, cookies=set_cookie))
    sent = [set(morsel.OutputString().split("; ")) for morsel in response.cookies.values()]
    assert sent == [set(cookie.split("; ")) for cookie in set_cookie]
    assert dict(response.items()) == {"cache-control": "no-store"}


def test_a_split_cookie_header_is_one_again() -> None:
    headers = [(b"cookie", b"a=1"), (b"cookie", b"b=2; c=3")]
    request = ASGIRequest({"type": "http", "method": "GET", "path": "/", "headers": headers}, None)
    assert to_request(request).headers["cookie"] == "a=1; b=2; c=3"
