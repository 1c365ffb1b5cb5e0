"""One HTTP request of the library's own, and the response to it: values, without a connection."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime

__all__ = ["MAX_BODY_BYTES", "HttpRequest", "HttpResponse", "retry_after_seconds"]

MAX_BODY_BYTES = 1 << 20  # bytes; a token response is a few kilobytes


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One request of the library's own. Its repr shows neither query, headers nor body."""

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None

    def __repr__(self) -> str:
        return f"<Call {self.method} {self.url.partition('?')[0]}>"


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """An HTTP answer as far as it was read: its status, its headers (names in lower case), its body if read."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes | None = field(default=None, repr=False)

    def json(self) -> object:
        """The body as JSON; None when there is none, or it is none."""
        try:
            return json.loads(self.body) if self.body else None
        except (ValueError, RecursionError):
            return None


def retry_after_seconds(reply: HttpResponse) -> float:
    """Seconds that ``Retry-After`` asks for (RFC 9110 §10.2.3), at most an hour; 0 without one.

    A date is read against the answer's own ``Date``, so that no clock has to agree with another.
    """
    value = reply.headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return min(float(value), 3600.0)
    try:
        wait = parsedate_to_datetime(value) - parsedate_to_datetime(reply.headers.get("date", ""))
    except (ValueError, TypeError):
        return 0.0
    return min(max(wait.total_seconds(), 0.0), 3600.0)
