"""The values of HTTP: one rule of origins, of loopback and of ``Retry-After`` for all parts of the package."""

from __future__ import annotations

import pytest

from unbroken import ConfigurationError, HttpRequest, HttpResponse, Session, unbroken_server
from unbroken._http import Origin, is_loopback, is_secure, origin_of, retry_after_seconds
from unbroken.server.http.origins import AllowedOrigins
from unbroken.server.webhook import Webhook

HOUR = 3600.0
DATE = "Sun, 06 Nov 1994 08:49:37 GMT"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 0.0),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": " 7 "}, 7.0),
        ({"retry-after": "999999"}, HOUR),
        ({"retry-after": "-7"}, 0.0),
        ({"retry-after": "٣"}, 0.0),
        ({"retry-after": "soon"}, 0.0),
        ({"retry-after": "Sun, 06 Nov 1994 08:49:47 GMT", "date": DATE}, 10.0),
        ({"retry-after": "Sun, 06 Nov 1994 08:49:27 GMT", "date": DATE}, 0.0),
        ({"retry-after": "Sun, 06 Nov 2094 08:49:47 GMT", "date": DATE}, HOUR),
        ({"retry-after": "Sun, 06 Nov 1994 08:49:47 GMT"}, 0.0),
    ],
)
def test_retry_after_is_read_as_seconds_or_against_the_date_of_the_response(
    headers: dict[str, str], seconds: float
) -> None:
    assert retry_after_seconds(HttpResponse(503, headers)) == seconds


def test_no_repr_shows_a_secret() -> None:
    request = HttpRequest(
        "POST", "https://a.example/token?refresh_token=s3cret", {"authorization": "s3cret"}, b"s3cret"
    )
    assert repr(request) == "<HttpRequest POST https://a.example/token>"
    assert "s3cret" not in repr(HttpResponse(200, {"set-cookie": "s3cret"}, b"s3cret"))


def reply(status: int, body: bytes = b"", **headers: str) -> HttpResponse:
    return HttpResponse(status, {name.replace("_", "-"): value for name, value in headers.items()}, body)


def test_retry_after_in_seconds_and_as_a_date() -> None:
    assert retry_after_seconds(reply(429, retry_after="7")) == 7
    date = "Sat, 21 Nov 2026 04:00:30 GMT"
    assert retry_after_seconds(reply(429, retry_after=date, date="Sat, 21 Nov 2026 04:00:00 GMT")) == 30
    assert retry_after_seconds(reply(429, retry_after=date)) == 0
    assert retry_after_seconds(reply(429, retry_after="soon")) == 0
    assert retry_after_seconds(reply(429, retry_after="999999")) == 3600


# ---- origins ---------------------------------------------------------------------------------------------------------


LOOPBACK = ["localhost", "app.localhost", "127.0.0.1", "127.0.0.2", "127.255.255.254", "::1", "::ffff:127.0.0.1"]
ELSEWHERE = [
    "example.com",
    "localhost.example.com",
    "notlocalhost",
    "128.0.0.1",
    "0.0.0.0",
    "::2",
    "::ffff:10.0.0.1",
    "",
]
URLS = [f"http://[{host}]:8400" if ":" in host else f"http://{host}:8400" for host in LOOPBACK]


@pytest.mark.parametrize("host", LOOPBACK)
def test_loopback_is_this_machine_in_every_spelling(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ELSEWHERE)
def test_no_other_host_is_loopback(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize("url", URLS)
def test_plain_http_on_loopback_is_allowed_by_client_cors_and_webhook(url: str) -> None:
    Session(unbroken_server(url))
    AllowedOrigins([url])
    Webhook(f"{url}/hook", "a secret of twenty-four bytes")


def test_plain_http_elsewhere_is_refused_by_client_cors_and_webhook() -> None:
    with pytest.raises(ConfigurationError, match="use https for"):
        Session("http://example.com")
    with pytest.raises(ConfigurationError, match="not safe"):
        AllowedOrigins(["http://example.com"])
    with pytest.raises(ConfigurationError, match="https://"):
        Webhook("http://example.com/hook", "a secret of twenty-four bytes")


def test_an_origin_has_its_default_port() -> None:
    assert origin_of("https://EXAMPLE.com/a?b#c") == Origin("https", "example.com", 443)
    assert str(origin_of("https://EXAMPLE.com:443/a")) == "https://example.com"
    assert str(origin_of("http://[::1]:8400/a")) == "http://[::1]:8400"
    assert is_secure(origin_of("https://example.com"))
    assert not is_secure(origin_of("http://example.com:443"))


def test_a_webhook_whose_path_cannot_be_sent_is_refused_at_once() -> None:
    with pytest.raises(ConfigurationError, match="https://"):
        Webhook("https://127.0.0.1:1/\u00fc", "a secret of twenty-four bytes")


def test_origins_are_compared_parsed() -> None:
    assert origin_of("https://a.example/x") == origin_of("https://A.example:443") == ("https", "a.example", 443)
    for bad in ("a.example", "ftp://a.example", "https://", "https://a:99999", "/x"):
        with pytest.raises(ConfigurationError):
            origin_of(bad)


def test_an_international_name_is_the_same_in_both_spellings() -> None:
    session = Session("https://bücher.example")
    assert session.allows_origin("https", "xn--bcher-kva.example", None)
    assert session.allows_origin("https", "bücher.example", None)
    assert Session("https://xn--bcher-kva.example").allows_origin("https", "bücher.example", None)
