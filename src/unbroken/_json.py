"""JSON of other programs, read so that junk in one value costs that value and nothing else. Pure.

A token response may hold anything beside its tokens, and a granted token cannot be granted again.

1. A whole number of thousands of digits is read as a float (which may be infinite): Python refuses to convert it.
2. An object or array that is nested too deeply is read as null.
3. Bytes that are not UTF-8, and control characters in strings, are read as they can be.
4. What is no JSON after that is None. No exception leaves this module.
"""

from __future__ import annotations

import json
import re

__all__ = ["parse_json"]

MAX_INTEGER_DIGITS = 400  # more than a float can hold
MAX_DEPTH = 64
_STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]|\\.)*+"|[\[\]{}]', re.DOTALL)


def parse_json(data: bytes) -> object:
    """Return the value that *data* spells; None if it is no JSON (rule 4)."""
    try:
        text = data.decode(json.detect_encoding(data), "replace").removeprefix("\ufeff")  # rule 3
        try:
            return _DECODER.decode(text)
        except RecursionError:
            return _DECODER.decode(_without_depths(text))
    except (ValueError, RecursionError):
        return None


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= MAX_INTEGER_DIGITS else float(digits)  # rule 1


_DECODER = json.JSONDecoder(parse_int=_integer, strict=False)


def _without_depths(text: str) -> str:
    """Return *text* with null in place of what is nested more than ``MAX_DEPTH`` deep (rule 2)."""
    kept: list[str] = []
    depth = position = 0
    for match in _STRING_OR_BRACKET.finditer(text):
        if (sign := match.group()) in ("[", "{"):
            depth += 1
            if depth == MAX_DEPTH + 1:
                kept.append(text[position : match.start()] + "null")
        elif sign in ("]", "}"):
            depth -= 1
            if depth == MAX_DEPTH:
                position = match.end()
    return "".join(kept) + text[position:] if depth <= MAX_DEPTH else ""
