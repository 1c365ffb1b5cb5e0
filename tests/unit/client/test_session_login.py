"""Logging in, to servers that want a password and then a code."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anyio
import pytest
from starlette.applications import Starlette

from tests.support.backend import running
from unbroken import ConfigurationError, Dialect, LoginRefused, RequestTemplate, Session
from unbroken.server import MemorySessionStore, MfaRequired, Sessions
from unbroken.starlette import routes


@pytest.fixture
def url() -> Iterator[str]:
    def authenticate(name: str, password: str) -> Any:
        return MfaRequired(name, kind="totp", hint="the till's phone") if password == "right" else None

    sessions = Sessions(MemorySessionStore())
    served = routes(sessions, authenticate, verify_mfa=lambda _subject, _kind, code: code == "123456")
    with running(Starlette(routes=served)) as port:
        yield f"http://127.0.0.1:{port}"


def test_a_code_is_asked_for_once_by_its_kind_and_the_servers_hint(url: str) -> None:
    asked = []

    def second_step(kind: str, hint: str) -> str:
        asked.append((kind, hint))
        return "123456"

    session = Session(url)
    session.login("ada", "right", mfa_prompt=second_step)
    assert asked == [("totp", "the till's phone")]
    session.newer_token(session.token())
    assert session.token()


def test_in_an_event_loop_too(url: str) -> None:
    session = Session(url)
    anyio.run(lambda: session.alogin("ada", "right", mfa_prompt=lambda *_: "123456"))
    assert session.token()


def test_a_wrong_code_is_a_refused_login_and_nobody_is_asked_after_a_wrong_password(url: str) -> None:
    session = Session(url)
    with pytest.raises(LoginRefused, match="wrong code") as refused:
        session.login("ada", "right", mfa_prompt=lambda *_: "000000")
    assert refused.value.reason == "access_denied"
    with pytest.raises(LoginRefused):
        session.login("ada", "wrong", mfa_prompt=lambda *_: pytest.fail("asked for a code"))


def test_without_anybody_to_ask_the_reason_says_what_is_wanted(url: str) -> None:
    with pytest.raises(LoginRefused) as refused:
        Session(url).login("ada", "right")
    assert refused.value.reason == "mfa_required"


def test_a_dialect_without_a_second_step_says_what_to_set(url: str) -> None:
    session = Session(
        Dialect(refresh=RequestTemplate(url + "/auth/refresh"), login=RequestTemplate(url + "/auth/login"))
    )
    with pytest.raises(ConfigurationError, match="step=Ask"):
        session.login("ada", "right", mfa_prompt=lambda *_: "123456")
