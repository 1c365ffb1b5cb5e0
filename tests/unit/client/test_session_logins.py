"""Logging in, to servers that want a password and then a code."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anyio
import pytest
from starlette.applications import Starlette

from tests.support.backend import running
from tests.support.token_endpoint import URL, TokenEndpoint, json_response, logged_in_at
from unbroken import (
    ConfigurationError,
    Dialect,
    LoginRefused,
    MemoryStore,
    RequestTemplate,
    Session,
    SessionOver,
    StoreUnavailable,
    Tokens,
    TryLater,
    oauth2,
)
from unbroken.client.core.token_store import StoredSession
from unbroken.server import MemorySessionStore, MfaRequired, Sessions
from unbroken.starlette import routes
from unbroken.testing import ManualClock


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

    def second_factor(kind: str, hint: str) -> str:
        asked.append((kind, hint))
        return "123456"

    session = Session(url)
    session.login("ada", "right", mfa_prompt=second_factor)
    assert asked == [("totp", "the till's phone")]
    session.newer_token(session.token())
    assert session.token()


def test_an_async_login_asks_for_a_code(url: str) -> None:
    session = Session(url)
    anyio.run(lambda: session.alogin("ada", "right", mfa_prompt=lambda *_: "123456"))
    assert session.token()


def test_a_wrong_code_is_a_refused_login_and_a_wrong_password_asks_for_no_code(url: str) -> None:
    session = Session(url)
    with pytest.raises(LoginRefused, match="wrong code") as refused:
        session.login("ada", "right", mfa_prompt=lambda *_: "000000")
    assert refused.value.reason == "access_denied"
    with pytest.raises(LoginRefused):
        session.login("ada", "wrong", mfa_prompt=lambda *_: pytest.fail("asked for a code"))


def test_without_an_mfa_prompt_the_reason_is_mfa_required(url: str) -> None:
    with pytest.raises(LoginRefused) as refused:
        Session(url).login("ada", "right")
    assert refused.value.reason == "mfa_required"


def test_a_dialect_without_mfa_says_what_to_set(url: str) -> None:
    session = Session(
        Dialect(refresh=RequestTemplate(url + "/auth/refresh"), login=RequestTemplate(url + "/auth/login"))
    )
    with pytest.raises(ConfigurationError, match="mfa=RequestTemplate"):
        session.login("ada", "right", mfa_prompt=lambda *_: "123456")


def test_a_load_in_the_middle_of_a_logout_does_not_bring_the_session_back(
    endpoint: TokenEndpoint, clock: ManualClock
) -> None:
    class Slow(MemoryStore):
        def save(self, record: StoredSession, expected: StoredSession) -> bool:
            if record.tokens is None:
                with pytest.raises(SessionOver):
                    session.token()
            return super().save(record, expected)

    session = logged_in_at(endpoint, clock, Slow())
    session.logout()
    with pytest.raises(SessionOver, match="logged out"):
        session.token()


def test_of_two_logins_that_cross_the_stored_one_is_in_use(endpoint: TokenEndpoint, clock: ManualClock) -> None:
    class Crossed(MemoryStore):
        """Another login begins and ends between the save of the first one and its return."""

        is_first = True

        def save(self, record: StoredSession, expected: StoredSession) -> bool:
            is_saved = super().save(record, expected)
            if self.is_first:
                self.is_first = False
                clock.advance(1)
                session.import_tokens({"access_token": "theirs", "expires_in": 1800})
            return is_saved

    store = Crossed()
    session = Session(URL, store, send=endpoint, clock=clock)
    session.import_tokens({"access_token": "mine", "expires_in": 1800})
    stored = store.load().tokens
    assert stored is not None
    assert session.token() == stored.access_token == "theirs"


def test_a_logout_is_told_to_the_server_even_if_the_store_fails(endpoint: TokenEndpoint, clock: ManualClock) -> None:
    class Full(MemoryStore):
        full = False

        def save(self, record: StoredSession, expected: StoredSession) -> bool:
            if self.full:
                raise StoreUnavailable("the disk is full")
            return super().save(record, expected)

    store = Full()
    session = logged_in_at(endpoint, clock, store)
    store.full = True
    with pytest.raises(StoreUnavailable):
        session.logout()
    assert endpoint.count("logout") == 1
    with pytest.raises(SessionOver, match="logged out"):
        session.token()
    store.full = False
    clock.advance(1)
    assert session.login("ada", "pw"), "another login is another matter"
    assert session.token()


def test_a_client_with_a_secret_authenticates_when_it_revokes(endpoint: TokenEndpoint, clock: ManualClock) -> None:
    url = "https://as.example"
    dialect = oauth2(url + "/token", client_id="app", client_secret="s", revocation_endpoint=url + "/revoke")
    session = Session(dialect, send=endpoint, clock=clock)
    session.import_tokens({"access_token": "A", "refresh_token": "R"})
    assert session.logout() is True
    headers = {name.lower(): value for name, value in endpoint.calls[-1].headers.items()}
    assert headers["authorization"].startswith("Basic ")
    assert endpoint.calls[-1].body == b"token=R"


def test_tokens_that_were_received_long_ago_are_not_taken_for_new(endpoint: TokenEndpoint, clock: ManualClock) -> None:
    session = Session(URL, send=endpoint, clock=clock)
    session.import_tokens(Tokens("old", "R", expires_in=1800.0, received_at=clock.wall() - 1790))
    assert session.status.state == "ageing"


def test_a_scope_may_come_as_a_list(endpoint: TokenEndpoint, clock: ManualClock) -> None:
    session = Session(URL, send=endpoint, clock=clock)
    assert session.import_tokens({"access_token": "A", "scope": ["read", "write"]}).scope == "read write"


def test_a_retry_after_that_is_no_number_is_try_later(endpoint: TokenEndpoint, clock: ManualClock) -> None:
    endpoint.next = [lambda: json_response({}, 503, **{"retry-after": "²"})]
    with pytest.raises(TryLater):
        logged_in_at(endpoint, clock)


def test_a_logout_reaches_the_server_when_the_store_cannot_confirm_a_write(
    endpoint: TokenEndpoint, clock: ManualClock
) -> None:
    class Doubts(MemoryStore):
        """Writes, loses the response, asks again and says no: as a driver does that repeats a statement."""

        responses = iter([True, False, True])  # to the login, to the logout, to its second look

        def save(self, record: StoredSession, expected: StoredSession) -> bool:
            return super().save(record, expected) and next(self.responses)

    store = Doubts()
    session = logged_in_at(endpoint, clock, store)
    assert session.logout()
    assert [call.url for call in endpoint.calls if "logout" in call.url] == [URL + "/auth/logout"]
    assert store.load().tokens is None
