"""Dialects: challenges, requests as they are built, and what a response to them means."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.token_endpoint import URL
from unbroken import (
    ConfigurationError,
    Dialect,
    HttpResponse,
    LoginRefused,
    RequestTemplate,
    ResponseMatch,
    Session,
    TokenFields,
    TokenResponse,
    Tokens,
    TryLater,
    oauth2,
    unbroken_server,
)
from unbroken._http import parse_challenges
from unbroken.client.core.dialect import is_bearer_challenge
from unbroken.client.core.refresh_rules import GrantRejected, Indeterminate


def reply(status: int, body: bytes = b"", **headers: str) -> HttpResponse:
    return HttpResponse(status, {name.replace("_", "-"): value for name, value in headers.items()}, body)


@pytest.mark.parametrize(
    ("status", "header", "ours"),
    [
        (401, None, True),
        (401, "Bearer", True),
        (401, 'Bearer realm="a, b", error="invalid_token"', True),
        (401, 'bearer error=invalid_token, Basic realm="x"', True),
        (401, 'Basic realm="x", Bearer error="invalid_token"', True),
        (401, 'Basic realm="x"', False),
        (401, "Negotiate", False),
        (401, 'Bearer error="insufficient_scope"', False),
        (401, 'Bearer error="invalid_request"', False),
        (403, 'Bearer error="invalid_token"', False),
        (200, None, False),
    ],
)
def test_which_responses_are_bearer_challenges(status: int, header: str | None, ours: bool) -> None:
    assert is_bearer_challenge(HttpResponse(status, {} if header is None else {"www-authenticate": header})) is ours


def test_challenges_are_parsed_with_all_their_quoting() -> None:
    header = 'Negotiate a87421==, Digest realm="a\\"b", nonce=c , Bearer'
    assert parse_challenges(header) == [("negotiate", {}), ("digest", {"realm": 'a"b', "nonce": "c"}), ("bearer", {})]


@given(st.text(max_size=100))
def test_no_header_breaks_the_parser(header: str) -> None:
    assert isinstance(parse_challenges(header), list)


def test_a_response_match_compares_status_and_field_as_text() -> None:
    in_body = ResponseMatch.of(200, field="code", values=(401,))
    assert in_body.matches(reply(200, b'{"code": "401"}'))
    assert not in_body.matches(reply(200, b'{"code": 200}'))
    assert not in_body.matches(reply(400, b'{"code": 401}'))
    assert not in_body.matches(reply(200, b"[401]"))
    assert ResponseMatch.of(field="code", values=(200,), negate=True).matches(reply(200, b'{"code": 1}'))


def test_five_lines_describe_a_backend_with_a_code_in_a_200_body() -> None:
    dialect = Dialect(
        refresh=RequestTemplate(
            "https://api.example.org/refreshToken", "GET", "query", {"refresh_token": "refreshToken"}
        ),
        tokens=TokenFields("data.token", "data.refreshToken", scheme="data.tokenHead"),
        scheme=None,
        challenge=ResponseMatch.of(200, field="code", values=(401,)),
        succeeded=ResponseMatch.of(200, field="code", values=(200,)),
        ends_session=ResponseMatch.of(200, field="code", values=(200,), negate=True),
    )
    tokens = Tokens("a", "r&r", token_type="JWT")
    assert dialect.header_value(tokens) == "JWT a"
    assert dialect.refresh_request(tokens, "id").url == "https://api.example.org/refreshToken?refreshToken=r%26r"
    granted = dialect.read_refresh_response(
        reply(200, b'{"code":200,"data":{"token":"n","refreshToken":"m","tokenHead":"JWT "}}')
    )
    assert isinstance(granted, TokenResponse)
    assert (granted.access_token, granted.refresh_token, granted.token_type) == ("n", "m", "JWT")
    assert dialect.read_refresh_response(reply(200, b'{"code":402}')) == GrantRejected("invalid_grant")
    assert isinstance(dialect.read_refresh_response(reply(500)), Indeterminate)
    assert dialect.is_challenge(reply(200, b'{"code":401}'))
    assert dialect.may_challenge(200)
    assert not dialect.may_challenge(401)
    assert dialect.reads_body


def test_five_lines_describe_a_backend_with_a_header_of_its_own() -> None:
    dialect = Dialect(
        refresh=RequestTemplate("https://a.example/refresh", "POST", "query", {"refresh_token": "refreshToken"}),
        tokens=TokenFields("accessToken", "refreshToken"),
        header="token",
        scheme="",
        challenge=ResponseMatch.of(400, field="code", values=(401,)),
        ends_session=ResponseMatch.of(400, field="code", values=(402,)),
    )
    assert (dialect.header, dialect.header_value(Tokens("a"))) == ("token", "a")
    assert dialect.read_refresh_response(reply(400, b'{"code":402}')) == GrantRejected("invalid_grant")


def test_oauth2_speaks_rfc_6749() -> None:
    dialect = oauth2("https://as.example/token", client_id="web", revocation_endpoint="https://as.example/revoke")
    call = dialect.refresh_request(Tokens("a", "r"), "id")
    assert (call.method, call.body) == ("POST", b"refresh_token=r&grant_type=refresh_token&client_id=web")
    assert call.headers["idempotency-key"] == '"id"'
    logout = dialect.logout_request(Tokens("a", "r"))
    assert logout is not None
    assert logout.body == b"token=r&client_id=web"
    secret = oauth2("https://as.example/token", client_id="we:b", client_secret="ge heim")
    assert secret.refresh_request(Tokens("a", "r"), "id").headers["authorization"] == "Basic d2UlM0FiOmdlK2hlaW0="


@pytest.mark.parametrize(
    ("status", "body", "meaning"),
    [
        (400, b'{"error":"invalid_grant"}', GrantRejected("invalid_grant")),
        (400, b'{"error":"invalid_grant","reason":"reuse"}', GrantRejected("reuse")),
        (400, b'{"error":"invalid_grant","reason":"<b>"}', GrantRejected("invalid_grant")),
        (401, b'{"error":"invalid_grant"}', GrantRejected("invalid_grant")),
        (400, b'{"error":"invalid_client"}', None),
        (401, b"", None),
        (403, b"<html>", None),
        (429, b"", None),
        (500, b'{"error":"invalid_grant"}', None),
        (301, b"", None),
        (200, b"[]", None),
        (200, b'{"access_token":""}', None),
        (200, b'{"access_token":"a\\nb"}', None),
        (200, b'{"access_token":"a","refresh_token":["r"]}', None),
    ],
)
def test_only_a_definite_response_ends_a_session(status: int, body: bytes, meaning: GrantRejected | None) -> None:
    answer = unbroken_server("https://a.example").read_refresh_response(reply(status, body))
    assert answer == meaning if meaning else isinstance(answer, Indeterminate)


def test_the_repr_of_a_request_shows_no_secret_of_its_query() -> None:
    call = RequestTemplate("https://a.example/x", "GET", "query").build({"refresh_token": "secret"})
    assert "secret" not in repr(call)


def test_a_dialect_without_a_login_says_what_to_do() -> None:
    with pytest.raises(ConfigurationError, match="import_tokens"):
        Dialect(refresh=RequestTemplate("https://a.example/r")).login_request("a", "b", {})


def test_a_login_is_refused_or_put_off() -> None:
    dialect = unbroken_server("https://a.example")
    with pytest.raises(LoginRefused):
        dialect.read_login_response(reply(401, b'{"error":"access_denied"}'))
    with pytest.raises(TryLater):
        dialect.read_login_response(reply(503))


def test_no_description_of_a_backend_shows_its_secret() -> None:
    dialect = oauth2("https://as.example/token", client_id="app", client_secret="hush")
    shown = repr(dialect) + repr(RequestTemplate("https://x.example", extra={"client_secret": "hush"}))
    assert "hush" not in shown
    assert "YXBwOmh1c2g" not in shown


def test_a_url_with_a_password_is_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigurationError) as caught:
        Session(Dialect(refresh=RequestTemplate("https://app:hush@as.example/token")))
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("path", ["/a b", "/a\tb", "/caf\u00e9", "?q=\u00e9"])
def test_a_url_that_cannot_be_sent_as_it_stands_is_refused_at_once(path: str) -> None:
    with pytest.raises(ConfigurationError, match="percent-encoded"):
        Session(Dialect(refresh=RequestTemplate(URL + path, "GET", "query")))
