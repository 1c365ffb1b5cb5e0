"""Options that several commands share, and durations such as ``30m``."""

from __future__ import annotations

import re
from typing import Annotated, Any

import typer

__all__ = ["Duration", "Store", "duration"]

LONGEST = 36525 * 86400.0  # what no calendar can show is a mistake
UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}

Store = Annotated[str, typer.Option("--store", envvar="UNBROKEN_STORE", help="Where the sessions are: sqlite:///FILE.")]


def duration(text: str | float) -> float:
    """Seconds from ``10s``, ``30m``, ``12h``, ``7d`` or a number of seconds. Raises typer.BadParameter."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd]?)", str(text).strip())
    if not match:
        raise typer.BadParameter(f"{text!r} is not a duration: write 10s, 30m, 12h or 7d")
    seconds = float(match[1]) * UNITS[match[2] or "s"]
    if seconds > LONGEST:
        raise typer.BadParameter(f"{text!r} is longer than a hundred years")
    return seconds


def Duration(envvar: str, about: str, **more: Any) -> Any:  # noqa: N802  # it stands for a type of option
    """An option that takes a duration; its value is in seconds."""
    return typer.Option(parser=duration, metavar="DURATION", envvar=envvar, help=about, **more)
