"""What kinds of values settings have: how each is read from a text (a flag, the environment) and from TOML.

What cannot be read is ``Wrong``, whose message goes on after the setting's name: "must be …". It repeats the value
of no text, which may be a secret in the wrong place.

Options that several commands share, and durations such as ``30m``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any

import typer

__all__ = [
    "DURATION",
    "FLAG",
    "TABLE",
    "TEXT",
    "WORDS",
    "Duration",
    "InvalidValue",
    "SettingType",
    "Store",
    "choice",
    "duration",
    "integer",
    "seconds",
    "spelled",
]

LONGEST = 36525 * 86400.0  # what no calendar can show is a mistake
UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
YES, NO = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


class InvalidValue(ValueError):
    """This is no value of this kind; the message says why."""


@dataclass(frozen=True, slots=True)
class SettingType:
    """How values are read. ``of_text`` is None for what a text cannot spell."""

    shown: str
    of_toml: Callable[[object], Any]
    of_text: Callable[[str], Any] | None = None
    is_flag: bool = field(default=False)


def duration(text: str | float) -> float:
    """Seconds from ``10s``, ``30m``, ``12h``, ``7d`` or a number of seconds. Raises typer.BadParameter."""
    try:
        return seconds(str(text))
    except InvalidValue as error:
        raise typer.BadParameter(f"{str(text)!r} {error}") from None


def seconds(text: str) -> float:
    """The same for settings. Raises Wrong."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd]?)", text.strip(), re.ASCII)
    if not match:
        raise InvalidValue("is not a duration: write 10s, 30m, 12h or 7d")
    found = float(match[1]) * UNITS[match[2] or "s"]
    if found > LONGEST:
        raise InvalidValue("is longer than a hundred years")
    return found


def spelled(found: float) -> str:
    """A duration as it can be written."""
    unit = next(unit for unit in ("d", "h", "m", "s") if found % UNITS[unit] == 0 or unit == "s")
    return f"{found / UNITS[unit]:g}{unit}"


def _duration_of_toml(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise InvalidValue("must be a duration, as '30m', or a number of seconds")
    return seconds(str(value))


def _text_of_toml(value: object) -> str:
    if not isinstance(value, str):
        raise InvalidValue("must be a text")
    return _clean(value)


def _clean(text: str) -> str:
    if "\0" in text or any("\ud800" <= char <= "\udfff" for char in text):
        raise InvalidValue("is not valid text")
    return text


def _flag_of_toml(value: object) -> bool:
    if not isinstance(value, bool):
        raise InvalidValue("must be true or false")
    return value


def _flag_of_text(text: str) -> bool:
    if text.strip().lower() not in YES + NO:
        raise InvalidValue("must be true or false")
    return text.strip().lower() in YES


def _words_of_toml(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return _words_of_text(value)
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise InvalidValue("must be a list of texts")
    return tuple(map(_clean, value))


def _words_of_text(text: str) -> tuple[str, ...]:
    return tuple(filter(None, re.split(r"[,\s]+", _clean(text))))


def _table_of_toml(value: object) -> tuple[tuple[str, tuple[str, ...]], ...]:
    if not isinstance(value, dict):
        raise InvalidValue("must be a table")
    return tuple((_clean(name), _words_of_toml(words)) for name, words in value.items())


TEXT = SettingType("TEXT", _text_of_toml, _clean)
DURATION = SettingType("DURATION", _duration_of_toml, seconds)
FLAG = SettingType("", _flag_of_toml, _flag_of_text, is_flag=True)
WORDS = SettingType("WORDS", _words_of_toml, _words_of_text)
TABLE = SettingType("", _table_of_toml)


def integer(least: int, most: int) -> SettingType:
    """Whole numbers from *least* to *most*."""

    def check(number: int) -> int:
        if not least <= number <= most:
            raise InvalidValue(f"must be between {least} and {most}")
        return number

    def of_toml(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise InvalidValue("must be a whole number")
        return check(value)

    def of_text(text: str) -> int:
        if not re.fullmatch(r"\d{1,18}", text.strip(), re.ASCII):
            raise InvalidValue("must be a whole number")
        return check(int(text))

    return SettingType("INTEGER", of_toml, of_text)


def choice(*words: str) -> SettingType:
    """One of *words*, in any case."""
    known = {word.lower(): word for word in words}

    def of_text(text: str) -> str:
        if text.lower() not in known:
            raise InvalidValue(f"must be one of {', '.join(words)}")
        return known[text.lower()]

    return SettingType("|".join(words), lambda value: of_text(_text_of_toml(value)), of_text)


Store = Annotated[str, typer.Option("--store", envvar="UNBROKEN_STORE", help="Where the sessions are: sqlite:///FILE.")]


def Duration(envvar: str, about: str, **more: Any) -> Any:  # noqa: N802  # it stands for a type of option
    """An option that takes a duration; its value is in seconds."""
    return typer.Option(parser=duration, metavar="DURATION", envvar=envvar, help=about, **more)
