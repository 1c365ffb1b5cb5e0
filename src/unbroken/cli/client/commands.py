"""``unbroken token``, ``status``, ``logout`` and ``exec``: what a shell does with a session by name.

A command never refreshes in the background: it exits, and its threads with it. Commands that run at the same time
share one refresh through the lock of the store.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from dataclasses import asdict, dataclass
from typing import NoReturn

import click

from unbroken.cli.client.profiles import complete_name, open_session, session_name, warn_if_bound
from unbroken.cli.options import option
from unbroken.cli.terminal import print_table, say
from unbroken.client.profiles import Profile, delete_profile, find_profile, profile_names
from unbroken.errors import InvalidRequest, UnbrokenError

__all__ = ["exec_", "logout", "status", "token"]

NOT_FOUND, NOT_RUNNABLE = 127, 126  # exit statuses of every shell


@click.command()
@session_name
@option(
    "--watch",
    "target",
    default="",
    metavar="FILE|SOCKET",
    help="Keep the token in this file, or behind this socket (unix:PATH, or PATH.sock), until a signal ends it.",
)
@option(
    "--proof",
    nargs=2,
    default=None,
    envvar=None,
    metavar="METHOD URL",
    help="Print the header lines of this one request instead: the token, and the proof of a bound session.",
)
@option("--nonce", default="", metavar="TEXT", help="What the server has asked for in DPoP-Nonce.")
def token(name: str, target: str, proof: tuple[str, str] | None, nonce: str) -> None:
    """Print a good access token, refreshed if necessary.

    The token of a session that is bound to a key (login --dpop) is worth nothing without a proof, which is good for one
    request: unbroken token NAME --proof GET URL | curl -H @- URL
    """
    if (target and proof) or (nonce and not proof):
        raise InvalidRequest("--proof goes without --watch, and --nonce with --proof")
    if target:
        from unbroken.cli.client.watch import watch  # noqa: PLC0415  # it loads asyncio

        watch(name, target)
        return
    with open_session(name) as (profile, session):
        if proof:
            headers = session.request_headers(*proof, nonce=nonce)
            say("\n".join(f"{header}: {value}" for header, value in headers.items()))
            return
        warn_if_bound(profile)
        say(session._authorize(fresh=True).tokens.access_token)


# ---- status ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SessionLine:
    """The state of one session, without secrets. *expires_in* is in seconds."""

    name: str
    server: str
    user: str
    state: str
    reason: str = ""
    expires_in: float | None = None
    scope: str = ""

    def cells(self) -> tuple[str, ...]:
        """Return the cells of the table."""
        state = f"{self.state} ({self.reason})" if self.reason else self.state
        return (self.name, self.server, self.user or "-", state, _two_units(self.expires_in), self.scope or "-")


@click.command()
@click.argument("name", metavar="[NAME]", default="", shell_complete=complete_name)
@option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(name: str, as_json: bool) -> int:
    """Show the state of the sessions.

    With NAME: of that session. No server is contacted.

    good: the access token is valid. ageing: it is refreshed soon. expired: the next command refreshes it.
    over: log in again. The exit status is 1 if the session NAME is over.
    """
    names = profile_names()
    lines = [_read_line(one) for one in (names if not name else [name] if name in names else [find_profile(name).name])]
    if as_json:
        say(json.dumps(asdict(lines[0]) if name else [asdict(line) for line in lines], indent=2))
    else:
        print_table(("NAME", "SERVER", "USER", "STATE", "EXPIRES IN", "SCOPE"), [line.cells() for line in lines])
    return int(bool(name) and lines[0].state in ("over", "unreadable"))


def _read_line(name: str) -> SessionLine:
    """Return the line of a session. An error is printed, and does not hide the other sessions."""
    server, user = "-", ""
    try:
        profile = find_profile(name)
        server, user = profile.url, profile.user
        with open_session(name) as (_, session):
            now = session.status
    except UnbrokenError as error:
        print(f"unbroken: {name}: {error}", file=sys.stderr)
        return SessionLine(name, server, user, "unreadable", error.code)
    return SessionLine(name, server, user, now.state, now.reason, now.expires_in, now.scope)


def _two_units(seconds: float | None) -> str:
    """Return a duration in its two largest units."""
    if seconds is None:
        return "-"
    rest, parts = int(seconds), []
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, rest = divmod(rest, length)
        parts += [f"{count}{unit}"] if count else []
    return " ".join(parts[:2]) or "0s"


# ---- logout ----------------------------------------------------------------------------------------------------------


@click.command()
@session_name
def logout(name: str) -> int:
    """Log out and forget the session. Exit status 1: the server did not confirm it."""
    with open_session(name) as (profile, session):
        is_over = session.status.state == "over"
        is_confirmed = session.logout()
        delete_profile(name)
    say(f"{name}: {_logout_result(profile, is_over=is_over, is_confirmed=is_confirmed)}")
    return int(not is_over and not is_confirmed)


def _logout_result(profile: Profile, *, is_over: bool, is_confirmed: bool) -> str:
    if is_confirmed:
        return "logged out; the server confirmed it"
    if is_over:
        return "forgotten; the session was over already"
    has_endpoint = profile.kind == "unbroken" or profile.revocation_endpoint
    cause = "the server did not confirm it" if has_endpoint else "there is no --revocation-endpoint to tell the server"
    return f"logged out here; {cause}: the session may stay valid there until it expires"


# ---- exec ------------------------------------------------------------------------------------------------------------


@click.command("exec")
@option("--env", default="UNBROKEN_TOKEN", show_default=True, metavar="VARIABLE", help="The variable for the token.")
@option(
    "--broker",
    "with_broker",
    envvar=None,
    is_flag=True,
    help="Serve good tokens while it runs, at the socket $UNBROKEN_BROKER.",
)
@session_name
@click.argument("command", metavar="-- COMMAND...", nargs=-1, required=True, type=click.UNPROCESSED)
def exec_(name: str, command: tuple[str, ...], env: str, with_broker: bool) -> None:
    """Run a command with an access token in its environment. The exit status is that of the command.

    The token in the environment does not change; for a command that runs longer than it lives, there is --broker. So it
    is for a session that is bound to a key (login --dpop): its token is worth nothing without a proof.
    """
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", env):
        raise InvalidRequest("the name of a variable has letters, digits and '_', and does not start with a digit")
    environment = {**os.environ, **(_broker_variables(name) if with_broker else {})}
    with open_session(name) as (profile, session):
        if not with_broker:
            warn_if_bound(profile)
        environment[env] = session._authorize(fresh=True).tokens.access_token
    sys.stdout.flush()
    _replace_process(list(command), environment)


def _broker_variables(name: str) -> dict[str, str]:
    """Return what tells the command where its broker is, which runs from now on."""
    from unbroken.cli.client.exec_broker import start_broker  # noqa: PLC0415  # it loads asyncio

    find_profile(name)
    return {"UNBROKEN_BROKER": start_broker(name), "UNBROKEN_SESSION": name}


def _replace_process(command: list[str], environment: dict[str, str]) -> NoReturn:
    """Replace this process by *command*, with the default actions of the signals that Python ignores for itself."""
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvpe(command[0], command, environment)  # noqa: S606  # no shell: the arguments belong to the command
    except (OSError, ValueError) as error:  # ValueError: the command is empty
        cause = error.strerror if isinstance(error, OSError) else "it has no name"
        print(f"unbroken: {command[0]} cannot be run: {cause}", file=sys.stderr)
        is_missing = isinstance(error, (FileNotFoundError, ValueError))
        raise click.exceptions.Exit(NOT_FOUND if is_missing else NOT_RUNNABLE) from error
