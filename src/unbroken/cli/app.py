"""All commands in one tree, and what becomes of errors.

unbroken serve | demo
unbroken users      add | list | remove | passwd
unbroken sessions   list | revoke
unbroken keys       list | rotate | retire
unbroken login | token | fetch | status | logout | exec
unbroken credential git | docker | kubectl

The client's commands run often, and many at once: they are ready without loading the server.
"""

from __future__ import annotations

import os
import sys

import typer

from unbroken.cli.client import CLIENT_COMMANDS, add_client_commands
from unbroken.errors import UnbrokenError

__all__ = ["run"]

BROKEN_PIPE = 1  # what Typer says when it notices first


def run(arguments: list[str]) -> int:
    """Runs one command line; its exit status."""
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
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is still in the buffer has no reader
        return BROKEN_PIPE
    except UnbrokenError as error:
        return _say(str(error))


def _tree(arguments: list[str]) -> typer.Typer:
    app = typer.Typer(no_args_is_help=True, add_completion=False, help="Two-token sessions that never break.")
    add_client_commands(app)
    if not arguments or arguments[0] not in CLIENT_COMMANDS:
        from unbroken.cli.server import add_server_commands  # noqa: PLC0415  # takes 0.4 s, see the top

        add_server_commands(app)
    return app


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
