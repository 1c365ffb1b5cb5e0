"""The text of a refresh token: one spelling, nothing forged."""

from __future__ import annotations

import random
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unbroken.errors import InvalidGrant
from unbroken.server.core.refresh_token import MAX_TOKEN_CHARS, RefreshToken, row_key

KEYS = {1: b"k" * 32, 300: b"q" * 32}
F = bytes(range(16))


@given(
    f=st.binary(min_size=16, max_size=16),
    g=st.integers(0, 2**40),
    b=st.integers(0, 2**20),
    kid=st.sampled_from([1, 300]),
)
def test_a_token_is_read_as_it_was_written(f: bytes, g: int, b: int, kid: int) -> None:
    text = RefreshToken(f, g, b).encode(kid, KEYS[kid])
    assert len(text) <= MAX_TOKEN_CHARS
    assert RefreshToken.decode(text, KEYS.get) == (f, g, b)


def test_the_random_part_is_not_the_rows_key_and_not_in_the_repr() -> None:
    assert F not in row_key(F)
    assert "00" not in repr(RefreshToken(F, 1, 2))


@pytest.mark.parametrize("tail", ["=", "==", " ", "\n", "A", "\0", "ä"])
def test_a_refresh_token_with_appended_text_is_refused(tail: str) -> None:
    text = RefreshToken(F, 5, 0).encode(1, KEYS[1])
    with pytest.raises(InvalidGrant, match="not a refresh token"):
        RefreshToken.decode(text + tail, KEYS.get)


def test_every_respelled_last_character_is_refused() -> None:
    text = RefreshToken(F, 5, 0).encode(1, KEYS[1])
    for last in string.ascii_letters + string.digits + "-_+/":
        if last != text[-1]:
            with pytest.raises(InvalidGrant):
                RefreshToken.decode(text[:-1] + last, KEYS.get)


def test_a_thousand_mutants_are_refused() -> None:
    text, chance = RefreshToken(F, 5, 0).encode(1, KEYS[1]), random.Random(1)
    for _ in range(1000):
        at, mutant = chance.randrange(len(text)), list(text)
        mutant[at] = chance.choice(string.printable.replace(text[at], ""))
        with pytest.raises(InvalidGrant) as caught:
            RefreshToken.decode("".join(mutant), KEYS.get)
        assert caught.value.reason == "malformed"


@given(st.text(max_size=200))
def test_any_text_is_refused_in_the_same_words(text: str) -> None:
    with pytest.raises(InvalidGrant):
        RefreshToken.decode("rt_" + text, KEYS.get)


def test_an_unknown_or_ended_key_makes_no_token() -> None:
    with pytest.raises(InvalidGrant):
        RefreshToken.decode(RefreshToken(F, 5, 0).encode(7, b"x" * 32), KEYS.get)
