"""The keys of a server: rotated, retired, published, for all processes on one store."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest

from tests.support.clock import ServerClock
from unbroken.errors import InvalidGrant, InvalidToken
from unbroken.server import MemorySessionStore, Policy, Sessions, SqliteSessionStore

pytestmark = pytest.mark.filterwarnings("ignore:EdDSA")


@pytest.fixture
def clock() -> ServerClock:
    return ServerClock(time.time())


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    made = MemorySessionStore() if request.param == "memory" else SqliteSessionStore(tmp_path / "s.db")
    yield made
    made.close()


@pytest.fixture
def sessions(store: Any, clock: ServerClock) -> Sessions:
    return Sessions(store, clock=clock)


def refused(sessions: Sessions, token: str | None) -> str:
    with pytest.raises(InvalidGrant) as caught:
        sessions.refresh(token or "")
    return caught.value.reason


def dead(sessions: Sessions, token: str) -> str:
    with pytest.raises(InvalidToken) as caught:
        sessions.verify(token)
    return caught.value.reason


def test_a_rotation_of_keys_ends_no_session(sessions: Sessions, clock: ServerClock) -> None:
    granted = sessions.create("ada")
    old = jwt.get_unverified_header(granted.access_token)["kid"]
    sessions.rotate_keys(publish_ahead=600)
    assert len(sessions.jwks()["keys"]) == 2, "published before it signs"  # type: ignore[arg-type]
    assert jwt.get_unverified_header(sessions.create("ada").access_token)["kid"] == old
    clock.now += 601
    granted = sessions.refresh(granted.refresh_token or "")
    assert jwt.get_unverified_header(granted.access_token)["kid"] != old
    clock.now += 1802
    assert len(sessions.jwks()["keys"]) == 1, "the last token of the old key is dead"  # type: ignore[arg-type]
    assert sessions.refresh(granted.refresh_token or "")


def test_a_retired_key_is_dead_at_once_for_tokens_seen_before_too(sessions: Sessions) -> None:
    granted = sessions.create("ada")
    sessions.verify(granted.access_token)
    old = sessions.keyring().signing[0].kid
    sessions.rotate_keys(publish_ahead=0)
    assert sessions.verify(granted.access_token)
    assert sessions.retire_key(old) is True
    assert dead(sessions, granted.access_token) == "revoked"
    assert sessions.verify(sessions.refresh(granted.refresh_token or "").access_token)
    assert sessions.retire_key("no such key") is False


def test_the_last_key_that_is_retired_has_a_successor(sessions: Sessions) -> None:
    granted = sessions.create("ada")
    for record in sessions.keyring().records:
        assert sessions.retire_key(record.kid) is True
    assert dead(sessions, granted.access_token) == "revoked"
    assert refused(sessions, granted.refresh_token) == "malformed"
    assert sessions.verify(sessions.refresh(sessions.create("ada").refresh_token or "").access_token)


def test_a_process_that_does_not_know_the_lifetimes_revokes_for_long_enough(store: Any, clock: ServerClock) -> None:
    server = Sessions(store, clock=clock, policy=Policy(access_ttl=12 * 3600, refresh_ttl=30 * 86400))
    granted = server.create("ada")
    command_line = Sessions(store, clock=clock)
    command_line.rotate_keys(publish_ahead=0)
    command_line.revoke_subject("ada")
    clock.now += 11 * 3600
    assert dead(Sessions(store, clock=clock), granted.access_token) == "revoked", "also after a restart"
    other = server.create("bob").refresh_token or ""
    command_line.rotate_keys(publish_ahead=0)
    clock.now += 29 * 86400
    assert server.refresh(other).refresh_seq == 1, "no rotation of keys logs anybody out"


def test_a_retired_key_ends_no_session(clock: ServerClock) -> None:
    sessions = Sessions(MemorySessionStore(), clock=clock)
    granted = sessions.create("ada")
    sessions.verify(granted.access_token)
    sessions.retire_key(sessions.keyring().signer(clock.now).kid)
    assert sessions.logout(access_token=granted.access_token) is False
    assert len(sessions.list_sessions()) == 1
