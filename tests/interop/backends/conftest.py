"""The backends run, and each HTTP library meets them. A new library is one more entry in ``ADAPTERS``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest

from tests.interop.backends.base import Backend
from tests.interop.backends.scene import Hands, Scene, Stage
from tests.support.adapters import ADAPTERS, Client
from tests.support.backend import running
from unbroken import Dialect, Session
from unbroken.client.core import refresh_rules as rules
from unbroken.client.core.events import ClientEvent


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A renewal that fails tries three times as always, but no test waits a second for that."""
    monkeypatch.setattr(rules, "RETRY_PAUSES_SECONDS", (0.01, 0.02))


@pytest.fixture(params=ADAPTERS)
def adapter(request: pytest.FixtureRequest) -> Iterator[Callable[[Session], Client]]:
    """Connects a client of one HTTP library to a session."""
    with ExitStack() as opened:
        yield lambda session: opened.enter_context(ADAPTERS[request.param](session))


class Door:
    """A server that runs for all tests; each test puts a backend of its own behind it."""

    def __init__(self) -> None:
        self.app: Any = None
        self.url = ""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)


@pytest.fixture(scope="session")
def doors() -> Iterator[list[Door]]:
    """Two of them: some tests need another origin."""
    made = [Door(), Door()]
    with ExitStack() as opened:
        for door in made:
            door.url = f"http://127.0.0.1:{opened.enter_context(running(door))}"
        yield made


@pytest.fixture
def run(doors: list[Door]) -> Callable[[Backend], Backend]:
    """Runs a backend; two at most in one test."""
    free = iter(doors)

    def start(backend: Backend) -> Backend:
        door = next(free)
        door.app, backend.url = backend.app(), door.url
        return backend

    return start


@pytest.fixture
def stage(run: Callable[[Backend], Backend], adapter: Callable[[Session], Client]) -> Iterator[Stage]:
    """Sets a scene: a backend, and a session that is logged in there, by the backend's own dialect or another.

    ``stage(backend, dialect=a_function_that_changes_it, **about_the_session)``
    """
    with ThreadPoolExecutor(64) as pool:

        def build(backend: Backend, *, dialect: Callable[[Dialect], Dialect] = replace, **about: Any) -> Scene:
            run(backend)
            hands, over, events = Hands(), list[str](), list[ClientEvent]()
            about = {"refresh_timeout": 10.0, "wait_timeout": 20.0, "clock": hands.clock()} | about
            session = Session(
                dialect(type(backend).dialect(backend.url)),
                on_session_over=over.append,
                on_event=events.append,
                **about,
            )
            scene = Scene(backend, session, adapter(session), hands, pool, over, events)
            scene.log_in()
            return scene

        yield build
