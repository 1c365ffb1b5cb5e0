"""A clock that stands still, and a token endpoint without a wire."""

from __future__ import annotations

import pytest

from tests.support.token_endpoint import TokenEndpoint
from unbroken.client.core import refresh_rules
from unbroken.testing import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def endpoint() -> TokenEndpoint:
    return TokenEndpoint()


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refresh that fails is tried three times as always, but no test waits a second for that."""
    monkeypatch.setattr(refresh_rules, "RETRY_PAUSES_SECONDS", (0.01, 0.02))
