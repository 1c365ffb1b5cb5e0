"""Logins as work: how much of it is done at once, and what happens to passwords meanwhile."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from argon2 import PasswordHasher

from tests.support.logins import CaseSensitiveLogins
from unbroken.errors import ConfigurationError, LoginRefused, TryLater
from unbroken.server import Accounts, Endpoints, Identity, MemorySessionStore, MfaRequired, Sessions, SqliteSessionStore
from unbroken.server.events import SessionCreated
from unbroken.server.http.messages import Request
from unbroken.server.login import authenticator
from unbroken.server.worker_pool import CORES, LOGIN_POOL, WorkerPool
from unbroken.testing import ManualClock

pytestmark = pytest.mark.anyio
JSON = {"content-type": "application/json"}
FORM = {"content-type": "application/x-www-form-urlencoded"}
CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


def logging_in(name: str = "ada", password: str = "x") -> Request:
    body = json.dumps({"username": name, "password": password}, ensure_ascii=False)
    return Request("POST", "/auth/login", JSON, body.encode())


async def status_of(endpoints: Endpoints, request: Request) -> int:
    response = await endpoints.handle(request)
    assert response is not None
    return response.status


# ---- how many --------------------------------------------------------------------------------------------------------


async def test_logins_have_a_worker_pool_as_wide_as_the_machine() -> None:
    assert (LOGIN_POOL._max_threads, LOGIN_POOL._max_tasks) == (CORES, 65 * CORES)


async def test_a_logout_does_not_wait_behind_logins(tmp_path: Path) -> None:
    gate = threading.Event()

    def slow(_name: str, _password: str) -> None:
        assert gate.wait(10)

    sessions = Sessions(SqliteSessionStore(tmp_path / "s.db"))
    endpoints = Endpoints(sessions, slow)
    token = sessions.create("ada").access_token
    async with anyio.create_task_group() as group:
        for _ in range(60):
            group.start_soon(endpoints.handle, logging_in())
        await anyio.sleep(0.05)
        with anyio.fail_after(5):
            bearer = {"authorization": f"Bearer {token}"}
            assert await status_of(endpoints, Request("POST", "/auth/logout", bearer)) == 204
        gate.set()


async def test_too_many_logins_are_told_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authenticator, "LOGIN_POOL", WorkerPool(1, 1))
    gate, responses = threading.Event(), []

    def slow(_name: str, _password: str) -> str:
        assert gate.wait(10)
        return "ada"

    endpoints = Endpoints(Sessions(MemorySessionStore()), slow)

    async def one() -> None:
        response = await endpoints.handle(logging_in())
        assert response is not None
        responses.append((response.status, response.headers.get("retry-after")))

    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(one)
        await anyio.wait_all_tasks_blocked()
        gate.set()
    assert sorted(responses, key=str) == [(200, None), (200, None), (503, "1")]


# ---- how long --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "password"), [("x" * 321, "x"), ("x", "x" * 1025)])
@pytest.mark.parametrize("path", ["/auth/login", "/auth/token"])
async def test_a_long_name_or_password_is_refused_unread(path: str, name: str, password: str) -> None:
    asked: list[str] = []
    endpoints = Endpoints(Sessions(MemorySessionStore()), lambda name, _: asked.append(name), password_grant=True)
    form = f"grant_type=password&username={name}&password={password}".encode()
    request = logging_in(name, password) if path == "/auth/login" else Request("POST", path, FORM, form)
    response = await endpoints.handle(request)
    assert response is not None
    assert (response.status, json.loads(response.body)["error"], asked) == (400, "invalid_request", [])


# ---- plain subjects, whose password nobody can look at --------------------------------------------------------------


@pytest.mark.parametrize("step", [False, True])
@pytest.mark.parametrize("store", [lambda _: MemorySessionStore(), lambda path: SqliteSessionStore(path / "s.db")])
async def test_a_login_under_way_does_not_outlive_the_end_of_all_sessions(
    store: Callable[[Path], Any], step: bool, tmp_path: Path
) -> None:
    told: list[Any] = []
    clock = ManualClock()
    sessions = Sessions(store(tmp_path), on_event=told.append, clock=clock.wall)

    def directory(name: str, _: str) -> Any:
        clock.advance(0.05)
        sessions.revoke_subject(name)  # the password was found right, and changed by somebody right after that
        return MfaRequired(name) if step else name

    endpoints = Endpoints(sessions, directory, verify_mfa=lambda *_: True)
    assert await status_of(endpoints, logging_in()) == 401
    assert sessions.list_sessions("ada") == []
    assert [(type(event).__name__, event.why) for event in told] == [("LoginFailed", "changed")]
    clock.advance(0.05)
    other = Endpoints(sessions, lambda name, _: name)
    assert await status_of(other, logging_in()) == 200, "who logs in afterwards is welcome"


async def test_a_listener_of_a_login_may_end_all_other_sessions() -> None:
    def only_one(event: Any) -> None:
        if isinstance(event, SessionCreated):
            sessions.revoke_others(event.subject, keep=event.sid)

    sessions = Sessions(MemorySessionStore(), on_event=only_one)
    endpoints = Endpoints(sessions, lambda name, _: name)
    assert [await status_of(endpoints, logging_in()) for _ in range(3)] == [200, 200, 200]
    assert len(sessions.list_sessions("ada")) == 1


async def test_a_listener_of_a_login_with_mfa_may_end_all_other_sessions() -> None:
    def only_one(event: Any) -> None:
        if isinstance(event, SessionCreated):
            sessions.revoke_others(event.subject, keep=event.sid)

    sessions = Sessions(MemorySessionStore(), on_event=only_one)
    endpoints = Endpoints(sessions, lambda name, _: MfaRequired(name), verify_mfa=lambda *_: True)
    for _ in range(3):
        asked = await endpoints.handle(logging_in())
        assert asked is not None
        token = json.loads(asked.body)["mfa_token"]
        body = json.dumps({"mfa_token": token, "code": "1"}).encode()
        response = await endpoints.handle(Request("POST", "/auth/login/step", JSON, body))
        assert response is not None
        assert response.status == 200
    assert len(sessions.list_sessions("ada")) == 1


async def test_at_one_and_the_same_time_of_day_who_ends_all_sessions_may_log_in_again() -> None:
    sessions = Sessions(MemorySessionStore(), clock=lambda: 1_800_000_000.123)
    sessions.revoke_subject("ada")
    assert await status_of(Endpoints(sessions, lambda name, _: name), logging_in()) == 200


# ---- changes meanwhile -----------------------------------------------------------------------------------------------


def changing(sessions: Sessions, accounts: Accounts, change: Callable[[], object]) -> Endpoints:
    """Endpoints where *change* happens, and all sessions end, when a password was found right for the first time."""
    changes = [change, lambda: sessions.revoke_subject("Ada")]

    def authenticate(name: str, password: str) -> str | None:
        subject = accounts.authenticate(name, password)
        while changes:
            changes.pop(0)()
        return subject

    return Endpoints(sessions, authenticate)


@pytest.mark.parametrize("how", ["changed", "removed"])
async def test_a_login_with_a_password_that_is_changed_meanwhile_does_not_live(how: str) -> None:
    store = MemorySessionStore()
    sessions, accounts = Sessions(store), Accounts(store, CHEAP)
    accounts.add("Ada", "old")
    change = {"changed": lambda: accounts.set_password("ada", "new"), "removed": lambda: accounts.remove("ada")}[how]
    endpoints = changing(sessions, accounts, change)
    assert await status_of(endpoints, logging_in("ada", "old")) == 401
    assert sessions.list_sessions() == []


async def test_a_login_goes_on_when_only_the_hash_is_newer() -> None:
    store = MemorySessionStore()
    sessions, accounts = Sessions(store), Accounts(store, CHEAP)
    accounts.add("Ada", "same")
    endpoints = changing(sessions, accounts, lambda: accounts.set_password("ada", "same"))
    assert await status_of(endpoints, logging_in("ada", "same")) == 200
    assert [info.subject for info in sessions.list_sessions()] == ["Ada"]


# ---- who -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("subject", ["", 42, True, None, b"ada", "\ud800"])
async def test_a_subject_is_a_text(subject: Any) -> None:
    sessions = Sessions(MemorySessionStore())
    with pytest.raises(ConfigurationError, match="subject"):
        sessions.create(subject)
    with pytest.raises(ConfigurationError, match="subject"):
        await sessions.acreate(subject)
    assert sessions.list_sessions() == []


async def test_an_authenticate_that_gives_no_text_is_503_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    endpoints = Endpoints(Sessions(MemorySessionStore()), lambda _name, _password: True)  # type: ignore[arg-type,return-value]
    assert await status_of(endpoints, logging_in()) == 503
    assert "authenticate" in caplog.text


class ServerDown(Exception):
    """What a directory's own library may raise."""


@pytest.mark.parametrize("spelling", ["plain", "async"])
@pytest.mark.parametrize(
    ("outcome", "status", "error", "reason"),
    [
        ("ada", 200, None, None),
        (Identity("ada", label="till 3"), 200, None, None),
        (None, 401, "access_denied", None),
        ("", 401, "access_denied", None),
        (False, 401, "access_denied", None),
        (LoginRefused("the account is closed", reason="closed"), 401, "access_denied", "closed"),
        (TryLater("later", retry_after=7.0), 503, "temporarily_unavailable", None),
        (ConfigurationError("no directory is set"), 503, "temporarily_unavailable", None),
        (ServerDown("ldap://10.0.0.1: can't contact server"), 503, "temporarily_unavailable", None),
        (TimeoutError(), 503, "temporarily_unavailable", None),
        (ExceptionGroup("both", [OSError(), OSError()]), 503, "temporarily_unavailable", None),
    ],
)
async def test_what_authenticate_returns_and_raises_means(
    spelling: str, outcome: Any, status: int, error: str | None, reason: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    def plain(_name: str, _password: str) -> Any:
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def awaited(name: str, password: str) -> Any:
        return plain(name, password)

    sessions = Sessions(MemorySessionStore())
    response = await Endpoints(sessions, plain if spelling == "plain" else awaited).handle(logging_in())
    assert response is not None
    body = json.loads(response.body)
    assert (response.status, body.get("error"), body.get("reason")) == (status, error, reason)
    assert ("authenticate raised an error" in caplog.text) is isinstance(
        outcome, ServerDown | TimeoutError | ExceptionGroup
    )
    assert "10.0.0.1" not in response.body.decode()
    labels = [outcome.label if isinstance(outcome, Identity) else ""] if status == 200 else []
    assert [info.label for info in sessions.list_sessions()] == labels


async def test_an_error_in_scopes_of_is_503_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    def scopes_of(_: str) -> list[str]:
        raise OSError("no response")

    endpoints = Endpoints(Sessions(MemorySessionStore()), lambda name, _: name, scopes_of=scopes_of)
    body = json.dumps({"username": "ada", "password": "x", "scope": "read"}).encode()
    assert await status_of(endpoints, Request("POST", "/auth/login", JSON, body)) == 503
    assert "scopes_of raised an error" in caplog.text


async def test_a_login_is_no_slower_for_a_name_that_is_work_to_fold() -> None:
    store = MemorySessionStore()
    endpoints = Endpoints(Sessions(store), Accounts(store, CHEAP).authenticate)
    began = time.process_time()
    assert await status_of(endpoints, logging_in("a" + "\u0345" * 15_500 + "\u0334" * 15_500)) == 400
    assert time.process_time() - began < 0.3


@pytest.mark.parametrize("subject", [5, b"ada", None, "", "\ud800"])
@pytest.mark.parametrize("kind", [Identity, MfaRequired])
def test_a_subject_that_fits_into_no_token_is_503_also_before_mfa(kind: Any, subject: Any) -> None:
    assert CaseSensitiveLogins(lambda _name, _password: kind(subject)).login("ada") == 503


@pytest.mark.parametrize("who", [Identity("ada", label=None), MfaRequired("ada", kind=7), MfaRequired("ada", hint=[1])])  # type: ignore[arg-type]
def test_labels_kinds_and_hints_that_are_no_text_are_503(who: Any) -> None:
    assert CaseSensitiveLogins(lambda _name, _password: who).login("ada") == 503
