"""What is particular to sessions in memory."""

from __future__ import annotations

from collections import deque

import pytest

from unbroken.server import MemorySessionStore, Sessions


class Hands:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def hands() -> Hands:
    return Hands()


def test_sessions_that_are_over_take_no_room_in_memory(hands: Hands) -> None:
    store = MemorySessionStore()
    sessions = Sessions(store, clock=hands)
    for number in range(300):
        hands.now += 86400
        sessions.logout(access_token=sessions.create(f"user {number}").access_token)
    held = {name: len(value) for name, value in vars(store).items() if isinstance(value, (dict, list, deque))}
    assert held["_revocations"] <= 2, "a revocation is needed for as long as an access token lives"
    assert max(held.values()) <= 92, "a row for as long as a session may"
    assert len(sessions._freshness.revoked) <= 2
