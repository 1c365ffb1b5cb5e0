"""A clock that tests set."""

from __future__ import annotations

import pytest

from tests.support.clock import ServerClock


@pytest.fixture
def clock() -> ServerClock:
    return ServerClock()
