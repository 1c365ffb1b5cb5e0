"""Options of commands. Each one is an environment variable too: ``--max-time`` is ``UNBROKEN_MAX_TIME``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from unbroken.cli.parsers import InvalidValue, parse_duration

__all__ = ["DURATION_PARAMETER", "environment_variable", "option"]

C = TypeVar("C", bound=Callable[..., Any])


def environment_variable(name: str) -> str:
    """Return the environment variable of the option or setting *name*."""
    return f"UNBROKEN_{name.replace('-', '_').upper()}"


def option(*names: str, envvar: str | None = "", **settings: Any) -> Callable[[C], C]:
    """Return the decorator for an option. *envvar*: its environment variable if the name does not give it, or None."""
    if envvar == "":
        envvar = environment_variable(next(name for name in names if name.startswith("--")).lstrip("-"))
    return click.option(*names, envvar=envvar, show_envvar=envvar is not None, **settings)


class _Duration(click.ParamType[float]):
    """A duration such as ``30m``; its value is in seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            return parse_duration(str(value))
        except InvalidValue as error:
            self.fail(f"{value!r} {error}", param, ctx)


DURATION_PARAMETER = _Duration()
