"""Single-purpose tokens: each purpose has its own type and its own key, and no other token passes for one.

Modules: server/keys/strict_jwt.py.
"""

from __future__ import annotations

import hmac
import json

import pytest
from joserfc import jwt

from unbroken._base64 import encode
from unbroken.errors import ConfigurationError
from unbroken.server import MemorySessionStore, Sessions
from unbroken.server.keys.purpose_token import PurposeToken, mac_number_of
from unbroken.server.keys.strict_jwt import MALFORMED_ERRORS

NOW = 1_000_000_000.0
TIMES = {"iat": NOW, "exp": NOW + 60.0}
ONE = PurposeToken("one+jwt", b"purpose one", max_seconds=60.0, max_chars=1000, too_long="ask for less")
OTHER = PurposeToken("other+jwt", b"purpose other", max_seconds=60.0, max_chars=1000, too_long="ask for less")
SAME_TYPE = PurposeToken("one+jwt", b"purpose other", max_seconds=60.0, max_chars=1000, too_long="ask for less")
SAME_KEY = PurposeToken("other+jwt", b"purpose one", max_seconds=60.0, max_chars=1000, too_long="ask for less")


@pytest.fixture
def sessions() -> Sessions:
    return Sessions(MemorySessionStore())


def test_a_purpose_token_is_decoded_to_the_claims_it_was_made_of(sessions: Sessions) -> None:
    token = ONE.encode({"a": [1, {"b": None}], "sub": "ada", **TIMES}, sessions.keyring(), NOW)
    assert ONE.decode(token, sessions.keyring(), NOW) == {"a": [1, {"b": None}], "sub": "ada", **TIMES}
    assert mac_number_of(token) == 1


@pytest.mark.parametrize("maker", [OTHER, SAME_TYPE, SAME_KEY])
def test_a_token_of_another_purpose_is_refused(sessions: Sessions, maker: PurposeToken) -> None:
    token = maker.encode({"sub": "ada", **TIMES}, sessions.keyring(), NOW)
    with pytest.raises(MALFORMED_ERRORS):
        ONE.decode(token, sessions.keyring(), NOW)


def test_an_access_token_is_refused(sessions: Sessions) -> None:
    with pytest.raises(MALFORMED_ERRORS):
        ONE.decode(sessions.create("ada").access_token, sessions.keyring(), NOW)


@pytest.mark.parametrize("alg", ["HS384", "HS512"])
def test_a_purpose_token_with_another_algorithm_is_refused(sessions: Sessions, alg: str) -> None:
    key = ONE.key(sessions.keyring().mac(NOW).secret)
    token = jwt.encode({"alg": alg, "typ": "one+jwt", "kid": "1"}, {"sub": "ada", **TIMES}, key, algorithms=[alg])
    with pytest.raises(MALFORMED_ERRORS):
        ONE.decode(token, sessions.keyring(), NOW)


def test_a_retired_key_ends_its_tokens(sessions: Sessions) -> None:
    token = ONE.encode({"sub": "ada", **TIMES}, sessions.keyring(), sessions.clock())
    sessions.retire_key("1")
    with pytest.raises(MALFORMED_ERRORS):
        ONE.decode(token, sessions.keyring(), sessions.clock())
    assert (
        ONE.decode(ONE.encode(TIMES, sessions.keyring(), sessions.clock()), sessions.keyring(), sessions.clock())
        == TIMES
    )


@pytest.mark.parametrize("wrong", [{"exp": NOW + 61.0}, {"exp": None}, {"iat": NOW + 31.0, "exp": NOW + 60.0},
                                   {"iat": -1.0}, {"iat": True}, {"exp": str(NOW)}, {"exp": 1e300}])  # fmt: skip
def test_a_token_that_lives_too_long_or_begins_too_late_is_refused(
    sessions: Sessions, wrong: dict[str, object]
) -> None:
    token = ONE.encode({**TIMES, **wrong}, sessions.keyring(), NOW)
    with pytest.raises(MALFORMED_ERRORS):
        ONE.decode(token, sessions.keyring(), NOW)


@pytest.mark.parametrize("kid", ["+1", "01", " 1", "1_0", "\u0661", "1.0", "", "-1", 1, True, 1.0, None, ["1"]])
def test_the_number_of_a_mac_key_has_one_spelling(sessions: Sessions, kid: object) -> None:
    key = ONE.key(sessions.keyring().mac(NOW).secret)
    header = {"alg": "HS256", "typ": "one+jwt", "kid": kid}
    message = ".".join(encode(json.dumps(part).encode()) for part in (header, TIMES))
    mac = hmac.digest(key.raw_value, message.encode(), "sha256")
    with pytest.raises(MALFORMED_ERRORS):
        ONE.decode(f"{message}.{encode(mac)}", sessions.keyring(), NOW)


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
