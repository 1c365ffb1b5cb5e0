"""``ManualClock`` is the clock of both ends."""

from __future__ import annotations

import pytest

from unbroken.errors import InvalidToken
from unbroken.server import MemorySessionStore, Policy, Sessions
from unbroken.testing import ManualClock


def test_the_servers_time_is_moved_by_the_same_clock() -> None:
    clock = ManualClock()
    sessions = Sessions(
        MemorySessionStore(), policy=Policy(access_ttl=60.0), issuer="https://id.example.com", clock=clock
    )
    token = sessions.create("ada").access_token
    assert sessions.verify(token).subject == "ada"
    clock.advance(59)
    assert sessions.verify(token).subject == "ada"
    clock.advance(2)
    with pytest.raises(InvalidToken, match="expired"):
        sessions.verify(token)


def test_a_manual_clock_that_is_called_gives_the_wall_time() -> None:
    clock = ManualClock()
    clock.sleep(10)
    clock.set(-3)
    assert clock() == clock.wall()
