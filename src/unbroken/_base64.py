"""base64url without padding (RFC 4648 §5, RFC 7515 §2), in the one canonical spelling of each value.

The decoder of the standard library skips foreign characters and ignores unused bits, so that one token would have many
texts. Here every other spelling is refused.
"""

from __future__ import annotations

from binascii import a2b_base64, b2a_base64

__all__ = ["decode", "encode", "encode_to_bytes"]

_TO_URL_SAFE = bytes.maketrans(b"+/", b"-_")
_FROM_URL_SAFE = bytes.maketrans(b"-_", b"+/")


def encode(data: bytes) -> str:
    """Return *data* in base64url."""
    return encode_to_bytes(data).decode("ascii")


def encode_to_bytes(data: bytes) -> bytes:
    """Return *data* in base64url, as ASCII bytes."""
    return b2a_base64(data, newline=False).translate(_TO_URL_SAFE).rstrip(b"=")


def decode(text: str) -> bytes:
    """Return the bytes that *text* spells. Raise ValueError for any other spelling of them, and for other text."""
    spelled = text.encode("ascii")
    data = a2b_base64(spelled.translate(_FROM_URL_SAFE) + b"=" * (-len(spelled) % 4))
    if encode_to_bytes(data) != spelled:  # foreign characters, unused bits, padding, or "+" and "/"
        raise ValueError("not canonical base64url")
    return data
