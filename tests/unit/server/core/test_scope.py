"""What scope a token has: the table of what was asked, what is allowed, and what follows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unbroken.errors import InvalidScope
from unbroken.server.core.rotation import FIRST_PARTY
from unbroken.server.core.scope import TokenScope, granted_scope, remaining_scope, token_scope

ALL = ("read", "write", "sessions", "introspect")


@pytest.mark.parametrize(
    ("asked", "allowed", "granted"),
    [
        ("", ALL, ""),
        ("", (), ""),
        ("", None, ""),
        ("read", ALL, "read"),
        ("write read write", ALL, "write read"),
        ("read admin", ALL, "read"),
        ("read", None, "read"),
        ("  read   write ", None, "read write"),
    ],
)
def test_a_login_is_given_the_allowed_part(asked: str, allowed: tuple[str, ...] | None, granted: str) -> None:
    assert granted_scope(asked, allowed) == granted


@pytest.mark.parametrize(("asked", "allowed"), [("admin", ALL), ("admin root", ALL), ("read", ())])
def test_a_login_of_which_nothing_is_allowed_is_refused(asked: str, allowed: tuple[str, ...]) -> None:
    with pytest.raises(InvalidScope):
        granted_scope(asked, allowed)


@pytest.mark.parametrize(
    ("given", "allowed", "client", "wanted", "scope"),
    [
        ("", ALL, FIRST_PARTY, None, (" ".join(ALL), True)),
        ("", ALL, "", None, (" ".join(ALL), True)),
        ("", ALL, "third", None, ("read write", True)),
        ("", (), FIRST_PARTY, None, ("", True)),
        ("", None, FIRST_PARTY, None, ("", True)),
        ("", ALL, FIRST_PARTY, "", (" ".join(ALL), True)),
        ("", ALL, FIRST_PARTY, "read", ("read", False)),
        ("", ALL, FIRST_PARTY, "read admin", ("read", False)),
        ("read write", ALL, FIRST_PARTY, None, ("read write", False)),
        ("read write", ("write",), FIRST_PARTY, None, ("write", False)),
        ("read write", (), FIRST_PARTY, None, ("", False)),
        ("read write", None, FIRST_PARTY, None, ("read write", False)),
        ("read write", None, FIRST_PARTY, "write", ("write", False)),
        ("read sessions", ALL, "third", None, ("read sessions", False)),
    ],
)
def test_a_refresh_gets_what_was_given_and_is_still_allowed(
    given: str, allowed: tuple[str, ...] | None, client: str, wanted: str | None, scope: tuple[str, bool]
) -> None:
    found = token_scope(given, allowed, client, wanted)
    assert (found.words, found.is_full) == scope
    assert found.is_decided is (allowed is not None)


@pytest.mark.parametrize(
    ("given", "allowed", "client", "wanted"),
    [
        ("read", ALL, FIRST_PARTY, "write"),
        ("read", ALL, FIRST_PARTY, "read write"),
        ("read", None, FIRST_PARTY, "write"),
        ("", None, FIRST_PARTY, "read"),
        ("", ALL, "third", "sessions"),
        ("read write", ("read",), FIRST_PARTY, "write"),
        ("", ("read",), FIRST_PARTY, "write"),
    ],
)
def test_a_part_that_was_not_given_or_is_not_allowed_at_all_is_refused(
    given: str, allowed: tuple[str, ...] | None, client: str, wanted: str
) -> None:
    with pytest.raises(InvalidScope):
        token_scope(given, allowed, client, wanted)


def test_of_a_token_what_is_still_allowed_remains() -> None:
    assert remaining_scope("read write", ("write", "admin")) == "write"
    assert remaining_scope("read write", None) == "read write"
    assert remaining_scope("read", ()) == ""


scopes = st.builds(
    lambda words, full: TokenScope(" ".join(words), full),
    st.lists(st.sampled_from(["read", "write", "*", "a", "full"]), unique=True),
    st.booleans(),
)


@given(scopes, scopes)
def test_an_answer_again_is_within_the_first_one_and_within_what_is_allowed(first: TokenScope, now: TokenScope) -> None:
    again = now.no_more_than(first.encode())
    assert set(again.words.split()) == set(first.words.split()) & set(now.words.split())
    assert again.is_full is (first.is_full and now.is_full)
    assert now.no_more_than(None) == now
