"""The tokens of a session, and the token response that carries them (RFC 6749 §5.1), in both directions.

1. Values are frozen; a change makes a new value. No repr shows a token.
2. Lifetimes count from local receipt: the server states a duration, never a time.
3. A token response is checked field by field. Only a token that cannot be read makes the response unreadable; any other
   such field counts as absent and is named, because a granted token cannot be granted again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from unbroken import _base64
from unbroken._http import is_safe_in_header, parse_json
from unbroken.errors import BadResponse, ConfigurationError

__all__ = ["TokenFields", "TokenResponse", "Tokens"]

T = TypeVar("T")

MAX_SECONDS = 1e10  # of a lifetime: three hundred years, which every calendar can hold
MAX_SEQUENCE_DIGITS = 18
BOUND_TYPE = "dpop"  # the token_type of RFC 9449 §5, in lower case: types are compared without case (RFC 6749 §5.1)


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens of a session as the client holds them.

    ``received_at`` and ``expires_at`` are seconds since the Unix epoch on the local clock; ``expires_in`` and
    ``refresh_expires_in`` are durations in seconds, None if the server states none. ``refresh_seq`` is the server's
    generation number, None if it has none. ``version`` grows with each change in the store, ``epoch`` with each login
    and logout. ``idempotent``: the server has confirmed the idempotency key of the refresh that brought them. ``jkt``
    is the thumbprint of the key that they are bound to (RFC 9449); empty if they are bound to none.
    """

    access_token: str
    refresh_token: str | None = None
    expires_in: float | None = None
    received_at: float = 0.0
    refresh_expires_in: float | None = None
    refresh_seq: int | None = None
    scope: str = ""
    token_type: str = "Bearer"
    version: int = 0
    epoch: int = 0
    idempotent: bool = False
    jkt: str = ""

    @property
    def is_bound(self) -> bool:
        """Whether the access token counts only with a proof (RFC 9449 §5): its type is DPoP."""
        return self.token_type.lower() == BOUND_TYPE

    @property
    def expires_at(self) -> float | None:
        """When the access token expires, in seconds since the Unix epoch; None if unknown."""
        return None if self.expires_in is None else self.received_at + self.expires_in  # rule 2

    def expired(self, now: float) -> bool:
        """Return whether the access token has expired at *now*; False if its lifetime is unknown."""
        return self.expires_in is not None and now >= self.received_at + self.expires_in

    def __repr__(self) -> str:
        return f"<Tokens epoch={self.epoch} version={self.version} seq={self.refresh_seq} expires_at={self.expires_at}>"


@dataclass(frozen=True, slots=True)
class TokenResponse:
    """A token response (RFC 6749 §5.1).

    ``received_at`` is when it arrived, in seconds since the Unix epoch; None means now. ``unreadable_fields`` names the
    fields that were present but could not be read. ``device_token`` goes along with the next login of this client.
    ``idempotent``: its response has confirmed the idempotency key of the refresh. ``jkt``: the thumbprint of the key
    that its tokens are bound to. ``says_scope``: an empty ``scope`` means that there is none (any more), not that the
    server has left it out.
    """

    access_token: str
    refresh_token: str | None = None
    expires_in: float | None = None
    refresh_expires_in: float | None = None
    refresh_seq: int | None = None
    scope: str = ""
    token_type: str = "Bearer"
    received_at: float | None = None
    unreadable_fields: tuple[str, ...] = ()
    device_token: str | None = None
    idempotent: bool = False
    jkt: str = ""
    says_scope: bool = False

    @property
    def is_bound(self) -> bool:
        """Whether the access token counts only with a proof (RFC 9449 §5): its type is DPoP."""
        return self.token_type.lower() == BOUND_TYPE

    def __repr__(self) -> str:
        return f"<TokenResponse seq={self.refresh_seq} expires_in={self.expires_in}>"

    def to_response(self) -> dict[str, object]:
        """Return the JSON object of RFC 6749 §5.1, with ``refresh_expires_in`` and ``refresh_seq`` added."""
        required: dict[str, object] = {"access_token": self.access_token, "token_type": self.token_type}
        optional = {
            "expires_in": None if self.expires_in is None else int(self.expires_in),
            "refresh_token": self.refresh_token,
            "refresh_expires_in": None if self.refresh_expires_in is None else int(self.refresh_expires_in),
            "refresh_seq": self.refresh_seq,
            "scope": self.scope if self.says_scope else self.scope or None,
            "device_token": self.device_token,
        }
        return required | {name: value for name, value in optional.items() if value is not None}

    @classmethod
    def from_response(cls, body: object, fields: TokenFields | None = None) -> TokenResponse:
        """Read the parsed JSON *body* of a token response; *fields* says where its values are.

        Raise BadResponse, which names the field, if the access token is missing, or a token is not text.
        """
        at = fields or RFC_6749
        if not isinstance(body, Mapping):
            raise BadResponse("the token response is not a JSON object")
        unreadable: list[str] = []

        def read(reader: Callable[[Mapping[str, Any], str], T | None], path: str) -> T | None:
            try:
                return reader(body, path)
            except BadResponse:
                unreadable.append(path)  # rule 3
                return None

        access_token = text_field(body, at.access_token, required=True) or ""
        token_type = _prefix(body, at.prefix) if at.prefix else (read(_text, at.scheme) or "").strip() or "Bearer"
        expires_in = read(number_field, at.expires_in)
        return cls(
            access_token=access_token,
            refresh_token=text_field(body, at.refresh_token),
            expires_in=jwt_lifetime(access_token) if expires_in is None else expires_in,
            refresh_expires_in=read(number_field, at.refresh_expires_in),
            refresh_seq=read(_integer, at.refresh_seq),
            scope=read(_scope, at.scope) or "",
            token_type=token_type,
            device_token=read(_text, "device_token"),
            unreadable_fields=tuple(unreadable),
            says_scope=value_at(body, at.scope) in ("", []),
        )


@dataclass(frozen=True, slots=True)
class TokenFields:
    """Where a token response has its values: dotted paths into the JSON body (``data.token``); "" if it has none.

    ``scheme`` is the word before the token in the request header (``Bearer``). ``prefix`` replaces it by the exact text
    before the token, with or without a space at its end. Raise ConfigurationError for a path that is not text.
    """

    access_token: str = "access_token"
    refresh_token: str = "refresh_token"
    expires_in: str = "expires_in"
    refresh_expires_in: str = "refresh_expires_in"
    refresh_seq: str = "refresh_seq"
    scheme: str = "token_type"
    scope: str = "scope"
    prefix: str = ""

    def __post_init__(self) -> None:
        for field in fields(self):
            path = getattr(self, field.name)
            if not isinstance(path, str) or (path and not all(path.split("."))):
                raise ConfigurationError(f"TokenFields.{field.name} must be a dotted path as text, not {path!r}")
        if not self.access_token:
            raise ConfigurationError("TokenFields.access_token must not be empty: every token response has one")


RFC_6749 = TokenFields()


def text_field(body: Mapping[str, Any], path: str, *, required: bool = False) -> str | None:
    """Return the text at *path*; None if absent. Raise BadResponse if it is not printable ASCII text, or missing."""
    value = value_at(body, path)
    if value is None or value == "":
        if required:
            raise BadResponse(f"the token response has no field {path!r}", field=path)
        return None
    if not isinstance(value, str) or not is_safe_in_header(value):
        raise BadResponse(f"the field {path!r} of the token response is not printable text", field=path)
    return value


def number_field(body: Mapping[str, Any], path: str) -> float | None:
    """Return the positive number of seconds at *path*, also from text; None if it is absent, zero or negative.

    Zero counts as unknown, because a token that was just issued has not expired. More than ``MAX_SECONDS`` is that
    many. Raise BadResponse for anything else.
    """
    value = value_at(body, path)
    if value is None or value == "":
        return None
    try:
        number = float(value) if isinstance(value, (int, float, str)) and not isinstance(value, bool) else math.nan
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise BadResponse(f"the field {path!r} of the token response is not a number", field=path)
    return min(number, MAX_SECONDS) if number > 0 else None


def value_at(body: object, path: str) -> object:
    """Return the value at a dotted *path* (``data.token``) of nested objects; None if any part of it is absent."""
    if not path:
        return None
    for name in path.split("."):
        if not isinstance(body, Mapping):
            return None
        body = body.get(name)
    return body


def jwt_lifetime(token: str) -> float | None:
    """Return ``exp − iat`` of a JWT in seconds, without verifying it; None if *token* is no JWT, or lacks them."""
    claims: Any = _jwt_claims(token)
    try:
        lifetime = float(claims["exp"]) - float(claims["iat"])
    except (ValueError, TypeError, KeyError, OverflowError):
        return None
    return min(lifetime, MAX_SECONDS) if 0 < lifetime < math.inf else None


def jwt_thumbprint(token: str) -> str:
    """Return the key that a JWT is bound to (``cnf.jkt``, RFC 9449 §6.1), without verifying it; "" if it tells none."""
    found = value_at(_jwt_claims(token), "cnf.jkt")
    return found if isinstance(found, str) and is_safe_in_header(found) else ""


def _jwt_claims(token: str) -> object:
    parts = token.split(".")
    try:
        return parse_json(_base64.decode(parts[1].rstrip("="))) if len(parts) == 3 else None  # some servers pad
    except ValueError:
        return None


def _prefix(body: Mapping[str, Any], path: str) -> str:
    """Return the text before the token: it may be empty, but the field must be present."""
    return "" if value_at(body, path) == "" else text_field(body, path, required=True) or ""


def _text(body: Mapping[str, Any], path: str) -> str | None:
    return text_field(body, path)


def _scope(body: Mapping[str, Any], path: str) -> str | None:
    """Return the scope as words with spaces between them; some servers send a list."""
    value = value_at(body, path)
    if isinstance(value, list) and all(isinstance(word, str) and is_safe_in_header(word) for word in value):
        return " ".join(value)
    return text_field(body, path)


def _integer(body: Mapping[str, Any], path: str) -> int | None:
    value = value_at(body, path)
    if value is None:
        return None
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= MAX_SEQUENCE_DIGITS:
        return int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 10**MAX_SEQUENCE_DIGITS:
        raise BadResponse(f"the field {path!r} of the token response is not a whole number", field=path)
    return value
