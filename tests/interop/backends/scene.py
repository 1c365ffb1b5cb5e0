"""A scene: one backend that runs, one session that is logged in there, one client of some HTTP library, and a clock."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import httpx2

from tests.interop.backends.base import PASSWORD, Backend, Fault
from tests.support.adapters import Answer, Client
from tests.support.waiting import until
from unbroken import Session, Tokens
from unbroken.events import ClientEvent
from unbroken.testing import ManualClock

# What a backend may say to a refresh without meaning anything by it. The session lives on.
DOWN = Fault(status=503, headers={"retry-after": "30"})
JUNK = Fault(status=200, body=b"<html>come back later</html>")
LOST = Fault(lost=True)


@dataclass
class Scene:
    """What a test has before it, and how it acts. ``over`` and ``events`` are what the hooks have heard."""

    backend: Backend
    session: Session
    client: Client
    clock: ManualClock
    pool: ThreadPoolExecutor = field(repr=False)
    over: list[str]
    events: list[ClientEvent]

    @property
    def stored(self) -> Tokens | None:
        """The tokens in the session's store."""
        return self.session.store.load().tokens

    def get(self, path: str = "/api/echo", **about: Any) -> Answer:
        return self.client.request("GET", self.backend.url + path, **about)

    def post(self, content: Any, path: str = "/api/echo", **about: Any) -> Answer:
        return self.client.request("POST", self.backend.url + path, content=content, **about)

    def begin(self, work: Callable[..., Answer], *about: Any) -> Future[Answer]:
        """*work* in a thread of its own."""
        return self.pool.submit(work, *about)

    def together(self, count: int, path: str = "/api/echo") -> list[Answer | Exception]:
        """What *count* requests at once came to: the response, or what was raised."""
        begun = [self.begin(self.get, path) for _ in range(count)]
        return [one.exception(20) or one.result() for one in begun]

    def ended(self) -> list[str]:
        """Why the session ended, as often as that was told. Hooks are called after all who waited have been woken."""
        until(lambda: self.over)
        return self.over

    def log_in(self, user: str = "ada") -> None:
        """Logs in the plain way, and hands the response to the session."""
        self.session.import_tokens(self.login_answer(user))

    def login_answer(self, user: str = "ada") -> dict[str, Any]:
        return httpx2.post(
            f"{self.backend.url}/login", json={"username": user, "password": PASSWORD}, timeout=30
        ).json()


Stage = Callable[..., Scene]  # stage(backend, dialect=…, **about_the_session)


def statuses(outcomes: list[Answer | Exception]) -> list[int]:
    """The statuses of *outcomes*, every one of which is a response."""
    assert all(isinstance(outcome, Answer) for outcome in outcomes), outcomes
    return [outcome.status for outcome in outcomes if isinstance(outcome, Answer)]
