"""``unbroken token``, ``status``, ``logout`` and ``exec``: what a shell does with a session it has by name.

A token is renewed before it is handed out, not behind the caller's back: a command ends, and takes its threads along.
However many commands ask at once, the store's lock lets one of them renew, and the others adopt what it got.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from dataclasses import asdict, dataclass
from typing import Annotated, NoReturn

import typer

from unbroken.cli.client.profiles import Name, Profile, find, names, remove, using
from unbroken.cli.terminal import say, table
from unbroken.errors import InvalidRequest, UnbrokenError

__all__ = ["exec_", "logout", "status", "token"]

NOT_FOUND, NOT_RUNNABLE = 127, 126  # what every shell says

AsJson = Annotated[bool, typer.Option("--json", envvar="UNBROKEN_JSON", help="As JSON, for programs.")]


def token(name: Name) -> None:
    """Print a good access token, renewed if need be."""
    with using(name) as (_, session):
        say(session._authorize(fresh=True).tokens.access_token)


@dataclass(frozen=True, slots=True)
class Line:
    """How one session stands; ``expires_in`` in seconds. No secret is in it."""

    name: str
    server: str
    state: str
    reason: str = ""
    expires_in: float | None = None
    scope: str = ""

    def cells(self) -> tuple[str, ...]:
        """The line as people read it."""
        state = f"{self.state} ({self.reason})" if self.reason else self.state
        return (self.name, self.server, state, _spoken(self.expires_in), self.scope or "-")


def status(
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="Only this session; exit status 1 if it is over.")] = "",
    as_json: AsJson = False,
) -> int:
    """Show how the sessions stand: good, ageing, expired (it will be renewed), over. Asks no server.

    What cannot be read is also said, with the reason, on standard error.
    """
    known = names()
    lines = [_line(one) for one in (known if not name else [name] if name in known else [find(name).name])]
    if as_json:
        say(json.dumps(asdict(lines[0]) if name else [asdict(line) for line in lines], indent=2))
    else:
        table(("NAME", "SERVER", "STATE", "EXPIRES IN", "SCOPE"), [line.cells() for line in lines])
    return int(bool(name) and lines[0].state in ("over", "unreadable"))


def _line(name: str) -> Line:
    """How the session stands; one that cannot be read does not hide the others."""
    server = "-"
    try:
        server = find(name).url
        with using(name) as (_, session):
            now = session.status
    except UnbrokenError as error:
        print(f"unbroken: {name}: {error}", file=sys.stderr)
        return Line(name, server, "unreadable", error.code)
    return Line(name, server, now.state, now.reason, now.expires_in, now.scope)


def _spoken(seconds: float | None) -> str:
    """The two largest units of a duration."""
    if seconds is None:
        return "-"
    rest, words = int(seconds), []
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, rest = divmod(rest, length)
        words += [f"{count}{unit}"] if count else []
    return " ".join(words[:2]) or "0s"


def logout(name: Name) -> int:
    """End a session, here and at the server, and forget its name. Exit status 1 if the server did not confirm."""
    with using(name) as (profile, session):
        alive = session.status.state != "over"
        told = session.logout()
        remove(name)
    return _say_how_it_ended(profile, alive=alive, told=told)


def _say_how_it_ended(profile: Profile, *, alive: bool, told: bool) -> int:
    if told:
        say(f"{profile.name}: logged out; the server confirmed it")
    elif not alive:
        say(f"{profile.name}: forgotten; the session was over already")
    else:
        asked = profile.kind == "unbroken" or profile.revocation_endpoint
        why = "the server did not confirm it" if asked else "the server was not told, it has no --revocation-endpoint"
        say(f"{profile.name}: logged out here; {why}: the session may live on there until it expires")
    return int(alive and not told)


def exec_(
    name: Name,
    command: Annotated[list[str], typer.Argument(metavar="-- COMMAND...", help="The command and its arguments.")],
    env: Annotated[
        str, typer.Option("--env", envvar="UNBROKEN_ENV", metavar="VARIABLE", help="The variable the token is in.")
    ] = "UNBROKEN_TOKEN",
) -> None:
    """Run a command with a good access token in an environment variable. Its exit status is the command's own."""
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", env):
        raise InvalidRequest("the name of a variable has letters, digits and '_', and begins with no digit")
    with using(name) as (_, session):
        environment = {**os.environ, env: session._authorize(fresh=True).tokens.access_token}
    sys.stdout.flush()
    _become(command, environment)


def _become(command: list[str], environment: dict[str, str]) -> NoReturn:
    """Replaces this process, with the signals as a shell would leave them: Python ignores these two for itself."""
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvpe(command[0], command, environment)  # noqa: S606  # no shell: the arguments are the command's own
    except (OSError, ValueError) as error:  # ValueError: the name of the command is empty
        why = error.strerror if isinstance(error, OSError) else "it has no name"
        print(f"unbroken: {command[0]} cannot be run: {why}", file=sys.stderr)
        missing = isinstance(error, (FileNotFoundError, ValueError))
        raise typer.Exit(NOT_FOUND if missing else NOT_RUNNABLE) from error
