"""Security stamps: what a session keeps of them, and newer hashes of the same password."""

from __future__ import annotations

from typing import Any

import pytest

from unbroken._concurrency import run_sync
from unbroken.errors import ConfigurationError
from unbroken.server import MemorySessionStore, NewSession, Sessions
from unbroken.server.core.session_info import Caller
from unbroken.server.login.security_stamp import SecurityStamps, restamp, stamp_text


async def not_voided() -> bool:
    return False


def stamps_of(sessions: Sessions) -> list[str]:
    return sorted(info.stamp for info in sessions.list_sessions("ada"))


def test_a_stamp_is_kept_as_a_hash_and_none_is_none() -> None:
    stamps = SecurityStamps({"ada": "pbkdf2$1"}.get)
    assert run_sync(stamps.take("ada")) == stamp_text("pbkdf2$1")
    assert "pbkdf2" not in stamp_text("pbkdf2$1")
    assert run_sync(stamps.take("bob")) == ""
    assert run_sync(SecurityStamps(None).take("ada")) == ""
    assert not run_sync(SecurityStamps(None).has_changed("ada", "x"))


@pytest.mark.parametrize("answer", [1, b"x", ["x"]])
def test_what_is_no_text_is_a_mistake(answer: Any) -> None:
    with pytest.raises(ConfigurationError, match="security_stamp must return a text or None"):
        run_sync(SecurityStamps(lambda _: answer).take("ada"))


def test_a_newer_hash_is_given_to_the_sessions_of_the_older_one_alone() -> None:
    store = MemorySessionStore()
    sessions = Sessions(store, issuer="https://id.example.com")
    for stamp in ("one", "one", "other", ""):
        new = NewSession(stamp=stamp_text(stamp) if stamp else "")
        run_sync(sessions.acreate_unless("ada", new, Caller(), voided=not_voided))
    [revoked, _] = [info for info in sessions.list_sessions("ada") if info.stamp == stamp_text("one")]
    sessions.revoke(revoked.sid)
    run_sync(restamp(store, "ada", "one", "two"))
    assert stamps_of(sessions) == sorted(["", stamp_text("other"), stamp_text("two")])
