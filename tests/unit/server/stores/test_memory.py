"""What is particular to sessions in memory."""

from __future__ import annotations

from collections import deque

from tests.support.clock import ServerClock
from unbroken.server import MemorySessionStore, Sessions


def test_sessions_that_are_over_take_no_room_in_memory(clock: ServerClock) -> None:
    store = MemorySessionStore()
    sessions = Sessions(store, clock=clock)
    for number in range(300):
        clock.now += 86400
        sessions.logout(access_token=sessions.create(f"user {number}").access_token)
    held = {name: len(value) for name, value in vars(store).items() if isinstance(value, (dict, list, deque))}
    assert held["_revocations"] <= 2, "a revocation is needed for as long as an access token lives"
    assert max(held.values()) <= 92, "a row for as long as a session may"
    assert len(sessions._freshness.revoked) <= 2
