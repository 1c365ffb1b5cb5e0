"""How the values of settings are read: from text (an option, an environment variable) and from TOML.

``InvalidValue`` says what is wrong, to follow the name of the setting: "must be …". It never repeats a value, which
may be a secret in the wrong place.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = [
    "BOOLEAN",
    "DURATION",
    "SCOPES_BY_USER",
    "TEXT",
    "WORDS",
    "InvalidValue",
    "SettingType",
    "choice",
    "format_duration",
    "integer",
    "parse_duration",
]

MAX_DURATION_SECONDS = 36525 * 86400.0  # a hundred years
SECONDS_PER_UNIT = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
TRUE, FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


class InvalidValue(ValueError):
    """A value that does not fit its type; the message says why."""


@dataclass(frozen=True, slots=True)
class SettingType:
    """The type of a setting. *parse_text* is None for a value that only TOML can express."""

    metavar: str
    parse_toml: Callable[[object], Any]
    parse_text: Callable[[str], Any] | None = None
    is_flag: bool = False


# ---- durations ---------------------------------------------------------------------------------------------------


def parse_duration(text: str) -> float:
    """Return the seconds that *text* means: ``10s``, ``30m``, ``12h``, ``7d``, or a number of seconds.

    Raise InvalidValue.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd]?)", text.strip(), re.ASCII)
    if not match:
        raise InvalidValue("is not a duration: write 10s, 30m, 12h or 7d")
    seconds = float(match[1]) * SECONDS_PER_UNIT[match[2] or "s"]
    if seconds > MAX_DURATION_SECONDS:
        raise InvalidValue("is longer than a hundred years")
    return seconds


def format_duration(seconds: float) -> str:
    """Return the shortest text that ``parse_duration`` reads as *seconds*."""
    unit = next(unit for unit in ("d", "h", "m", "s") if seconds % SECONDS_PER_UNIT[unit] == 0 or unit == "s")
    return f"{seconds / SECONDS_PER_UNIT[unit]:g}{unit}"


def _duration_from_toml(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise InvalidValue("must be a duration, such as '30m', or a number of seconds")
    return parse_duration(str(value))


# ---- strings -----------------------------------------------------------------------------------------------------


def _string_from_toml(value: object) -> str:
    if not isinstance(value, str):
        raise InvalidValue("must be a string")
    return _valid_text(value)


def _valid_text(text: str) -> str:
    if "\0" in text or any("\ud800" <= char <= "\udfff" for char in text):
        raise InvalidValue("is not valid text")
    return text


def _words_from_toml(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return _words_from_text(value)
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise InvalidValue("must be a list of strings")
    return tuple(map(_valid_text, value))


def _words_from_text(text: str) -> tuple[str, ...]:
    return tuple(filter(None, re.split(r"[,\s]+", _valid_text(text))))


def _scopes_from_toml(value: object) -> tuple[tuple[str, tuple[str, ...]], ...]:
    if not isinstance(value, dict):
        raise InvalidValue("must be a table")
    return tuple((_valid_text(name), _words_from_toml(words)) for name, words in value.items())


# ---- booleans, numbers, choices ------------------------------------------------------------------------------------


def _boolean_from_toml(value: object) -> bool:
    if not isinstance(value, bool):
        raise InvalidValue("must be true or false")
    return value


def _boolean_from_text(text: str) -> bool:
    word = text.strip().lower()
    if word not in TRUE + FALSE:
        raise InvalidValue("must be true or false")
    return word in TRUE


def integer(minimum: int, maximum: int) -> SettingType:
    """Return the type of whole numbers from *minimum* to *maximum*."""

    def in_range(number: int) -> int:
        if not minimum <= number <= maximum:
            raise InvalidValue(f"must be between {minimum} and {maximum}")
        return number

    def from_toml(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise InvalidValue("must be a whole number")
        return in_range(value)

    def from_text(text: str) -> int:
        if not re.fullmatch(r"\d{1,18}", text.strip(), re.ASCII):
            raise InvalidValue("must be a whole number")
        return in_range(int(text.strip()))

    return SettingType("INTEGER", from_toml, from_text)


def choice(*words: str) -> SettingType:
    """Return the type of a value that is one of *words*, in upper or lower case."""
    spelling = {word.lower(): word for word in words}

    def from_text(text: str) -> str:
        if text.lower() not in spelling:
            raise InvalidValue(f"must be one of {', '.join(words)}")
        return spelling[text.lower()]

    return SettingType("|".join(words), lambda value: from_text(_string_from_toml(value)), from_text)


TEXT = SettingType("TEXT", _string_from_toml, _valid_text)
WORDS = SettingType("WORDS", _words_from_toml, _words_from_text)
DURATION = SettingType("DURATION", _duration_from_toml, parse_duration)
BOOLEAN = SettingType("", _boolean_from_toml, _boolean_from_text, is_flag=True)
SCOPES_BY_USER = SettingType("", _scopes_from_toml)
