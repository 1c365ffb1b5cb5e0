"""What ``unbroken check`` asks of a store: whether it answers, keeps what it was told, and has the right time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from unbroken._once import run_once
from unbroken.cli.settings import Settings
from unbroken.errors import UnbrokenError
from unbroken.server import Keyring, MemoryStore
from unbroken.server.stores import Store
from unbroken.server.stores.around import Around

__all__ = ["store_problems"]

SKEW = 2.0  # seconds between two clocks that harm nobody
Found = Iterator[tuple[str, str]]


def store_problems(store: Store, settings: Settings) -> Found:
    """Each problem as its code and its line. Raises StoreUnavailable, or ConfigurationError."""
    run_once(store.health())
    Keyring(run_once(store.keys()))  # which says so if they are sealed, and cannot be opened
    inside: Any = store.inside if isinstance(store, Around) else store
    kind = type(inside).__name__
    if isinstance(inside, MemoryStore):
        if settings.issuer.startswith("https:"):
            yield "memory", "the store is memory: all sessions and accounts end with this process"
    elif kind == "PostgresStore":
        yield from _postgres(inside)
    elif kind == "RedisStore":
        yield from _redis(inside)


def _postgres(store: Any) -> Found:
    began = time.time()
    rows = run_once(
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
    seconds, micros = run_once(store._ask("TIME"))
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
            answer = run_once(store._ask("CONFIG", "GET", name))
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
