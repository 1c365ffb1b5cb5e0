"""``unbroken check``: what is wrong with the configuration, a line each.

1. Exit status 0: nothing was found. 1: something was; each line begins with a stable word, which ``--ignore`` takes.
2. What only matters in production is looked for when the server is meant for others: at an address that is not
   loopback, or with an issuer in https.
3. No line repeats a secret. The store is asked; what is in it is not changed.

What ``unbroken check`` asks of a store: whether it answers, keeps what it was told, and has the right time.
"""

from __future__ import annotations

import ipaddress
import json
import os
import socket
import stat
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer

from unbroken._origins import is_loopback
from unbroken._sync import run_sync
from unbroken.cli.build import contradictions, open_configured, with_encrypted_keys
from unbroken.cli.options import with_settings
from unbroken.cli.settings import Settings, SettingsResult, known_settings, variable
from unbroken.errors import InvalidRequest, UnbrokenError
from unbroken.server import Keyring, MemorySessionStore
from unbroken.server.stores import SessionStore, StoreWrapper
from unbroken.server.stores.encrypted_keys import count_unencrypted
from unbroken.server.stores.migrations import schema_version

__all__ = ["Problem", "check", "store_problems"]

SKEW = 2.0  # seconds between two clocks that harm nobody
Found = Iterator[tuple[str, str]]


def store_problems(store: SessionStore, settings: Settings) -> Found:
    """Each problem as its code and its line. Raises StoreUnavailable, or ConfigurationError."""
    run_sync(store.health())
    Keyring(run_sync(store.keys()))  # which says so if they are sealed, and cannot be opened
    inside: Any = store.inside if isinstance(store, StoreWrapper) else store
    kind = type(inside).__name__
    if isinstance(inside, MemorySessionStore):
        if settings.issuer.startswith("https:"):
            yield "memory", "the store is memory: all sessions and accounts end with this process"
    elif kind == "PostgresSessionStore":
        yield from _postgres(inside)
    elif kind == "RedisSessionStore":
        yield from _redis(inside)


def _postgres(store: Any) -> Found:
    began = time.time()
    rows = run_sync(
        store._sql.rows(
            "SELECT extract(epoch FROM clock_timestamp())::float8, current_setting('fsync'),"
            " (SELECT reset_val FROM pg_settings WHERE name = 'synchronous_commit'),"
            " current_setting('full_page_writes')"
        )
    )
    now, fsync, commit, pages = rows[0]
    yield from _clock(began, float(now))
    if fsync != "on":
        yield "durability", "PostgreSQL runs with fsync off: a crash can destroy all of it"
    if commit == "off":
        yield "durability", "PostgreSQL's synchronous_commit is off: set it to on; unbroken relaxes it where it may"
    if pages != "on":
        yield "durability", "PostgreSQL runs with full_page_writes off: a crash can destroy pages"


def _redis(store: Any) -> Found:
    began = time.time()
    seconds, micros = run_sync(store._ask("TIME"))
    yield from _clock(began, int(seconds) + int(micros) / 1e6)
    config = _config(store)
    if config.get("appendonly") == "no":
        yield "durability", "Redis runs with appendonly no: a restart forgets sessions; set appendonly yes"
    elif config.get("appendfsync") == "no":
        yield "durability", "Redis runs with appendfsync no: a power cut forgets logins; set appendfsync everysec"
    policy = config.get("maxmemory-policy", "noeviction")
    if policy != "noeviction" and config.get("maxmemory", "0") != "0":
        yield "eviction", f"Redis may throw sessions away (maxmemory-policy {policy}): set maxmemory-policy noeviction"


def _config(store: Any) -> dict[str, str]:
    """The settings of Redis; none where it does not tell, as with most hosted ones."""
    found: dict[str, str] = {}
    for name in ("appendonly", "appendfsync", "maxmemory", "maxmemory-policy"):
        try:
            answer = run_sync(store._ask("CONFIG", "GET", name))
        except UnbrokenError:
            return found
        pairs = answer.items() if isinstance(answer, dict) else zip(answer[::2], answer[1::2], strict=False)
        found |= {_text(key): _text(value) for key, value in pairs}
    return found


def _clock(began: float, theirs: float) -> Found:
    """Compares clocks; that the store took its time to answer is no difference."""
    ended = time.time()
    off = theirs - ended if theirs > ended else theirs - began if theirs < began else 0.0
    if abs(off) > SKEW:
        yield "clock", f"the store's clock is {abs(off):.0f} s {'ahead of' if off > 0 else 'behind'} this one: use NTP"


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


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
        yield from (Problem(code, message) for code, message in store_problems(store, settings))
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
    return store.startswith("sqlite:///") and not os.path.exists(os.path.expanduser(store.removeprefix("sqlite:///")))


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
    if settings.store.startswith("sqlite:///"):
        secrets.append(settings.store.removeprefix("sqlite:///"))
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
