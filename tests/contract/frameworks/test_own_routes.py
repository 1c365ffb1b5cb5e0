"""Routes of the application: what they need of a token, or of its person now; and logins and logouts of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest

import unbroken.fastapi
import unbroken.flask
from tests.contract.frameworks.own_routes import APPS
from tests.support import django_project
from tests.support.faces import PASSWORD, authorization
from unbroken._concurrency import run_sync
from unbroken.errors import ConfigurationError, UnbrokenError
from unbroken.server import Cookies, Endpoints, MemorySessionStore, Sessions
from unbroken.server.core.rotation import FIRST_PARTY
from unbroken.server.http import Request
from unbroken.server.http.authentication import RequestAuthenticator
from unbroken.verifier import Verifier

ALL = ("/write", "/write-now", "/admin", "/admin-now")
SCRIPT = {"x-unbroken": "1"}
NO_STORE = {"cache-control": "no-store"}


@dataclass
class Person:
    scopes: set[str] = field(default_factory=lambda: {"read", "write"})
    role: str = "admin"


@dataclass
class Shop:
    http: httpx2.Client
    sessions: Sessions
    ada: Person

    def get(self, path: str, token: str) -> httpx2.Response:
        return self.http.get(path, headers=authorization(token))

    def statuses(self, token: str) -> dict[str, int]:
        return {path: self.get(path, token).status_code for path in ALL}

    def tokens(self, **query: str) -> dict[str, Any]:
        response = self.http.post("/tokens", params=query)
        assert response.status_code == 200, response.text
        return response.json()


@contextmanager
def shop_of(name: str, **settings: Any) -> Iterator[Shop]:
    ada = Person()
    with ExitStack() as held:
        sessions = held.enter_context(
            Sessions(MemorySessionStore(), issuer="https://id.example.com", claims=lambda _: {"role": ada.role})
        )
        options = {"scopes_of": lambda _: ada.scopes, **settings}
        port = held.enter_context(APPS[name](sessions, **options))
        if name == "django-rest":
            held.enter_context(django_user("ada"))
        yield Shop(held.enter_context(httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=30)), sessions, ada)


@contextmanager
def django_user(name: str) -> Iterator[None]:
    django_project.set_up()
    from django.contrib.auth import get_user_model

    users: Any = get_user_model()
    users.objects.create_user(name, password=PASSWORD)
    try:
        yield
    finally:
        users.objects.all().delete()


@pytest.fixture(params=sorted(APPS))
def shop(request: pytest.FixtureRequest) -> Iterator[Shop]:
    with shop_of(request.param) as found:
        yield found


@pytest.fixture(params=sorted(APPS))
def cookie_shop(request: pytest.FixtureRequest) -> Iterator[Shop]:
    with shop_of(request.param, cookies=Cookies("both", secure=False)) as found:
        yield found


# ---- rights ----------------------------------------------------------------------------------------------------------


def test_a_right_goes_with_the_next_refresh_and_at_once_where_it_is_looked_up(shop: Shop) -> None:
    tokens = shop.tokens()
    access = tokens["access_token"]
    assert shop.statuses(access) == dict.fromkeys(ALL, 200)
    assert shop.get("/write", access).json() == {"sub": "ada", "scope": "read write", "role": "admin"}
    shop.ada.scopes, shop.ada.role = {"read"}, "clerk"
    assert shop.statuses(access) == {"/write": 200, "/write-now": 403, "/admin": 200, "/admin-now": 403}
    fresh = shop.http.post("/auth/refresh", json={"refresh_token": tokens["refresh_token"]}).json()
    assert fresh["scope"] == "read"
    assert shop.statuses(fresh["access_token"]) == dict.fromkeys(ALL, 403)
    shop.ada.scopes, shop.ada.role = {"read", "write"}, "admin"
    assert shop.statuses(fresh["access_token"]) == {"/write": 403, "/write-now": 200, "/admin": 403, "/admin-now": 200}
    shop.sessions.revoke_subject("ada")
    assert shop.statuses(access) == dict.fromkeys(ALL, 401)


def test_what_is_looked_up_never_widens_a_token_that_asked_for_a_part(shop: Shop) -> None:
    narrow = shop.tokens(scope="read")["access_token"]
    assert shop.statuses(narrow) == {"/write": 403, "/write-now": 403, "/admin": 200, "/admin-now": 200}


def test_a_refusal_says_what_is_missing(shop: Shop) -> None:
    shop.ada.scopes, shop.ada.role = {"read"}, "clerk"
    access = shop.tokens()["access_token"]
    for path, words in (("/write", 'scope="write"'), ("/admin", "this needs other rights: role")):
        refused = shop.get(path, access)
        assert refused.status_code == 403
        assert 'error="insufficient_scope"' in refused.headers["www-authenticate"]
        assert words in refused.headers["www-authenticate"]
        assert "insufficient_scope" in refused.text
    assert "clerk" not in shop.get("/admin", access).text
    for path in ALL:
        assert shop.http.get(path).status_code == 401


def test_a_list_of_roles_has_each_of_them(shop: Shop) -> None:
    for role, status in ((["clerk", "admin"], 200), (["clerk"], 403), ("administrator", 403), (True, 403), (None, 403)):
        shop.ada.role = role  # type: ignore[assignment]  # whatever an application says
        assert shop.get("/admin", shop.tokens()["access_token"]).status_code == status


# ---- logins ----------------------------------------------------------------------------------------------------------


def test_a_login_of_ones_own_is_a_login(shop: Shop) -> None:
    tokens = shop.tokens(label="by mail", scope="read")
    assert {"access_token", "refresh_token", "expires_in", "refresh_seq"} <= tokens.keys()
    assert (tokens["token_type"], tokens["scope"]) == ("Bearer", "read")
    [info] = shop.sessions.list_sessions("ada")
    assert (info.label, info.client_id, info.ip) == ("by mail", FIRST_PARTY, "127.0.0.1")
    assert info.user_agent.startswith("python-httpx")
    response = shop.http.post("/tokens")
    assert response.headers["cache-control"] == "no-store"
    again = shop.http.post("/auth/refresh", json={"refresh_token": tokens["refresh_token"]}).json()
    assert again["refresh_seq"] == 1


def test_without_cookies_a_redirect_can_carry_no_tokens(shop: Shop) -> None:
    refused = shop.http.get("/arrive")
    assert (refused.status_code, "set-cookie" in refused.headers) == (503, False), "a mistake of the application"
    assert shop.sessions.list_sessions() == []


def test_a_redirect_carries_the_session_in_cookies(cookie_shop: Shop) -> None:
    response = cookie_shop.http.get("/arrive")
    assert (response.status_code, response.headers["location"]) == (303, "/home")
    assert NO_STORE.items() <= dict(response.headers).items()
    cookies = response.headers.get_list("set-cookie")
    assert {cookie.partition("=")[0] for cookie in cookies} == {"unbroken-access", "unbroken-refresh"}
    assert all("HttpOnly" in cookie for cookie in cookies)
    who = cookie_shop.http.get("/auth/session", headers=SCRIPT)
    assert (who.status_code, who.json()["sub"]) == (200, "ada")
    assert cookie_shop.http.post("/auth/refresh", headers=SCRIPT).status_code == 200


def test_with_refresh_cookies_a_redirect_carries_the_session_and_the_page_refreshes() -> None:
    for name in sorted(APPS):
        with shop_of(name, cookies=Cookies("refresh", secure=False)) as shop:
            [cookie] = shop.http.get("/arrive").headers.get_list("set-cookie")
            assert cookie.startswith("unbroken-refresh=")
            fresh = shop.http.post("/auth/refresh", headers=SCRIPT).json()
            assert (fresh["scope"], "refresh_token" in fresh) == ("read write", False), name
            left = shop.http.post("/leave", headers=authorization(fresh["access_token"]))
            assert "Max-Age=0" in left.headers["set-cookie"]
            assert shop.http.post("/auth/refresh", headers=SCRIPT).status_code == 400


def test_a_script_gets_what_a_login_gives_it(cookie_shop: Shop) -> None:
    own = cookie_shop.http.post("/tokens", headers=SCRIPT)
    login = cookie_shop.http.post("/auth/login", headers=SCRIPT, json={"username": "ada", "password": PASSWORD})
    assert own.json().keys() == login.json().keys() - {"device_token"}
    assert "access_token" not in own.json()
    assert len(own.headers.get_list("set-cookie")) == 2
    plain = cookie_shop.http.post("/tokens")
    assert "set-cookie" not in plain.headers
    assert plain.json()["access_token"]


def test_who_is_not_active_comes_in_by_no_door() -> None:
    for name in sorted(APPS):
        with shop_of(name, is_active=lambda subject: subject != "ada") as shop:
            refused = shop.http.post("/tokens")
            assert (refused.status_code, shop.sessions.list_sessions()) == (401, []), name
            assert "inactive" in refused.text


# ---- logouts ---------------------------------------------------------------------------------------------------------


def test_this_device_signs_out_and_then_all_do(shop: Shop) -> None:
    one, two, three = (shop.tokens()["access_token"] for _ in range(3))
    left = shop.http.post("/leave", headers=authorization(one))
    assert (left.status_code, left.content) == (204, b"")
    assert [shop.get("/write", token).status_code for token in (one, two, three)] == [401, 200, 200]
    left = shop.http.post("/leave-all", headers=authorization(two))
    assert (left.status_code, left.json()) == (200, {"bye": True})
    assert [shop.get("/write", token).status_code for token in (two, three)] == [401, 401]
    assert shop.http.post("/leave").status_code == 401
    assert {info.revoked_why for info in shop.sessions.list_sessions(include_revoked=True)} == {"logged_out", "revoked"}


def test_a_narrow_token_ends_its_own_session_alone(shop: Shop) -> None:
    own, narrow = shop.tokens()["access_token"], shop.tokens(scope="read")["access_token"]
    assert shop.http.post("/leave-all", headers=authorization(narrow)).status_code == 403
    assert shop.http.post("/leave", headers=authorization(narrow)).status_code == 204
    assert shop.get("/write", own).status_code == 200


def test_a_logout_clears_the_cookies_and_needs_the_header(cookie_shop: Shop) -> None:
    cookie_shop.http.get("/arrive")
    assert cookie_shop.http.post("/leave").status_code == 403, "another site could have sent this form"
    left = cookie_shop.http.post("/leave-all", headers=SCRIPT)
    assert left.status_code == 200
    assert len(left.headers.get_list("set-cookie")) == 2
    assert all("Max-Age=0" in cookie for cookie in left.headers.get_list("set-cookie"))
    assert cookie_shop.http.get("/auth/session", headers=SCRIPT).status_code == 401


@pytest.mark.parametrize(
    ("wrong", "named"),
    [({"scope": 1}, "scope"), ({"claims": "role"}, "claims"), ({"now": "yes"}, "now")],
    ids=["scope", "claims", "now"],
)
def test_a_wrong_need_is_named_where_the_route_is_written(wrong: dict[str, Any], named: str) -> None:
    sessions = Sessions(MemorySessionStore())
    django_project.set_up()
    from unbroken.django import access_token_required
    from unbroken.django.rest import requires_scope

    for needs in (
        unbroken.fastapi.Auth(sessions, lambda name, password: None).requires,
        unbroken.flask.Auth(sessions, lambda name, password: None).required,
        access_token_required,
        requires_scope,
    ):
        with pytest.raises(ConfigurationError, match=f"{named} must be"):
            needs(**wrong)


def test_rights_of_now_need_the_sessions() -> None:
    verifier = Verifier("https://id.example.com/jwks", issuer="https://id.example.com", audience="shop")
    with pytest.raises(ConfigurationError, match="a Verifier cannot look up rights"):
        unbroken.flask.Bearer(verifier).required(now=True)
    with pytest.raises(ConfigurationError, match="a Verifier cannot look up rights"):
        RequestAuthenticator(verifier).check_need(now=True)


@pytest.mark.parametrize(
    ("subject", "wrong", "named"),
    [
        (1, {}, "subject"),
        ("", {}, "subject"),
        ("ada", {"label": 1}, "label"),
        ("ada", {"scope": ["read"]}, "scope"),
        ("ada", {"client_id": None}, "client_id"),
        ("ada", {"cookies": "both"}, "cookies"),
        ("ada", {"client_id": "a\nb"}, "client_id"),
        ("ada", {"cookies": True}, "cookies"),
    ],
)
def test_a_wrong_argument_of_a_login_is_named(subject: Any, wrong: dict[str, Any], named: str) -> None:
    endpoints = Endpoints(Sessions(MemorySessionStore()), lambda name, password: None)
    with pytest.raises(UnbrokenError, match=named):
        run_sync(endpoints.own_logins.log_in(Request("POST", "/own"), subject, **wrong))
    assert endpoints.sessions.list_sessions() == []
