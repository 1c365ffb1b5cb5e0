"""The settings of the endpoints: unknown names and wrong values are refused by every framework's entry point."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import unbroken.fastapi
import unbroken.flask
from unbroken.errors import ConfigurationError
from unbroken.server import Cookies, Endpoints, MemorySessionStore, RateLimitPolicy, Sessions
from unbroken.server.http.settings import EndpointOptions, EndpointSettings
from unbroken.starlette import AccessTokenMiddleware, BearerBackend, routes

ENTRY_POINTS: dict[str, Callable[..., Any]] = {
    "endpoints": Endpoints,
    "starlette": routes,
    "fastapi": unbroken.fastapi.Auth,
    "flask": unbroken.flask.Auth,
}


def authenticate(name: str, _password: str) -> str:
    return name


@pytest.fixture(params=ENTRY_POINTS)
def make(request: pytest.FixtureRequest) -> Callable[..., Any]:
    entry_point = ENTRY_POINTS[request.param]
    return lambda **options: entry_point(Sessions(MemorySessionStore()), authenticate, **options)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("gaurd", "rate_limit"),
        ("guard", "rate_limit"),
        ("rate_limits", "rate_limit"),
        ("orgins", "origins"),
        ("isactive", "is_active"),
        ("cookie", "cookies"),
        ("mfa", "verify_mfa"),
        ("url_prefix", "prefix"),
    ],
)
def test_an_unknown_setting_is_refused_and_the_nearest_one_is_named(
    make: Callable[..., Any], name: str, meant: str
) -> None:
    with pytest.raises(ConfigurationError, match=rf"there is no setting '{name}': did you mean {meant}\?"):
        make(**{name: None})


def test_an_unknown_setting_is_refused_with_the_names_of_all() -> None:
    with pytest.raises(ConfigurationError, match="the settings are prefix, password_grant, scopes_of"):
        EndpointSettings.of(xyzzy=1)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prefix": "auth"}, "prefix must be a path"),
        ({"prefix": "/auth/{tenant}"}, "prefix must be a path"),
        ({"prefix": None}, "prefix must be a path"),
        ({"password_grant": "yes"}, "password_grant must be True or False"),
        ({"tickets": None}, "tickets must be True or False"),
        ({"rate_limit": 5}, "rate_limit must be a RateLimitPolicy"),
        ({"cookies": "all"}, "cookies must be"),
        ({"cookies": {"mode": "both"}}, "cookies must be"),
        ({"origins": "https://app.example.com"}, "origins must be a list"),
        ({"origins": None}, "origins must be a list"),
        ({"origins": ["app.example.com"]}, "is not an origin"),
        ({"origins": [None]}, "is not an origin"),
        ({"scopes_of": ["read"]}, "scopes_of must be a function"),
        ({"verify_mfa": True}, "verify_mfa must be a function"),
        ({"is_active": True}, "is_active must be a function"),
    ],
)
def test_a_wrong_value_is_refused_when_the_endpoints_are_made(
    make: Callable[..., Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        make(**options)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {"rate_limit": RateLimitPolicy(), "cookies": None, "prefix": "/auth"}),
        ({"rate_limit": True, "cookies": True}, {"rate_limit": RateLimitPolicy(), "cookies": Cookies()}),
        ({"rate_limit": False, "cookies": False}, {"rate_limit": None, "cookies": None}),
        ({"rate_limit": None, "cookies": "both"}, {"rate_limit": None, "cookies": Cookies("both")}),
        ({"prefix": "/id/v1/"}, {"prefix": "/id/v1"}),
        ({"prefix": "/"}, {"prefix": ""}),
        ({"origins": ["https://app.example.com"]}, {"origins": ("https://app.example.com",)}),
    ],
)
def test_short_forms_mean_what_they_say(options: EndpointOptions, expected: dict[str, Any]) -> None:
    settings = EndpointSettings.of(**options)
    assert {name: getattr(settings, name) for name in expected} == expected


def test_the_options_and_the_settings_have_the_same_names() -> None:
    assert list(EndpointOptions.__annotations__) == list(EndpointSettings.__dataclass_fields__)


@pytest.mark.parametrize("entry_point", ENTRY_POINTS.values(), ids=ENTRY_POINTS)
@pytest.mark.parametrize(
    ("sessions", "message"),
    [
        ("postgresql://app:hush@db/app", r"a Sessions, not a URL: Sessions\(open_store\(url\)\)"),
        (MemorySessionStore(), "a Sessions, not a MemorySessionStore"),
        (None, "a Sessions, not a NoneType"),
    ],
)
def test_what_is_no_sessions_is_refused_and_no_password_is_shown(
    entry_point: Callable[..., Any], sessions: Any, message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        entry_point(sessions, authenticate)
    assert "hush" not in str(caught.value)


def test_an_authenticate_that_cannot_be_called_is_refused() -> None:
    wrong: Any = "shop.accounts.authenticate"
    with pytest.raises(ConfigurationError, match="authenticate must be a function"):
        Endpoints(Sessions(MemorySessionStore()), wrong)


@pytest.mark.parametrize(
    "entry_point",
    [
        lambda url: AccessTokenMiddleware(lambda *_: None, url),
        BearerBackend,
        unbroken.fastapi.Bearer,
        unbroken.flask.Bearer,
    ],
    ids=["starlette middleware", "starlette backend", "fastapi", "flask"],
)
def test_what_cannot_verify_tokens_is_refused(entry_point: Callable[..., Any]) -> None:
    with pytest.raises(ConfigurationError, match="verified by a Sessions or a Verifier, not by a str"):
        entry_point("https://id.example.org")
