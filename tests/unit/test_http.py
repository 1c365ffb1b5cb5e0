"""The values of HTTP: one reader of ``Retry-After`` for all parts of the package."""

from __future__ import annotations

import pytest

from unbroken import HttpRequest, HttpResponse
from unbroken._http import retry_after_seconds

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
