"""The pytest plugin; installed with the package, it gives three fixtures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from unbroken.client.session import Session
    from unbroken.testing.clock import ManualClock
    from unbroken.testing.server import LoopbackServer


@pytest.fixture
def unbroken_server() -> Iterator[LoopbackServer]:
    """A real server on loopback with rotation, a reuse alarm, and faults on request."""
    with _needing_more():
        from unbroken.testing.server import LoopbackServer  # noqa: PLC0415  # only for who uses it
    with LoopbackServer() as server:
        yield server


@pytest.fixture
def unbroken_clock() -> ManualClock:
    """A clock that stands still until it is told to go."""
    with _needing_more():
        from unbroken.testing.clock import ManualClock  # noqa: PLC0415
    return ManualClock()


@pytest.fixture
def unbroken_session(unbroken_server: LoopbackServer, unbroken_clock: ManualClock) -> Session:
    """A session that is logged in at ``unbroken_server`` and lives by ``unbroken_clock``."""
    return unbroken_server.login(clock=unbroken_clock)


@contextmanager
def _needing_more() -> Iterator[None]:
    """Says what to install, if it is not there: the plugin comes with the package, and is loaded everywhere."""
    try:
        yield
    except ModuleNotFoundError as missing:
        pytest.fail(f"this fixture needs {missing.name}: pip install 'unbroken[testing]'", pytrace=False)
