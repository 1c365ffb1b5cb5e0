"""Token responses, as they are written and read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unbroken import BadResponse, TokenResponse, Tokens


@given(
    st.builds(
        TokenResponse,
        st.text("abc.-_", min_size=1),
        st.none() | st.text("abc", min_size=1),
        st.none() | st.integers(1, 10**6),
        st.none() | st.integers(1, 10**6),
        st.none() | st.integers(0, 2**40),
        st.text("ab ", max_size=5),
    )
)
def test_a_token_response_is_read_as_it_was_written(granted: TokenResponse) -> None:
    back = TokenResponse.from_response(granted.to_response())
    assert back.access_token == granted.access_token
    assert (back.refresh_token, back.refresh_seq) == (granted.refresh_token, granted.refresh_seq)
    assert back.refresh_expires_in == granted.refresh_expires_in


@pytest.mark.parametrize(("value", "seconds"), [("3600", 3600.0), (0, None), (-1, None), ("", None), (None, None)])
def test_odd_lifetimes(value: object, seconds: float | None) -> None:
    assert TokenResponse.from_response({"access_token": "a", "expires_in": value}).expires_in == seconds


def test_a_missing_lifetime_is_read_from_the_jwt() -> None:
    token = "e30.eyJpYXQiOjEwMCwiZXhwIjoxNjB9.c2ln"
    assert TokenResponse.from_response({"access_token": token}).expires_in == 60


@pytest.mark.parametrize("field", ["access_token", "refresh_token"])
def test_a_wrong_field_is_named(field: str) -> None:
    with pytest.raises(BadResponse, match=f"'{field}'") as caught:
        TokenResponse.from_response({"access_token": "a", field: {"x": 1}})
    assert caught.value.field == field


@pytest.mark.parametrize("field", ["expires_in", "refresh_expires_in", "refresh_seq", "scope", "token_type"])
def test_any_other_wrong_field_counts_as_absent(field: str) -> None:
    granted = TokenResponse.from_response({"access_token": "a", field: {"x": 1}})
    assert (granted.access_token, granted.unreadable_fields) == ("a", (field,))


def test_no_repr_shows_a_token() -> None:
    for value in (Tokens("SECRET", "SECRET"), TokenResponse("SECRET", "SECRET")):
        assert "SECRET" not in repr(value)
