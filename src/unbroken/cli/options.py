"""Options that several commands share, and durations such as ``30m``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from unbroken.cli.kinds import duration

__all__ = ["Duration", "Store", "duration"]

Store = Annotated[str, typer.Option("--store", envvar="UNBROKEN_STORE", help="Where the sessions are: sqlite:///FILE.")]


def Duration(envvar: str, about: str, **more: Any) -> Any:  # noqa: N802  # it stands for a type of option
    """An option that takes a duration; its value is in seconds."""
    return typer.Option(parser=duration, metavar="DURATION", envvar=envvar, help=about, **more)
