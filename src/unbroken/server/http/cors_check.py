"""A CORS middleware of the application that would break the first refresh is noticed at the first login.

The middleware of an application stands before the endpoints and responds to preflights by itself. If it does not allow
a header of ours, a login works, because it has no such header, and the first refresh fails half an hour later, in the
browser, without a request that would reach the endpoints.

1. After a login from a page of another origin, the face sends the application the preflight that this page would send
   before its first refresh, within the process. What is missing is a warning in the log, once for each origin.
2. It changes no response, and no failure of it is more than a line of the level DEBUG.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import NamedTuple

from unbroken.server.http.messages import Request, Response, Route
from unbroken.server.http.origins import AllowedOrigins

__all__ = ["LOGINS", "CorsCheck", "Preflight"]

_log = logging.getLogger("unbroken")
MAX_ORIGINS = 20  # of pages that log in; a stranger can send any
LOGINS = ("login", "login_step")
HEADERS = ("content-type", "idempotency-key")
COOKIE_HEADERS = ("content-type", "x-unbroken")


class Preflight(NamedTuple):
    """The request that a page of *origin* sends before its first refresh."""

    origin: str
    path: str
    wanted: tuple[str, ...]

    @property
    def headers(self) -> dict[str, str]:
        """The headers of the request; names in lower case."""
        return {
            "origin": self.origin,
            "access-control-request-method": "POST",
            "access-control-request-headers": ",".join(self.wanted),
        }


class CorsCheck:
    """What one set of endpoints knows about the pages that log in."""

    def __init__(self) -> None:
        self._seen: set[str] = set()

    def due(self, route: Route, request: Request, response: Response) -> Preflight | None:
        """Return the preflight to try after *response* (rule 1); None if there is nothing to check, or no more."""
        origin = request.headers.get("origin", "")
        if route.name not in LOGINS or response.status != 200 or origin in ("", "null"):
            return None
        if origin in self._seen or len(self._seen) >= MAX_ORIGINS or AllowedOrigins().is_trusted(request):
            return None
        self._seen.add(origin)
        path = request.path[: request.path.rindex("/login")] + "/refresh"
        return Preflight(origin, path, COOKIE_HEADERS if "x-unbroken" in request.headers else HEADERS)

    def report(self, asked: Preflight, status: int, headers: Mapping[str, str]) -> None:
        """Log what the response to a preflight lacks. *headers*: names in lower case."""
        if missing := _missing(asked, status, headers):
            _log.warning(
                "pages of %s can log in here, and their first refresh will fail: this application's response to the "
                "preflight of %s lacks %s. Add it to the settings of its CORS middleware",
                _quoted(asked.origin),
                asked.path,
                missing,
            )

    def failed(self, asked: Preflight, error: Exception) -> None:
        """Note that the preflight could not be tried (rule 2)."""
        _log.debug("the preflight of %s could not be tried: %r", asked.path, error)


def _missing(asked: Preflight, status: int, headers: Mapping[str, str]) -> str:
    """Return what the browser would miss in the response; empty if the refresh will be allowed."""
    with_cookies = "x-unbroken" in asked.wanted
    if headers.get("access-control-allow-origin") not in (asked.origin, *(() if with_cookies else ("*",))):
        return "the origin"
    allowed = {word.strip().lower() for word in headers.get("access-control-allow-headers", "").split(",")}
    lacking = [] if "*" in allowed and not with_cookies else [name for name in asked.wanted if name not in allowed]
    if lacking:
        return "the header " + " and ".join(name.title() for name in lacking)
    if with_cookies and headers.get("access-control-allow-credentials") != "true":
        return "credentials"
    return "a status of success" if not 200 <= status < 300 else ""


def _quoted(origin: str) -> str:
    """Return *origin* as it may stand in a log: cut, and without control characters."""
    return "".join(char if char.isprintable() and char.isascii() else "?" for char in origin[:100])
