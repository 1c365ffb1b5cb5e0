"""JWTs, read strictly: what a JWS signs is still read as if a stranger had written it (RFC 7519, RFC 8725 §3).

1. Header and payload are JSON objects in UTF-8 (RFC 7519 §7.2) without a name that occurs twice (RFC 7515 §4, RFC 7519
   §4): two readers could take two meanings from one token.
2. A number is finite: ``NaN``, ``Infinity`` and what overflows a float compare with no time, so they never expire.
3. A time is a JSON number (RFC 7519 §2), from the epoch to the end of year 9999.
4. A text is a string without lone surrogates. No ``bool`` is a number, and no number is a text.
5. Whatever is wrong raises one of ``MALFORMED_ERRORS``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NoReturn

from joserfc.errors import JoseError

from unbroken import _base64

__all__ = [
    "MALFORMED_ERRORS",
    "MAX_TIME",
    "header_of",
    "json_object",
    "read_bool",
    "read_count",
    "read_text",
    "read_time",
]

MALFORMED_ERRORS = (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError, JoseError)
MAX_TIME = 253_402_300_799  # the last second of year 9999, since the Unix epoch
MAX_COUNT = (1 << 63) - 1
WHITESPACE = " \t\n\r"  # of JSON (RFC 8259 §2)


def header_of(token: str, max_chars: int) -> dict[str, Any]:
    """Return the header of a compact JWS (RFC 7515 §7.1): three canonical parts, at most *max_chars* in all.

    Nothing is proved. A header that makes other members critical is refused: none is known here (RFC 7515 §4.1.11).
    """
    if not isinstance(token, str) or len(token) > max_chars or not token.isascii():
        raise ValueError
    parts = token.split(".")
    if len(parts) != 3 or not all(map(_base64.decode, parts)):
        raise ValueError
    header = json_object(_base64.decode(parts[0]))
    if "crit" in header:
        raise ValueError
    return header


def json_object(data: bytes) -> dict[str, Any]:
    """Return the JSON object in *data* (rules 1 and 2)."""
    text = data.decode().strip(WHITESPACE)
    found, end = _decode(text)
    if end != len(text):
        raise ValueError
    if not isinstance(found, dict):
        raise TypeError
    return found


def read_time(value: object) -> float:
    """Return *value*, a time in seconds since the Unix epoch (rule 3)."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= MAX_TIME:
        raise ValueError
    return float(value)


def read_count(value: object) -> int:
    """Return *value*, a whole number that is not negative."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_COUNT:
        raise ValueError
    return value


def read_bool(value: object) -> bool:
    """Return *value*, true or false."""
    if not isinstance(value, bool):
        raise TypeError
    return value


def read_text(value: object) -> str:
    """Return *value*, a text (rule 4)."""
    if not isinstance(value, str):
        raise TypeError
    value.encode()  # a lone surrogate is a ValueError
    return value


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError
    return found


def _finite_number(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError
    return value


def _refuse_constant(_: str) -> NoReturn:
    raise ValueError


# Made once: ``json.loads`` would make a decoder with these functions each time.
_decode = json.JSONDecoder(
    object_pairs_hook=_unique, parse_float=_finite_number, parse_constant=_refuse_constant
).raw_decode
