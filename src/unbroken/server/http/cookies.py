"""Tokens in cookies, for pages: what a script cannot read, a script that was smuggled in cannot carry away.

1. A client chooses: the header ``X-Unbroken: 1`` at login asks for cookies. Without it tokens are in the body, as
   native clients need them. A session in cookies is never *coordinated*: many tabs share it.
2. Mode ``refresh``: the refresh token is in a cookie for the endpoints only, the access token in the body. Mode
   ``both``: the access token is in a second cookie, for the whole site, and no body shows a token.
3. A cookie is sent whoever asks for it. So it counts for nothing unless the same header comes with it, which other
   sites' pages cannot send, and the Origin is the server's own or an allowed one. Reading (GET) needs neither, a
   WebSocket the Origin.
4. A cookie is set by a login and a refresh, and cleared by a logout. No error touches it: a tab that lost a race must
   not take the winner's cookie away.
5. Two cookies of one name are somebody's mistake or somebody's attack: what they hold is looked at, not guessed.
"""

from __future__ import annotations

import json
import re
from base64 import urlsafe_b64decode
from dataclasses import dataclass, replace
from typing import Literal

from unbroken.errors import ConfigurationError, InvalidRequest
from unbroken.server.http.messages import Forbidden, Request, Response, json_response
from unbroken.server.http.origins import CSRF_HEADER, AllowedOrigins, host_of, is_loopback
from unbroken.tokens import TokenResponse

__all__ = ["CookieTransport", "Cookies"]

MAX_COOKIE_BYTES = (
    4096  # bytes of name, value and attributes: browsers drop longer cookies without a word (RFC 6265bis §5.6)
)
MAX_SAME_NAME_COOKIES = 4  # cookies of one name that are looked at
ENDED = 16  # cookies of one name whose sessions a logout ends
SAFE = ("GET", "HEAD", "OPTIONS")
NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
PATH = re.compile(r"/[\x21-\x3a\x3c-\x7e]*")
DOMAIN = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)+")


@dataclass(frozen=True, slots=True)
class Cookies:
    """How tokens are kept in cookies.

    ``secure=False`` is for http on this machine only. ``same_site="None"`` lets pages of other sites (those in
    ``origins``) use the cookies. ``domain`` gives them to all hosts below it; without one, to this host alone. ``path``
    is where browsers see the endpoints, if that is not their prefix. ``name`` begins the names of the cookies.
    """

    mode: Literal["refresh", "both"] = "refresh"
    secure: bool = True
    same_site: Literal["Strict", "Lax", "None"] = "Strict"
    domain: str | None = None
    path: str | None = None
    name: str = "unbroken"

    def __post_init__(self) -> None:
        wrong = {
            "mode is refresh or both": self.mode not in ("refresh", "both"),
            "same_site is Strict, Lax or None, as a text": self.same_site not in ("Strict", "Lax", "None"),
            "same_site None needs secure": self.same_site == "None" and not self.secure,
            "domain is written as example.com": self.domain is not None and not DOMAIN.fullmatch(self.domain),
            "path begins with a slash": self.path is not None and not PATH.fullmatch(self.path),
            "name has letters, digits, dots and dashes": not NAME.fullmatch(self.name),
        }
        if found := [words for words, is_wrong in wrong.items() if is_wrong]:
            raise ConfigurationError("cookies: " + "; ".join(found))

    @property
    def access_name(self) -> str:
        """The name of the cookie with the access token."""
        return self.full_name("access", "/")

    def full_name(self, what: str, path: str) -> str:
        """The name of a cookie, with the prefix by which browsers guard it (RFC 6265bis §4.1.3)."""
        if not self.secure:
            return f"{self.name}-{what}"
        return f"{'__Host-' if path == '/' and not self.domain else '__Secure-'}{self.name}-{what}"

    def header(self, name: str, value: str, path: str, max_age: int) -> str:
        """The value of a ``Set-Cookie``."""
        parts = [f"{name}={value}", f"Path={path}", f"Max-Age={max_age}", "HttpOnly", f"SameSite={self.same_site}"]
        parts += ["Secure"] if self.secure else []
        return "; ".join(parts + ([f"Domain={self.domain}"] if self.domain else []))


class CookieTransport:
    """The cookies of the endpoints below *prefix*, set and read as *cookies* says; without it there are none.

    Pages of *origins* may use them, and those of the server itself.
    """

    def __init__(self, cookies: Cookies | None, origins: AllowedOrigins, prefix: str = "") -> None:
        self._cookies, self._origins = cookies, origins
        self._path: str = (cookies and cookies.path) or prefix or "/"
        self.refresh_name = cookies.full_name("refresh", self._path) if cookies else ""

    # ---- what a request may do ---------------------------------------------------------------------------------

    def requests_cookies(self, request: Request) -> bool:
        """Whether *request* speaks of cookies, and there are any. Raises Forbidden if another site may be behind it."""
        if self._cookies is None or CSRF_HEADER not in request.headers:
            return False
        self._check_origin(request)
        return True

    def wants_cookies(self, request: Request) -> bool:
        """Whether *request*, which begins a session, is to get its tokens in cookies. Raises Forbidden, InvalidRequest,
        ConfigurationError: before anybody has looked at a password.
        """
        if not self.requests_cookies(request):
            if CSRF_HEADER in request.headers:
                raise InvalidRequest("this server keeps no cookies: leave the header X-Unbroken out")
            return False
        if self._cookies and not self._cookies.secure and not is_loopback(host_of(request)):
            raise Forbidden("this server's cookies are for its own machine only", reason="not_loopback")
        if self._cookies and self._cookies.path is None and not _is_below(request.path, self._path):
            raise ConfigurationError(
                f"cookies: browsers see the endpoints at {request.path}, not below {self._path}: set Cookies(path=...)"
            )
        return True

    def _check(self, request: Request) -> None:
        if CSRF_HEADER not in request.headers:
            raise Forbidden("a request with cookies needs the header X-Unbroken: 1", reason="no_header")
        self._check_origin(request)

    def _check_origin(self, request: Request) -> None:
        if not self._origins.is_trusted(request):
            raise Forbidden("this origin is not among the server's origins", reason="foreign_origin")

    # ---- reading -----------------------------------------------------------------------------------------------

    def access_tokens(self, request: Request) -> tuple[str, ...]:
        """What the cookies of *request* hold as access token: one, if all is well. Raises Forbidden, InvalidRequest."""
        if self._cookies is None or self._cookies.mode != "both":
            return ()
        found = _values(request, self._cookies.access_name)
        if found and request.method not in SAFE:
            self._check(request)
        elif found and request.headers.get("upgrade", "").lower() == "websocket":
            self._check_origin(request)
        return found

    def refresh_tokens(self, request: Request) -> tuple[str, ...]:
        """What the cookies of *request* hold as refresh token: one, if all is well. Raises as above."""
        found = _values(request, self.refresh_name) if self._cookies else ()
        if found:
            self._check(request)
        return found

    def tokens_to_revoke(self, request: Request) -> tuple[str, ...]:
        """The tokens in the cookies of *request*, which is a logout that ``asked`` has seen. However many a hostile
        neighbour has put beside ours: whoever logs out is logged out.
        """
        names = (self._cookies.access_name, self.refresh_name) if self._cookies else ()
        return tuple(token for name in names for token in _cookie_values(request, name)[:ENDED])

    # ---- writing -----------------------------------------------------------------------------------------------

    def issue(self, request: Request, granted: TokenResponse) -> Response:
        """The answer with new tokens: in cookies if *request* asks for them, in its body if not."""
        if self._cookies is None or not self.requests_cookies(request):
            return json_response(granted.to_response())
        return self._filled(self._cookies, granted)

    def cleared(self, response: Response) -> Response:
        """*response*, after which the browser has no tokens any more."""
        if self._cookies is None:
            return response
        places = [(self.refresh_name, self._path)]
        places += [(self._cookies.access_name, "/")] if self._cookies.mode == "both" else []
        return replace(response, cookies=tuple(self._cookies.header(name, "", path, 0) for name, path in places))

    def _filled(self, cookies: Cookies, granted: TokenResponse) -> Response:
        """The tokens in cookies. What is no secret is in the body, ``sid`` and ``refresh_seq`` too: so a script can
        tell one login, and one generation, from another.
        """
        body = granted.to_response()
        kept = [(self.refresh_name, body.pop("refresh_token"), self._path)]
        if cookies.mode == "both":
            kept.append((cookies.access_name, body.pop("access_token"), "/"))
            del body["token_type"]
        age = int(granted.refresh_expires_in or 0)  # the access token's too: so an expired one is told from none
        headers = tuple(cookies.header(name, str(value), path, age) for name, value, path in kept)
        if (longest := max(map(len, headers))) > MAX_COOKIE_BYTES:
            raise ConfigurationError(f"a cookie of {longest} bytes is more than browsers keep: use fewer claims")
        return replace(json_response({**body, "sid": _sid_of(granted.access_token)}), cookies=headers)


def _values(request: Request, name: str) -> tuple[str, ...]:
    """The values of the cookies that are called *name*. Raises InvalidRequest if there are too many of them."""
    found = _cookie_values(request, name)
    if len(found) > MAX_SAME_NAME_COOKIES:
        raise ambiguous_cookies()
    return found


def _cookie_values(request: Request, name: str) -> tuple[str, ...]:
    """The values of the cookies that are called *name*, each once (RFC 6265 §5.4). Only space and tab count for
    nothing: a name with any other white space around it is another name, and could be set by anybody.
    """
    pairs = (part.partition("=") for part in request.headers.get("cookie", "").split(";"))
    values = (value.strip(" \t") for key, _, value in pairs if key.strip(" \t") == name)
    return tuple(dict.fromkeys(filter(None, values)))


def ambiguous_cookies() -> InvalidRequest:
    """The error for cookies of one name that belong to several sessions."""
    words = "there are several session cookies of one name: log out, then log in again"
    return InvalidRequest(words, reason="ambiguous_cookies")


def _is_below(path: str, top: str) -> bool:
    return path.startswith(top.rstrip("/") + "/")


def _sid_of(access_token: str) -> object:
    """The session that our own access token names."""
    payload = access_token.split(".")[1]
    return json.loads(urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["sid"]
