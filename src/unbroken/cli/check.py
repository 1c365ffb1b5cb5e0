"""``unbroken check``: what is wrong with the configuration, a line each.

1. Exit status 0: nothing was found. 1: something was; each line begins with a stable word, which ``--ignore`` takes.
2. What only matters in production is looked for when the server is meant for others: at an address that is not
   loopback, or with an issuer in https.
3. No line repeats a secret. The store is asked; what is in it is not changed.
"""

from __future__ import annotations

import ipaddress
import json
import os
import socket
import stat
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from typing import Annotated
from urllib.parse import urlsplit

import typer

from unbroken._origins import is_loopback
from unbroken._sync import run_sync
from unbroken.cli.build import contradictions, open_configured, with_encrypted_keys
from unbroken.cli.options import with_settings
from unbroken.cli.settings import Settings, SettingsResult, known_settings, variable
from unbroken.errors import ConfigurationError, InvalidRequest, UnbrokenError
from unbroken.server import Keyring
from unbroken.server.stores import SessionStore, StoreProblem, store_type
from unbroken.server.stores.encrypted_keys import count_unencrypted
from unbroken.server.stores.migrations import schema_version

__all__ = ["Problem", "check", "store_problems"]


def store_problems(store: SessionStore, settings: Settings) -> Iterator[StoreProblem]:
    """Ask the store for its problems. Raises StoreUnavailable, or ConfigurationError."""
    run_sync(store.health())
    Keyring(run_sync(store.keys()))  # raises if they are encrypted, and cannot be decrypted
    for problem in run_sync(store.problems()):
        if is_for_others(settings) or not problem.in_production_only:
            yield problem


LOOKUP_SECONDS = 3.0
OF_OTHERS = ("UNBROKEN_STORE_KEY",)  # the client's
OTHERS = stat.S_IRWXG | stat.S_IRWXO
CODES = (
    "settings", "store", "schema", "durability", "eviction", "clock", "issuer", "issuer-name", "cookies", "proxy",
    "guard", "unsealed", "permissions", "memory",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that should be changed; *code* is stable."""

    code: str
    message: str


@with_settings()
def check(
    read: SettingsResult,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for programs.")] = False,
    ignore: Annotated[
        str, typer.Option("--ignore", metavar="CODES", help="What is meant to be as it is, as unsealed,proxy.")
    ] = "",
) -> int:
    """Say what is wrong with the configuration; exit status 1 if anything is."""
    ignored = set(filter(None, ignore.replace(",", " ").split()))
    if unknown := ignored - set(CODES):
        raise InvalidRequest(f"--ignore: there is no {min(unknown)!r}; the codes are {', '.join(CODES)}")
    problems = [problem for problem in _problems(read) if problem.code not in ignored]
    if as_json:
        file = str(read.file) if read.file else None
        print(json.dumps({"ok": not problems, "file": file, "problems": [asdict(one) for one in problems]}, indent=2))
    else:
        for problem in problems:
            print(f"{problem.code}: {' '.join(problem.message.split())}")
        if not problems:
            print(f"nothing is wrong{f' with {read.file}' if read.file else ''}")
    return int(bool(problems))


def _problems(read: SettingsResult) -> Iterator[Problem]:
    settings = read.settings
    for wrong in (*read.wrong, *contradictions(settings), *_misspelled()):
        yield Problem("settings", wrong)
    yield from _permissions(read)
    if is_for_others(settings):
        yield from _issuer(settings)
        yield from _guarded(settings)
    yield from _cookies(settings)
    yield from _proxy(settings)
    yield from _store(settings)


def _misspelled() -> Iterator[str]:
    """Variables that look like one of ours; those of other commands do not."""
    known = [variable(name) for name in known_settings()]
    for name in sorted(os.environ):
        if name.startswith("UNBROKEN_") and name not in known and name not in OF_OTHERS:
            for near in get_close_matches(name, known, 1, 0.9):
                yield f"{name} is no setting: is it {near}?"


def is_for_others(settings: Settings) -> bool:
    """Whether others than this machine are to be served."""
    return not is_loopback(settings.host) or urlsplit(settings.issuer).scheme == "https"


def _store(settings: Settings) -> Iterator[Problem]:
    try:
        with_encrypted_keys(settings)
        tables = None if _is_missing(settings.store) else schema_version(settings.store)
        if tables and tables.found not in (0, tables.known):  # without any, the first one who opens it makes them
            known = f"this unbroken knows schema {tables.known}: "
            then = "run unbroken db upgrade" if tables.found < tables.known else "upgrade unbroken"
            yield Problem("schema", f"the tables are of schema {tables.found}, {known}{then}")
            return
        store = open_configured(settings)
    except UnbrokenError as error:
        if str(error) not in contradictions(settings):
            yield Problem("store", str(error))
        return
    try:
        yield from (Problem(one.code, one.message) for one in store_problems(store, settings))
        if is_for_others(settings) and (unsealed := count_unencrypted(store)):
            yield Problem(
                "unsealed", f"{unsealed} keys lie unsealed in the store: set UNBROKEN_SEAL_KEY, then unbroken keys seal"
            )
    except UnbrokenError as error:
        yield Problem("store", str(error))
    finally:
        store.close()


def _is_missing(store: str) -> bool:
    """Whether the store is a file that is not there yet: it will be made."""
    path = _path_of(store)
    return path is not None and not os.path.exists(os.path.expanduser(path))


def _path_of(store: str) -> str | None:
    try:
        path = store_type(store).path
        return path(store) if path else None
    except ConfigurationError:
        return None  # opening the store says what is wrong


def _issuer(settings: Settings) -> Iterator[Problem]:
    if not settings.issuer:
        yield Problem("issuer", "there is no issuer: set it to the URL that clients know, as https://id.example.com")
        return
    parts = urlsplit(settings.issuer)
    if parts.scheme != "https":
        yield Problem("issuer", "the issuer is not https: tokens and passwords would cross the network in the clear")
    host = parts.hostname or ""
    if is_loopback(host):
        yield Problem("issuer", f"the issuer names this machine ({host}): others cannot reach it")
    elif not _has_address(host):
        yield Problem("issuer-name", f"the issuer's name {host} has no address here")


def _guarded(settings: Settings) -> Iterator[Problem]:
    if not settings.guard_enabled:
        yield Problem("guard", "the guard is off: passwords can be guessed as fast as they can be sent")


def _cookies(settings: Settings) -> Iterator[Problem]:
    if settings.cookies_mode == "off":
        return
    https = urlsplit(settings.issuer).scheme == "https"
    if settings.cookies_secure and not https and is_for_others(settings):
        yield Problem("cookies", "cookies need https, and the issuer is not https: browsers would not keep them")
    if not settings.cookies_secure and is_for_others(settings):
        yield Problem("cookies", "cookies are not secure: set secure = true in [cookies]")


def _proxy(settings: Settings) -> Iterator[Problem]:
    trusted = settings.forwarded_allow_ips
    for one in trusted:
        if one != "*" and not _is_network(one):
            yield Problem("proxy", f"forwarded_allow_ips: {one} is no address and no network")
    if "*" in trusted and is_for_others(settings):  # behind a proxy too: most append to what the client has written
        yield Problem("proxy", "forwarded_allow_ips is *: whoever reaches the port can say from where it comes")
    if not trusted and urlsplit(settings.issuer).scheme == "https":
        yield Problem(
            "proxy",
            "forwarded_allow_ips is not set: behind a proxy all clients have the proxy's address, and share its guard",
        )


def _permissions(read: SettingsResult) -> Iterator[Problem]:
    """Files with secrets are their owner's alone; a configuration that others can write is theirs."""
    settings = read.settings
    secrets = [settings.seal_key_file, settings.webhook_secret_file]
    if read.file and "@" in settings.store:
        secrets.append(str(read.file))
    if path := _path_of(settings.store):
        secrets.append(path)
    for path in filter(None, secrets):
        if (mode := _mode(path)) & OTHERS:
            yield Problem("permissions", f"{path} holds secrets, and others may use it: chmod {mode & 0o700:o} {path}")
    if read.file and str(read.file) not in secrets and _mode(str(read.file)) & (stat.S_IWGRP | stat.S_IWOTH):
        yield Problem("permissions", f"others may change {read.file}: chmod go-w {read.file}")


def _mode(path: str) -> int:
    try:
        return stat.S_IMODE(os.stat(os.path.expanduser(path)).st_mode)
    except OSError:
        return 0  # that it cannot be read is said elsewhere


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text)
    except ValueError:
        return False
    return True


def _has_address(host: str) -> bool:
    """Whether *host* can be looked up, in a bounded time."""
    found: list[object] = []

    def look() -> None:
        try:
            found.extend(socket.getaddrinfo(host, None))
        except (OSError, UnicodeError):
            return

    asking = threading.Thread(target=look, daemon=True)
    asking.start()
    asking.join(LOOKUP_SECONDS)
    return bool(found)
