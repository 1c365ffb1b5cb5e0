"""Devices, as their users see them, and what is told of logins."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unbroken.errors import StoreUnavailable, TryLater
from unbroken.server import Caller, Endpoints, MemorySessionStore, MfaRequired, Sessions
from unbroken.server.core.user_agent import BROWSERS, SYSTEMS, compact_user_agent, device_name
from unbroken.server.events import LoginFailed, LoginRateLimited, ServerEvent, SessionCreated
from unbroken.server.http.messages import Request
from unbroken.server.login import credential_check

JSON = {"content-type": "application/json", "user-agent": "curl/8.5"}
CHROME = (
    "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Mobile Safari/537.36"
)
SAFARI = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
    "Version/18.5 Mobile/15E148 Safari/604.1"
)


# ---- what a device is called -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("agent", "device"),
    [
        ("", ""),
        (CHROME, "Chrome on Android"),
        (SAFARI, "Safari on iPhone"),
        ("Mozilla/5.0 (Macintosh; Intel Mac OS X 10.15; rv:140.0) Gecko/20100101 Firefox/140.0", "Firefox on macOS"),
        ("Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 Chrome/140 Safari/537.36 OPR/120.0", "Opera on Windows"),
        ("Mozilla/5.0 (X11; CrOS x86_64) AppleWebKit/537.36 Chrome/140.0 Safari/537.36", "Chrome on ChromeOS"),
        ("Mozilla/5.0 (compatible)", "Mozilla"),
        ("python-httpx2/2.16", "python-httpx2"),
        ("Shop 3.1 (Android)", "Shop"),
        ("x" * 400, "x" * 40),
        ("Safari/", "Safari"),
    ],
)
def test_a_device_has_a_name_for_people(agent: str, device: str) -> None:
    assert device_name(agent) == device
    assert device_name(compact_user_agent(agent)) == device


WORDS = ["Mozilla/5.0 ", "(", *BROWSERS, *SYSTEMS, "7", "142.0", ";", ") ", "MyApp/3 "]


@given(st.lists(st.sampled_from(WORDS), max_size=9))
def test_what_a_row_keeps_of_a_user_agent_names_the_same_device(parts: list[str]) -> None:
    agent = "".join(parts)
    assert device_name(compact_user_agent(agent)) == device_name(agent)
    assert compact_user_agent(compact_user_agent(agent)) == compact_user_agent(agent)


def test_a_row_keeps_little_of_a_browser_and_all_of_another_program() -> None:
    assert compact_user_agent(CHROME) == "Chrome/141 (Android)"
    assert compact_user_agent("python-httpx2/2.16 Python/3.13") == "python-httpx2/2.16 Python/3.13"


# ---- labels ----------------------------------------------------------------------------------------------------------


def test_a_session_gets_another_label_and_nothing_else_changes() -> None:
    sessions = Sessions(MemorySessionStore())
    granted = sessions.create("ada", label="old")
    [before] = sessions.list_sessions("ada")
    renamed = sessions.rename(before.sid, "new", subject="ada")
    [after] = sessions.list_sessions("ada")
    assert renamed == after
    assert {**before.to_json(), "label": "new"} == after.to_json()
    assert sessions.refresh(granted.refresh_token).refresh_seq == 1


def test_only_a_living_session_of_that_subject_is_renamed() -> None:
    sessions = Sessions(MemorySessionStore())
    sessions.create("ada", label="old")
    [info] = sessions.list_sessions("ada")
    assert sessions.rename(info.sid, "new", subject="eve") is None
    assert sessions.rename("another", "new") is None
    sessions.revoke(info.sid)
    assert sessions.rename(info.sid, "new", subject="ada") is None
    assert [one.label for one in sessions.list_sessions("ada", include_revoked=True)] == ["old"]


def test_a_refresh_during_a_rename_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    sessions = Sessions(MemorySessionStore())
    tokens = [sessions.create("ada")]
    [info] = sessions.list_sessions("ada")
    plain = sessions.store.sessions

    async def raced(*args: Any) -> Any:
        rows = await plain(*args)
        if len(tokens) == 1:
            tokens.append(sessions.refresh(tokens[0].refresh_token))
        return rows

    monkeypatch.setattr(sessions.store, "sessions", raced)
    renamed = sessions.rename(info.sid, "new")
    assert renamed is not None
    assert sessions.refresh(tokens[1].refresh_token).refresh_seq == 2
    assert [one.label for one in sessions.list_sessions("ada")] == ["new"]


def test_a_session_that_changes_all_the_time_is_named_later(monkeypatch: pytest.MonkeyPatch) -> None:
    sessions = Sessions(MemorySessionStore())
    sessions.create("ada")

    async def never(*_: object) -> bool:
        return False

    monkeypatch.setattr(sessions.store, "compare_and_set", never)
    with pytest.raises(TryLater):
        sessions.rename(sessions.list_sessions("ada")[0].sid, "new")


def test_the_claims_hook_sees_the_new_label() -> None:
    sessions = Sessions(MemorySessionStore(), claims=lambda info: {"device": info.label})
    granted = sessions.refresh(sessions.create("ada", label="old").refresh_token)
    sessions.rename(sessions.list_sessions("ada")[0].sid, "new")
    fresh = sessions.refresh(granted.refresh_token)
    assert sessions.verify(fresh.access_token).extra == {"device": "new"}


# ---- new devices -----------------------------------------------------------------------------------------------------


def notifications_of(events: list[ServerEvent]) -> list[bool]:
    return [event.new_device for event in events if isinstance(event, SessionCreated)]


def test_a_device_is_new_once_for_each_subject_and_client() -> None:
    events: list[ServerEvent] = []
    sessions = Sessions(MemorySessionStore(), on_event=events.append)
    for subject, client_id, agent in [
        ("ada", "web", CHROME), ("ada", "web", CHROME.replace("141", "142")), ("ada", "web", SAFARI),
        ("ada", "app", CHROME), ("bob", "web", CHROME), ("ada", "web", SAFARI),
    ]:  # fmt: skip
        sessions.create(subject, client_id=client_id, caller=Caller(user_agent=agent))
    assert notifications_of(events) == [True, False, True, True, True, False]


def test_a_device_is_known_also_after_its_session_has_ended_and_was_cleared_away() -> None:
    events: list[ServerEvent] = []
    now = [1_800_000_000.0]
    sessions = Sessions(MemorySessionStore(), on_event=events.append, clock=lambda: now[0])
    for days in (0, 200, 200, 800):
        now[0] += days * 86400
        sessions.create("ada", caller=Caller(user_agent=CHROME))
        sessions.revoke_subject("ada")
    assert notifications_of(events) == [True, False, False, True]


def test_when_the_store_cannot_say_the_device_counts_as_new(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def dead(*_: Any) -> None:
        raise StoreUnavailable("gone")

    events: list[ServerEvent] = []
    sessions = Sessions(MemorySessionStore(), on_event=events.append)
    monkeypatch.setattr(sessions.store, "advance_marker", dead)
    assert sessions.verify(sessions.create("ada").access_token).subject == "ada"
    assert notifications_of(events) == [True]
    assert "cannot tell whether the device" in caplog.text


def test_without_listeners_the_store_is_not_read_for_events(monkeypatch: pytest.MonkeyPatch) -> None:
    async def dead(*_: Any) -> None:
        raise StoreUnavailable("gone")

    sessions = Sessions(MemorySessionStore())
    monkeypatch.setattr(sessions.store, "advance_marker", dead)
    assert sessions.verify(sessions.create("ada").access_token).subject == "ada"


# ---- refused logins --------------------------------------------------------------------------------------------------


class Place:
    def __init__(self) -> None:
        self.events: list[ServerEvent] = []
        self.sessions = Sessions(MemorySessionStore(), on_event=self.events.append)
        self.endpoints = Endpoints(
            self.sessions,
            lambda name, password: MfaRequired(name) if password == "right" else None,
            verify_mfa=lambda _subject, _kind, code: code == "42",
        )

    def post(self, path: str, **fields: Any) -> dict[str, Any]:
        request = Request("POST", path, JSON, json.dumps(fields).encode(), "192.0.2.1")
        response = self.endpoints.handle_blocking(request)
        assert response is not None
        return json.loads(response.body)


def test_a_refused_login_tells_from_where_but_not_the_name() -> None:
    place = Place()
    for name in ("my secret password", "MY SECRET PASSWORD ", "ada"):
        place.post("/auth/login", username=name, password="wrong")
    first, second, third = place.events
    assert isinstance(first, LoginFailed)
    assert (first.why, first.ip, first.user_agent, first.sid) == ("password", "192.0.2.1", "curl/8.5", "")
    assert first == second != third
    assert "secret" not in str(place.events)


def test_a_wrong_code_is_told_and_a_right_password_before_it_is_not() -> None:
    place = Place()
    token = place.post("/auth/login", username="ada", password="right")["mfa_token"]
    assert place.events == []
    place.post("/auth/login/step", mfa_token=token, code="1")
    place.post("/auth/login/step", mfa_token=token, code="42")
    kinds = [(event.kind, getattr(event, "why", "")) for event in place.events]
    assert kinds == [("login.refused", "code"), ("login.accepted", "")]


def test_a_right_code_for_a_login_that_is_spent_or_void_is_told() -> None:
    place = Place()
    spent, void = (place.post("/auth/login", username="ada", password="right")["mfa_token"] for _ in range(2))
    place.post("/auth/login/step", mfa_token=spent, code="42")
    place.events.clear()
    place.post("/auth/login/step", mfa_token=spent, code="42")
    assert [(event.kind, getattr(event, "why", "")) for event in place.events] == [("login.refused", "mfa_token")]
    place.sessions.revoke_subject("ada")
    place.events.clear()
    for token in (void, "nonsense"):
        assert place.post("/auth/login/step", mfa_token=token, code="42")["reason"] == "mfa_token"
    assert place.events == [], "of bad tokens anybody can send any number"


def test_a_login_that_ends_while_its_session_begins_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place()
    token, begin = (
        place.post("/auth/login", username="ada", password="right")["mfa_token"],
        place.sessions.acreate_unless,
    )

    async def meanwhile(*args: Any, **about: Any) -> Any:
        place.sessions.revoke_subject("ada")
        return await begin(*args, **about)

    monkeypatch.setattr(place.sessions, "acreate_unless", meanwhile)
    place.post("/auth/login/step", mfa_token=token, code="42")
    told = [event.why for event in place.events if isinstance(event, LoginFailed)]
    assert (told, place.sessions.list_sessions("ada")) == (["mfa_token"], [])


def test_a_flood_of_guesses_is_no_flood_of_notifications(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(credential_check, "monotonic", lambda: now[0])
    place = Place()
    for _ in range(60):
        place.post("/auth/login", username="ada", password="wrong")
    assert [type(event) for event in place.events] == [LoginFailed] * 10 + [LoginRateLimited]
    assert place.events[-1].retry_after > 50  # type: ignore[attr-defined]
    now[0] += 61
    place.post("/auth/login", username="ada", password="wrong")
    assert [type(event) for event in place.events[10:]] == [LoginRateLimited] * 2
