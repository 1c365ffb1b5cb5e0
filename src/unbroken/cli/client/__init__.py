"""The client's commands: sessions by name, for people, for scripts, and for programs that ask for credentials."""

from __future__ import annotations

import typer

from unbroken.cli.client.commands import exec_, logout, status, token
from unbroken.cli.client.credential import credential
from unbroken.cli.client.fetch import fetch
from unbroken.cli.client.login import login

__all__ = ["CLIENT_COMMANDS", "add_client_commands"]

CLIENT_COMMANDS = frozenset({"login", "token", "fetch", "status", "logout", "exec", "credential"})
PANEL = "The client"


def add_client_commands(app: typer.Typer) -> None:
    """Puts the client's commands into *app*."""
    # A second argument of `login` is refused by itself: it may be a password.
    app.command(rich_help_panel=PANEL, context_settings={"allow_extra_args": True})(login)
    for command in (token, fetch, status, logout):
        app.command(rich_help_panel=PANEL)(command)
    app.command("exec", rich_help_panel=PANEL)(exec_)
    app.add_typer(credential, name="credential", rich_help_panel=PANEL)
