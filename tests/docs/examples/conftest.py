"""The shop, and a session that is logged in there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.docs.examples.shop import Shop, opened
from unbroken import Session
from unbroken.testing import ManualClock
from unbroken.testing.server import PASSWORD


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def shop(clock: ManualClock) -> Iterator[Shop]:
    with opened(Shop(clock)) as built:
        yield built


@pytest.fixture
def login(shop: Shop, clock: ManualClock) -> Session:
    session = Session(shop.url, clock=clock)
    session.login("ada", PASSWORD)
    return session
