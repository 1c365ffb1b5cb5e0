"""The tokens of a session, and the token response that carries them (RFC 6749 §5.1), in both directions.

Rules of this file:

1. Frozen values; a change makes a new value. No repr shows a token.
2. Lifetimes count from local receipt: the server says how long, never until when.
3. What a server says is checked field by field; a wrong field is named, and nothing is guessed. Only a token that
   cannot be read makes the whole answer unreadable.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from unbroken import _base64
from unbroken.errors import BadResponse

__all__ = ["TokenFields", "TokenResponse", "Tokens"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a logged-in client holds.

    Times are seconds: ``received_at`` and ``expires_at`` since the Unix epoch on the local clock, ``lifetime`` a
    duration. ``lifetime`` is None when nobody said how long the access token lives; then only a challenge tells.
    ``seq`` is the server's ``refresh_seq`` (None when it has none). ``version`` grows with each change in the store,
    ``epoch`` with each login and logout.
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

    @property
    def expires_at(self) -> float | None:
        """When the access token dies, in seconds since the Unix epoch; None when unknown."""
        return None if self.expires_in is None else self.received_at + self.expires_in

    def expired(self, now: float) -> bool:
        """Whether the access token is dead at *now*, as far as anybody knows."""
        return self.expires_in is not None and now >= self.received_at + self.expires_in

    def __repr__(self) -> str:
        return f"<Tokens epoch={self.epoch} version={self.version} seq={self.refresh_seq} expires_at={self.expires_at}>"


@dataclass(frozen=True, slots=True)
class TokenResponse:
    """A token response: what the server grants, before anybody has stored it.

    ``received_at``: when it arrived, in seconds since the Unix epoch; None for just now. ``odd``: the fields that stood
    there and could not be read; they count as absent.
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

    def __repr__(self) -> str:
        return f"<TokenResponse seq={self.refresh_seq} expires_in={self.expires_in}>"

    def to_response(self) -> dict[str, object]:
        """The JSON object of RFC 6749 §5.1, with ``refresh_expires_in`` and ``refresh_seq`` beside it."""
        fields: dict[str, object] = {"access_token": self.access_token, "token_type": self.token_type}
        optional = {
            "expires_in": None if self.expires_in is None else int(self.expires_in),
            "refresh_token": self.refresh_token,
            "refresh_expires_in": None if self.refresh_expires_in is None else int(self.refresh_expires_in),
            "refresh_seq": self.refresh_seq,
            "scope": self.scope or None,
        }
        return fields | {name: value for name, value in optional.items() if value is not None}

    @classmethod
    def from_response(cls, body: object, fields: TokenFields | None = None) -> TokenResponse:
        """Reads a token response. Raises BadResponse, which names the field, if a token is missing or no text.

        Any other field that cannot be read counts as absent, and is named in ``odd``: a token that was granted, and
        cannot be granted again, is not thrown away for that.
        """
        at = fields or RFC_6749
        if not isinstance(body, Mapping):
            raise BadResponse("the answer with the tokens is not a JSON object")
        odd: list[str] = []

        def read(reader: Callable[[Mapping[str, Any], str], T | None], path: str) -> T | None:
            try:
                return reader(body, path)
            except BadResponse:
                odd.append(path)
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
            unreadable_fields=tuple(odd),
        )


@dataclass(frozen=True, slots=True)
class TokenFields:
    """Where an answer keeps its tokens: dotted paths into its JSON body. An empty path means it has no such thing.

    ``scheme`` is the word before the token (``Bearer``); ``prefix``, if given, stands for it: the very text that is
    put before the token, with the space at its end or without one.
    """

    access_token: str = "access_token"
    refresh_token: str = "refresh_token"
    expires_in: str = "expires_in"
    refresh_expires_in: str = "refresh_expires_in"
    refresh_seq: str = "refresh_seq"
    scheme: str = "token_type"
    scope: str = "scope"
    prefix: str = ""


RFC_6749 = TokenFields()


def text_field(body: Mapping[str, Any], path: str, *, required: bool = False) -> str | None:
    """The text at a dotted *path* of *body*; None when it is absent. Raises BadResponse when it is no text."""
    value = value_at(body, path)
    if value is None or value == "":
        if required:
            raise BadResponse(f"the token response has no field {path!r}", field=path)
        return None
    if not isinstance(value, str) or not _safe_in_a_header(value):
        raise BadResponse(f"the field {path!r} of the token response is not a printable text", field=path)
    return value


def number_field(body: Mapping[str, Any], path: str) -> float | None:
    """The positive number of seconds at *path*, also from a text; None when it is absent, zero or less.

    A lifetime that has already run out says nothing about a token that was just issued, so it counts as unknown.
    """
    value = value_at(body, path)
    if value is None or value == "":
        return None
    try:
        number = float(value) if isinstance(value, (int, float, str)) and not isinstance(value, bool) else math.nan
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if math.isnan(number) or math.isinf(number):
        raise BadResponse(f"the field {path!r} of the token response is not a number", field=path)
    return number if number > 0 else None


def value_at(body: object, path: str) -> object:
    """What stands at a dotted *path* (``data.token``) of nested objects; None when any part is absent."""
    if not path:
        return None
    for name in path.split("."):
        if not isinstance(body, Mapping):
            return None
        body = body.get(name)
    return body


def jwt_lifetime(token: str) -> float | None:
    """``exp − iat`` of a JWT, in seconds, read without trusting it; None when *token* is no JWT or lacks one."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = json.loads(_base64.decode(parts[1].rstrip("=")))
        lifetime = float(claims["exp"]) - float(claims["iat"])
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None
    return lifetime if 0 < lifetime < math.inf else None


def _prefix(body: Mapping[str, Any], path: str) -> str:
    """What is put before the token: it may be empty, but it must be there."""
    return "" if value_at(body, path) == "" else text_field(body, path, required=True) or ""


def _text(body: Mapping[str, Any], path: str) -> str | None:
    return text_field(body, path)


def _scope(body: Mapping[str, Any], path: str) -> str | None:
    """Some servers send a list instead of words with spaces between them."""
    value = value_at(body, path)
    if isinstance(value, list) and all(isinstance(word, str) for word in value):
        return " ".join(value)
    return text_field(body, path)


def _integer(body: Mapping[str, Any], name: str) -> int | None:
    value = value_at(body, name)
    if value is None:
        return None
    if isinstance(value, str) and value.isascii() and value.isdigit():
        return int(value)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise BadResponse(f"the field {name!r} of the token response is not a whole number", field=name)
    return value


def _safe_in_a_header(value: str) -> bool:
    return value.isascii() and value.isprintable()
