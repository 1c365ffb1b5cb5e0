"""A token endpoint as a function, for ``Session(send=…)``: tests of decisions need no HTTP."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from unbroken import HttpRequest, HttpResponse, Session
from unbroken.testing import ManualClock

__all__ = ["URL", "TokenEndpoint", "json_response", "logged_in_at"]

URL = "https://api.example"


class TokenEndpoint:
    """Issues the next pair of tokens for each request, unless a response was prepared.

    ``calls`` are the requests received. ``down``: every response is 503. ``next``: prepared responses, in order.
    """

    def __init__(self) -> None:
        self.calls: list[HttpRequest] = []
        self.next: list[Callable[[], HttpResponse]] = []
        self.down = False
        self.issued = 0

    def __call__(self, call: HttpRequest, timeout: float) -> HttpResponse:
        self.calls.append(call)
        if self.down:
            return HttpResponse(503)
        if "logout" in call.url or "revoke" in call.url:
            return HttpResponse(204)
        if self.next:
            return self.next.pop(0)()
        self.issued += 1
        return json_response(
            {"access_token": f"A{self.issued}", "refresh_token": f"R{self.issued}", "expires_in": 1800}
        )

    def count(self, word: str) -> int:
        """How many requests had *word* in their URL."""
        return sum(word in call.url for call in self.calls)


def json_response(body: object, status: int = 200, **headers: str) -> HttpResponse:
    return HttpResponse(status, headers, json.dumps(body).encode())


def logged_in_at(endpoint: TokenEndpoint, clock: ManualClock, store: Any = None, **settings: Any) -> Session:
    """A session of ``URL`` that is logged in at *endpoint*."""
    session = Session(URL, store, send=endpoint, clock=clock, **settings)
    session.login("ada", "pw")
    return session
