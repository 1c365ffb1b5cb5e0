"""base64url without padding (RFC 4648 §5, RFC 7515 §2), in the one canonical spelling of each value.

The decoder of the standard library skips foreign characters, unless it is told to be strict, and ignores unused bits,
so that one token would have many texts. Here every other spelling is refused.
"""

from __future__ import annotations

from binascii import a2b_base64, b2a_base64

__all__ = ["decode", "encode", "encode_to_bytes"]

_TO_URL_SAFE = bytes.maketrans(b"+/", b"-_")
_FROM_URL_SAFE = bytes.maketrans(b"-_+/=", b"+/!!!")  # "!" stands for what is foreign here
_PADDING = (b"", b"", b"==", b"=")  # by the number of signs in the last group of four; one alone spells nothing
_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
# The last signs whose unused bits are zero: of a group of four, two or three signs.
_LAST_SIGNS = (frozenset(_ALPHABET), frozenset[int](), frozenset(_ALPHABET[::16]), frozenset(_ALPHABET[::4]))


def encode(data: bytes) -> str:
    """Return *data* in base64url."""
    return encode_to_bytes(data).decode("ascii")


def encode_to_bytes(data: bytes) -> bytes:
    """Return *data* in base64url, as ASCII bytes."""
    return b2a_base64(data, newline=False).translate(_TO_URL_SAFE).rstrip(b"=")


def decode(text: str) -> bytes:
    """Return the bytes that *text* spells. Raise ValueError for any other spelling of them, and for other text."""
    spelled = text.encode("ascii")
    in_last_group = len(spelled) & 3
    if spelled and spelled[-1] not in _LAST_SIGNS[in_last_group]:
        raise ValueError("not canonical base64url")
    return a2b_base64(spelled.translate(_FROM_URL_SAFE) + _PADDING[in_last_group], strict_mode=True)
