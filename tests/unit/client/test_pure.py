"""The pure parts of the client: challenges, replay, timing, dialects, token responses, errors."""

from __future__ import annotations

import io
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unbroken import (
    BadResponse,
    ConfigurationError,
    Dialect,
    HttpResponse,
    Leeway,
    LoginRefused,
    NotReplayable,
    RefreshWindow,
    RequestTemplate,
    ResponseMatch,
    SessionOver,
    TokenFields,
    TokenResponse,
    Tokens,
    TryLater,
    UnbrokenError,
    oauth2,
    unbroken_server,
)
from unbroken import errors as errors_module
from unbroken._http import retry_after_seconds
from unbroken._origins import origin_of
from unbroken.client.core.body import rewinder
from unbroken.client.core.dialect import is_bearer_challenge, parse_challenges
from unbroken.client.core.refresh_rules import GrantRejected, Indeterminate
from unbroken.client.core.schedule import cooldown_seconds, refresh_ages, seconds_until_allowed

JSON = {"content-type": "application/json"}


def reply(status: int, body: bytes = b"", **headers: str) -> HttpResponse:
    return HttpResponse(status, {name.replace("_", "-"): value for name, value in headers.items()}, body)


# ---- challenges ------------------------------------------------------------------------------------------------------


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
def test_which_answers_are_about_our_token(status: int, header: str | None, ours: bool) -> None:
    assert is_bearer_challenge(HttpResponse(status, {} if header is None else {"www-authenticate": header})) is ours


def test_challenges_are_parsed_with_all_their_quoting() -> None:
    header = 'Negotiate a87421==, Digest realm="a\\"b", nonce=c , Bearer'
    assert parse_challenges(header) == [("negotiate", {}), ("digest", {"realm": 'a"b', "nonce": "c"}), ("bearer", {})]


@given(st.text(max_size=100))
def test_no_header_breaks_the_parser(header: str) -> None:
    assert isinstance(parse_challenges(header), list)


def test_conditions_are_data() -> None:
    in_body = ResponseMatch.of(200, field="code", values=(401,))
    assert in_body.matches(reply(200, b'{"code": "401"}'))
    assert not in_body.matches(reply(200, b'{"code": 200}'))
    assert not in_body.matches(reply(400, b'{"code": 401}'))
    assert not in_body.matches(reply(200, b"[401]"))
    assert ResponseMatch.of(field="code", values=(200,), negate=True).matches(reply(200, b'{"code": 1}'))


# ---- replay ----------------------------------------------------------------------------------------------------------


def test_a_seekable_body_is_wound_back_to_where_it_stood() -> None:
    file = io.BytesIO(b"abcdef")
    file.seek(2)
    rewind = rewinder(file)
    assert rewind is not None
    assert file.read() == b"cdef"
    rewind()
    assert file.read() == b"cdef"


@pytest.mark.parametrize("body", [iter([b"a"]), (x for x in [b"a"]), object(), 7, map(bytes, [])])
def test_a_body_that_is_not_known_to_repeat_is_sent_once(body: object) -> None:
    assert rewinder(body) is None


def test_a_closed_file_and_a_pipe_are_sent_once() -> None:
    closed = io.BytesIO(b"")
    closed.close()
    assert rewinder(closed) is None
    assert rewinder(type("Pipe", (), {"read": lambda self: b"", "seekable": lambda self: False})()) is None


# ---- timing ----------------------------------------------------------------------------------------------------------


@given(st.floats(0.001, 1e9), st.floats(0, 0.999))
def test_margins_shrink_with_the_lifetime_and_keep_their_order(lifetime: float, jitter: float) -> None:
    ages = refresh_ages(Tokens("a", "r", lifetime), Leeway(), jitter)
    assert lifetime * 0.79 <= ages.refresh_in_background_at <= ages.refresh_before_use_at <= ages.expires_at == lifetime
    assert ages.expires_at - ages.refresh_in_background_at <= 300.001
    assert ages.expires_at - ages.refresh_before_use_at <= 10.001


def test_unknown_lifetimes_are_driven_by_challenges() -> None:
    assert refresh_ages(Tokens("a", "r", None), Leeway(), 0.5).refresh_in_background_at == float("inf")


def test_a_token_without_a_refresh_token_is_used_to_its_end() -> None:
    assert refresh_ages(Tokens("a", None, 60.0), Leeway(), 0.5).refresh_in_background_at == 60.0


def test_the_cool_down_grows_and_ends_at_half_a_minute() -> None:
    assert [cooldown_seconds(n, 0.0, 1.0) for n in (1, 2, 3, 9)] == [1.0, 2.0, 4.0, 30.0]
    assert cooldown_seconds(1, 77.0, 0.0) == 77.0


def test_a_storm_is_too_many_in_the_window() -> None:
    window = RefreshWindow(interval=30, attempts=2)
    assert seconds_until_allowed([1.0], 20.0, window) == 0.0
    assert seconds_until_allowed([1.0, 2.0], 20.0, window) == 11.0
    assert seconds_until_allowed([1.0, 2.0], 31.0, window) == 0.0
    assert seconds_until_allowed([], 0.0, RefreshWindow(attempts=0)) > 0


# ---- dialects --------------------------------------------------------------------------------------------------------


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
def test_only_a_definite_answer_ends_a_session(status: int, body: bytes, meaning: GrantRejected | None) -> None:
    answer = unbroken_server("https://a.example").read_refresh_response(reply(status, body))
    assert answer == meaning if meaning else isinstance(answer, Indeterminate)


def test_retry_after_in_seconds_and_as_a_date() -> None:
    assert retry_after_seconds(reply(429, retry_after="7")) == 7
    date = "Sat, 21 Nov 2026 04:00:30 GMT"
    assert retry_after_seconds(reply(429, retry_after=date, date="Sat, 21 Nov 2026 04:00:00 GMT")) == 30
    assert retry_after_seconds(reply(429, retry_after=date)) == 0
    assert retry_after_seconds(reply(429, retry_after="soon")) == 0
    assert retry_after_seconds(reply(429, retry_after="999999")) == 3600


def test_a_call_shows_no_secret() -> None:
    call = RequestTemplate("https://a.example/x", "GET", "query").build({"refresh_token": "secret"})
    assert "secret" not in repr(call)


def test_origins_are_compared_parsed() -> None:
    assert origin_of("https://a.example/x") == origin_of("https://A.example:443") == ("https", "a.example", 443)
    for bad in ("a.example", "ftp://a.example", "https://", "https://a:99999", "/x"):
        with pytest.raises(ConfigurationError):
            origin_of(bad)


def test_a_dialect_without_a_login_says_what_to_do() -> None:
    with pytest.raises(ConfigurationError, match="import_tokens"):
        Dialect(refresh=RequestTemplate("https://a.example/r")).login_request("a", "b", {})


def test_a_login_is_refused_or_put_off() -> None:
    dialect = unbroken_server("https://a.example")
    with pytest.raises(LoginRefused):
        dialect.read_login_response(reply(401, b'{"error":"access_denied"}'))
    with pytest.raises(TryLater):
        dialect.read_login_response(reply(503))


# ---- token responses -------------------------------------------------------------------------------------------------


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


def test_a_lifetime_comes_from_the_jwt_if_nobody_says() -> None:
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


# ---- errors ----------------------------------------------------------------------------------------------------------


def every_error() -> list[Any]:
    return [cls for cls in vars(errors_module).values() if isinstance(cls, type) and issubclass(cls, UnbrokenError)]


def test_codes_are_stable_and_documented() -> None:
    tree = errors_module.__doc__ or ""
    for cls in every_error():
        assert cls.__name__ in tree
        if cls not in (UnbrokenError, errors_module.Refused):
            assert cls.code in tree


@pytest.mark.parametrize(
    "error",
    [
        SessionOver("reuse"),
        TryLater("later", retry_after=3),
        NotReplayable("x"),
        LoginRefused("no"),
        BadResponse("b", field="f"),
    ],
)
def test_errors_can_be_copied_for_each_waiter_and_sent_to_other_processes(error: UnbrokenError) -> None:
    for twin in (error.copy(), pickle.loads(pickle.dumps(error))):
        assert twin is not error
        assert type(twin) is type(error)
        assert (str(twin), vars(twin)) == (str(error), vars(error))
