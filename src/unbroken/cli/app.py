"""All commands in one tree, and what becomes of errors.

unbroken serve | check | demo
unbroken users      add | list | remove | passwd
unbroken sessions   list | revoke
unbroken keys       list | rotate | retire | seal | new-seal-key
unbroken db         upgrade | check
unbroken login | token | fetch | status | logout | exec
unbroken credential git | docker | kubectl

The client's commands run often, and many at once: they are ready without loading the server.
"""

from __future__ import annotations

import io
import logging
import os
import sys
from importlib import metadata
from typing import Annotated

import typer

from unbroken.cli.client import CLIENT_COMMANDS, add_client_commands
from unbroken.cli.terminal import say
from unbroken.errors import UnbrokenError

__all__ = ["run"]

BROKEN_PIPE = 1  # what Typer says when it notices first


def run(arguments: list[str]) -> int:
    """Runs one command line; its exit status."""
    _prepare_streams()
    if arguments and arguments[0] in CLIENT_COMMANDS:
        logging.basicConfig(format="unbroken: %(message)s")  # a warning looks like any other line of ours
    try:
        status = int(_tree(arguments)(arguments, standalone_mode=False) or 0)
        sys.stdout.flush()
        return status
    except typer.Exit as done:
        return done.exit_code
    except typer.TyperException as error:
        return _wrong_use(error)
    except (typer.Abort, KeyboardInterrupt):
        return _say("stopped")
    except BrokenPipeError:
        _forget_output()
        return BROKEN_PIPE
    except UnbrokenError as error:
        return _say(str(error))
    except OSError as error:  # such as a full disk, for which no command has better words
        _forget_output()
        return _say(f"{error.filename or 'it could not be done'}: {error.strerror or error}")


def _prepare_streams() -> None:
    """Streams that can be used, whoever started this: what was closed leads nowhere, and no character is an error."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one, which no file must get
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115  # it stays open
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="surrogateescape" if mode == "r" else "backslashreplace")


def _forget_output() -> None:
    """What is still in the buffer has no reader; Python would complain of that when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _tree(arguments: list[str]) -> typer.Typer:
    app = typer.Typer(
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,  # they can show what variables hold
        context_settings={"help_option_names": ["-h", "--help"]},
        help="Two-token sessions that never break.",
    )
    app.callback()(_options)
    add_client_commands(app)
    if not arguments or arguments[0] not in CLIENT_COMMANDS:
        from unbroken.cli.database import db  # noqa: PLC0415  # takes 0.4 s, see the top
        from unbroken.cli.server_commands import PANEL, add_server_commands  # noqa: PLC0415

        add_server_commands(app)
        app.add_typer(db, name="db", rich_help_panel=PANEL)
    return app


def _show_version(wanted: bool) -> None:
    if wanted:
        say(f"unbroken {metadata.version('unbroken')}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", "-V", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """What comes before a command."""


def _wrong_use(error: typer.TyperException) -> int:
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "unbroken"
    message = getattr(error, "format_message", lambda: str(error))().strip().rstrip(".")
    if not message:  # no command was named, and the help has been shown
        return 2
    if message.startswith("Got unexpected extra argument"):
        message = "there is an argument too many"  # it is not repeated: it may be a secret that belongs elsewhere
    return _say(f"{' '.join(message.split())} (see {command} --help)")


def _say(message: str) -> int:
    print(f"unbroken: {message}", file=sys.stderr)
    return 2
