"""A server, an origin beside it, and a client of each HTTP library.

The scenarios are those of the best suites of the field, and those that no suite has; the rules themselves are tested
once, in ``tests/client`` and in the simulation: here it is asked whether they reach the wire.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from tests.contract.adapters.api import Api, behind
from tests.support.adapters import MORE_ADAPTERS, Client
from tests.support.backend import RunningApp
from unbroken import (
    Session,
)
from unbroken.client.core import refresh_rules as rules
from unbroken.testing import ManualClock, Network, running


@pytest.fixture(scope="module")
def running_apps() -> Iterator[list[tuple[RunningApp, Network]]]:
    """Two of them, for redirects from one origin to another; each behind a network that can lose responses."""
    with ExitStack() as opened:
        made = []
        for _ in range(2):
            app = RunningApp()
            network = Network(opened.enter_context(running(app)))
            network.start()
            opened.callback(network.stop)
            made.append((app, network))
        yield made


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refresh that fails tries three times as always, but no test waits a second for that."""
    monkeypatch.setattr(rules, "RETRY_PAUSES_SECONDS", (0.01, 0.02))


@pytest.fixture
def server(running_apps: list[tuple[RunningApp, Network]]) -> Api:
    return behind(running_apps[0])


@pytest.fixture
def elsewhere(running_apps: list[tuple[RunningApp, Network]]) -> Api:
    """Another origin."""
    return behind(running_apps[1])


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(120) as made:
        yield made


@pytest.fixture(params=MORE_ADAPTERS)
def connect(request: pytest.FixtureRequest) -> Iterator[Callable[[Session], Client]]:
    """Connects a client of one HTTP library to a session."""
    with ExitStack() as opened:
        yield lambda session: opened.enter_context(MORE_ADAPTERS[request.param](session))


@pytest.fixture
def session(server: Api, clock: ManualClock) -> Session:
    return server.login(clock=clock, refresh_timeout=10.0, wait_timeout=15.0)


@pytest.fixture
def client(connect: Callable[[Session], Client], session: Session) -> Client:
    return connect(session)
