"""``unbroken check``: what is wrong with the configuration, one line for each problem.

1. Exit status 0: no problems; 1: problems. Each line begins with a stable code, which ``--ignore`` takes.
2. What matters in production only is checked if other machines are served: on an address that is not loopback, or
   with an issuer in https.
3. No line repeats a secret. The store is opened and read; nothing in it changes.
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
from typing import Literal, get_args
from urllib.parse import urlsplit

import click

from unbroken._concurrency import run_sync
from unbroken._http import is_loopback
from unbroken.cli.build import build_store, conflicts, encryption_keys
from unbroken.cli.options import environment_variable, option
from unbroken.cli.settings import Settings, SettingsResult, setting_definitions, with_settings
from unbroken.cli.terminal import say
from unbroken.errors import ConfigurationError, InvalidRequest, UnbrokenError
from unbroken.server import Keyring
from unbroken.server.stores import SessionStore, StoreProblem, store_type
from unbroken.server.stores.base import KEY_FILE_SUFFIX
from unbroken.server.stores.encrypted_keys import count_unencrypted, encrypted_by_default
from unbroken.server.stores.migrations import schema_version

__all__ = ["Problem", "check", "store_problems"]

Code = Literal[
    "settings", "store", "schema", "durability", "eviction", "clock", "issuer", "issuer-name", "cookies", "proxy",
    "rate-limit", "unencrypted", "permissions", "memory",
]  # fmt: skip
CODES: tuple[Code, ...] = get_args(Code)

LOOKUP_SECONDS = 3.0
CLIENT_VARIABLES = ("UNBROKEN_STORE_KEY",)  # of the client, and close to a setting's name
NOT_FOR_OWNER = stat.S_IRWXG | stat.S_IRWXO


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to change."""

    code: Code
    message: str


@click.command()
@option("--json", "as_json", is_flag=True, help="Print JSON.")
@option("--ignore", default="", metavar="CODES", help="Codes of problems that are intended, such as unencrypted,proxy.")
@with_settings()
def check(result: SettingsResult, as_json: bool, ignore: str) -> int:
    """Check the configuration; exit status 1 if anything is wrong."""
    ignored = set(filter(None, ignore.replace(",", " ").split()))
    if unknown := ignored - set(CODES):
        raise InvalidRequest(f"--ignore: there is no code {min(unknown)!r}; the codes are {', '.join(CODES)}")
    problems = [problem for problem in _find_problems(result) if problem.code not in ignored]
    if as_json:
        file = str(result.file) if result.file else None
        say(json.dumps({"ok": not problems, "file": file, "problems": [asdict(one) for one in problems]}, indent=2))
        return int(bool(problems))
    for problem in problems:
        say(f"{problem.code}: {' '.join(problem.message.split())}")
    if not problems:
        say(f"no problems{f' with {result.file}' if result.file else ''}")
    return int(bool(problems))


def _find_problems(result: SettingsResult) -> Iterator[Problem]:
    settings = result.settings
    for message in (*result.problems, *conflicts(settings), *_misspelled_variables()):
        yield Problem("settings", message)
    yield from _check_permissions(result)
    if serves_others(settings):  # rule 2
        yield from _check_issuer(settings)
        yield from _check_rate_limit(settings)
    yield from _check_cookies(settings)
    yield from _check_proxy(settings)
    yield from _check_store(settings)


def serves_others(settings: Settings) -> bool:
    """Return whether the server is for other machines than this one."""
    return not is_loopback(settings.host) or urlsplit(settings.issuer).scheme == "https"


# ---- settings --------------------------------------------------------------------------------------------------------


def _misspelled_variables() -> Iterator[str]:
    """Yield a line for each variable that is almost a setting's. Other commands have variables too."""
    known = [environment_variable(name) for name in setting_definitions()]
    for name in sorted(os.environ):
        if name.startswith("UNBROKEN_") and name not in known and name not in CLIENT_VARIABLES:
            for near in get_close_matches(name, known, 1, 0.9):
                yield f"{name} is not a setting: did you mean {near}?"


def _check_issuer(settings: Settings) -> Iterator[Problem]:
    if not settings.issuer:
        yield Problem(
            "issuer", "there is no issuer: set it to the URL that clients use, such as https://id.example.com"
        )
        return
    parts = urlsplit(settings.issuer)
    if parts.scheme != "https":
        yield Problem("issuer", "the issuer is not https: tokens and passwords would cross the network unencrypted")
    host = parts.hostname or ""
    if is_loopback(host):
        yield Problem("issuer", f"the issuer is this machine ({host}): other machines cannot reach it")
    elif not _has_address(host):
        yield Problem("issuer-name", f"the issuer's host {host} has no address in the DNS of this machine")


def _has_address(host: str) -> bool:
    """Return whether *host* can be resolved within LOOKUP_SECONDS."""
    found: list[object] = []

    def resolve() -> None:
        try:
            found.extend(socket.getaddrinfo(host, None))
        except (OSError, UnicodeError):
            return

    thread = threading.Thread(target=resolve, daemon=True)  # getaddrinfo has no timeout
    thread.start()
    thread.join(LOOKUP_SECONDS)
    return bool(found)


def _check_rate_limit(settings: Settings) -> Iterator[Problem]:
    if not settings.rate_limit_enabled:
        yield Problem("rate-limit", "the rate limit is off: passwords can be guessed without a limit")


def _check_cookies(settings: Settings) -> Iterator[Problem]:
    if settings.cookies_mode == "off" or not serves_others(settings):
        return
    if not settings.cookies_secure:
        yield Problem("cookies", "cookies are not secure: set secure = true in [cookies]")
    elif urlsplit(settings.issuer).scheme != "https":
        yield Problem("cookies", "cookies need https, and the issuer is not https: browsers would drop them")


def _check_proxy(settings: Settings) -> Iterator[Problem]:
    trusted = settings.forwarded_allow_ips
    for address in trusted:
        if address != "*" and not _is_network(address):
            yield Problem("proxy", f"forwarded_allow_ips: {address} is neither an address nor a network")
    if "*" in trusted and serves_others(settings):  # behind a proxy too: most append to what the client sent
        yield Problem(
            "proxy", "forwarded_allow_ips is *: every client can choose the address that is logged and limited"
        )
    if not trusted and urlsplit(settings.issuer).scheme == "https":
        yield Problem(
            "proxy",
            "forwarded_allow_ips is not set: behind a proxy all clients have its address, and share one rate limit",
        )


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text)
    except ValueError:
        return False
    return True


# ---- files -----------------------------------------------------------------------------------------------------------


def _check_permissions(result: SettingsResult) -> Iterator[Problem]:
    """Only the owner may use a file with secrets, and only the owner may change the configuration."""
    settings = result.settings
    secrets = [settings.encryption_key_file, settings.webhook_secret_file]
    if result.file and "@" in settings.store:
        secrets.append(str(result.file))
    if path := _path_of(settings.store):
        secrets += [path, path + KEY_FILE_SUFFIX]
    for path in filter(None, secrets):
        if (mode := _mode(path)) & NOT_FOR_OWNER:
            message = f"{path} contains secrets, and other users may access it: chmod {mode & 0o700:o} {path}"
            yield Problem("permissions", message)
    if result.file and str(result.file) not in secrets and _mode(str(result.file)) & (stat.S_IWGRP | stat.S_IWOTH):
        yield Problem("permissions", f"other users may change {result.file}: chmod go-w {result.file}")


def _mode(path: str) -> int:
    try:
        return stat.S_IMODE(os.stat(os.path.expanduser(path)).st_mode)
    except OSError:
        return 0  # a file that cannot be read is another problem


# ---- the store -------------------------------------------------------------------------------------------------------


def _check_store(settings: Settings) -> Iterator[Problem]:
    try:
        encryption_keys(settings)
        version = None if _is_missing(settings.store) else schema_version(settings.store)
        if version and version.found not in (0, version.known):  # 0: the first process that opens it makes the tables
            action = "run `unbroken db upgrade`" if version.found < version.known else "upgrade unbroken"
            known = f"this unbroken knows schema {version.known}"
            yield Problem("schema", f"the tables have schema {version.found}, {known}: {action}")
            return
        store = encrypted_by_default(build_store(settings), read_only=True)
    except UnbrokenError as error:
        if str(error) not in conflicts(settings):
            yield Problem("store", str(error))
        return
    try:
        yield from (Problem(one.code, one.message) for one in store_problems(store, settings))
        if serves_others(settings) and not _path_of(settings.store) and (count := count_unencrypted(store)):
            message = f"{count} keys in the store are not encrypted: set UNBROKEN_ENCRYPTION_KEY, then run"
            yield Problem("unencrypted", f"{message} `unbroken keys encrypt`")  # those in a file: the next start does
    except UnbrokenError as error:
        yield Problem("store", str(error))
    finally:
        store.close()


def store_problems(store: SessionStore, settings: Settings) -> Iterator[StoreProblem]:
    """Yield what is wrong with the store's server. Raise StoreUnavailable or ConfigurationError."""
    run_sync(store.health())
    Keyring(run_sync(store.keys()))  # raises ConfigurationError if they cannot be decrypted
    for problem in run_sync(store.problems()):
        if serves_others(settings) or not problem.in_production_only:  # rule 2
            yield problem


def _is_missing(store: str) -> bool:
    """Return whether the store is a file that does not exist yet: it will be made."""
    path = _path_of(store)
    return path is not None and not os.path.exists(os.path.expanduser(path))


def _path_of(store: str) -> str | None:
    try:
        path = store_type(store).path
        return path(store) if path else None
    except ConfigurationError:
        return None  # opening the store reports it
