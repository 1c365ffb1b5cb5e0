"""What is put into a new pair of tokens, and what does not fit."""

from __future__ import annotations

import pytest

from tests.support.clock import ServerClock
from unbroken.errors import ConfigurationError
from unbroken.server import Claims, MemorySessionStore, SessionInfo, Sessions


def test_a_token_that_is_too_long_is_not_made_and_nothing_is_spent() -> None:
    many: list[str] = []
    sessions = Sessions(MemorySessionStore(), claims=lambda info: {"groups": many})
    granted = sessions.create("ada", coordinated=True)
    many.extend(f"group {number}" for number in range(900))
    with pytest.raises(ConfigurationError, match="8192"):
        sessions.create("bob")
    with pytest.raises(ConfigurationError, match="8192"):
        sessions.refresh(granted.refresh_token or "")
    many.clear()
    assert [info.subject for info in sessions.list_sessions()] == ["ada"], "nothing was written"
    assert sessions.refresh(granted.refresh_token or "").refresh_seq == 1


def test_a_subject_that_fits_into_no_token_is_refused_at_login() -> None:
    sessions = Sessions(MemorySessionStore())
    with pytest.raises(ConfigurationError, match="8192"):
        sessions.create("a" * 6000)
    assert sessions.list_sessions() == []


def test_the_claims_hook_sees_the_session_as_the_refresh_will_leave_it(clock: ServerClock) -> None:
    seen: list[SessionInfo] = []

    def claims(info: SessionInfo) -> dict[str, object]:
        seen.append(info)
        return {}

    sessions = Sessions(MemorySessionStore(), claims=claims, clock=clock)
    token = sessions.create("ada").refresh_token or ""
    for _ in range(20):
        clock.now += 86400
        token = sessions.refresh(token).refresh_token or ""
        [listed] = sessions.list_sessions("ada")
        assert seen[-1] == listed
    assert (seen[-1].used_at, seen[-1].idle_expires_at) == (clock.now, clock.now + 7 * 86400)


@pytest.fixture
def claims() -> Claims:
    sessions = Sessions(MemorySessionStore(), claims=lambda info: {"roles": ["user"], "deep": [{"a": 1}]})
    return sessions.verify(sessions.create("ada").access_token)
