"""What an operator does to a store: ``unbroken users``, ``sessions``, ``keys`` and ``db``."""

from __future__ import annotations

import sys
import time

import click

from unbroken.cli.build import build_store
from unbroken.cli.options import DURATION_PARAMETER, option
from unbroken.cli.settings import Settings, with_settings
from unbroken.cli.terminal import ask_new_password, print_table, say
from unbroken.errors import ConfigurationError, InvalidRequest
from unbroken.server import Accounts, Sessions
from unbroken.server.stores import redact_url
from unbroken.server.stores.encrypted_keys import new_key, reencrypt_keys
from unbroken.server.stores.migrations import SchemaVersion, schema_version, upgrade_schema

__all__ = ["db", "keys", "sessions", "users"]

on_store = with_settings("store", "encryption_key_file", "encryption_key")
user_name = click.argument("name", metavar="NAME")
password_from_stdin = option("--password-stdin", is_flag=True, help="Read the password from standard input.")


# ---- users -----------------------------------------------------------------------------------------------------------


@click.group()
def users() -> None:
    """Add, list and remove accounts; change passwords and scopes."""


@users.command("add")
@user_name
@password_from_stdin
@on_store
def users_add(settings: Settings, name: str, password_stdin: bool) -> None:
    """Add an account."""
    accounts = Accounts(build_store(settings))
    if accounts.subject(name) is not None:
        raise InvalidRequest(f"there is a user {name!r} already: `unbroken users passwd` changes the password")
    accounts.add(name, ask_new_password(from_stdin=password_stdin))
    say(f"added {name} to {redact_url(settings.store)}")


@users.command("list")
@on_store
def users_list(settings: Settings) -> None:
    """List the accounts."""
    accounts = Accounts(build_store(settings)).list()
    rows = [(account.shown, _local_time(account.created_at), account.scope or "-") for account in accounts]
    print_table(("NAME", "SINCE", "SCOPE"), rows)


@users.command("remove")
@user_name
@on_store
def users_remove(settings: Settings, name: str) -> None:
    """Remove an account and revoke its sessions."""
    accounts = Accounts(build_store(settings))
    subject = _require_subject(accounts, name)
    say(f"removed {subject}, revoked {_count_sessions(accounts.remove(name))}")


@users.command("passwd")
@user_name
@password_from_stdin
@on_store
def users_passwd(settings: Settings, name: str, password_stdin: bool) -> None:
    """Change a password and revoke the account's sessions."""
    accounts = Accounts(build_store(settings))
    subject = _require_subject(accounts, name)
    revoked = accounts.set_password(name, ask_new_password(from_stdin=password_stdin))
    say(f"changed the password of {subject}, revoked {_count_sessions(revoked)}")


@users.command("scope")
@user_name
@click.argument("words", metavar="[WORD]...", nargs=-1)
@on_store
def users_scope(settings: Settings, name: str, words: tuple[str, ...]) -> None:
    """Set the scope that an account may have; without words, none.

    A server with `account_scopes` gives it at the next refresh of each session, and takes away what is gone.
    """
    accounts = Accounts(build_store(settings))
    accounts.set_scopes(name, words)
    say(f"{name} may have {' '.join(words) or 'no scope'}: tokens follow with their next refresh")


def _require_subject(accounts: Accounts, name: str) -> str:
    subject = accounts.subject(name)
    if subject is None:
        raise InvalidRequest(f"there is no user {name!r}")
    return subject


# ---- sessions --------------------------------------------------------------------------------------------------------


@click.group()
def sessions() -> None:
    """List and revoke sessions."""


@sessions.command("list")
@option("--user", default="", metavar="NAME", help="Only the sessions of this user.")
@option("--limit", type=click.IntRange(1, 1000), default=1000, help="Sessions to list at most.")
@option("--cursor", default="", help="Continue where a list ended: what it says after its last line.")
@on_store
def sessions_list(settings: Settings, user: str, limit: int, cursor: str) -> None:
    """List the sessions, last used first."""
    opened = Sessions(build_store(settings))
    found, following = opened.page_sessions(_subject_of(opened, user) if user else None, limit=limit, cursor=cursor)
    rows = [
        (
            one.sid,
            one.subject,
            _local_time(one.created_at),
            _local_time(one.used_at),
            one.ip,
            one.label or one.user_agent,
        )
        for one in found
    ]
    print_table(("SID", "USER", "SINCE", "LAST USED", "ADDRESS", "LABEL"), rows)
    if following:
        print(f"there are more: add --cursor {following}", file=sys.stderr)


@sessions.command("revoke")
@click.argument("sid", metavar="[SID]", default="")
@option("--user", default="", metavar="NAME", help="Revoke all sessions of this user.")
@on_store
def sessions_revoke(settings: Settings, sid: str, user: str) -> int:
    """Revoke one session, or all of a user.

    SID is its id in `sessions list`.
    """
    if bool(sid) == bool(user):
        raise InvalidRequest("name either a session id or a user with --user")
    opened = Sessions(build_store(settings))
    revoked = int(opened.revoke(sid)) if sid else opened.revoke_subject(_subject_of(opened, user))
    say(f"revoked {_count_sessions(revoked)}")
    return 0 if revoked else 1


def _subject_of(opened: Sessions, user: str) -> str:
    """Return the subject of the account *user*; without such an account, *user* is the application's own subject."""
    return Accounts(opened.store).subject(user) or user


def _count_sessions(count: int) -> str:
    return f"{count} session{'' if count == 1 else 's'}"


# ---- keys ------------------------------------------------------------------------------------------------------------


@click.group()
def keys() -> None:
    """List, rotate, retire and encrypt the keys that sign tokens."""


@keys.command("list")
@on_store
def keys_list(settings: Settings) -> None:
    """List the keys and their states."""
    _print_keys(Sessions(build_store(settings)))


def _print_keys(opened: Sessions) -> None:
    now = time.time()
    rows = [
        (
            key.kid,
            key.use,
            key.alg,
            key.state(now),
            _local_time(max(key.signs_from, key.created_at)),
            _local_time(key.verifies_until),
        )
        for key in opened.keyring().records
    ]
    print_table(("KID", "USE", "ALG", "STATE", "SIGNS FROM", "VERIFIES UNTIL"), rows)


@keys.command("rotate")
@option("--now", is_flag=True, help="Sign with the new key at once.")
@option(
    "--publish-ahead",
    type=DURATION_PARAMETER,
    default="10m",
    show_default=True,
    metavar="DURATION",
    help="How long the new key is published before it signs.",
)
@on_store
def keys_rotate(settings: Settings, now: bool, publish_ahead: float) -> None:
    """Make new keys.

    The old ones verify until their last token expires: no session ends.
    """
    opened = Sessions(build_store(settings))
    opened.rotate_keys(publish_ahead=0.0 if now else publish_ahead)
    _print_keys(opened)


@keys.command("retire")
@click.argument("kid", metavar="KID")
@on_store
def keys_retire(settings: Settings, kid: str) -> None:
    """Retire a key at once.

    KID is its id in `keys list`. Its tokens are refused from now on.
    """
    if not Sessions(build_store(settings)).retire_key(kid):
        raise InvalidRequest(f"there is no key {kid!r}")
    say(f"retired {kid}")


@keys.command("encrypt")
@on_store
def keys_encrypt(settings: Settings) -> None:
    """Encrypt all keys in the store.

    The newest encryption key encrypts them. First give it to every process of the server.
    """
    sessions = Sessions(build_store(settings))
    sessions.keyring()  # makes the first keys
    say(f"encrypted {reencrypt_keys(sessions.store)} keys")


@keys.command("new-encryption-key")
def keys_new_encryption_key() -> None:
    """Print a new encryption key.

    Keep it in the environment or in a file, apart from the store.
    """
    say(new_key())


# ---- tables ----------------------------------------------------------------------------------------------------------

NO_TABLES = "this store has no tables: nothing to do"


@click.group()
def db() -> None:
    """Check and upgrade the tables of the store."""


@db.command("upgrade")
@with_settings("store")
def db_upgrade(settings: Settings) -> None:
    """Make or upgrade the tables. Several nodes may do so at once."""
    version = upgrade_schema(settings.store)
    say(_current(version) if version else NO_TABLES)


@db.command("check")
@with_settings("store")
def db_check(settings: Settings) -> int:
    """Compare the tables with this unbroken.

    Exit status 1: they must be upgraded.
    """
    version = schema_version(settings.store)
    if version is None:
        say(NO_TABLES)
        return 0
    return _compare(version)


def _compare(version: SchemaVersion) -> int:
    if version.found > version.known:
        numbers = f"schema {version.found}, this one knows {version.known}"
        raise ConfigurationError(f"the tables belong to a newer unbroken ({numbers}): upgrade unbroken")
    if version.found == version.known:
        say(_current(version))
        return 0
    found = f"schema {version.found}" if version.found else "no tables yet"
    say(f"{found}, this unbroken needs schema {version.known}: run `unbroken db upgrade`")
    return 1


def _current(version: SchemaVersion) -> str:
    return f"schema {version.found}, as this unbroken needs"


def _local_time(at: float | None) -> str:
    if at is None:
        return "-"
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
    except (ValueError, OverflowError, OSError):
        return "never"  # beyond every calendar
