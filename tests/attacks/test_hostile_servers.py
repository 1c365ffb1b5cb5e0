"""Servers that answer with junk: no token is lost, no session ends, and no exception is one that is not documented."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest

from tests.attacks.floods import measured
from tests.attacks.fuzz.__main__ import CORPUS, holds
from tests.attacks.fuzz.mutations import mutations
from tests.attacks.fuzz.parsers import PARSERS
from tests.support.attacks import Attacks
from tests.support.sockets import read_request
from unbroken import HttpRequest, HttpResponse, Session, oauth2, unbroken_server
from unbroken.errors import (
    BadResponse,
    ConfigurationError,
    InvalidRequest,
    LoginRefused,
    SessionOver,
    TryLater,
    UnbrokenError,
)

URL = "http://127.0.0.1:9"
GRANT = b'{"access_token": "a1", "refresh_token": "r1", "expires_in": 1800'
FORM = {"content-type": "application/x-www-form-urlencoded"}


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refresh is tried again without a pause."""
    monkeypatch.setattr("unbroken.client.core.refresh_rules.RETRY_PAUSES_SECONDS", (0.0, 0.0))


def refreshed(response: HttpResponse, **settings: Any) -> str:
    """The access token after a refresh that *response* answers. Raises what the session raises."""
    session = Session(oauth2(URL + "/token", **settings), send=lambda _request, _timeout: response)
    session.import_tokens({"access_token": "a0", "refresh_token": "secret-refresh-token", "expires_in": 1800})
    return session.newer_token("a0")


# ---- junk beside the tokens ------------------------------------------------------------------------------------------

JUNK = {
    "a number of 5,000 digits": b"9" * 5000,
    "a text of 5,000 digits": b'"' + b"9" * 5000 + b'"',
    "an infinite number": b"1e999",
    "infinity": b"Infinity",
    "not a number": b"NaN",
    "a huge number": b"1e300",
    "a huge negative number": b"-1e300",
    "deep arrays": b"[" * 100_000 + b"]" * 100_000,
    "deep objects": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    "brackets in deep texts": b'[["]]]", ' * 3000 + b"1" + b"]]" * 3000,
    "half a surrogate": b'"\\ud800"',
    "bytes that are not UTF-8": b'"\xff\xfe"',
    "a line end": b'"a\nb"',
    "a NUL": b'"\\u0000"',
    "an escape sequence": b'"\\u001b[2J"',
    "true": b"true",
    "an object": b'{"a": {"b": []}}',
    "a list of junk": b'["\\ud800", 1, null]',
}
FIELDS = ("expires_in", "refresh_expires_in", "refresh_seq", "scope", "token_type", "id_token", "x")


@pytest.mark.parametrize("junk", JUNK)
@pytest.mark.parametrize("field", FIELDS)
def test_junk_in_an_optional_field_costs_no_token(field: str, junk: str, attacks: Attacks) -> None:
    attacks.try_one()
    grant = b'{"access_token": "a1", "refresh_token": "r1", "' + field.encode() + b'": ' + JUNK[junk] + b"}"
    assert refreshed(HttpResponse(200, {"content-type": "application/json"}, grant)) == "a1"


@pytest.mark.parametrize("field", ["exp", "iat"])
@pytest.mark.parametrize("junk", JUNK)
def test_junk_in_a_foreign_jwt_costs_no_token(field: str, junk: str, attacks: Attacks) -> None:
    from unbroken import _base64

    claims = b'{"exp": 2, "iat": 1, "' + field.encode() + b'": ' + JUNK[junk] + b"}"
    token = f"e30.{_base64.encode(claims)}.c2ln"
    attacks.try_one()
    body = json.dumps({"access_token": token, "refresh_token": "r1"}).encode()
    assert refreshed(HttpResponse(200, {}, body)) == token


HEADERS = {
    "retry-after": ["9" * 5000, "-1", "NaN", "1e999", "\xb2", "Mon, 01 Jan 99999999999 00:00:00 GMT",
                    "Mon, 01 Jan 2026 00:00:00 +999999999", "Mon, 32 Foo 2026 99:99:99", "\0", "(" * 5000, ""],
    "www-authenticate": ["Bearer " + 'a="' * 1000, ", " * 20_000, 'Bearer error="' + "\\" * 999, "=" * 5000, "\xff"],
    "content-length": ["9" * 5000, "\xb2", "-1", "1, 2"],
    "content-type": ["application/x-www-form-urlencoded", "application/json; charset=x", "\xff", ";" * 5000],
    "set-cookie": ["=" * 5000, "a=b; expires=" + "9" * 5000, "\xff; Max-Age=1e999"],
}  # fmt: skip


@pytest.mark.parametrize("status", [200, 401, 429, 503])
@pytest.mark.parametrize("name", HEADERS)
def test_junk_in_a_header_leads_to_a_documented_error(name: str, status: int, attacks: Attacks) -> None:
    for value in HEADERS[name]:
        for dated in ("", value, "Mon, 01 Jan 2026 00:00:00 GMT"):
            response = HttpResponse(status, {name: value, "date": dated}, b'{"code": 401}')
            attacks.try_one()
            with pytest.raises((TryLater, BadResponse)) as caught:
                refreshed(response)
            assert getattr(caught.value, "retry_after", 0.0) <= 3630.0


def test_a_content_length_of_5000_digits_is_too_long(attacks: Attacks) -> None:
    dialect = unbroken_server(URL)
    for value in ("9" * 5000, "\xb2", "\u0663"):
        attacks.try_one()
        assert not dialect.may_read_body({"content-type": "application/json", "content-length": value})


# ---- an OAuth error under any status ---------------------------------------------------------------------------------


def as_json(error: str) -> HttpResponse:
    body = json.dumps({"error": error, "error_description": "The words of the server."}).encode()
    return HttpResponse(200, {"content-type": "application/json; charset=utf-8"}, body)


def as_form(error: str) -> HttpResponse:
    body = f"error={error}&error_description=The+words+of+the+server.&error_uri=https%3A%2F%2Fa.example"
    return HttpResponse(200, FORM, body.encode())


def as_201(error: str) -> HttpResponse:
    return HttpResponse(201, {}, as_json(error).body)


@pytest.mark.parametrize("answer", [as_json, as_form, as_201])
@pytest.mark.parametrize("error", ["invalid_grant", "bad_refresh_token", "token-is-dead"])
def test_an_error_in_a_200_that_means_so_ends_the_session(
    answer: Callable[[str], HttpResponse], error: str, attacks: Attacks
) -> None:
    attacks.try_one()
    with pytest.raises(SessionOver) as caught:
        refreshed(answer(error), over=("token-is-dead",))
    assert caught.value.reason == error


@pytest.mark.parametrize("answer", [as_json, as_form, as_201])
@pytest.mark.parametrize("error", ["incorrect_client_credentials", "server_error", "token-is-dead"])
def test_another_error_in_a_200_keeps_the_session_and_is_told(
    answer: Callable[[str], HttpResponse], error: str, attacks: Attacks
) -> None:
    attacks.try_one()
    with pytest.raises(TryLater, match=rf"{error}.*The words of the server"):
        refreshed(answer(error))


def test_a_token_response_in_a_form_is_read(attacks: Attacks) -> None:
    """GitHub's manner, if it is not asked for JSON."""
    attacks.try_one()
    body = b"access_token=a1&refresh_token=r1&expires_in=28800&scope=repo%2Cgist&token_type=bearer"
    assert refreshed(HttpResponse(200, FORM, body)) == "a1"


@pytest.mark.parametrize("said", ["secret-refresh-token is expired", "\x1b[2J\x07 gone", "x" * 10_000])
def test_the_words_of_a_server_repeat_no_token_and_steer_no_terminal(said: str, attacks: Attacks) -> None:
    attacks.try_one()
    body = json.dumps({"error": "odd", "error_description": said}).encode()
    with pytest.raises(TryLater) as caught:
        refreshed(HttpResponse(400, {}, body))
    told = str(caught.value)
    assert "secret-refresh-token" not in told
    assert told.isprintable()
    assert len(told) < 500


@pytest.mark.parametrize(
    ("error", "kind"),
    [("invalid_grant", LoginRefused), ("access_denied", LoginRefused), ("invalid_client", ConfigurationError),
     ("server_error", TryLater), ("odd", InvalidRequest)],
)  # fmt: skip
@pytest.mark.parametrize("answer", [as_json, as_form])
def test_an_oauth_error_in_a_200_to_a_login_is_raised(
    error: str, kind: type[UnbrokenError], answer: Callable[[str], HttpResponse], attacks: Attacks
) -> None:
    session = Session(oauth2(URL + "/token"), send=lambda _request, _timeout: answer(error))
    attacks.try_one()
    with pytest.raises(kind):
        session.login("ada", "pw")


# ---- over the wire ---------------------------------------------------------------------------------------------------

RAW: dict[str, Callable[[socket.socket], object]] = {
    "nothing": lambda peer: None,
    "junk": lambda peer: peer.sendall(b"\xff" * 1000),
    "half a line": lambda peer: peer.sendall(b"HTTP/1.1 20"),
    "an odd status": lambda peer: peer.sendall(b"HTTP/1.1 99999999999999999999 X\r\n\r\n"),
    "a chunk of negative size": lambda peer: flood(peer, b"transfer-encoding: chunked\r\n\r\n-1\r\n"),
    "a chunk of another negative size": lambda peer: flood(peer, b"transfer-encoding: chunked\r\n\r\n-5\r\n"),
    "a body without end": lambda peer: flood(peer, b"\r\n"),
    "a chunk without end": lambda peer: flood(peer, b"transfer-encoding: chunked\r\n\r\nfffffffffff\r\n"),
    "a header without end": lambda peer: flood(peer, b"x: "),
    "headers without end": lambda peer: flood(peer, b"", b"x: y\r\n" * 10_000),
    "continues without end": lambda peer: flood(peer, b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000, b""),
    "trailers without end": lambda peer: flood(peer, b"transfer-encoding: chunked\r\n\r\n0\r\n", b"x: y\r\n" * 10_000),
    "a length of 5,000 digits": lambda peer: peer.sendall(
        b"HTTP/1.1 200 X\r\ncontent-length: " + b"9" * 5000 + b"\r\n\r\n{}"
    ),
    "a negative length": lambda peer: flood(peer, b"content-length: -1\r\n\r\n"),
}


def flood(peer: socket.socket, head: bytes, piece: bytes = b"x" * 65536, start: bytes = b"HTTP/1.1 200 X\r\n") -> None:
    peer.sendall(start + head)
    for _ in range(2000):  # some 100 MiB, if it is let
        peer.sendall(piece)


@contextmanager
def raw_server(answer: Callable[[socket.socket], object]) -> Iterator[str]:
    """A server that answers each request by *answer*."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    peer, _ = listening.accept()
                except OSError:
                    return
                with peer:
                    try:
                        read_request(peer)
                        answer(peer)
                    except OSError:
                        continue

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join(10)


@pytest.mark.parametrize("answer", RAW)
def test_whatever_comes_over_the_wire_is_bounded_and_a_documented_error(answer: str, attacks: Attacks) -> None:
    with raw_server(RAW[answer]) as url:
        session = Session(unbroken_server(url), refresh_timeout=5.0)
        for act in (lambda: session.login("ada", "pw"), lambda: session.newer_token("a0"), session.logout):
            session.import_tokens({"access_token": "a0", "refresh_token": "r0", "expires_in": 1800})
            attacks.try_one()
            with measured() as peak:
                try:
                    act()
                except UnbrokenError as error:
                    assert isinstance(error, (TryLater, BadResponse)), error  # noqa: PT017
            assert peak.mib < 16.0
            assert peak.seconds < 20.0


# Too deep, and a string without an end, in which each quote could begin another.
QUOTES = b"[" * 50_000 + b'"' + b'\\"' * 250_000


def test_deep_brackets_before_a_string_without_an_end_cost_no_time(attacks: Attacks) -> None:
    for response in (HttpResponse(200, {}, QUOTES), HttpResponse(400, {}, QUOTES)):
        attacks.try_one()
        began = time.thread_time()
        with pytest.raises(TryLater):
            refreshed(response)
        assert time.thread_time() - began < 10.0


def test_a_server_that_wants_codes_without_end_gets_a_few(attacks: Attacks) -> None:
    codes: list[str] = []

    def respond(request: HttpRequest, _timeout: float) -> HttpResponse:
        codes.append(request.url)
        assert len(codes) < 100
        return HttpResponse(403, {}, b'{"error": "mfa_required", "mfa_token": "t", "challenge_type": "totp"}')

    attacks.try_one()
    with pytest.raises(BadResponse, match="more than 5 codes"):
        Session(unbroken_server(URL), send=respond).login("ada", "secret", mfa_prompt=lambda _kind, _hint: "123456")
    assert len(codes) == 6


# ---- metadata that leads astray --------------------------------------------------------------------------------------

THIS_MACHINE = [
    "https://127.0.0.1:8443", "https://localhost", "https://[::1]", "https://127.1", "https://2130706433",
    "https://0x7f.1", "https://0.0.0.0", "https://[::]", "https://localhost.", "https://ｌｏｃａｌｈｏｓｔ",
    "https://[::ffff:127.0.0.1]", "https://x.localhost.",
    "https://127。0。0。1", "https://127｡1", "https://localhost。", "https://x｡localhost", "https://local\ufe0fhost",
    "https://local\u034fhost", "https://loc\u180balhost", "https://xn--zzzzzzz99。localhost", "https://①②⑦。0。0。①",
]  # fmt: skip


@pytest.mark.parametrize("target", [*THIS_MACHINE, *(url.replace("https", "http") for url in THIS_MACHINE)])
@pytest.mark.parametrize("plain", [True, False])
def test_a_server_elsewhere_names_nothing_on_this_machine(target: str, plain: bool, attacks: Attacks) -> None:
    came: list[str] = []
    challenges: list[str] = []

    def respond(request: HttpRequest, _timeout: float) -> HttpResponse:
        came.append(request.url)
        if request.url == "https://api.example/a":
            return HttpResponse(401, {"www-authenticate": challenges[-1]})
        resource = {"resource": "https://api.example/a", "authorization_servers": [target]}
        server = {"issuer": "https://as.example", "token_endpoint": target}
        return HttpResponse(200, {}, json.dumps(server if "as.example" in request.url else resource).encode())

    for named in (target + "/metadata", "https://api.example/metadata"):
        challenges.append(f'Bearer resource_metadata="{named}"')
        attacks.try_one()
        with pytest.raises(ConfigurationError, match="on this machine"):
            oauth2.discover_resource("https://api.example/a", send=respond, allow_plain_http=plain)
    attacks.try_one()
    with pytest.raises(BadResponse, match="token_endpoint is on this machine"):
        oauth2.discover("https://as.example", send=respond, allow_plain_http=plain)
    assert not [url for url in came if ".example" not in url]


# ---- every parser ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PARSERS)
def test_a_parser_raises_only_what_it_documents(name: str, size: Callable[[int, int], int], attacks: Attacks) -> None:
    count = size(2_000, 500_000)
    attacks.try_many(count)
    assert all([holds(name, data) for data in mutations(PARSERS[name].seeds, count, seed=7)])  # noqa: C419  # find all


@pytest.mark.parametrize("name", PARSERS)
def test_a_parser_stands_whatever_hypothesis_thinks_of(
    name: str, size: Callable[[int, int], int], attacks: Attacks
) -> None:
    count = size(60, 5_000)

    @hypothesis.settings(max_examples=count, database=None, derandomize=True)
    @hypothesis.given(st.binary() | st.text().map(lambda text: text.encode("utf-8", "surrogatepass")))
    def run(data: bytes) -> None:
        attacks.try_one()
        assert holds(name, data)

    run()


def test_every_input_that_once_broke_a_parser_is_read_now(attacks: Attacks) -> None:
    for file in sorted(CORPUS.iterdir()):
        attacks.try_one()
        name = file.name.rpartition(".")[0].replace("-", " ")
        parser = next(one for one in PARSERS if one.replace("-", " ") == name)
        assert holds(parser, file.read_bytes()), file.name
