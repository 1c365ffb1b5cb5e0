"""What the constructor of a Session takes, and what it says about anything else."""

from __future__ import annotations

import importlib
import logging
import sys
from datetime import timedelta
from typing import Any

import pytest

from tests.support.token_endpoint import URL, TokenEndpoint
from unbroken import ConfigurationError, Leeway, MemoryStore, RefreshWindow, Session, Status
from unbroken.testing import ManualClock

NAN = float("nan")


@pytest.mark.parametrize("dialect", [None, 5, b"https://api.example", ["https://api.example"]])
def test_without_a_url_or_a_dialect_the_error_says_what_a_session_begins_with(dialect: Any) -> None:
    with pytest.raises(
        ConfigurationError, match=r"URL of an unbroken server, or with a dialect such as unbroken\.oauth2"
    ):
        Session(dialect)


WRONG: dict[str, tuple[list[Any], str]] = {
    "store": ([5, object(), MemoryStore, URL], "token store"),
    "origins": (["https://api.example"], "list of URLs"),
    "leeway": ([None, 10], "Leeway"),
    "window": ([5, "30s"], "RefreshWindow"),
    "refresh_timeout": ([0, -1, NAN, "10", None, True, timedelta(0)], "refresh_timeout"),
    "wait_timeout": ([-1, NAN, float("inf"), "10", None, timedelta(seconds=-1)], "wait_timeout"),
}


@pytest.mark.parametrize(
    ("setting", "value"), [(name, value) for name, (values, _) in WRONG.items() for value in values]
)
def test_a_wrong_setting_is_refused_by_name(setting: str, value: Any) -> None:
    settings: dict[str, Any] = {setting: value}
    with pytest.raises(ConfigurationError, match=WRONG[setting][1]):
        Session(URL, **settings)


def test_a_misspelled_setting_is_refused() -> None:
    with pytest.raises(TypeError, match="refresh_timout"):
        Session(URL, refresh_timout=5)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: Leeway(-0.1), "advisory"),
        (lambda: Leeway(1.1), "advisory"),
        (lambda: Leeway(NAN), "advisory"),
        (lambda: Leeway("0.2"), "advisory"),  # type: ignore[arg-type]
        (lambda: Leeway(advisory_max_seconds=-1), "advisory_max_seconds"),
        (lambda: Leeway(mandatory=timedelta(seconds=-1)), "mandatory"),
        (lambda: Leeway(mandatory=None), "mandatory"),  # type: ignore[arg-type]
        (lambda: RefreshWindow(-1), "interval"),
        (lambda: RefreshWindow(attempts=-1), "attempts"),
        (lambda: RefreshWindow(attempts=2.5), "attempts"),  # type: ignore[arg-type]
    ],
)
def test_a_wrong_leeway_or_window_is_refused_by_name(make: Any, name: str) -> None:
    with pytest.raises(ConfigurationError, match=name):
        make()


def test_durations_are_seconds_or_a_timedelta() -> None:
    minute = timedelta(minutes=1)
    assert Leeway(0.2, minute, minute) == Leeway(0.2, 60.0, 60.0)
    assert RefreshWindow(minute, 3) == RefreshWindow(60.0, 3)
    Session(URL, refresh_timeout=minute, wait_timeout=timedelta(0))


ADAPTERS = {
    "unbroken.httpx": ["SessionAuth", "SessionTransport"],
    "unbroken.httpx2": ["SessionAuth", "SessionTransport"],
    "unbroken.requests": ["SessionAuth"],
    "unbroken.aiohttp": ["SessionMiddleware"],
    "unbroken.prometheus": ["observe"],
    "unbroken.otel": ["observe"],
}


@pytest.mark.parametrize(("module", "name"), [(module, name) for module, names in ADAPTERS.items() for name in names])
def test_an_adapter_that_is_given_a_url_says_what_to_do(module: str, name: str) -> None:
    with pytest.raises(
        ConfigurationError, match=rf"{name} takes a Session, not str: {name}\(unbroken\.Session\(url\)\)"
    ):
        getattr(importlib.import_module(module), name)(URL)


EXTRAS = {
    "unbroken.httpx": ("httpx", "httpx"),
    "unbroken.httpx2": ("httpx2", "httpx2"),
    "unbroken.requests": ("requests", "requests"),
    "unbroken.aiohttp": ("aiohttp", "aiohttp"),
    "unbroken.prometheus": ("prometheus_client", "prometheus"),
    "unbroken.otel": ("opentelemetry", "otel"),
    "unbroken.client.stores.redis": ("redis", "redis"),
    "unbroken.client.stores.postgres": ("psycopg", "postgres"),
    "unbroken.client.stores.keyring": ("keyring", "keyring"),
}


@pytest.mark.parametrize("module", EXTRAS)
def test_an_import_without_its_library_names_the_extra(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    library, extra = EXTRAS[module]
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.delitem(sys.modules, module, raising=False)
    with pytest.raises(ImportError, match=rf"needs .*pip install 'unbroken\[{extra}\]'"):
        importlib.import_module(module)


def test_the_first_request_to_a_foreign_origin_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    session = Session(URL)
    caplog.set_level(logging.DEBUG, "unbroken")
    for _ in range(3):
        assert not session._attaches_to("https", "cdn.example", None)
        assert not session._attaches_to("https", "cdn.example", 8443)
    assert session._attaches_to("https", "api.example", None)
    assert [record.getMessage() for record in caplog.records] == [
        f"no token sent: origin https://cdn.example{port} is not among the session's origins: https://api.example"
        for port in ("", ":8443")
    ]


def test_the_state_of_a_session_is_one_of_four_words() -> None:
    clock, endpoint = ManualClock(), TokenEndpoint()
    session = Session(URL, send=endpoint, clock=clock, leeway=Leeway(0.2))
    assert session.status == Status("over", "not_logged_in")
    session.login("ada", "pw")
    states = [session.status.state]
    for seconds in (1750, 50):
        clock.advance(seconds)
        states.append(session.status.state)
    assert states == ["good", "ageing", "expired"]
