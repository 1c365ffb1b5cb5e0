"""Requests as the endpoints read them: what is wrong is said by the name of the parameter."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from unbroken.errors import InvalidRequest
from unbroken.server import Endpoints, MemorySessionStore, Sessions
from unbroken.server.events import ServerEvent
from unbroken.server.http.messages import Request, Response, bearer_token, text_field

JSON = {"content-type": "application/json"}
FORM = {"content-type": "application/x-www-form-urlencoded"}


HERE, THERE = "192.0.2.1", "203.0.113.9"


class Town:
    """Endpoints over a directory that knows capitals apart, as Django's and most others do; and what it was asked."""

    people: ClassVar = {"ada": "secret", "Ada": "mine"}

    def __init__(self, authenticate: Callable[[str, str], Any] | None = None) -> None:
        self.now, self.asked, self.events = 1_800_000_000.0, list[str](), list[ServerEvent]()
        sessions = Sessions(MemorySessionStore(), clock=lambda: self.now, on_event=self.events.append)
        settings: Any = {"verify_mfa": lambda _subject, _kind, code: code == "42"}
        self.endpoints = Endpoints(sessions, authenticate or self.authenticate, **settings)

    def authenticate(self, name: str, password: str) -> Any:
        self.asked.append(name)
        return name if self.people.get(name) == password else None

    def post(self, path: str, ip: str = THERE, agent: str = "", **fields: str) -> Response:
        headers = JSON | {"user-agent": agent}
        answer = self.endpoints.handle_blocking(Request("POST", path, headers, json.dumps(fields).encode(), ip))
        assert answer is not None
        return answer

    def login(self, name: str, password: str = "wrong", ip: str = THERE, agent: str = "") -> int:
        return self.post("/auth/login", ip, agent, username=name, password=password).status


def test_what_a_client_calls_itself_is_told_and_kept_to_a_bounded_length_and_as_text() -> None:
    town = Town()
    town.login("ada", agent="A\0" * 30_000)
    town.login("Ada", "mine", agent="A\0" * 30_000)
    agents = [getattr(event, "user_agent", None) for event in town.events]
    assert agents == ["A" * 200] * 2
    assert town.endpoints.sessions.list_sessions("Ada")[0].user_agent == "A" * 200


def form(body: str) -> dict[str, str]:
    return Request("POST", "/auth/token", FORM, body.encode()).form()


def test_empty_values_of_a_form_are_absent() -> None:
    assert form("token=abc&scope=") == {"token": "abc"}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("token=a&token=b", "duplicate parameter: token"),
        ("a%22b%0A=1&a%22b%0A=2", r"duplicate parameter: a\?b\?"),
        ("x" * 99 + "=1&" + "x" * 99 + "=2", "duplicate parameter: " + "x" * 40 + "$"),
        ("token=%00", "token is not valid text"),
        ("token", "not a valid form"),
    ],
)
def test_a_wrong_form_names_the_parameter_in_a_bounded_printable_way(body: str, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        form(body)


def test_a_missing_parameter_is_named() -> None:
    with pytest.raises(InvalidRequest, match="missing parameter: token"):
        text_field({"token": ""}, "token")
    with pytest.raises(InvalidRequest, match="token must be a string"):
        text_field({"token": 5}, "token")


@pytest.mark.parametrize(
    ("header", "token"),
    [("Bearer abc", "abc"), ("bearer  abc ", "abc"), ("Bearer ", None), ("Basic abc", None), ("", None)],
)
def test_a_bearer_token_is_read_from_the_authorization_header(header: str, token: str | None) -> None:
    assert bearer_token(Request("GET", "/", {"authorization": header})) == token
