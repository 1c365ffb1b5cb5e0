"""The text form of a refresh token, and the only place where it is made and read.

    rt_ + base64url( version | kid | f | g | b | MAC )

1. ``f`` is 128 random bits, drawn once a session. It stands in the token and nowhere else: the server keeps SHA-256(f).
2. ``MAC`` is HMAC-SHA256 over everything before it, under a key of the keyring, cut to 128 bits (RFC 2104 §5). A forged
   token is refused before any I/O, and every old generation is known as genuine without being stored.
3. ``kid``, ``g`` and ``b`` are unsigned LEB128 numbers.
4. One token has one text: other spellings of the same bytes, or of the same numbers, are refused.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
from collections.abc import Callable
from typing import NamedTuple

from unbroken import _base64
from unbroken.errors import InvalidGrant

__all__ = ["MAX_TOKEN_CHARS", "RefreshToken", "row_key"]

PREFIX = "rt_"
VERSION = 1
MAC_BYTES = 16
RANDOM_BYTES = 16
MAX_TOKEN_CHARS = 128  # characters; a real one has about 50

MacKeyLookup = Callable[[int], "bytes | None"]


class RefreshToken(NamedTuple):
    """A genuine refresh token, read. Its repr shows no secret."""

    session_secret: bytes
    generation: int
    branch: int

    def __repr__(self) -> str:
        return f"<RefreshToken g={self.generation} b={self.branch}>"

    def encode(self, kid: int, key: bytes) -> str:
        """The token as it is given to a client, under the MAC key *key*, which is number *kid*."""
        message = (
            bytes((VERSION,)) + _number(kid) + self.session_secret + _number(self.generation) + _number(self.branch)
        )
        mac = hmac.digest(key, message, "sha256")[:MAC_BYTES]
        return PREFIX + _base64.encode(message + mac)

    @classmethod
    def decode(cls, text: str, key_of: MacKeyLookup) -> RefreshToken:
        """The token that *text* spells, if one of our keys made it. Raises InvalidGrant ``malformed`` otherwise."""
        try:
            raw = _bytes_of(text)
            kid, at = _read_number(raw, 1)
            f, at = raw[at : at + RANDOM_BYTES], at + RANDOM_BYTES
            g, at = _read_number(raw, at)
            b, at = _read_number(raw, at)
            key = key_of(kid)
            if raw[0] != VERSION or key is None or len(raw) != at + MAC_BYTES:
                raise ValueError  # noqa: TRY301  # one way out for all that is wrong
        except (ValueError, IndexError, binascii.Error):
            raise malformed() from None
        if not hmac.compare_digest(hmac.digest(key, raw[:at], "sha256")[:MAC_BYTES], raw[at:]):
            raise malformed()
        return cls(f, g, b)


def _bytes_of(text: str) -> bytes:
    """What *text* spells in canonical base64url. Raises ValueError for any other spelling."""
    if len(text) > MAX_TOKEN_CHARS or not text.isascii() or not text.startswith(PREFIX):
        raise ValueError
    return _base64.decode(text[len(PREFIX) :])


def row_key(f: bytes) -> bytes:
    """The key of the session's row."""
    return hashlib.sha256(f).digest()


def malformed() -> InvalidGrant:
    """The error for everything that is not a refresh token of this server."""
    return InvalidGrant("this is not a refresh token of this server", reason="malformed")


def _number(value: int) -> bytes:
    if value < 128:
        return bytes((value,))
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_number(raw: bytes, at: int) -> tuple[int, int]:
    """A number, and where it ends. Raises ValueError for one with leading zeros: it has a shorter spelling."""
    if (first := raw[at]) < 128:
        return first, at + 1
    value = shift = 0
    while shift < 63:
        byte = raw[at]
        at, value, shift = at + 1, value | (byte & 127) << shift, shift + 7
        if byte < 128:
            if byte == 0 and shift > 7:
                break
            return value, at
    raise ValueError
