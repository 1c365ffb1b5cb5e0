"""The pytest plugin, with three fixtures. pytest finds it by the package's entry point."""

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
    """A real server on loopback with rotation, reuse detection, and faults on request."""
    with _require_extra():
        from unbroken.testing.server import LoopbackServer  # noqa: PLC0415  # the plugin is loaded everywhere
    with LoopbackServer() as server:
        yield server


@pytest.fixture
def unbroken_clock() -> ManualClock:
    """A clock that stands still until a test moves it."""
    with _require_extra():
        from unbroken.testing.clock import ManualClock  # noqa: PLC0415
    return ManualClock()


@pytest.fixture
def unbroken_session(unbroken_server: LoopbackServer, unbroken_clock: ManualClock) -> Session:
    """A session that is logged in at ``unbroken_server`` and uses ``unbroken_clock``."""
    return unbroken_server.login(clock=unbroken_clock)


@contextmanager
def _require_extra() -> Iterator[None]:
    """Fail the test with the extra to install if a package is missing."""
    try:
        yield
    except ModuleNotFoundError as missing:
        pytest.fail(f"this fixture needs {missing.name}: pip install 'unbroken[testing]'", pytrace=False)
