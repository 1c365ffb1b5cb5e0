"""A clock that stands still, and a token endpoint without a wire."""

from __future__ import annotations

import pytest

from tests.support.token_endpoint import TokenEndpoint
from unbroken.testing import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def endpoint() -> TokenEndpoint:
    return TokenEndpoint()
