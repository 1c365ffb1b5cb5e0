"""HTTP of the library itself, as values without a connection: request, response, and what a sender raises."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from unbroken._json import parse_json

__all__ = [
    "MAX_BODY_BYTES",
    "MAX_RETRY_AFTER_SECONDS",
    "HttpRequest",
    "HttpResponse",
    "NotSent",
    "ResponseLost",
    "Send",
    "is_safe_in_header",
    "retry_after_seconds",
]

MAX_BODY_BYTES = 1 << 20  # a token response has a few kilobytes
MAX_RETRY_AFTER_SECONDS = 3600.0
MAX_FORM_FIELDS = 100
FORM = "application/x-www-form-urlencoded"


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One HTTP request of the library. Its repr shows neither query, headers nor body."""

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None

    def __repr__(self) -> str:
        return f"<HttpRequest {self.method} {self.url.partition('?')[0]}>"


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """One HTTP response: status, headers (names in lower case), and the body if it was read."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes | None = field(default=None, repr=False)

    def json(self) -> object:
        """Return the body parsed as JSON; None if there is no body or it is not JSON."""
        return parse_json(self.body) if self.body else None

    def parsed(self) -> object:
        """Return the body parsed as its ``Content-Type`` says: the fields of a form, else JSON as ``json`` does."""
        kind = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != FORM or not self.body:
            return self.json()
        try:
            pairs = parse_qsl(self.body.decode("utf-8", "replace"), max_num_fields=MAX_FORM_FIELDS)
        except ValueError:  # too many fields
            return None
        return dict(reversed(pairs))  # the first of a name counts


Send = Callable[[HttpRequest, float], HttpResponse]


class NotSent(Exception):
    """The server was not reached, so the request was certainly not carried out. ``reason`` names the cause in words."""

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason or message


class ResponseLost(Exception):
    """No complete response arrived; the request may have been carried out. ``reason`` names the cause in words."""

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason or message


def is_safe_in_header(value: str) -> bool:
    """Return whether *value* is printable ASCII text."""
    return value.isascii() and value.isprintable()


def retry_after_seconds(response: HttpResponse) -> float:
    """Return the seconds to wait that ``Retry-After`` states (RFC 9110 §10.2.3), at most an hour; 0 without one.

    A date is compared with the ``Date`` of the same response, so that the local clock does not matter.
    """
    value = response.headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return min(float(value), MAX_RETRY_AFTER_SECONDS)
    from email.utils import parsedate_to_datetime  # noqa: PLC0415  # slow to import, and dates are rare

    try:
        wait = parsedate_to_datetime(value) - parsedate_to_datetime(response.headers.get("date", ""))
    except (ValueError, TypeError, OverflowError, IndexError, AttributeError):  # what the parser of dates stumbles over
        return 0.0
    return min(max(wait.total_seconds(), 0.0), MAX_RETRY_AFTER_SECONDS)
