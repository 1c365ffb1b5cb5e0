"""The endpoints about sessions, as values. Over HTTP: tests/contract/frameworks."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from unbroken._sync import run_sync
from unbroken.server import Endpoints, MemorySessionStore, Sessions
from unbroken.server.events import ServerEvent
from unbroken.server.http.messages import Request, Response

JSON = {"content-type": "application/json"}


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


@pytest.mark.parametrize("sid", ["", "\0", "a" * 65, "a/b", "\ud800", "..", "a\n"])
def test_a_malformed_sid_reaches_no_store(sid: str) -> None:
    town = Town()
    for route in town.endpoints.routes:
        if "{sid}" in route.path:
            answer = run_sync(
                town.endpoints.respond(route, Request(route.method, "/auth/sessions/x", JSON, b"{}"), sid)
            )
            assert answer.status == 404
