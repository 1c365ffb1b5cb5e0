"""All commands in one tree, and what becomes of errors.

unbroken serve | demo
unbroken users     add | list | remove | passwd
unbroken sessions  list | revoke
unbroken keys      list | rotate | retire
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from getpass import getpass
from typing import Annotated

import typer

from unbroken.cli.demo import demo
from unbroken.cli.options import Duration, Store
from unbroken.cli.serve import serve
from unbroken.errors import ConfigurationError, InvalidRequest, UnbrokenError
from unbroken.server import Accounts, Sessions, open_store

__all__ = ["run"]

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Two-token sessions that never break.")
users = typer.Typer(no_args_is_help=True, help="The embedded account table.")
sessions = typer.Typer(no_args_is_help=True, help="Who is logged in.")
keys = typer.Typer(no_args_is_help=True, help="The keys that sign tokens.")
app.command()(serve)
app.command()(demo)
app.add_typer(users, name="users")
app.add_typer(sessions, name="sessions")
app.add_typer(keys, name="keys")

Name = Annotated[str, typer.Argument(help="The user's name.")]
FromStdin = Annotated[
    bool,
    typer.Option("--password-stdin", envvar="UNBROKEN_PASSWORD_STDIN", help="Read the password from standard input."),
]


def run(arguments: list[str]) -> int:
    """Runs one command line; its exit status."""
    try:
        return int(app(arguments, standalone_mode=False) or 0)
    except typer.Exit as done:
        return done.exit_code
    except typer.TyperException as error:
        return _wrong_use(error)
    except (typer.Abort, KeyboardInterrupt):
        return _say("stopped")
    except UnbrokenError as error:
        return _say(str(error))


def _wrong_use(error: typer.TyperException) -> int:
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "unbroken"
    message = getattr(error, "format_message", lambda: str(error))().strip().rstrip(".")
    if not message:  # no command was named, and the help has been shown
        return 2
    return _say(f"{' '.join(message.split())} (see {command} --help)")


@users.command("add")
def users_add(name: Name, password_stdin: FromStdin = False, store: Store = "sqlite:///unbroken.db") -> None:
    """Make an account."""
    Accounts(open_store(store)).add(name, _password(password_stdin))
    print(f"added {name}")


@users.command("list")
def users_list(store: Store = "sqlite:///unbroken.db") -> None:
    """List the accounts."""
    _table(
        ("NAME", "SINCE"),
        [(account.shown, _when(account.created_at)) for account in Accounts(open_store(store)).list()],
    )


@users.command("remove")
def users_remove(name: Name, store: Store = "sqlite:///unbroken.db") -> None:
    """Remove an account, and end its sessions."""
    opened = open_store(store)
    subject = _subject(Accounts(opened), name)
    Accounts(opened).remove(name)
    print(f"removed {subject}, ended {Sessions(opened).revoke_all(subject)} sessions")


@users.command("passwd")
def users_passwd(name: Name, password_stdin: FromStdin = False, store: Store = "sqlite:///unbroken.db") -> None:
    """Change a password, and end the account's sessions."""
    opened = open_store(store)
    subject = _subject(Accounts(opened), name)
    Accounts(opened).set_password(name, _password(password_stdin))
    print(f"changed the password of {subject}, ended {Sessions(opened).revoke_all(subject)} sessions")


@sessions.command("list")
def sessions_list(
    user: Annotated[str, typer.Option(envvar="UNBROKEN_USER", help="Only this user's sessions.")] = "",
    store: Store = "sqlite:///unbroken.db",
) -> None:
    """List the sessions that are alive, last used first."""
    opened = Sessions(open_store(store))
    found = opened.list_of(user) if user else opened.list_all()
    rows = [(i.sid, i.subject, _when(i.created_at), _when(i.used_at), i.ip, i.label or i.user_agent) for i in found]
    _table(("SID", "USER", "SINCE", "LAST USED", "ADDRESS", "LABEL"), rows)


@sessions.command("revoke")
def sessions_revoke(
    sid: Annotated[str, typer.Argument(help="The session's id, from `sessions list`.")] = "",
    user: Annotated[str, typer.Option(envvar="UNBROKEN_USER", help="End all sessions of this user instead.")] = "",
    store: Store = "sqlite:///unbroken.db",
) -> int:
    """End one session, or all of a user's."""
    if bool(sid) == bool(user):
        raise InvalidRequest("name a session id, or a user with --user")
    opened = Sessions(open_store(store))
    ended = int(opened.revoke(sid)) if sid else opened.revoke_all(user)
    print(f"ended {ended} session{'' if ended == 1 else 's'}")
    return 0 if ended else 1


@keys.command("list")
def keys_list(store: Store = "sqlite:///unbroken.db") -> None:
    """List the keys and what they do now."""
    records = Sessions(open_store(store)).keyring().records
    now = time.time()
    rows = [
        (k.kid, k.use, k.alg, k.state(now), _when(k.signs_from), _when(k.verifies_until) if k.verifies_until else "-")
        for k in records
    ]
    _table(("KID", "USE", "ALG", "STATE", "SIGNS FROM", "VERIFIES UNTIL"), rows)


@keys.command("rotate")
def keys_rotate(
    now: Annotated[bool, typer.Option("--now", envvar="UNBROKEN_NOW", help="Sign with the new key at once.")] = False,
    publish_ahead: Annotated[
        float, Duration("UNBROKEN_PUBLISH_AHEAD", "How long the new key is published first.")
    ] = 600,
    store: Store = "sqlite:///unbroken.db",
) -> None:
    """Make new keys. The old ones verify until the last token they made is dead: nobody is logged out."""
    Sessions(open_store(store)).rotate_keys(publish_ahead=0.0 if now else publish_ahead)
    keys_list(store)


@keys.command("retire")
def keys_retire(
    kid: Annotated[str, typer.Argument(help="The key's id, from `keys list`.")], store: Store = "sqlite:///unbroken.db"
) -> None:
    """End a key at once: every token it made is refused from now on."""
    if not Sessions(open_store(store)).retire_key(kid):
        raise InvalidRequest(f"there is no key {kid!r}")
    print(f"retired {kid}")


def _say(message: str) -> int:
    print(f"unbroken: {message}", file=sys.stderr)
    return 2


def _password(from_stdin: bool) -> str:
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    if not sys.stdin.isatty():
        raise ConfigurationError("there is no terminal to ask for a password: use --password-stdin")
    password = getpass("Password: ")
    if getpass("Again: ") != password:
        raise InvalidRequest("the two passwords are not the same")
    return password


def _subject(accounts: Accounts, name: str) -> str:
    subject = accounts.subject(name)
    if subject is None:
        raise InvalidRequest(f"there is no user {name!r}")
    return subject


def _when(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """Columns for people and for ``cut`` alike; what a client sent is shown without control characters."""
    clean = [tuple("".join(c if c.isprintable() else "?" for c in cell) for cell in row) for row in (head, *rows)]
    widths = [max(len(row[column]) for row in clean) for column in range(len(head))]
    for row in clean:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
