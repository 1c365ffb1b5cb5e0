"""Which web pages may call the endpoints: CORS (Fetch standard), and the Origin check against CSRF.

1. An allowed origin is listed letter by letter: no wildcards, no patterns, never ``null``. An origin that is not
   allowed gets no ``Access-Control`` header, and no response repeats it.
2. The endpoints respond to preflights themselves. The application's own routes are its framework's concern.
3. If any origin is allowed, every response has ``Vary: Origin``, so that no cache serves one site's response to
   another.
4. Pages of the server's own origin need no entry: browsers send ``Sec-Fetch-Site: same-origin``; for those that do not,
   the Origin is compared with the Host.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from urllib.parse import urlsplit

from unbroken._http import is_loopback
from unbroken.errors import ConfigurationError
from unbroken.server.http.messages import NO_STORE, Handler, Request, Response, Route, json_response

__all__ = ["CSRF_HEADER", "AllowedOrigins", "Cors"]

CSRF_HEADER = "x-unbroken"  # only a script can send it, and to another origin only after a preflight
PREFLIGHT_MAX_AGE_SECONDS = 600  # an origin that is removed from the list is locked out after that time
REQUEST_HEADERS = "Authorization, Content-Type, DPoP, Idempotency-Key, X-Unbroken"
RESPONSE_HEADERS = "WWW-Authenticate, Retry-After, DPoP-Nonce"
ORIGIN = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<host>[a-z0-9._-]+|\[[0-9a-f:.]+\])(?P<port>(:[1-9][0-9]{0,4})?)"
)


class AllowedOrigins:
    """The origins in *allowed*, and the server's own. Raises ConfigurationError for what is not an origin."""

    def __init__(self, allowed: Sequence[str] = ()) -> None:
        if isinstance(allowed, str):
            raise ConfigurationError("origins must be a list, such as ['https://app.example.com']")
        self.allowed = frozenset(_checked(origin) for origin in allowed)

    def is_trusted(self, request: Request) -> bool:
        """Return whether no other site has caused *request*: an allowed page, a page of this server, or no page."""
        origin, site = request.headers.get("origin"), request.headers.get("sec-fetch-site")
        if origin is None:
            return site in (None, "same-origin", "none")
        if origin in self.allowed:  # rule 1
            return True
        if site is not None:  # rule 4: no page can forge it, and unlike the Host no proxy changes it
            return site == "same-origin" and origin != "null"
        return _is_host(origin, request.headers.get("host", ""))


class Cors:
    """Responds to preflights, and lets pages of the allowed *origins* read responses; *credentials*: with cookies.

    A server that allows no origin has none of this.
    """

    def __init__(self, origins: AllowedOrigins, *, credentials: bool = False) -> None:
        self._allowed, self._credentials = origins.allowed, credentials

    def preflights(self, routes: Iterable[Route]) -> tuple[Route, ...]:
        """Return an OPTIONS route for each path of *routes*."""
        methods: dict[tuple[str, bool], list[str]] = {}
        for route in routes:
            methods.setdefault((route.path, route.rooted), []).append(route.method)
        return tuple(
            Route("OPTIONS", path, self._preflight(", ".join(allowed)), rooted)  # rule 2
            for (path, rooted), allowed in methods.items()
        )

    def add_headers(self, request: Request, response: Response) -> Response:
        """Return *response* with the headers that let an allowed page read it."""
        vary = [value for value in (response.headers.get("vary"), "Origin") if value]
        headers = {**response.headers, "vary": ", ".join(vary)}  # rule 3
        if request.headers.get("origin") in self._allowed:
            headers |= self._access_headers(request) | {"access-control-expose-headers": RESPONSE_HEADERS}
        return replace(response, headers=headers)

    def _access_headers(self, request: Request) -> dict[str, str]:
        access = {"access-control-allow-origin": request.headers["origin"]}
        return access | {"access-control-allow-credentials": "true"} if self._credentials else access

    def _preflight(self, methods: str) -> Handler:
        async def preflight(request: Request, _sid: str) -> Response:
            if request.headers.get("origin") not in self._allowed:
                body = {"error": "forbidden", "error_description": "this origin is not allowed"}
                return json_response(body, 403)
            allowed = {
                "access-control-allow-methods": methods,
                "access-control-allow-headers": REQUEST_HEADERS,
                "access-control-max-age": str(PREFLIGHT_MAX_AGE_SECONDS),
            }
            return Response(204, {**NO_STORE, **allowed})

        return preflight


def _checked(origin: str) -> str:
    """Return *origin*, if it is spelled as browsers spell it (RFC 6454 §6.2), and safe to trust."""
    found = ORIGIN.fullmatch(origin) if isinstance(origin, str) else None
    if found is None or f"{found['scheme']}{found['port']}" in ("https:443", "http:80"):
        raise ConfigurationError(f"{origin!r} is not an origin: write it as https://app.example.com")
    if found["scheme"] == "http" and not is_loopback(found["host"].strip("[]")):
        raise ConfigurationError(f"{origin!r} is not safe: anyone on the network can change its pages; use https")
    return origin


def host_of(request: Request) -> str:
    """Return the host that *request* names, without the port; empty if it is missing or invalid."""
    try:
        return urlsplit("//" + request.headers.get("host", "")).hostname or ""
    except ValueError:
        return ""


def _is_host(origin: str, host: str) -> bool:
    """Return whether *origin* is the server itself, which the request calls *host*."""
    scheme, _, rest = origin.partition("://")
    if not host or rest != host.lower():
        return False
    try:
        return scheme == "https" or (scheme == "http" and is_loopback(urlsplit(origin).hostname or ""))
    except ValueError:
        return False
