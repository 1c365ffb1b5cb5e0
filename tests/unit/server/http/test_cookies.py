"""Cookies as values: names, attributes, what is read of a header, and what is refused when the server starts."""

from __future__ import annotations

import json
from typing import Any

import pytest

from unbroken.errors import ConfigurationError, InvalidRequest
from unbroken.server import Endpoints, MemorySessionStore, Sessions
from unbroken.server.http.cookies import MAX_COOKIE_BYTES, Cookies, CookieTransport
from unbroken.server.http.messages import Forbidden, Request, Response
from unbroken.server.http.origins import AllowedOrigins
from unbroken.tokens import TokenResponse

pytestmark = pytest.mark.anyio
ALLOWED = "https://app.example.com"
SCRIPT = {"x-unbroken": "1", "host": "id.example.org"}
JSON = {"content-type": "application/json"}


def jar(prefix: str = "/auth", origins: tuple[str, ...] = (ALLOWED,), **about: Any) -> CookieTransport:
    return CookieTransport(Cookies(**about), AllowedOrigins(origins), prefix)


def login(path: str = "/auth/login", **headers: str) -> Request:
    fields = json.dumps({"username": "ada", "password": "x"}).encode()
    return Request("POST", path, {**SCRIPT, **JSON, **headers}, fields)


def granted(subject: str = "ada", **more: Any) -> TokenResponse:
    return Sessions(MemorySessionStore(), **more).create(subject)


def names(response: Response) -> list[str]:
    return [cookie.partition("=")[0] for cookie in response.cookies]


# ---- names and attributes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prefix", "about", "wanted"),
    [
        ("/auth", {}, ["__Secure-unbroken-refresh", "__Host-unbroken-access"]),
        ("", {}, ["__Host-unbroken-refresh", "__Host-unbroken-access"]),
        ("", {"path": "/api/auth"}, ["__Secure-unbroken-refresh", "__Host-unbroken-access"]),
        ("/auth", {"domain": "example.com"}, ["__Secure-unbroken-refresh", "__Secure-unbroken-access"]),
        ("", {"domain": "example.com"}, ["__Secure-unbroken-refresh", "__Secure-unbroken-access"]),
        ("/auth", {"name": "shop"}, ["__Secure-shop-refresh", "__Host-shop-access"]),
    ],
)
def test_a_name_has_the_strongest_prefix_that_its_cookie_may_have(
    prefix: str, about: dict[str, Any], wanted: list[str]
) -> None:
    kept = jar(prefix, mode="both", **about)
    assert names(kept.issue(login(), granted())) == names(kept.cleared(Response())) == wanted


def test_every_cookie_is_protected_and_is_cleared_where_it_was_set() -> None:
    kept = jar(mode="both", same_site="Lax", domain="example.com")
    for cookie in (*kept.issue(login(), granted()).cookies, *kept.cleared(Response()).cookies):
        _, *attributes = cookie.split("; ")
        path = "Path=/auth" if "refresh=" in cookie else "Path=/"
        assert {path, "HttpOnly", "Secure", "SameSite=Lax", "Domain=example.com"} < set(attributes)
    assert all("=; " in cookie and "Max-Age=0" in cookie for cookie in kept.cleared(Response()).cookies)


def test_a_cookie_lives_as_long_as_the_refresh_token() -> None:
    found = granted()
    assert all(
        f"Max-Age={int(found.refresh_expires_in or 0)}" in cookie for cookie in jar().issue(login(), found).cookies
    )


def test_the_repr_of_a_response_shows_no_cookie() -> None:
    found = granted()
    shown = repr(jar(mode="both").issue(login(), found))
    assert found.access_token not in shown
    assert str(found.refresh_token) not in shown


# ---- set up wrongly --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "about",
    [{"mode": "all"}, {"same_site": None}, {"same_site": "strict"}, {"same_site": "None", "secure": False},
     {"domain": "https://example.com"}, {"domain": "localhost"}, {"domain": "a.b; Secure"}, {"domain": ""},
     {"path": "auth"}, {"path": "/a;b"}, {"path": ""}, {"name": ""}, {"name": "a=b"}, {"name": "a b"}],
    ids=str,
)  # fmt: skip
def test_what_no_browser_would_take_is_refused_when_the_server_starts(about: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="cookies: "):
        Cookies(**about)


def test_a_token_too_long_for_a_cookie_is_an_error_and_not_silently_lost() -> None:
    long = granted(claims=lambda _: {"groups": "x" * MAX_COOKIE_BYTES})
    with pytest.raises(ConfigurationError, match="fewer claims"):
        jar(mode="both").issue(login(), long)
    assert len(jar().issue(login(), long).cookies) == 1, "in the body it has room"


async def test_endpoints_that_browsers_see_elsewhere_are_named_before_a_session_begins() -> None:
    sessions = Sessions(MemorySessionStore())
    mounted = Endpoints(sessions, lambda name, _: name, cookies=Cookies())
    answer = await mounted.respond(mounted.routes[0], login("/api/auth/login"))
    assert (answer.status, answer.cookies, sessions.list_sessions()) == (503, (), [])
    told = Endpoints(sessions, lambda name, _: name, cookies=Cookies(path="/api/auth"))
    answer = await told.respond(told.routes[0], login("/api/auth/login"))
    assert (answer.status, "Path=/api/auth" in answer.cookies[0]) == (200, True)


@pytest.mark.parametrize(
    ("host", "may"),
    [("localhost:8000", True), ("127.0.0.1", True), ("[::1]:8000", True), ("app.localhost", True),
     ("id.example.org", False), ("localhost.example.org", False), ("127.0.0.1.example.org", False), ("", False),
     ("[", False)],
)  # fmt: skip
def test_insecure_cookies_are_for_this_machine_only(host: str, may: bool) -> None:
    asks = login(host=host)
    if may:
        assert jar(secure=False).wants_cookies(asks)
    else:
        with pytest.raises(Forbidden) as refused:
            jar(secure=False).wants_cookies(asks)
        assert refused.value.reason == "not_loopback"


# ---- whose request it is ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "ours"),
    [
        ({}, True),
        ({"sec-fetch-site": "same-origin"}, True),
        ({"sec-fetch-site": "none"}, True),
        ({"sec-fetch-site": "same-site"}, False),
        ({"sec-fetch-site": "cross-site"}, False),
        ({"origin": ALLOWED}, True),
        ({"origin": ALLOWED, "sec-fetch-site": "cross-site"}, True),
        ({"origin": "https://id.example.org"}, True),
        ({"origin": "https://id.example.org", "sec-fetch-site": "same-origin"}, True),
        ({"origin": "https://behind.proxy", "sec-fetch-site": "same-origin"}, True),
        ({"origin": "https://id.example.org", "sec-fetch-site": "cross-site"}, False),
        ({"origin": "http://id.example.org"}, False),
        ({"origin": "https://id.example.org:8443"}, False),
        ({"origin": "https://evil.example", "sec-fetch-site": "same-site"}, False),
        ({"origin": "null"}, False),
        ({"origin": "null", "sec-fetch-site": "same-origin"}, False),
        ({"origin": ""}, False),
        ({"origin": "http://localhost:8000", "host": "localhost:8000"}, True),
        ({"origin": "http://localhost:8001", "host": "localhost:8000"}, False),
        ({"origin": "https://", "host": ""}, False),
        ({"origin": "http://[", "host": "["}, False),
    ],
    ids=str,
)
def test_a_request_is_ours_if_no_other_site_can_be_behind_it(headers: dict[str, str], ours: bool) -> None:
    asked = Request("POST", "/auth/refresh", {**SCRIPT, **headers})
    assert AllowedOrigins([ALLOWED]).is_trusted(asked) is ours


# ---- reading a Cookie header -----------------------------------------------------------------------------------------


def read(header: str) -> tuple[str, ...]:
    return jar(mode="both").access_tokens(Request("GET", "/", {"cookie": header}))


@pytest.mark.parametrize(
    ("header", "values"),
    [
        ("", ()),
        (";;;", ()),
        ("__Host-unbroken-access", ()),
        ("__Host-unbroken-access=", ()),
        ("__Host-unbroken-access=a", ("a",)),
        ("a=b;__Host-unbroken-access=a=b", ("a=b",)),
        (" \t__Host-unbroken-access =\ta ; c=d", ("a",)),
        ("__Host-unbroken-access=a; __Host-unbroken-access=a", ("a",)),
        ("__Host-unbroken-access=a; __Host-unbroken-access=b", ("a", "b")),
        ("__host-unbroken-access=a; x__Host-unbroken-access=b; unbroken-access=c", ()),
        ("\x85__Host-unbroken-access=a; __Host-unbroken-access\xa0=b; \u2009__Host-unbroken-access=c", ()),
        ("x=1, __Host-unbroken-access=a", ()),
    ],
)
def test_a_cookie_header_is_read_letter_by_letter(header: str, values: tuple[str, ...]) -> None:
    assert read(header) == values


def test_a_long_cookie_header_is_read_once_through() -> None:
    assert read("; ".join(f"c{number}=x" for number in range(20_000)) + "; __Host-unbroken-access=a") == ("a",)


def test_more_cookies_of_one_name_than_anyone_honestly_has_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="several session cookies"):
        read("; ".join(f"__Host-unbroken-access={number}" for number in range(5)))


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "TRACE", "BREW", ""])
def test_every_method_that_may_change_something_needs_the_header(method: str) -> None:
    kept, pair = jar(mode="both"), {"cookie": "__Host-unbroken-access=a"}
    with pytest.raises(Forbidden):
        kept.access_tokens(Request(method, "/", {**pair, "upgrade": "websocket"}))
    assert kept.access_tokens(Request(method, "/", {**SCRIPT, **pair})) == ("a",)
    assert kept.access_tokens(Request(method, "/", {})) == (), "without a cookie there is nothing to guard"


def test_without_the_setting_no_cookie_is_read_or_cleared() -> None:
    off = CookieTransport(None, AllowedOrigins())
    asked = Request("POST", "/auth/refresh", {**SCRIPT, "cookie": "unbroken-refresh=a; unbroken-access=a"})
    assert (off.refresh_tokens(asked), off.access_tokens(asked), off.requests_cookies(asked)) == ((), (), False)
    assert off.cleared(Response(204)) == Response(204)
