"""The server's commands: serving, and what an operator does to accounts, sessions and keys of a store."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from unbroken.cli.build import open_configured
from unbroken.cli.check import check
from unbroken.cli.demo import demo
from unbroken.cli.options import with_settings
from unbroken.cli.parsers import Duration
from unbroken.cli.serve import serve
from unbroken.cli.settings import Settings
from unbroken.cli.terminal import ask_new_password, table
from unbroken.errors import InvalidRequest
from unbroken.server import Accounts, Sessions
from unbroken.server.stores.encrypted_keys import new_key, reencrypt_keys

__all__ = ["add_server_commands"]

PANEL = "The server"

users = typer.Typer(no_args_is_help=True, help="The embedded account table.")
sessions = typer.Typer(no_args_is_help=True, help="Who is logged in.")
keys = typer.Typer(no_args_is_help=True, help="The keys that sign tokens.")


def add_server_commands(app: typer.Typer) -> None:
    """Puts the server's commands into *app*."""
    app.command(rich_help_panel=PANEL)(serve)
    app.command(rich_help_panel=PANEL)(check)
    app.command(rich_help_panel=PANEL)(demo)
    app.add_typer(users, name="users", rich_help_panel=PANEL)
    app.add_typer(sessions, name="sessions", rich_help_panel=PANEL)
    app.add_typer(keys, name="keys", rich_help_panel=PANEL)


on_store = with_settings("store", "seal_key_file", "seal_key")

Name = Annotated[str, typer.Argument(help="The user's name.")]
FromStdin = Annotated[
    bool,
    typer.Option("--password-stdin", envvar="UNBROKEN_PASSWORD_STDIN", help="Read the password from standard input."),
]


@users.command("add")
@on_store
def users_add(settings: Settings, name: Name, password_stdin: FromStdin = False) -> None:
    """Make an account."""
    Accounts(open_configured(settings)).add(name, ask_new_password(from_stdin=password_stdin))
    print(f"added {name}")


@users.command("list")
@on_store
def users_list(settings: Settings) -> None:
    """List the accounts."""
    table(
        ("NAME", "SINCE"),
        [(account.shown, _when(account.created_at)) for account in Accounts(open_configured(settings)).list()],
    )


@users.command("remove")
@on_store
def users_remove(settings: Settings, name: Name) -> None:
    """Remove an account, and end its sessions."""
    opened = open_configured(settings)
    subject = _subject(Accounts(opened), name)
    Accounts(opened).remove(name)
    print(f"removed {subject}, ended {Sessions(opened).revoke_subject(subject)} sessions")


@users.command("passwd")
@on_store
def users_passwd(settings: Settings, name: Name, password_stdin: FromStdin = False) -> None:
    """Change a password, and end the account's sessions."""
    opened = open_configured(settings)
    subject = _subject(Accounts(opened), name)
    Accounts(opened).set_password(name, ask_new_password(from_stdin=password_stdin))
    print(f"changed the password of {subject}, ended {Sessions(opened).revoke_subject(subject)} sessions")


@sessions.command("list")
@on_store
def sessions_list(
    settings: Settings,
    user: Annotated[str, typer.Option(envvar="UNBROKEN_USER", help="Only this user's sessions.")] = "",
) -> None:
    """List the sessions that are alive, last used first."""
    opened = Sessions(open_configured(settings))
    found = opened.list_sessions(_known_as(opened, user) if user else None)
    rows = [(i.sid, i.subject, _when(i.created_at), _when(i.used_at), i.ip, i.label or i.user_agent) for i in found]
    table(("SID", "USER", "SINCE", "LAST USED", "ADDRESS", "LABEL"), rows)


@sessions.command("revoke")
@on_store
def sessions_revoke(
    settings: Settings,
    sid: Annotated[str, typer.Argument(help="The session's id, from `sessions list`.")] = "",
    user: Annotated[str, typer.Option(envvar="UNBROKEN_USER", help="End all sessions of this user instead.")] = "",
) -> int:
    """End one session, or all of a user's."""
    if bool(sid) == bool(user):
        raise InvalidRequest("name a session id, or a user with --user")
    opened = Sessions(open_configured(settings))
    ended = int(opened.revoke(sid)) if sid else opened.revoke_subject(_known_as(opened, user))
    print(f"ended {ended} session{'' if ended == 1 else 's'}")
    return 0 if ended else 1


@keys.command("list")
@on_store
def keys_list(settings: Settings) -> None:
    """List the keys and what they do now."""
    _show_keys(Sessions(open_configured(settings)))


def _show_keys(opened: Sessions) -> None:
    records, now = opened.keyring().records, time.time()
    rows = [
        (k.kid, k.use, k.alg, k.state(now), _when(max(k.signs_from, k.created_at)), _when(k.verifies_until))
        for k in records
    ]
    table(("KID", "USE", "ALG", "STATE", "SIGNS FROM", "VERIFIES UNTIL"), rows)


@keys.command("rotate")
@on_store
def keys_rotate(
    settings: Settings,
    now: Annotated[bool, typer.Option("--now", envvar="UNBROKEN_NOW", help="Sign with the new key at once.")] = False,
    publish_ahead: Annotated[
        float, Duration("UNBROKEN_PUBLISH_AHEAD", "How long the new key is published first.")
    ] = 600,
) -> None:
    """Make new keys. The old ones verify until the last token they made is dead: nobody is logged out."""
    opened = Sessions(open_configured(settings))
    opened.rotate_keys(publish_ahead=0.0 if now else publish_ahead)
    _show_keys(opened)


@keys.command("retire")
@on_store
def keys_retire(
    settings: Settings, kid: Annotated[str, typer.Argument(help="The key's id, from `keys list`.")]
) -> None:
    """End a key at once: every token it made is refused from now on."""
    if not Sessions(open_configured(settings)).retire_key(kid):
        raise InvalidRequest(f"there is no key {kid!r}")
    print(f"retired {kid}")


@keys.command("seal")
@on_store
def keys_seal(settings: Settings) -> None:
    """Seal all keys in the store with the newest seal key. Every process must have that key by then."""
    opened = open_configured(settings)
    Sessions(opened).keyring()  # so that there are keys
    print(f"sealed {reencrypt_keys(opened)} keys")


@keys.command("new-seal-key")
def keys_new_seal_key() -> None:
    """Print a new seal key. Keep it in the environment or in a file of its own, not with the store."""
    print(new_key())


def _subject(accounts: Accounts, name: str) -> str:
    subject = accounts.subject(name)
    if subject is None:
        raise InvalidRequest(f"there is no user {name!r}")
    return subject


def _known_as(sessions: Sessions, user: str) -> str:
    """The subject that is meant by *user*: of the embedded account, or as it is where the application has its own."""
    return Accounts(sessions.store).subject(user) or user


def _when(at: float | None) -> str:
    if at is None:
        return "-"
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
    except (ValueError, OverflowError, OSError):
        return "never"  # farther away than any calendar
