"""Single-purpose tokens: each purpose has its own type and its own key, and no other token passes for one."""

from __future__ import annotations

import pytest
from joserfc import jwt

from unbroken.errors import ConfigurationError
from unbroken.server import MemorySessionStore, Sessions
from unbroken.server.keys.purpose_token import MALFORMED_ERRORS, PurposeToken, mac_number_of

NOW = 1_000_000_000.0
ONE = PurposeToken("one+jwt", b"purpose one", max_chars=1000, too_long="ask for less")
OTHER = PurposeToken("other+jwt", b"purpose other", max_chars=1000, too_long="ask for less")
SAME_TYPE = PurposeToken("one+jwt", b"purpose other", max_chars=1000, too_long="ask for less")
SAME_KEY = PurposeToken("other+jwt", b"purpose one", max_chars=1000, too_long="ask for less")


@pytest.fixture
def sessions() -> Sessions:
    return Sessions(MemorySessionStore())


def test_a_purpose_token_is_decoded_to_the_claims_it_was_made_of(sessions: Sessions) -> None:
    token = ONE.encode({"a": [1, {"b": None}], "sub": "ada"}, sessions.keyring(), NOW)
    assert ONE.decode(token, sessions.keyring(), NOW) == {"a": [1, {"b": None}], "sub": "ada"}
    assert mac_number_of(token) == 1


@pytest.mark.parametrize("maker", [OTHER, SAME_TYPE, SAME_KEY])
def test_a_token_of_another_purpose_is_refused(sessions: Sessions, maker: PurposeToken) -> None:
    token = maker.encode({"sub": "ada"}, sessions.keyring(), NOW)
    with pytest.raises(MALFORMED_ERRORS):
        ONE.decode(token, sessions.keyring(), NOW)


def test_an_access_token_is_refused(sessions: Sessions) -> None:
    with pytest.raises(MALFORMED_ERRORS):
        ONE.decode(sessions.create("ada").access_token, sessions.keyring(), NOW)


@pytest.mark.parametrize("alg", ["HS384", "HS512"])
def test_a_purpose_token_with_another_algorithm_is_refused(sessions: Sessions, alg: str) -> None:
    key = ONE.key(sessions.keyring().mac(NOW).secret)
    token = jwt.encode({"alg": alg, "typ": "one+jwt", "kid": "1"}, {"sub": "ada"}, key, algorithms=[alg])
    with pytest.raises(MALFORMED_ERRORS):
        ONE.decode(token, sessions.keyring(), NOW)


def test_a_retired_key_ends_its_tokens(sessions: Sessions) -> None:
    token = ONE.encode({"sub": "ada"}, sessions.keyring(), sessions.clock())
    sessions.retire_key("1")
    with pytest.raises(MALFORMED_ERRORS):
        ONE.decode(token, sessions.keyring(), sessions.clock())
    assert ONE.decode(ONE.encode({}, sessions.keyring(), sessions.clock()), sessions.keyring(), sessions.clock()) == {}


def test_a_token_is_bounded_in_both_directions(sessions: Sessions) -> None:
    with pytest.raises(ConfigurationError, match="at most 1000 characters: ask for less"):
        ONE.encode({"sub": "a" * 1000}, sessions.keyring(), NOW)
    with pytest.raises(MALFORMED_ERRORS):
        ONE.decode("a" * 1001, sessions.keyring(), NOW)


@pytest.mark.parametrize("junk", ["", "a", "a.b.c", "..", "\ud800"])
def test_junk_is_malformed_and_names_no_key(sessions: Sessions, junk: str) -> None:
    with pytest.raises(MALFORMED_ERRORS):
        ONE.decode(junk, sessions.keyring(), NOW)
    assert mac_number_of(junk) is None
