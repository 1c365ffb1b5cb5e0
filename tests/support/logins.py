"""Login endpoints over a directory that tells capitals apart, and what was asked of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, ClassVar

from unbroken.server import Endpoints, MemorySessionStore, Sessions
from unbroken.server.events import ServerEvent
from unbroken.server.http.messages import Request, Response

__all__ = ["HERE", "THERE", "CaseSensitiveLogins"]

JSON = {"content-type": "application/json"}
HERE, THERE = "192.0.2.1", "203.0.113.9"


class CaseSensitiveLogins:
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
        response = self.endpoints.handle_blocking(Request("POST", path, headers, json.dumps(fields).encode(), ip))
        assert response is not None
        return response

    def login(self, name: str, password: str = "wrong", ip: str = THERE, agent: str = "") -> int:
        return self.post("/auth/login", ip, agent, username=name, password=password).status
