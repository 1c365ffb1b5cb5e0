"""Stores with very many sessions, made quickly and honestly: the rows are those that logins and refreshes leave.

1. SQLite and PostgreSQL make the rows themselves, from a number: keys, sids and secrets are those that ``growth._f_of``
   gives, so that a token of any session can be made. Each row is as a login leaves it, with an issuer, an audience, an
   address, a browser's name and a party. Its refreshes make it longer, within the free space of its page.
2. In SQLite three tenths of the rows come in random order, as logins do: they split pages that are full. In PostgreSQL
   the indexes are made after the rows.
3. Of each ten sessions one has expired, to be purged. ``PER_SUBJECT`` sessions belong to one subject.
4. Redis has no such language: its sessions are made by the store.
"""

from __future__ import annotations

import hashlib
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psycopg

from bench.server.growth import BROWSER, _made
from tests.support.services import postgres_server, redis_server
from unbroken._concurrency import run_sync
from unbroken.server import SqliteSessionStore, open_store
from unbroken.server.core.party import party_of
from unbroken.server.core.user_agent import compact_user_agent
from unbroken.server.sessions import DEVELOPMENT_ISSUER
from unbroken.server.stores.migrations import upgrade_schema

PER_SUBJECT = 5
EXPIRED_OF_TEN = 1
RANDOM_PART = 0.3
IP = "203.0.113.9"
DAY = 86400.0


@dataclass(frozen=True)
class Filled:
    """The URL of a store with *n* sessions. ``seconds``: how long they took to make. ``sizes``: bytes, by name."""

    url: str
    n: int
    seconds: float
    sizes: dict[str, float]


@contextmanager
def filled(store: str, n: int) -> Iterator[Filled]:
    """Yield *store* (``SQLite``, ``PostgreSQL`` or ``Redis``) with *n* sessions."""
    with MAKERS[store](n) as made:
        yield made


def values(now: float) -> dict[str, Any]:
    """Return the columns that all rows have in common."""
    return {
        "created_at": now - 2 * DAY,
        "used_at": now,
        "client_id": "first-party",
        "scope": "",
        "issuer": DEVELOPMENT_ISSUER,
        "audience": "unbroken",
        "generation": 0,
        "branch": 0,
        "presenter": party_of(IP, BROWSER),
        "label": "",
        "ip": IP,
        "user_agent": compact_user_agent(BROWSER),
    }


# ---- SQLite --------------------------------------------------------------------------------------------------------


@contextmanager
def _sqlite(n: int) -> Iterator[Filled]:
    with tempfile.TemporaryDirectory(prefix="unbroken-scale-") as folder:
        path = Path(folder) / "scale.db"
        SqliteSessionStore(path).close()
        began = time.perf_counter()
        with sqlite3.connect(path, isolation_level=None) as db:
            _fill_sqlite(db, n)
            pages = db.execute("PRAGMA page_count").fetchone()[0] * db.execute("PRAGMA page_size").fetchone()[0]
        db.close()
        yield Filled(f"sqlite:///{path}", n, time.perf_counter() - began, {"the file": pages / n})


def _fill_sqlite(db: sqlite3.Connection, n: int) -> None:
    now, common = time.time(), values(time.time())
    db.create_function("sha256", 1, lambda value: hashlib.sha256(_bytes(value)).digest(), deterministic=True)
    for setting in ("synchronous = OFF", "cache_size = -4000000", "temp_store = MEMORY"):
        db.execute(f"PRAGMA {setting}")
    columns = ["key", "sid", "subject", "idle_expires_at", "expires_at", "coordinated", *common]
    ordered = int(n * (1 - RANDOM_PART))
    db.execute("BEGIN")
    for first, end, order in ((0, ordered, "ORDER BY key"), (ordered, n, "")):
        db.execute(
            f"""
            INSERT INTO session ({", ".join(columns)})
            WITH RECURSIVE
                numbers (who) AS (SELECT {first} UNION ALL SELECT who + 1 FROM numbers WHERE who + 1 < {end}),
                made AS (SELECT who, sha256(substr(sha256(CAST(who AS TEXT)), 1, 16)) AS key FROM numbers)
            SELECT key, substr(lower(hex(key)), 1, 22), 'user-' || (who / {PER_SUBJECT}),
                {now} + 7 * {DAY}, {now} + iif(who % 10 < {EXPIRED_OF_TEN}, -1.0, 90 * {DAY}), 0,
                {", ".join(f":{name}" for name in common)}
            FROM made {order}
            """,
            common,
        )
    db.execute("COMMIT")
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


# ---- PostgreSQL ----------------------------------------------------------------------------------------------------


@contextmanager
def _postgres(n: int) -> Iterator[Filled]:
    with postgres_server() as server:
        upgrade_schema(server.url)
        began = time.perf_counter()
        with psycopg.connect(server.url, autocommit=True) as db:
            _fill_postgres(db, n)
            sizes = {"the table": _size(db, "pg_table_size('unbroken_session')") / n}
            for (index,) in db.execute("SELECT indexname FROM pg_indexes WHERE tablename = 'unbroken_session'"):
                sizes[index.removeprefix("unbroken_")] = _size(db, f"pg_relation_size('{index}')") / n
        yield Filled(server.url, n, time.perf_counter() - began, sizes)


def _fill_postgres(db: psycopg.Connection[Any], n: int) -> None:
    now, common = time.time(), values(time.time())
    indexes = db.execute("SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'unbroken_session'").fetchall()
    for name, _ in indexes:  # rule 2
        db.execute(f"DROP INDEX {name}")
    columns = ["key", "sid", "subject", "idle_expires_at", "expires_at", "coordinated", *common]
    db.execute(
        f"""
        INSERT INTO unbroken_session ({", ".join(columns)})
        SELECT key, left(encode(key, 'hex'), 22), 'user-' || (who / {PER_SUBJECT}),
            {now} + 7 * {DAY}, {now} + CASE WHEN who %% 10 < {EXPIRED_OF_TEN} THEN -1.0 ELSE 90 * {DAY} END,
            false, {", ".join(f"%({name})s" for name in common)}
        FROM (
            SELECT who, sha256(substring(sha256(who::text::bytea) FROM 1 FOR 16)) AS key
            FROM generate_series(0, {n - 1}) AS who
        ) AS made
        """,
        common,
    )
    for _, definition in indexes:
        db.execute(definition)
    db.execute("VACUUM ANALYZE unbroken_session")
    db.execute("CHECKPOINT")


def _size(db: psycopg.Connection[Any], what: str) -> int:
    found: Any = db.execute(f"SELECT {what}").fetchone()
    return int(found[0])


# ---- Redis ---------------------------------------------------------------------------------------------------------


@contextmanager
def _redis(n: int) -> Iterator[Filled]:
    import redis

    with redis_server() as server:
        store, client, now = open_store(server.url), redis.Redis.from_url(server.url), time.time()
        before, began = client.info("memory")["used_memory"], time.perf_counter()
        for who in range(n):
            row = replace(_made(who, now), subject=f"user-{who // PER_SUBJECT}")
            run_sync(store.insert(row))
        seconds = time.perf_counter() - began
        used = client.info("memory")["used_memory"] - before
        client.close()
        store.close()
        yield Filled(server.url, n, seconds, {"memory": used / n})


MAKERS = {"SQLite": _sqlite, "PostgreSQL": _postgres, "Redis": _redis}
