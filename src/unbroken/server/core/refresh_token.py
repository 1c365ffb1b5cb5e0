"""The text of a refresh token (RFC 6749 §1.5). Only this file writes and reads it.

    rt_ + base64url( version | kid | session secret | generation | branch | MAC )

1. The session secret is 128 random bits, drawn once a session. It stands in the token and nowhere else: the key of the
   session's row is its SHA-256.
2. The MAC is HMAC-SHA256 over everything before it, under a key of the keyring, truncated to 128 bits (RFC 2104 §5). So
   a forged token is refused before any I/O, and every old generation is genuine without being stored.
3. ``kid``, generation and branch are unsigned LEB128 numbers.
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

__all__ = ["MAX_TOKEN_CHARS", "SECRET_BYTES", "RefreshToken", "row_key"]

PREFIX = "rt_"
VERSION = 1
MAC_BYTES = 16
SECRET_BYTES = 16
MAX_TOKEN_CHARS = 128  # a real token has about 50

MacKeyLookup = Callable[[int], "bytes | None"]


class RefreshToken(NamedTuple):
    """A genuine refresh token. Its repr shows no secret."""

    session_secret: bytes
    generation: int
    branch: int

    def __repr__(self) -> str:
        return f"<RefreshToken generation={self.generation} branch={self.branch}>"

    def encode(self, kid: int, key: bytes) -> str:
        """Return the token's text, authenticated under the MAC key *key*, which is number *kid*."""
        message = (
            # rule 3
            bytes((VERSION,)) + _number(kid) + self.session_secret + _number(self.generation) + _number(self.branch)
        )
        mac = hmac.digest(key, message, "sha256")[:MAC_BYTES]  # rule 2
        return PREFIX + _base64.encode(message + mac)

    @classmethod
    def decode(cls, text: str, key_of: MacKeyLookup) -> RefreshToken:
        """Return the token in *text*. Raise InvalidGrant ``malformed`` unless a key that *key_of* gives made it."""
        try:
            raw = _bytes_of(text)
            kid, at = _read_number(raw, 1)
            secret, at = raw[at : at + SECRET_BYTES], at + SECRET_BYTES
            generation, at = _read_number(raw, at)
            branch, at = _read_number(raw, at)
            key = key_of(kid)
            if raw[0] != VERSION or key is None or len(raw) != at + MAC_BYTES:
                raise ValueError  # noqa: TRY301  # one error for everything that is malformed
        except (ValueError, IndexError, binascii.Error):
            raise malformed() from None
        if not hmac.compare_digest(hmac.digest(key, raw[:at], "sha256")[:MAC_BYTES], raw[at:]):
            raise malformed()
        return cls(secret, generation, branch)


def _bytes_of(text: str) -> bytes:
    """Return the bytes of *text*. Raise ValueError unless it is canonical base64url (rule 4)."""
    if len(text) > MAX_TOKEN_CHARS or not text.isascii() or not text.startswith(PREFIX):
        raise ValueError
    return _base64.decode(text[len(PREFIX) :])


def row_key(session_secret: bytes) -> bytes:
    """Return the key of the session's row (rule 1)."""
    return hashlib.sha256(session_secret).digest()


def malformed() -> InvalidGrant:
    """Return the error for a text that is not a refresh token of this server."""
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
    """Return a number and where it ends. Raise ValueError for leading zeros, which rule 4 refuses."""
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
