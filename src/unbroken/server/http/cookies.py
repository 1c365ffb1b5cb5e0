"""Tokens in cookies, for web pages: a script that an attacker injects cannot read them.

1. The client chooses: the header ``X-Unbroken: 1`` at login asks for cookies. Without it tokens are in the body, as
   native clients need them. A session in cookies is never *coordinated*, because many tabs share it.
2. In mode ``refresh`` the refresh token is in a cookie for the endpoints only, and the access token in the body. In
   mode ``both`` the access token is in a second cookie, for the whole site, and no body contains a token.
3. CSRF (cross-site request forgery): browsers send a cookie whichever site causes the request. So a cookie counts only
   with the header ``X-Unbroken``, which other sites' pages cannot send, and from the server's own or an allowed Origin.
   A GET needs neither, the handshake of a WebSocket needs the Origin.
4. Login and refresh set cookies, logout clears them. No error touches them: a tab that loses a race must not remove
   the winner's cookie.
5. Several cookies of one name are a mistake or an attack (cookie tossing). All of them are verified, none is guessed.
6. In mode ``both`` the access cookie, which no neighbour can set (``__Host-``), says which session this browser is
   logged in to. A refresh cookie of another session was planted, or is a leftover: it refreshes nothing.
7. A device token (``login/devices.py``) is in a cookie for the logins alone, which outlives the session: it opens
   nothing, so a logout leaves it.
8. In mode ``refresh`` a session may be bound to a key of the page (RFC 9449): then the cookie is good only with a
   proof. In mode ``both`` it may not: no script sees the access token, so none could prove it.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from typing import Literal

from unbroken._arguments import checked_class
from unbroken._base64 import decode
from unbroken._http import is_loopback
from unbroken.errors import ConfigurationError, InvalidRequest
from unbroken.server.http.messages import Forbidden, Request, Response, json_response
from unbroken.server.http.origins import CSRF_HEADER, AllowedOrigins, host_of
from unbroken.server.keys.strict_jwt import MALFORMED_ERRORS, json_object
from unbroken.tokens import TokenResponse

__all__ = ["CookieTransport", "Cookies"]

MAX_COOKIE_BYTES = 4096  # name, value and attributes: browsers drop longer cookies silently (RFC 6265bis §5.6)
MAX_DEVICE_SECONDS = 400 * 86400  # browsers keep no cookie for longer (RFC 6265bis §5.6.2); the token says when it ends
MAX_SAME_NAME_COOKIES = 4  # that are verified
MAX_REVOKED_COOKIES = 16  # of one name, by a logout
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
PATH = re.compile(r"/[\x21-\x3a\x3c-\x7e]*")
DOMAIN = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)+")


@checked_class(own=("mode", "same_site"))
@dataclass(frozen=True, slots=True)
class Cookies:
    """How tokens are kept in cookies.

    ``secure=False`` is for http on loopback only. ``same_site="None"`` lets pages of other sites, those in ``origins``,
    use the cookies. ``domain`` shares them with all hosts below it; without it they belong to one host. ``path`` is
    where browsers see the endpoints, if a proxy or a mount changes their prefix. ``name`` begins the names of the
    cookies.
    """

    mode: Literal["refresh", "both"] = "refresh"
    secure: bool = True
    same_site: Literal["Strict", "Lax", "None"] = "Strict"
    domain: str | None = None
    path: str | None = None
    name: str = "unbroken"

    def __post_init__(self) -> None:
        wrong = {
            "mode must be 'refresh' or 'both'": self.mode not in ("refresh", "both"),
            "same_site must be 'Strict', 'Lax' or 'None'": self.same_site not in ("Strict", "Lax", "None"),
            "same_site 'None' needs secure": self.same_site == "None" and not self.secure,
            "domain must be a name such as example.com": self.domain is not None and not DOMAIN.fullmatch(self.domain),
            "path must begin with a slash": self.path is not None and not PATH.fullmatch(self.path),
            "name must consist of letters, digits, dots and dashes": not NAME.fullmatch(self.name),
        }
        if found := [words for words, is_wrong in wrong.items() if is_wrong]:
            raise ConfigurationError("cookies: " + "; ".join(found))

    @property
    def access_name(self) -> str:
        """The name of the cookie with the access token."""
        return self.full_name("access", "/")

    def full_name(self, what: str, path: str) -> str:
        """Return the name of a cookie, with the prefix by which browsers protect it (RFC 6265bis §4.1.3)."""
        if not self.secure:
            return f"{self.name}-{what}"
        return f"{'__Host-' if path == '/' and not self.domain else '__Secure-'}{self.name}-{what}"

    def header(self, name: str, value: str, path: str, max_age: int) -> str:
        """Return the value of a ``Set-Cookie`` header. *max_age* is in seconds."""
        parts = [f"{name}={value}", f"Path={path}", f"Max-Age={max_age}", "HttpOnly", f"SameSite={self.same_site}"]
        parts += ["Secure"] if self.secure else []
        return "; ".join(parts + ([f"Domain={self.domain}"] if self.domain else []))


class CookieTransport:
    """Reads and writes the cookies of the endpoints below *prefix*; without *cookies* there are none.

    Pages of *origins*, and those of the server itself, may use them.
    """

    def __init__(self, cookies: Cookies | None, origins: AllowedOrigins, prefix: str = "") -> None:
        self._cookies, self._origins = cookies, origins
        self._path: str = (cookies and cookies.path) or prefix or "/"
        self.refresh_name = cookies.full_name("refresh", self._path) if cookies else ""
        self._login_path = self._path.rstrip("/") + "/login"
        self._device_name = cookies.full_name("device", self._login_path) if cookies else ""

    @property
    def are_on(self) -> bool:
        """Whether tokens can be in cookies."""
        return self._cookies is not None

    @property
    def hide_access_tokens(self) -> bool:
        """Whether a cookie has the access token too, so that no script sees it (rule 2)."""
        return self._cookies is not None and self._cookies.mode == "both"

    # ---- what a request may do (rule 3) --------------------------------------------------------------------------

    def requests_cookies(self, request: Request) -> bool:
        """Return whether *request* asks for cookies, and the server has them. Raise Forbidden for a foreign origin."""
        if self._cookies is None or CSRF_HEADER not in request.headers:
            return False
        self._check_origin(request)
        return True

    def wants_cookies(self, request: Request) -> bool:
        """Return whether *request*, a login, is to get its tokens in cookies (rule 1).

        Raise Forbidden, InvalidRequest or ConfigurationError, before any password is checked.
        """
        if not self.requests_cookies(request):
            if CSRF_HEADER in request.headers:
                raise InvalidRequest("this server has no cookies: omit the header X-Unbroken")
            return False
        self.check_loopback(request)
        if self._cookies and self._cookies.path is None and not _is_below(request.path, self._path):
            raise ConfigurationError(
                f"cookies: browsers see the endpoints at {request.path}, not below {self._path}: set Cookies(path=...)"
            )
        return True

    def check_loopback(self, request: Request) -> None:
        """Raise Forbidden for cookies that are not secure, elsewhere than on this machine."""
        if self._cookies and not self._cookies.secure and not is_loopback(host_of(request)):
            raise Forbidden(
                "this server's cookies are not secure, so they work on loopback only", reason="not_loopback"
            )

    def hides_access_tokens(self, request: Request) -> bool:
        """Return whether *request*, a login, is to get its access token in a cookie (rule 8)."""
        return self.hide_access_tokens and self.requests_cookies(request)

    def _check_csrf(self, request: Request) -> None:
        if CSRF_HEADER not in request.headers:
            raise Forbidden("a request with cookies needs the header X-Unbroken: 1", reason="no_header")
        self._check_origin(request)

    def _check_origin(self, request: Request) -> None:
        if not self._origins.is_trusted(request):
            raise Forbidden("this origin is not allowed", reason="foreign_origin")

    # ---- reading -----------------------------------------------------------------------------------------------

    def access_tokens(self, request: Request) -> tuple[str, ...]:
        """Return the access tokens in the cookies of *request*, usually one. Raise Forbidden or InvalidRequest."""
        if self._cookies is None or self._cookies.mode != "both":
            return ()
        tokens = _few_values(request, self._cookies.access_name)
        if tokens and request.method not in SAFE_METHODS:
            self._check_csrf(request)
        elif tokens and request.headers.get("upgrade", "").lower() == "websocket":
            self._check_origin(request)
        return tokens

    def refresh_tokens(self, request: Request) -> tuple[str, ...]:
        """Return the refresh tokens in the cookies of *request*, usually one. Raise Forbidden or InvalidRequest."""
        tokens = _few_values(request, self.refresh_name) if self._cookies else ()
        if tokens:
            self._check_csrf(request)
        return tokens

    def logged_in_sids(self, request: Request) -> frozenset[str]:
        """Return the session ids in the access cookies of *request*, expired ones included (rule 6).

        Nothing is proved: they only exclude sessions.
        """
        if self._cookies is None or self._cookies.mode != "both":
            return frozenset()
        return frozenset(filter(None, map(_unverified_sid, _few_values(request, self._cookies.access_name))))

    def device_tokens(self, request: Request) -> tuple[str, ...]:
        """Return the device tokens in the cookies of *request*, usually one (rule 7). A sibling host may add others."""
        return _values(request, self._device_name)[:MAX_SAME_NAME_COOKIES] if self._cookies else ()

    def tokens_to_revoke(self, request: Request) -> tuple[str, ...]:
        """Return every token in the cookies of *request*, a logout for which ``requests_cookies`` is true.

        Includes injected duplicates: after a logout no session of this browser is left.
        """
        names = (self._cookies.access_name, self.refresh_name) if self._cookies else ()
        return tuple(token for name in names for token in _values(request, name)[:MAX_REVOKED_COOKIES])

    # ---- writing (rule 4) ----------------------------------------------------------------------------------------

    def issue(self, request: Request, granted: TokenResponse) -> Response:
        """Return the response with new tokens: in cookies if *request* asks for them, otherwise in the body."""
        return self.response_to_login(granted, in_cookies=self.requests_cookies(request))

    def response_to_login(self, granted: TokenResponse, *, in_cookies: bool) -> Response:
        """Return the response with new tokens, in cookies or in the body."""
        if self._cookies is None or not in_cookies:
            return json_response(granted.to_response())
        return self._in_cookies(self._cookies, granted)

    def cleared(self, response: Response) -> Response:
        """Return *response* with headers that remove the cookies from the browser."""
        if self._cookies is None:
            return response
        cookies = [(self.refresh_name, self._path)]
        cookies += [(self._cookies.access_name, "/")] if self._cookies.mode == "both" else []
        return replace(response, cookies=tuple(self._cookies.header(name, "", path, 0) for name, path in cookies))

    def _in_cookies(self, cookies: Cookies, granted: TokenResponse) -> Response:
        """Return the tokens in cookies, and everything that is no secret in the body.

        With ``sid`` and ``refresh_seq`` a script can tell one login, and one generation, from another.
        """
        body = granted.to_response()
        values = [(self.refresh_name, body.pop("refresh_token"), self._path)]
        if cookies.mode == "both":
            values.append((cookies.access_name, body.pop("access_token"), "/"))
            del body["token_type"]
        device_token = body.pop("device_token", None)
        # The access token's cookie lives as long, so that an expired token can be told from a missing one.
        max_age = int(granted.refresh_expires_in or 0)
        headers = tuple(cookies.header(name, str(value), path, max_age) for name, value, path in values)
        if device_token is not None:  # rule 7
            headers += (cookies.header(self._device_name, str(device_token), self._login_path, MAX_DEVICE_SECONDS),)
        if (longest := max(map(len, headers))) > MAX_COOKIE_BYTES:
            raise ConfigurationError(f"a cookie of {longest} bytes is more than browsers keep: use fewer claims")
        return replace(json_response({**body, "sid": _sid_of(granted.access_token)}), cookies=headers)


def _few_values(request: Request, name: str) -> tuple[str, ...]:
    """Return the values of the cookies called *name*. Raise InvalidRequest if there are too many to verify."""
    values = _values(request, name)
    if len(values) > MAX_SAME_NAME_COOKIES:
        raise ambiguous_cookies()
    return values


def _values(request: Request, name: str) -> tuple[str, ...]:
    """Return the distinct values of the cookies called *name* (RFC 6265 §5.4).

    Only space and tab are stripped: a name between other white space is another name, which any site could set.
    """
    pairs = (part.partition("=") for part in request.headers.get("cookie", "").split(";"))
    values = (value.strip(" \t") for key, _, value in pairs if key.strip(" \t") == name)
    return tuple(dict.fromkeys(filter(None, values)))


def ambiguous_cookies() -> InvalidRequest:
    """Return the error for cookies of one name that belong to several sessions (rule 5)."""
    words = "there are several session cookies of one name: log out, then log in again"
    return InvalidRequest(words, reason="ambiguous_cookies")


def _is_below(path: str, top: str) -> bool:
    return path.startswith(top.rstrip("/") + "/")


def _unverified_sid(access_token: str) -> str:
    """Return the session id in what may be an access token of ours; empty if there is none."""
    try:
        sid = json_object(decode(access_token.split(".")[1])).get("sid")
    except (*MALFORMED_ERRORS, IndexError):
        return ""
    return sid if isinstance(sid, str) else ""


def _sid_of(access_token: str) -> object:
    """Return the session id in an access token of ours."""
    payload = access_token.split(".")[1]
    return json.loads(decode(payload))["sid"]
