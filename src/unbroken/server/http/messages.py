"""HTTP as values: a request in, a response out, and the reading of one into the other. No framework, no I/O.

1. What a client sends is checked before it is used; what is wrong is InvalidRequest, in words for the client's author.
2. A parameter may stand once (RFC 6749 §3.2). Text is UTF-8 without NUL and without lone surrogates.
3. Every response with a token, and every refusal of one, says ``no-store`` (RFC 6749 §5.1).
4. A challenge is RFC 6750 §3, with the reason as a further parameter, for programs.
5. What is wrong with this server is its operator's to know: clients are told to try again, the log says why.
"""

from __future__ import annotations

import json
import logging
import re
from base64 import b64decode
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from math import ceil
from urllib.parse import parse_qsl, unquote_plus

from unbroken.errors import (
    ConfigurationError,
    InvalidGrant,
    InvalidRequest,
    InvalidScope,
    InvalidToken,
    LoginRefused,
    Refused,
    TooManyAttempts,
    TryLater,
)
from unbroken.server.core.session_info import MAX_USER_AGENT_CHARS, Caller
from unbroken.server.keys.access_token import Claims

__all__ = [
    "MAX_BODY_BYTES",
    "Forbidden",
    "Handler",
    "Request",
    "Response",
    "Route",
    "bearer_of",
    "challenge",
    "error_response",
    "json_response",
]

_log = logging.getLogger("unbroken")
_as_json = json.JSONEncoder(separators=(",", ":")).encode
MAX_BODY_BYTES = 64 * 1024  # bytes
NO_TEXT = re.compile("[\0\ud800-\udfff]")
NO_STORE = {"cache-control": "no-store", "pragma": "no-cache"}


class Forbidden(Refused):
    """Another site may be behind this request: its cookies count for nothing. The session is as good as before.

    ``reason``: ``no_header`` (the header is missing that only scripts can send), ``foreign_origin``.
    """

    code = "forbidden"


STATUS: dict[type[Refused], int] = {
    LoginRefused: 401,
    InvalidGrant: 400,
    InvalidScope: 400,
    InvalidRequest: 400,
    InvalidToken: 401,
    Forbidden: 403,
}


@dataclass(frozen=True, slots=True)
class Request:
    """One request. Header names are in lower case, a repeated header is joined by commas (RFC 9110 §5.2), ``Cookie`` by
    semicolons; ``client_ip`` is the connection's, as the server sees it. A WebSocket's handshake has the method ``GET``
    and the header ``upgrade: websocket``. ``query`` is as it was sent, without the question mark.
    """

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)
    client_ip: str = ""
    query: str = field(default="", repr=False)

    @property
    def caller(self) -> Caller:
        """Who makes this request; the ``User-Agent`` cut to what is kept, and without NUL, which no database keeps."""
        return Caller(self.client_ip, self.headers.get("user-agent", "")[:MAX_USER_AGENT_CHARS].replace("\0", ""))

    def json(self) -> dict[str, object]:
        """The body, which must be a JSON object. Raises InvalidRequest."""
        if self._content_type() != "application/json":
            raise InvalidRequest("send a JSON object, as application/json")
        try:
            body = json.loads(self.body.decode())
        except (ValueError, RecursionError):
            raise InvalidRequest("the body is not valid JSON") from None
        if not isinstance(body, dict):
            raise InvalidRequest("the body is not a JSON object")
        return body

    def form(self) -> dict[str, str]:
        """The body, which must be a form (RFC 6749 appendix B). Empty values count as absent. Raises InvalidRequest."""
        if self._content_type() != "application/x-www-form-urlencoded":
            raise InvalidRequest("send a form, as application/x-www-form-urlencoded")
        try:
            pairs = parse_qsl(self.body.decode(), strict_parsing=bool(self.body), errors="strict", max_num_fields=50)
        except ValueError:
            raise InvalidRequest("the body is not a valid form") from None
        fields = dict(pairs)
        if len(fields) != len(pairs):
            raise InvalidRequest("a parameter stands more than once")
        return {name: _clean(value, "a parameter") for name, value in fields.items() if value}

    def basic_client(self) -> str | None:
        """The client id of HTTP Basic authentication (RFC 6749 §2.3.1); None without one, or with an empty one."""
        scheme, _, value = self.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "basic":
            return None
        try:
            name = b64decode(value, validate=True).decode().partition(":")[0]
            return unquote_plus(name, errors="strict") or None
        except ValueError:
            raise InvalidRequest("the Authorization header is not valid HTTP Basic") from None

    def _content_type(self) -> str:
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


@dataclass(frozen=True, slots=True)
class Response:
    """One response. Each of *cookies* is the value of one ``Set-Cookie``. Its repr shows neither these nor the body."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = field(default=b"", repr=False)
    cookies: tuple[str, ...] = field(default=(), repr=False)


Handler = Callable[[Request, str], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Route:
    """One endpoint: where it is, and whether it is below the prefix (``rooted``: it is not)."""

    method: str
    path: str
    handler: Handler
    rooted: bool = False

    @property
    def name(self) -> str:
        """Its name in a framework's route table."""
        return self.handler.__name__.strip("_")


def json_response(value: object, status: int = 200, headers: Mapping[str, str] = NO_STORE) -> Response:
    """*value* as JSON; not to be stored unless *headers* say otherwise."""
    body = _as_json(value).encode()
    return Response(status, {"content-type": "application/json", **headers}, body)


def text_of(fields: Mapping[str, object], name: str, *, required: bool = True) -> str:
    """The text called *name*; empty if it is absent and not *required*. Raises InvalidRequest."""
    value = fields.get(name)
    if value is None or value == "":
        if required:
            raise InvalidRequest(f"{name} is missing")
        return ""
    if not isinstance(value, str):
        raise InvalidRequest(f"{name} must be a text")
    return _clean(value, name)


def flag_of(fields: Mapping[str, object], name: str) -> bool:
    """Whether *name* is true. Raises InvalidRequest if it is neither true nor false."""
    value = fields.get(name, False)
    if not isinstance(value, bool):
        raise InvalidRequest(f"{name} must be true or false")
    return value


def introspection_response(claims: Claims) -> dict[str, object]:
    """What a good access token says, for its holder and for RFC 7662 §2.2."""
    return {
        "sub": claims.subject,
        "sid": claims.sid,
        "client_id": claims.client_id,
        "scope": claims.scope,
        "iss": claims.issuer,
        "aud": claims.audience,
        "iat": int(claims.issued_at),
        "exp": int(claims.expires_at),
    }


def bearer_of(request: Request) -> str | None:
    """The bearer token of *request* (RFC 6750 §2.1); None without one."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None


def error_response(error: Refused | TryLater | ConfigurationError) -> Response:
    """The response for *error* (RFC 6749 §5.2)."""
    if isinstance(error, TooManyAttempts):
        body = {"error": error.code, "error_description": str(error)}
        return json_response(body, 429, {**NO_STORE, "retry-after": str(max(1, ceil(error.retry_after)))})
    if isinstance(error, TryLater):
        return _later(error.retry_after)
    if isinstance(error, ConfigurationError):
        _log.error("a request could not be answered: %s", error)
        return _later(5.0)
    if isinstance(error, InvalidToken):
        return challenge(None if error.reason == "missing" else error)
    body = {"error": error.code, "error_description": str(error)}
    if error.reason != error.code:
        body["reason"] = error.reason
    return json_response(body, STATUS.get(type(error), 400))


def _later(seconds: float) -> Response:
    body = {"error": "temporarily_unavailable", "error_description": "try again shortly"}
    return json_response(body, 503, {**NO_STORE, "retry-after": str(max(1, ceil(seconds)))})


def challenge(error: InvalidToken | None, *, scope: str = "") -> Response:
    """A 401 with an RFC 6750 challenge; bare when no token was sent (§3.1). With *scope*: a 403, for more scope."""
    if scope:
        header = f'Bearer realm="unbroken", error="insufficient_scope", scope="{scope}"'
        return json_response({"error": "insufficient_scope", "scope": scope}, 403, _challenging(header))
    if error is None:
        return json_response({"error": "unauthorized"}, 401, _challenging('Bearer realm="unbroken"'))
    header = f'Bearer realm="unbroken", error="invalid_token", error_description="{error}", reason="{error.reason}"'
    body = {"error": "invalid_token", "error_description": str(error), "reason": error.reason}
    return json_response(body, 401, _challenging(header))


def _challenging(header: str) -> dict[str, str]:
    return {**NO_STORE, "www-authenticate": header}


def _clean(value: str, name: str) -> str:
    if NO_TEXT.search(value):
        raise InvalidRequest(f"{name} is not valid text")
    return value
