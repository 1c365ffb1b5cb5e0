"""Keys over time, and the spelling of what they sign."""

from __future__ import annotations

import pytest

from unbroken.errors import ConfigurationError
from unbroken.server import Keyring, MemorySessionStore, Sessions
from unbroken.server.keys.keyring import new_mac_key, new_signing_key


@pytest.fixture
def now() -> list[float]:
    return [1000.0]


@pytest.fixture
def sessions(now: list[float]) -> Sessions:
    return Sessions(MemorySessionStore(), clock=lambda: now[0])


def test_a_new_mac_key_is_published_before_it_makes_tokens(sessions: Sessions, now: list[float]) -> None:
    sessions.create("ada")
    sessions.rotate_keys(publish_ahead=600)
    keyring = sessions.keyring()
    assert [keyring.mac(at).number for at in (1000.0, 1599.0, 1600.0)] == [1, 1, 2]
    assert keyring.mac_key(2, 1000.0), "known before its first token"


@pytest.mark.parametrize("use", ["sign", "mac"])
def test_a_key_that_is_retired_before_its_successor_may_start_is_replaced_at_once(sessions: Sessions, use: str) -> None:
    [old] = [key.kid for key in sessions.keyring().records if key.use == use]
    sessions.rotate_keys(publish_ahead=600)
    sessions.retire_key(old)
    keyring = sessions.keyring()
    assert old not in (keyring.signer(1000.0).kid, str(keyring.mac(1000.0).number))
    assert sessions.verify(sessions.refresh(sessions.create("ada").refresh_token or "").access_token)


@pytest.mark.parametrize("publish_ahead", [None, 0.0, 600.0])
@pytest.mark.parametrize("behind", [0.3, 1.0, 900.0])
def test_a_clock_that_is_behind_stops_no_request(
    sessions: Sessions, now: list[float], publish_ahead: float | None, behind: float
) -> None:
    granted = sessions.create("ada")
    if publish_ahead is not None:
        sessions.rotate_keys(publish_ahead=publish_ahead)
    other = Sessions(sessions.store, clock=lambda: now[0] - behind)
    assert other.refresh(granted.refresh_token or "").refresh_seq == 1
    assert sessions.verify(other.create("bob").access_token)


def test_the_first_to_start_makes_the_tokens_where_no_clock_has_come_so_far() -> None:
    keys = [new_mac_key(number, 50.0, starts) for number, starts in ((1, 200.0), (2, 100.0))]
    assert Keyring(keys).mac(50.0).number == 2
    assert Keyring([new_signing_key("EdDSA", 50.0, 100.0)]).signer(50.0)


def test_no_key_at_all_is_a_matter_of_configuration() -> None:
    for make in (Keyring(()).signer, Keyring(()).mac):
        with pytest.raises(ConfigurationError, match="keys rotate --now"):
            make(0.0)


def test_a_key_for_refresh_tokens_shows_no_secret() -> None:
    record = new_mac_key(1, 0.0, 0.0)
    assert repr(Keyring([record]).mac(0.0)) == "<MacKey 1>"
