"""The command line: the help of each command, as ``--help`` prints it on 80 columns."""

from __future__ import annotations

from collections.abc import Iterator

import click

from scripts.reference.markdown import NOTE
from unbroken.cli.app import unbroken

__all__ = ["page"]

COLUMNS = 80
INTRODUCTION = """What `--help` prints for each command. [The command line](../command-line.md) has examples, files and
exit statuses; [deployment](../deployment.md) explains the commands of the server."""


def page() -> str:
    """Return the page: a section for each command."""
    sections = [f"## {path}\n\n```text\n{text}\n```" for path, text in _helps(unbroken, "unbroken", None)]
    return "\n\n".join(["# The command line: all commands and options", NOTE, INTRODUCTION, *sections]) + "\n"


def _helps(command: click.Command, path: str, parent: click.Context | None) -> Iterator[tuple[str, str]]:
    name = path.rpartition(" ")[2]
    context = click.Context(command, parent, info_name=name, terminal_width=COLUMNS, max_content_width=COLUMNS)
    context.help_option_names = ["-h", "--help"]
    yield path, command.get_help(context).rstrip()
    if isinstance(command, click.Group):
        for inner in command.list_commands(context):
            found = command.get_command(context, inner)
            if found is not None:
                yield from _helps(found, f"{path} {inner}", context)
