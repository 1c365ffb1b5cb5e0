"""The options of the server's commands, made from ``Settings``: so they are the same in each of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from inspect import Parameter
from typing import Annotated, Any, TypeVar

import typer

from unbroken.cli.parsers import spelled
from unbroken.cli.settings import (
    DEFAULT_FILE,
    Setting,
    SettingsResult,
    checked_settings,
    known_settings,
    read_settings,
    variable,
)

__all__ = ["with_settings"]

R = TypeVar("R")

Config = Annotated[
    str | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help=f"The file with the settings. [{variable('config')}; default: {DEFAULT_FILE}, if any]",
    ),
]


def with_settings(*names: str) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Gives a command the options of the settings called *names*, or of all of them, and ``--config``.

    The command's parameter ``settings`` is the ``Settings``; ConfigurationError is raised if they are wrong. One with a
    parameter ``read`` gets the ``Read`` instead, and has to look by itself.
    """
    known = {name: one for name, one in known_settings().items() if (not names or name in names)}
    shown = {name: one for name, one in known.items() if "flag" in one.places}

    def decorate(command: Callable[..., R]) -> Callable[..., R]:
        own = inspect.signature(command, eval_str=True).parameters

        def run(**given: Any) -> R:
            config, flags = given.pop("config", None), {name: given.pop(name, None) for name in shown}
            read = read_settings(flags, config=config)
            return command(**given, **_wanted(own, read))

        run.__doc__, run.__name__ = command.__doc__, command.__name__
        kept = [one for name, one in own.items() if name not in ("settings", "read")]
        options = [_parameter(name, _option(one)) for name, one in shown.items()]
        run.__signature__ = inspect.Signature([*kept, _parameter("config", Config), *options])  # type: ignore[attr-defined]
        run.__annotations__ = {}
        return run

    return decorate


def _wanted(own: Mapping[str, Parameter], read: SettingsResult) -> dict[str, Any]:
    return {"read": read} if "read" in own else {"settings": checked_settings(read)}


def _parameter(name: str, annotation: Any) -> Parameter:
    return Parameter(name, Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _option(setting: Setting) -> Any:
    """The option of one setting. It only takes the text: what it means is read where the environment's is, too."""
    flag = "--" + setting.name.replace("_", "-")
    help_text = f"{setting.about} [{variable(setting.name)}{_shown(setting.default)}]"
    if setting.kind.is_flag:
        return Annotated[bool | None, typer.Option(f"{flag}/--no-{flag[2:]}", help=help_text)]
    return Annotated[str | None, typer.Option(flag, metavar=setting.kind.shown, help=help_text)]


def _shown(default: Any) -> str:
    shown = spelled(default) if isinstance(default, float) else default
    return f"; default: {shown}" if default else ""
