"""What all tests share."""

from __future__ import annotations

from collections.abc import Iterator

import hypothesis
import pytest

from tests.support.backend import PASSWORD, Backend
from tests.support.services import Service, postgres_server, redis_server
from unbroken import Session

# A busy machine is slow for reasons that are not the code's.
hypothesis.settings.register_profile("unbroken", deadline=None)
hypothesis.settings.load_profile("unbroken")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--sim-full", action="store_true", help="run the large simulations too")
    parser.addoption("--chaos-full", action="store_true", help="kill, fail over and race as often as it takes")


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Async tests run on both event loops."""
    return request.param


@pytest.fixture(scope="session")
def redis() -> Iterator[Service]:
    """A real Redis for the whole run."""
    with redis_server() as running:
        yield running


@pytest.fixture(scope="session")
def postgres() -> Iterator[Service]:
    """A real PostgreSQL for the whole run."""
    with postgres_server() as running:
        yield running


@pytest.fixture
def server() -> Iterator[Backend]:
    """A real server on loopback, with faults on request."""
    with Backend() as built:
        yield built


@pytest.fixture
def session(server: Backend) -> Session:
    """A session that is logged in there."""
    made = Session(server.url, refresh_timeout=2.0, wait_timeout=10.0)
    made.login("ada", PASSWORD)
    return made
