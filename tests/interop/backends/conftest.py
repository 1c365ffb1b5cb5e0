"""The backends run, and each HTTP library meets them. A new library is one more entry in ``ADAPTERS``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest

from tests.interop.backends.base import Backend
from tests.interop.backends.scene import Scene, Stage
from tests.support.adapters import ADAPTERS, Client
from tests.support.backend import RunningApp, running
from unbroken import Dialect, Session
from unbroken.client.core import refresh_rules as rules
from unbroken.events import ClientEvent
from unbroken.testing import ManualClock


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refresh that fails tries three times as always, but no test waits a second for that."""
    monkeypatch.setattr(rules, "RETRY_PAUSES_SECONDS", (0.01, 0.02))


@pytest.fixture(params=ADAPTERS)
def adapter(request: pytest.FixtureRequest) -> Iterator[Callable[[Session], Client]]:
    """Connects a client of one HTTP library to a session."""
    with ExitStack() as opened:
        yield lambda session: opened.enter_context(ADAPTERS[request.param](session))


@pytest.fixture(scope="session")
def running_apps() -> Iterator[list[RunningApp]]:
    """Two of them: some tests need another origin."""
    made = [RunningApp(), RunningApp()]
    with ExitStack() as opened:
        for app in made:
            app.url = f"http://127.0.0.1:{opened.enter_context(running(app))}"
        yield made


@pytest.fixture
def run(running_apps: list[RunningApp]) -> Callable[[Backend], Backend]:
    """Runs a backend; two at most in one test."""
    free = iter(running_apps)

    def start(backend: Backend) -> Backend:
        app = next(free)
        app.app, backend.url = backend.app(), app.url
        return backend

    return start


@pytest.fixture
def stage(run: Callable[[Backend], Backend], adapter: Callable[[Session], Client]) -> Iterator[Stage]:
    """Sets a scene: a backend, and a session that is logged in there, by the backend's own dialect or another.

    ``stage(backend, dialect=a_function_that_changes_it, **about_the_session)``
    """
    scenes: list[Scene] = []
    with ThreadPoolExecutor(64) as pool:

        def build(backend: Backend, *, dialect: Callable[[Dialect], Dialect] = replace, **about: Any) -> Scene:
            run(backend)
            clock, over, events = ManualClock(), list[str](), list[ClientEvent]()
            about = {"refresh_timeout": 10.0, "wait_timeout": 20.0, "clock": clock} | about
            session = Session(
                dialect(type(backend).dialect(backend.url)),
                on_session_over=over.append,
                on_event=events.append,
                **about,
            )
            scene = Scene(backend, session, adapter(session), clock, pool, over, events)
            scene.log_in()
            scenes.append(scene)
            return scene

        yield build
        for scene in scenes:  # a refresh under way would go on at the backend of the next test, at the same address
            scene.backend.go_on.set()
            scene.session.close()
