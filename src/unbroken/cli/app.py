"""The tree of commands, and what becomes of errors.

1. A command is imported when it runs: the client's commands run often, and must not wait for the server's libraries.
   So the tree holds the names and summaries of the commands, and where each one is.
2. Every error is one line on standard error, without a secret; the exit status is 2.
"""

from __future__ import annotations

import io
import logging
import os
import signal
import sys
from importlib import import_module
from typing import NamedTuple

import click
from click.shell_completion import CompletionItem, get_completion_class

from unbroken._single_flight import flights_under_way
from unbroken.cli.terminal import say
from unbroken.errors import UnbrokenError

__all__ = ["run", "unbroken"]

ERROR_STATUS = 2
INTERRUPTED_STATUS = 128 + signal.SIGINT  # as a shell says it
BROKEN_PIPE_STATUS = 1  # Click's exit status when it notices first


class CommandEntry(NamedTuple):
    """A command of the tree: where it is, and its line in ``unbroken --help``."""

    location: str  # module:attribute, below unbroken.cli
    summary: str


CLIENT_COMMANDS = {
    "login": CommandEntry("client.login:login", "Log in and keep the session under a name."),
    "token": CommandEntry("client.commands:token", "Print a good access token, refreshed if necessary."),
    "fetch": CommandEntry("client.fetch:fetch", "Send a request with the session's token."),
    "status": CommandEntry("client.commands:status", "Show the state of the sessions."),
    "logout": CommandEntry("client.commands:logout", "Log out and forget the session."),
    "exec": CommandEntry("client.commands:exec_", "Run a command with an access token in its environment."),
    "broker": CommandEntry(
        "client.broker:broker", "Give access tokens to this user's other programs, over a Unix socket."
    ),
    "credential": CommandEntry("client.credential:credential", "Give tokens to git, docker and kubectl."),
    "completion": CommandEntry("app:completion", "Print the completion script of a shell."),
    "docs": CommandEntry("docs:docs", "Show the documentation of this version."),
}
SERVER_COMMANDS = {
    "serve": CommandEntry("serve:serve", "Serve the endpoints."),
    "check": CommandEntry("check:check", "Check the configuration; exit status 1 if anything is wrong."),
    "demo": CommandEntry("demo.command:demo", "Break everything around one session, and show that it holds."),
    "users": CommandEntry("store_commands:users", "Add, list and remove accounts; change passwords and scopes."),
    "sessions": CommandEntry("store_commands:sessions", "List and revoke sessions."),
    "keys": CommandEntry("store_commands:keys", "List, rotate, retire and encrypt the keys that sign tokens."),
    "db": CommandEntry("store_commands:db", "Check and upgrade the tables of the store."),
}
PANELS = {"The client": CLIENT_COMMANDS, "The server": SERVER_COMMANDS}
COMMANDS = CLIENT_COMMANDS | SERVER_COMMANDS


class CommandTree(click.Group):
    """The group of all commands, each of which is imported when it runs (rule 1)."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # Click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        module, attribute = entry.location.split(":")
        command: click.Command = getattr(import_module(f"unbroken.cli.{module}"), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in COMMANDS and not name.startswith("-") and not ctx.resilient_parsing:
            raise click.exceptions.NoSuchCommand(name, possibilities=COMMANDS, ctx=ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        for panel, commands in PANELS.items():
            with formatter.section(panel):
                formatter.write_dl([(name, entry.summary) for name, entry in commands.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        items = [CompletionItem(name, help=entry.summary) for name, entry in COMMANDS.items()]
        options = super(click.Group, self).shell_complete(ctx, incomplete)
        return [item for item in items if item.value.startswith(incomplete)] + options


@click.group(
    cls=CommandTree,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Two-token sessions that never break.",
)
@click.version_option(None, "-V", "--version", package_name="unbroken", message="unbroken %(version)s")
def unbroken() -> None:
    """Do nothing: the commands do."""


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of a shell.

    For bash: eval "$(unbroken completion bash)"
    """

    script = get_completion_class(shell)
    assert script is not None
    say(script(unbroken, {}, "unbroken", "_UNBROKEN_COMPLETE").source())


# ---- errors (rule 2) -------------------------------------------------------------------------------------------------


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit status."""
    _prepare_streams()
    logging.basicConfig(format="unbroken: %(message)s")  # a warning looks like the other lines of a command
    status = _run(arguments)
    if not flights_under_way():
        return status
    from unbroken.cli.ending import finish_refreshes  # noqa: PLC0415  # few commands end in the middle of a refresh

    return finish_refreshes(status)


def _run(arguments: list[str]) -> int:
    try:
        status = unbroken.main(arguments, "unbroken", standalone_mode=False)
        sys.stdout.flush()
        return int(status or 0)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return ERROR_STATUS
    except click.ClickException as error:
        return _print_error(_usage_error(error))
    except (click.Abort, KeyboardInterrupt) as error:  # Click makes an Abort of Ctrl-C, and of the end of the input
        _print_error("stopped")
        return ERROR_STATUS if isinstance(error.__cause__, EOFError) else INTERRUPTED_STATUS
    except BrokenPipeError:
        _discard_output()
        return BROKEN_PIPE_STATUS
    except UnbrokenError as error:
        return _print_error(str(error))
    except ModuleNotFoundError as missing:
        return _print_error(f"this command needs {missing.name}: install 'unbroken[cli]'")
    except OSError as error:  # such as a full disk, which no command expects
        _discard_output()
        cause = error.strerror or error
        return _print_error(f"{error.filename}: {cause}" if error.filename else f"{cause}")


def _prepare_streams() -> None:
    """Replace closed standard streams by the null device, and let no character be an encoding error."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            # open() returns the lowest free descriptor: this one, which no other file must get.
            os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115  # it stays open
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="surrogateescape" if mode == "r" else "backslashreplace")


def _discard_output() -> None:
    """Send what is still buffered to the null device, so that the interpreter does not fail to flush it at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _usage_error(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "unbroken"
    message = " ".join(error.format_message().split()).rstrip(".")
    if message.startswith("Got unexpected extra argument"):
        message = "unexpected argument"  # it is not repeated: it may be a secret
    return f"{message} (see {command} --help)"


def _print_error(message: str) -> int:
    print(f"unbroken: {message}", file=sys.stderr)
    return ERROR_STATUS
