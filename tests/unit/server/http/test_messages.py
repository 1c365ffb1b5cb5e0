"""Requests as the endpoints read them: what is wrong is said by the name of the parameter."""

from __future__ import annotations

import pytest

from tests.support.logins import CaseSensitiveLogins
from unbroken.errors import InvalidRequest
from unbroken.server.http.messages import Request, access_token_of, text_field

JSON = {"content-type": "application/json"}
FORM = {"content-type": "application/x-www-form-urlencoded"}


def test_what_a_client_calls_itself_is_told_and_kept_to_a_bounded_length_and_as_text() -> None:
    logins = CaseSensitiveLogins()
    logins.login("ada", agent="A\0" * 30_000)
    logins.login("Ada", "mine", agent="A\0" * 30_000)
    agents = [getattr(event, "user_agent", None) for event in logins.events]
    assert agents == ["A" * 200] * 2
    assert logins.endpoints.sessions.list_sessions("Ada")[0].user_agent == "A" * 200


def form(body: str) -> dict[str, str]:
    return Request("POST", "/auth/token", FORM, body.encode()).form()


def test_empty_values_of_a_form_are_absent() -> None:
    assert form("token=abc&scope=") == {"token": "abc"}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("token=a&token=b", "duplicate parameter: token"),
        ("a%22b%0A=1&a%22b%0A=2", r"duplicate parameter: a\?b\?"),
        ("x" * 99 + "=1&" + "x" * 99 + "=2", "duplicate parameter: " + "x" * 40 + "$"),
        ("token=%00", "token is not valid text"),
        ("token", "not a valid form"),
    ],
)
def test_a_wrong_form_names_the_parameter_in_a_bounded_printable_way(body: str, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        form(body)


def test_a_missing_parameter_is_named() -> None:
    with pytest.raises(InvalidRequest, match="missing parameter: token"):
        text_field({"token": ""}, "token")
    with pytest.raises(InvalidRequest, match="token must be a string"):
        text_field({"token": 5}, "token")


@pytest.mark.parametrize(
    ("header", "token"),
    [
        ("Bearer abc", ("bearer", "abc")),
        ("bearer  abc ", ("bearer", "abc")),
        ("DPoP abc", ("dpop", "abc")),
        ("dPOP abc", ("dpop", "abc")),
        ("Bearer ", ("", "")),
        ("DPoP", ("", "")),
        ("Basic abc", ("", "")),
        ("", ("", "")),
    ],
)
def test_a_token_and_its_scheme_are_read_from_the_authorization_header(header: str, token: tuple[str, str]) -> None:
    assert access_token_of(Request("GET", "/", {"authorization": header})) == token
