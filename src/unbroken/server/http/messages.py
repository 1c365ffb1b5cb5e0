"""HTTP as values: a ``Request`` in, a ``Response`` out, and what both are read from and written as. No I/O.

1. Everything a client sends is checked before it is used. An error is InvalidRequest, with a message for the author of
   the client.
2. A parameter may occur once (RFC 6749 §3.2), in a form and in JSON. Text is UTF-8 without NUL and lone surrogates.
3. Every response with a token, and every error, has ``Cache-Control: no-store`` (RFC 6749 §5.1). No JSON may be taken
   for anything else by a browser: ``X-Content-Type-Options: nosniff``.
4. A challenge is RFC 6750 §3, or RFC 9449 §7.1 for a request with a proof, with one more parameter, ``reason``, for
   programs. One to a request without a token names both schemes.
5. What is wrong with this server is in its log. Clients are only told to try again.
"""

from __future__ import annotations

import json
import logging
import re
from base64 import b64decode
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from math import ceil
from urllib.parse import parse_qsl, unquote_plus

from unbroken.errors import (
    ConfigurationError,
    InvalidGrant,
    InvalidProof,
    InvalidRequest,
    InvalidScope,
    InvalidToken,
    LoginRefused,
    NonceRequired,
    Refused,
    TooManyAttempts,
    TryLater,
)
from unbroken.server.core.proof import RequestProof, encoded_path
from unbroken.server.core.session_info import Caller
from unbroken.server.core.user_agent import MAX_USER_AGENT_CHARS
from unbroken.server.keys.proof_token import PROOF_ALGORITHMS

__all__ = [
    "MAX_BODY_BYTES",
    "NONCE_HEADER",
    "NO_STORE",
    "Forbidden",
    "Handler",
    "InsufficientScope",
    "Request",
    "Response",
    "Route",
    "access_token_of",
    "bool_field",
    "challenge",
    "error_response",
    "json_response",
    "lacks_claims",
    "text_field",
]

_log = logging.getLogger("unbroken")
_to_json = json.JSONEncoder(separators=(",", ":")).encode
MAX_BODY_BYTES = 64 * 1024
MAX_FORM_FIELDS = 50
NO_USER_AGENT = "-"  # of a client of which nothing is known
CONFIGURATION_RETRY_SECONDS = 5.0
NOT_TEXT = re.compile("[\0\ud800-\udfff]")
BEARER_REALM = 'Bearer realm="unbroken"'
PROOF_REALM = 'DPoP realm="unbroken"'
ALGORITHMS = f'algs="{" ".join(PROOF_ALGORITHMS)}"'
NONCE_HEADER = "dpop-nonce"
JSON_HEADERS = {"content-type": "application/json", "x-content-type-options": "nosniff"}
NO_STORE = {"cache-control": "no-store", "pragma": "no-cache"}


class Forbidden(Refused):
    """Another site may have caused this request (CSRF), so its cookies do not count. The session is unaffected.

    ``reason``: ``no_header`` (the header that only scripts can send is missing), ``foreign_origin``, ``not_loopback``.
    """

    code = "forbidden"


class InsufficientScope(Refused):
    """The token is good, and has not the scope that this request needs: *scope*."""

    code = "insufficient_scope"

    def __init__(self, scope: str, scheme: str = "Bearer") -> None:
        super().__init__(f"this needs the scope {scope}")
        self.scope, self.scheme = scope, scheme


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
    """One request. Header names are lower case. A repeated header is joined by commas (RFC 9110 §5.2), ``Cookie`` by
    semicolons.

    ``client_ip`` is the address of the connection. ``query`` is the raw query without the question mark. ``raw_path``
    is the path as the client has sent it, percent-encoded; empty without a proof, and where the framework does not tell
    it. The handshake of a WebSocket has the method ``GET`` and the header ``upgrade: websocket``. ``spent_proofs`` is
    one set for all that is made of one request: a proof is good once, but one request may be verified twice.
    """

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)
    client_ip: str = ""
    query: str = field(default="", repr=False)
    raw_path: str = field(default="", repr=False)
    spent_proofs: set[bytes] = field(default_factory=set, repr=False, compare=False)

    @property
    def proof(self) -> RequestProof | None:
        """The header ``DPoP``, with what it must prove (RFC 9449 §4); None without one."""
        return self.proof_or_none_sent if "dpop" in self.headers else None

    @property
    def proof_or_none_sent(self) -> RequestProof:
        """The same, with an empty text if there is no such header."""
        is_websocket = self.headers.get("upgrade", "").lower() == "websocket"
        path, host = self.raw_path or encoded_path(self.path), self.headers.get("host", "")
        return RequestProof(self.headers.get("dpop", ""), self.method, path, host, is_websocket, self.spent_proofs)

    @property
    def caller(self) -> Caller:
        """The address and the ``User-Agent`` of the client, cut to what a store keeps. No database keeps a NUL.

        Without both, as on a Unix socket, it is a client all the same, and not an application without a ``Caller``.
        """
        user_agent = self.headers.get("user-agent", "")[:MAX_USER_AGENT_CHARS].replace("\0", "")
        return Caller(self.client_ip, user_agent or ("" if self.client_ip else NO_USER_AGENT))

    def json(self) -> dict[str, object]:
        """Return the body, a JSON object. Raise InvalidRequest."""
        if self._content_type() != "application/json":
            raise InvalidRequest("the body must be a JSON object, with content type application/json")
        try:
            body = json.loads(self.body.decode(), object_pairs_hook=_unique_members)
        except (ValueError, RecursionError):
            raise InvalidRequest("the body is not valid JSON") from None
        if not isinstance(body, dict):
            raise InvalidRequest("the body is not a JSON object")
        return body

    def form(self) -> dict[str, str]:
        """Return the body, a form (RFC 6749 appendix B), without empty values. Raise InvalidRequest."""
        if self._content_type() != "application/x-www-form-urlencoded":
            raise InvalidRequest("the body must be a form, with content type application/x-www-form-urlencoded")
        try:
            pairs = parse_qsl(
                self.body.decode(), strict_parsing=bool(self.body), errors="strict", max_num_fields=MAX_FORM_FIELDS
            )
        except ValueError:
            raise InvalidRequest("the body is not a valid form") from None
        fields: dict[str, str] = {}
        for name, value in pairs:
            if name in fields:  # rule 2
                raise InvalidRequest(f"duplicate parameter: {_printable(name)}")
            fields[name] = value
        return {name: _checked_text(value, _printable(name)) for name, value in fields.items() if value}

    def basic_client_id(self) -> str | None:
        """Return the client id of HTTP Basic authentication (RFC 6749 §2.3.1); None if there is none."""
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
    """One response. Each of *cookies* is the value of a ``Set-Cookie`` header. The repr shows neither these nor the
    body.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = field(default=b"", repr=False)
    cookies: tuple[str, ...] = field(default=(), repr=False)


Handler = Callable[[Request, str], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Route:
    """One endpoint: its method, its path and its handler, which gets the request and the session id of the path.

    ``path`` is below the prefix, unless the route is ``rooted``.
    """

    method: str
    path: str
    handler: Handler
    rooted: bool = False

    @property
    def name(self) -> str:
        """The name of the endpoint, for the route table of a framework."""
        return self.handler.__name__.strip("_")


def json_response(value: object, status: int = 200, headers: Mapping[str, str] = NO_STORE) -> Response:
    """Return *value* as JSON; not to be stored, unless *headers* say otherwise."""
    body = _to_json(value).encode()
    return Response(status, {**JSON_HEADERS, **headers}, body)


def _unique_members(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Return a JSON object. Raise InvalidRequest for a member that occurs twice (rule 2)."""
    members = dict(pairs)
    if len(members) != len(pairs):
        raise InvalidRequest("a member of the JSON object occurs twice")
    return members


def text_field(fields: Mapping[str, object], name: str, *, required: bool = True) -> str:
    """Return the string *name*; empty if it is absent and not *required*. Raise InvalidRequest."""
    value = fields.get(name)
    if value is None or value == "":
        if required:
            raise InvalidRequest(f"missing parameter: {name}")
        return ""
    if not isinstance(value, str):
        raise InvalidRequest(f"{name} must be a string")
    return _checked_text(value, name)


def bool_field(fields: Mapping[str, object], name: str) -> bool:
    """Return the boolean *name*; False if it is absent. Raise InvalidRequest."""
    value = fields.get(name, False)
    if not isinstance(value, bool):
        raise InvalidRequest(f"{name} must be true or false")
    return value


def access_token_of(request: Request) -> tuple[str, str]:
    """Return the scheme and the token in the Authorization header; both empty without one.

    The scheme is ``bearer`` (RFC 6750 §2.1) or ``dpop`` (RFC 9449 §7.1).
    """
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    scheme, token = scheme.lower(), token.strip()
    return (scheme, token) if scheme in ("bearer", "dpop") and token else ("", "")


def error_response(error: Refused | TryLater | ConfigurationError) -> Response:
    """Return the response for *error* (RFC 6749 §5.2)."""
    if isinstance(error, TooManyAttempts):
        body = {"error": error.code, "error_description": str(error)}
        return json_response(body, 429, {**NO_STORE, "retry-after": _seconds(error.retry_after)})
    if isinstance(error, TryLater):
        return _try_later(error.retry_after)
    if isinstance(error, ConfigurationError):
        _log.error("this server is misconfigured, the request fails: %s", error)  # rule 5
        return _try_later(CONFIGURATION_RETRY_SECONDS)
    if isinstance(error, InsufficientScope):
        return challenge(None, scope=error.scope, scheme=error.scheme)
    if isinstance(error, InvalidToken):
        return challenge(None if error.reason == "missing" else error)
    if isinstance(error, InvalidProof):
        return _proof_refused(error)
    body = {"error": error.code, "error_description": str(error)}
    if error.reason != error.code:
        body["reason"] = error.reason
    return json_response(body, STATUS.get(type(error), 400))


def challenge(error: InvalidToken | None, *, scope: str = "", scheme: str = "Bearer") -> Response:
    """Return a 401 with a challenge (rule 4), or with *scope* a 403 that asks for more scope, under *scheme*.

    Without *error* the challenge is bare, because the request had no token (RFC 6750 §3.1).
    """
    if scope:
        header = _scheme_header(scheme, f'error="insufficient_scope", scope="{scope}"')
        return json_response({"error": "insufficient_scope", "scope": scope}, 403, _challenge_headers(header))
    if error is None:
        return json_response({"error": "unauthorized"}, 401, _challenge_headers(f"{BEARER_REALM}, DPoP {ALGORITHMS}"))
    return _challenge_response(error, "DPoP" if error.reason == "bound" else error.scheme)


def lacks_claims(names: list[str], scheme: str = "Bearer") -> Response:
    """Return a 403 for a good token that lacks claims of the application (RFC 6750 §3.1: higher privileges)."""
    text = f"this needs other rights: {', '.join(map(_printable, names))}"
    header = _scheme_header(scheme, f'error="insufficient_scope", error_description="{text}"')
    body = {"error": "insufficient_scope", "error_description": text}
    return json_response(body, 403, _challenge_headers(header))


def _challenge_response(error: InvalidToken | InvalidProof, scheme: str) -> Response:
    details = f'error="{error.code}", error_description="{error}", reason="{error.reason}"'
    body = {"error": error.code, "error_description": str(error), "reason": error.reason}
    return json_response(body, 401, _challenge_headers(_scheme_header(scheme, details)))


def _scheme_header(scheme: str, details: str) -> str:
    return f"{PROOF_REALM}, {details}, {ALGORITHMS}" if scheme == "DPoP" else f"{BEARER_REALM}, {details}"


def _proof_refused(error: InvalidProof) -> Response:
    """Return the response for a bad proof: RFC 9449 §7.1 with an access token, otherwise §5."""
    if error.at_resource:
        response = _challenge_response(error, "DPoP")
    else:
        response = json_response({"error": error.code, "error_description": str(error), "reason": error.reason}, 400)
    if isinstance(error, NonceRequired):  # RFC 9449 §8 and §9
        return replace(response, headers={**response.headers, NONCE_HEADER: error.nonce})
    return response


def _challenge_headers(header: str) -> dict[str, str]:
    return {**NO_STORE, "www-authenticate": header}  # rule 3


def _try_later(seconds: float) -> Response:
    body = {"error": "temporarily_unavailable", "error_description": "try again shortly"}
    return json_response(body, 503, {**NO_STORE, "retry-after": _seconds(seconds)})


def _seconds(seconds: float) -> str:
    return str(max(1, ceil(seconds)))


def _checked_text(value: str, name: str) -> str:
    if NOT_TEXT.search(value):
        raise InvalidRequest(f"{name} is not valid text")
    return value


def _printable(name: str) -> str:
    """Return *name* as it may stand in an error: cut, without control characters and quotes."""
    return "".join(char if char.isascii() and (char.isalnum() or char in "_-.") else "?" for char in name[:40])
