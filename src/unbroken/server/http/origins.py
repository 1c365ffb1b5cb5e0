"""Which pages of which sites a browser may call the endpoints from (Fetch standard, CORS protocol).

1. An origin is allowed if it is written down, letter by letter: no wildcards, no patterns, never ``null``. What is not
   allowed gets no ``Access-Control`` header at all, and is never repeated in one.
2. The endpoints answer preflights themselves. The application's own routes are its framework's affair.
3. Where other origins are allowed, ``Vary: Origin`` stands in every answer, so that no cache gives one site's answer to
   another. Where none is, the Origin changes no answer that may be kept.
4. Pages of the server's own origin need no entry: browsers say ``Sec-Fetch-Site: same-origin``, and for those that do
   not, the Origin is compared with the Host.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from urllib.parse import urlsplit

from unbroken._origins import is_loopback
from unbroken.errors import ConfigurationError
from unbroken.server.http.messages import NO_STORE, Handler, Request, Response, Route, json_response

__all__ = ["CSRF_HEADER", "AllowedOrigins", "Cors"]

CSRF_HEADER = "x-unbroken"  # only a script can send it, and to another origin only after a preflight
MAX_AGE = 600  # seconds that a browser may remember a preflight; an origin that is taken away is out after them
SENT = "Authorization, Content-Type, Idempotency-Key, X-Unbroken"
READ = "WWW-Authenticate, Retry-After"
ORIGIN = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<host>[a-z0-9._-]+|\[[0-9a-f:.]+\])(?P<port>(:[1-9][0-9]{0,4})?)"
)


class AllowedOrigins:
    """The origins that are *allowed* beside the server's own. Raises ConfigurationError for what is no origin."""

    def __init__(self, allowed: Sequence[str] = ()) -> None:
        if isinstance(allowed, str):
            raise ConfigurationError("origins is a list of origins, not one text")
        self.allowed = frozenset(_checked(origin) for origin in allowed)

    def is_trusted(self, request: Request) -> bool:
        """Whether *request* is no other site's doing: an allowed page sent it, a page of this server, or no page."""
        origin, site = request.headers.get("origin"), request.headers.get("sec-fetch-site")
        if origin is None:
            return site in (None, "same-origin", "none")
        if origin in self.allowed:
            return True
        if site is not None:  # the browser's own word, which no page can forge: a proxy may have changed the Host
            return site == "same-origin" and origin != "null"
        return _is_host(origin, request.headers.get("host", ""))


class Cors:
    """Answers preflights, and lets the allowed *origins* read answers; with *credentials*, cookies may come along."""

    def __init__(self, origins: AllowedOrigins, *, credentials: bool = False) -> None:
        self._allowed, self._credentials = origins.allowed, credentials

    def preflights(self, routes: Iterable[Route]) -> tuple[Route, ...]:
        """An OPTIONS route for each path of *routes*; none if no origin is allowed."""
        methods: dict[tuple[str, bool], list[str]] = {}
        for route in routes if self._allowed else ():
            methods.setdefault((route.path, route.rooted), []).append(route.method)
        return tuple(
            Route("OPTIONS", path, self._preflight(", ".join(allowed)), rooted)
            for (path, rooted), allowed in methods.items()
        )

    def add_headers(self, request: Request, response: Response) -> Response:
        """*response* with the headers that let the page read it, if it may."""
        if not self._allowed:
            return response
        vary = [value for value in (response.headers.get("vary"), "Origin") if value]
        headers = {**response.headers, "vary": ", ".join(vary)}
        if request.headers.get("origin") in self._allowed:
            headers |= self._access(request) | {"access-control-expose-headers": READ}
        return replace(response, headers=headers)

    def _access(self, request: Request) -> dict[str, str]:
        access = {"access-control-allow-origin": request.headers["origin"]}
        return access | {"access-control-allow-credentials": "true"} if self._credentials else access

    def _preflight(self, methods: str) -> Handler:
        async def preflight(request: Request, _: str) -> Response:
            if request.headers.get("origin") not in self._allowed:
                words = "this origin is not among the server's origins"
                return json_response({"error": "forbidden", "error_description": words}, 403)
            granted = {
                "access-control-allow-methods": methods,
                "access-control-allow-headers": SENT,
                "access-control-max-age": str(MAX_AGE),
            }
            return Response(204, {**NO_STORE, **granted})

        return preflight


def _checked(origin: str) -> str:
    """*origin*, which is spelled as browsers spell it (RFC 6454 §6.2), and safe to trust."""
    found = ORIGIN.fullmatch(origin)
    if found is None or f"{found['scheme']}{found['port']}" in ("https:443", "http:80"):
        raise ConfigurationError(f"{origin!r} is not an origin: write it as https://app.example.com")
    if found["scheme"] == "http" and not is_loopback(found["host"].strip("[]")):
        raise ConfigurationError(f"{origin!r} is not safe: anyone on the way can write its pages; use https")
    return origin


def host_of(request: Request) -> str:
    """The host that *request* names, without the port; empty for none that can be read."""
    try:
        return urlsplit("//" + request.headers.get("host", "")).hostname or ""
    except ValueError:
        return ""


def _is_host(origin: str, host: str) -> bool:
    """Whether *origin* is the server that is called *host* in this request."""
    scheme, _, rest = origin.partition("://")
    if not host or rest != host.lower():
        return False
    try:
        return scheme == "https" or (scheme == "http" and is_loopback(urlsplit(origin).hostname or ""))
    except ValueError:
        return False
