"""Logins, the limiter, MFA, devices and events, over HTTP on every face of the server."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest

from tests.support import faces
from tests.support.faces import FACES, NO_STORE, PASSWORD, Wire, authorization
from unbroken.server import Identity, MemorySessionStore, MfaRequired, RateLimitPolicy, Sessions
from unbroken.server.events import LoginFailed, LoginRateLimited, ServerEvent, SessionCreated, SessionRevoked

FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
NEWER_FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:141.0) Gecko/20100101 Firefox/141.0"
EDGE = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 "
    "Safari/537.36 Edg/141.0.0.0"
)
CODE = "123456"


@dataclass
class People:
    """A running server, and what it told of its people."""

    http: httpx2.Client
    sessions: Sessions
    events: list[ServerEvent] = field(default_factory=list)

    def login(self, name: str, password: str = PASSWORD, agent: str = FIREFOX, **more: Any) -> httpx2.Response:
        fields = {"username": name, "password": password, **more}
        return self.http.post("/auth/login", json=fields, headers={"user-agent": agent})

    def step(self, mfa_token: str, code: str = CODE, **more: Any) -> httpx2.Response:
        return self.http.post("/auth/login/step", json={"mfa_token": mfa_token, "code": code, **more})

    def tokens(self, name: str, **more: Any) -> dict[str, Any]:
        response = self.login(name, **more)
        assert response.status_code == 200, response.text
        return response.json()

    def devices(self, tokens: dict[str, Any]) -> list[dict[str, Any]]:
        return self.http.get("/auth/sessions", headers=authorization(tokens["access_token"])).json()["sessions"]


def authenticate(name: str, password: str) -> Any:
    if name.startswith("outage"):
        raise OSError("the directory does not respond")
    if password != PASSWORD:
        return None
    if name.startswith("careful"):
        return MfaRequired(name, kind="totp", hint="your phone")
    return Identity(name, label="from the directory") if name.startswith("labelled") else name


def second_factor(subject: str, kind: str, code: str) -> bool:
    assert (subject[:7], kind) == ("careful", "totp")
    return code == CODE


@pytest.fixture(params=sorted(FACES), scope="module")
def people(request: pytest.FixtureRequest) -> Iterator[People]:
    events: list[ServerEvent] = []
    sessions = Sessions(MemorySessionStore(), on_event=events.append)
    limiter = RateLimitPolicy(account_burst=3, account_every=3600.0, address_burst=1000)
    settings = {"verify_mfa": second_factor, "rate_limit": limiter, "password_grant": True}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(faces, "authenticate", authenticate)
        with (
            FACES[request.param](sessions, **settings) as port,
            httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as http,
        ):
            yield People(http, sessions, events)


# ---- the limiter -----------------------------------------------------------------------------------------------------


def test_who_guesses_too_often_has_to_wait(people: People) -> None:
    statuses = [people.login("eve the guesser", "wrong").status_code for _ in range(5)]
    assert statuses == [401, 401, 401, 429, 429]
    response = people.login("eve the guesser")
    assert (response.status_code, response.json()["error"]) == (429, "too_many_attempts"), "the right password too"
    assert 3500 < int(response.headers["retry-after"]) <= 3700
    assert NO_STORE.items() <= dict(response.headers).items()
    told = [type(event) for event in people.events if event.kind.startswith("login.") and not event.sid]
    assert told.count(LoginRateLimited) == 1, "once a minute"
    assert told.count(LoginFailed) >= 3
    assert "guesser" not in str(people.events)


def test_who_has_logged_in_here_is_not_locked_out_by_strangers(people: People) -> None:
    people.tokens("frank")
    assert [people.login("frank", "wrong").status_code for _ in range(4)] == [401, 401, 401, 429]


def test_a_directory_that_does_not_respond_is_503_and_no_wrong_password(people: People) -> None:
    for _ in range(6):
        response = people.login("outage")
        assert (response.status_code, response.json()["error"]) == (503, "temporarily_unavailable")
        assert response.headers["retry-after"] == "5"


# ---- MFA -------------------------------------------------------------------------------------------------


def test_a_login_with_mfa_asks_for_a_code_before_it_creates_the_session(people: People) -> None:
    asked = people.login("careful ada", label="phone", client_id="app")
    body = asked.json()
    assert (asked.status_code, body["error"], body["challenge_type"]) == (403, "mfa_required", "totp")
    assert (body["hint"], body["expires_in"]) == ("your phone", 300)
    assert "www-authenticate" not in asked.headers
    assert NO_STORE.items() <= dict(asked.headers).items()
    assert people.sessions.list_sessions("careful ada") == []
    done = people.step(body["mfa_token"])
    assert done.status_code == 200, done.text
    assert NO_STORE.items() <= dict(done.headers).items()
    [device] = people.sessions.list_sessions("careful ada")
    assert (device.label, device.client_id, device.subject) == ("phone", "app", "careful ada")


def test_a_wrong_code_may_be_corrected_and_a_right_one_counts_once(people: People) -> None:
    token = people.login("careful bob").json()["mfa_token"]
    wrong = people.step(token, "000000")
    assert (wrong.status_code, wrong.json()["error"], wrong.json()["reason"]) == (401, "access_denied", "code")
    assert people.step(token).status_code == 200
    again = people.step(token)
    assert (again.status_code, again.json()["reason"]) == (401, "mfa_token")
    assert len(people.sessions.list_sessions("careful bob")) == 1


def test_codes_cannot_be_guessed_by_logging_in_again_and_again(people: People) -> None:
    statuses = [people.step(people.login("careful carol").json()["mfa_token"], f"{n:06}").status_code for n in range(5)]
    assert statuses == [401, 401, 401, 429, 429]
    assert people.step(people.login("careful carol").json()["mfa_token"]).status_code == 429


@pytest.mark.parametrize("token", ["x", "a.b.c", "", "ü", "é" * 20000])
def test_what_is_no_mfa_token_is_refused(people: People, token: str) -> None:
    response = people.step(token)
    assert response.status_code == (401 if token else 400)
    assert response.json()["error"] == ("access_denied" if token else "invalid_request")


def test_the_password_grant_of_a_user_with_mfa_says_mfa_required(people: People) -> None:
    form = {"grant_type": "password", "username": "careful dan", "password": PASSWORD}
    response = people.http.post("/auth/token", data=form)
    assert (response.status_code, response.json()["error"]) == (400, "invalid_grant")
    assert "requires MFA" in response.json()["error_description"]
    assert people.sessions.list_sessions("careful dan") == []


# ---- my devices ------------------------------------------------------------------------------------------------------


def test_devices_have_a_name_a_label_and_a_last_use(people: People) -> None:
    here, there = people.tokens("gina", label="desk"), people.tokens("gina", agent=EDGE)
    [other] = [one for one in people.devices(here) if not one["current"]]
    [mine] = [one for one in people.devices(here) if one["current"]]
    assert (mine["label"], mine["device"], other["label"], other["device"]) == (
        "desk",
        "Firefox on Linux",
        "",
        "Edge on Windows",
    )
    assert mine["ip"] == "127.0.0.1"
    assert mine["used_at"] >= mine["created_at"]
    people.http.post("/auth/refresh", json={"refresh_token": there["refresh_token"]})
    assert people.devices(here)[0]["sid"] == other["sid"], "last used first"


def test_a_label_may_come_from_the_application(people: People) -> None:
    [device] = people.devices(people.tokens("labelled hal"))
    assert device["label"] == "from the directory"
    named = people.devices(people.tokens("labelled ian", label="own"))
    assert [one["label"] for one in named] == ["own"]


def test_a_device_is_renamed_by_its_owner_alone(people: People) -> None:
    mine, mallory = people.tokens("jane"), people.tokens("mallory")
    path = f"/auth/sessions/{people.devices(mine)[0]['sid']}"
    renamed = people.http.patch(path, json={"label": "Küche"}, headers=authorization(mine["access_token"]))
    assert (renamed.status_code, renamed.json()["label"], renamed.json()["current"]) == (200, "Küche", True)
    assert people.devices(mine)[0]["label"] == "Küche"
    refused = people.http.patch(path, json={"label": "mine"}, headers=authorization(mallory["access_token"]))
    assert (refused.status_code, refused.json()["error"]) == (404, "not_found")
    assert people.http.patch(path, json={"label": "mine"}).status_code == 401
    assert people.devices(mine)[0]["label"] == "Küche"
    again = people.http.post("/auth/refresh", json={"refresh_token": mine["refresh_token"]}).json()
    assert people.devices(again)[0]["label"] == "Küche", "a refresh keeps it"


@pytest.mark.parametrize("fields", [{}, {"label": 3}, {"label": "x" * 201}, {"label": "\0"}, {"name": "x"}])
def test_what_is_no_label_is_refused(people: People, fields: dict[str, Any]) -> None:
    tokens = people.tokens("kim", label="stays")
    path = f"/auth/sessions/{people.sessions.verify(tokens['access_token']).sid}"
    response = people.http.patch(path, json=fields, headers=authorization(tokens["access_token"]))
    assert (response.status_code, response.json()["error"]) == (400, "invalid_request")
    assert {one["label"] for one in people.devices(tokens)} == {"stays"}


# ---- events ----------------------------------------------------------------------------------------------------------


def test_a_new_device_is_told_apart_from_a_newer_version(people: People) -> None:
    for agent in (FIREFOX, NEWER_FIREFOX, EDGE, EDGE):
        people.tokens("lara", agent=agent)
    people.tokens("lara", client_id="app")
    told = [event for event in people.events if isinstance(event, SessionCreated) and event.subject == "lara"]
    assert [event.new_device for event in told] == [True, False, True, False, True]
    assert (told[0].ip, told[0].user_agent) == ("127.0.0.1", FIREFOX)


def test_a_session_that_its_owner_ends_is_an_event(people: People) -> None:
    tokens = people.tokens("mia")
    sid = people.sessions.verify(tokens["access_token"]).sid
    people.http.delete(f"/auth/sessions/{sid}", headers=authorization(tokens["access_token"]))
    assert SessionRevoked(sid, "mia", "revoked") in people.events


def test_without_verify_mfa_there_is_no_endpoint_for_codes(wire: faces.Wire) -> None:
    response = wire.http.post("/auth/login/step", json={"mfa_token": "x", "code": "y"})
    assert response.status_code in (404, 405)


def test_an_account_that_is_called_nearly_the_same_buys_no_guesses(case_sensitive: Wire) -> None:
    def login(name: str, password: str) -> int:
        return case_sensitive.http.post("/auth/login", json={"username": name, "password": password}).status_code

    statuses = []
    for _ in range(3):
        statuses += [login("ada", "a guess") for _ in range(9)]
        login("Ada", PASSWORD)
    assert statuses.count(401) <= 10
    assert set(statuses[11:]) == {429}
