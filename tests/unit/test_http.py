"""What both sides read in an HTTP response."""

from __future__ import annotations

from unbroken import HttpResponse
from unbroken._http import retry_after_seconds


def reply(status: int, body: bytes = b"", **headers: str) -> HttpResponse:
    return HttpResponse(status, {name.replace("_", "-"): value for name, value in headers.items()}, body)


def test_retry_after_in_seconds_and_as_a_date() -> None:
    assert retry_after_seconds(reply(429, retry_after="7")) == 7
    date = "Sat, 21 Nov 2026 04:00:30 GMT"
    assert retry_after_seconds(reply(429, retry_after=date, date="Sat, 21 Nov 2026 04:00:00 GMT")) == 30
    assert retry_after_seconds(reply(429, retry_after=date)) == 0
    assert retry_after_seconds(reply(429, retry_after="soon")) == 0
    assert retry_after_seconds(reply(429, retry_after="999999")) == 3600
