"""What the attacks share: each test counts what it tries, and tries more with ``--attacks-full``."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.support.attacks import ATTACKS, Attacks


@pytest.fixture(autouse=True)
def attacks(request: pytest.FixtureRequest) -> Iterator[Attacks]:
    """Counts the attacks of this test; a test that tries none is a mistake."""
    count = Attacks()
    yield count
    request.node.user_properties.append((ATTACKS, count.tried))
    assert count.tried, "an attack that was not tried holds off nothing: attacks.try_one() counts it"


@pytest.fixture
def size(request: pytest.FixtureRequest) -> Callable[[int, int], int]:
    """Return the first of two sizes, and the second in a run with ``--attacks-full``."""
    full = request.config.getoption("--attacks-full")
    return lambda ordinary, all_of_them: all_of_them if full else ordinary
