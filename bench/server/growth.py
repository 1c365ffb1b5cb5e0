"""Does a refresh take longer among many sessions, and does anything grow that should not?

1. The many sessions are written by the store's own statement (SQLite) or by COPY (PostgreSQL), before anything is
   measured. Each has what a real session has: an issuer, an audience, an address, a browser's name and a party.
2. *Any* refresh: of a session drawn from all, so that among many it is not cached in this process, and must be read
   first. *Not cached*: the same among few. *Cached*: a thousand sessions, repeatedly.
3. Turns among few and among many alternate; each returns the median of its times.
"""

from __future__ import annotations

import hashlib
import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from bench.figure import Figure
from tests.support.services import postgres_server
from unbroken.server import Sessions, SqliteSessionStore, open_store
from unbroken.server.core.party import party_of
from unbroken.server.core.refresh_token import RefreshToken, row_key
from unbroken.server.core.rotation import SessionRow
from unbroken.server.core.user_agent import compact_user_agent
from unbroken.server.sessions import DEVELOPMENT_ISSUER
from unbroken.server.stores import SessionStore, postgres_statements, sqlite_statements
from unbroken.server.stores.migrations import upgrade_schema

FEW, MANY, MANY_IF_SMALL = 10_000, 1_000_000, 100_000
KNOWN = 1_000
TURNS, REFRESHES = 7, 1_500
ALL_REFRESHES = 100_000
BROWSER = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36"
SLOWER, BYTES = 1.2, 400.0


@dataclass
class Crowd:
    """A store with *n* sessions, and the tokens of their clients."""

    sessions: Sessions
    n: int
    generations: dict[int, int] = field(default_factory=dict)
    drawn: random.Random = field(default_factory=lambda: random.Random(7))

    def __post_init__(self) -> None:
        mac = self.sessions.keyring().mac(time.time())
        self._number, self._secret = mac.number, mac.secret

    def refresh(self, who: int) -> float:
        """Return the seconds of one refresh of session number *who*."""
        g = self.generations.get(who, 0)
        token = RefreshToken(_f_of(who), g, 0).encode(self._number, self._secret)
        began = time.perf_counter()
        self.sessions.refresh(token)
        took = time.perf_counter() - began
        self.generations[who] = g + 1
        return took

    def turn(self, among: int, *, forgetful: bool) -> float:
        """Return the median of the refreshes of a turn, in microseconds. *forgetful*: none of them is cached."""
        times = []
        for _ in range(REFRESHES):
            if forgetful:
                self.sessions._issuer._rows.clear()
            times.append(self.refresh(self.drawn.randrange(among)))
        return statistics.median(times) * 1e6


def figures(*, small: bool = False) -> Iterator[Figure]:
    many = MANY_IF_SMALL if small else MANY
    for name, crowds in (("SQLite", _in_sqlite), ("PostgreSQL", _in_postgres)):
        with crowds(many) as (few, crowd, sizes):
            yield from _times(name, few, crowd)
            yield from _rows(name, few, sizes)


def _times(name: str, few: Crowd, many: Crowd) -> Iterator[Figure]:
    for who in range(FEW):  # each of the few was here before; so were some of the many
        few.refresh(who)
        many.refresh(many.drawn.randrange(many.n))
    kinds = (
        ("anybody's refresh", None, False),
        ("a refresh that the process has not seen before", None, True),
        (f"the refresh of one of {KNOWN:,} cached", KNOWN, False),
    )
    for what, among, forgetful in kinds:
        times: dict[str, list[float]] = {"few": [], "many": []}
        for turn in range(TURNS + 1):
            taken = [one.turn(among or one.n, forgetful=forgetful) for one in (few, many)]
            if turn:
                times["few"].append(taken[0])
                times["many"].append(taken[1])
        ratios = [slow / quick for slow, quick in zip(times["many"], times["few"], strict=True)]
        yield Figure(f"{name}: p50 of {what}, among {few.n:,}", statistics.median(times["few"]), "µs")
        yield Figure(f"{name}: the same among {many.n:,}", statistics.median(times["many"]), "µs")
        said = f"x ({min(ratios):.2f} to {max(ratios):.2f})"
        ratio = statistics.median(ratios)
        yield Figure(f"{name}: ratio of many to few", ratio, said, f"at most {SLOWER:g}", ratio <= SLOWER)


def _rows(name: str, few: Crowd, sizes: Sizes) -> Iterator[Figure]:
    if sizes.a_session:
        size = sizes.a_session
        yield Figure(f"{name}: one session, with all indexes", size, "bytes", f"at most {BYTES:g}", size <= BYTES)
        yield Figure(f"{name}: the same without address and browser", sizes.a_small_one, "bytes")
    before, began = sizes.now(), time.perf_counter()
    with ThreadPoolExecutor(4 if name == "PostgreSQL" else 1) as threads:
        parts = [range(part, few.n, 4) for part in range(4)]
        list(threads.map(lambda part: [few.refresh(who) for _ in range(ALL_REFRESHES // few.n) for who in part], parts))
    after = sizes.now()
    added, seconds = after[0] - before[0], time.perf_counter() - began
    yield Figure(f"{name}: rows added by {ALL_REFRESHES:,} refreshes ({seconds:.0f} s)", added, "rows", "0", added == 0)
    yield Figure(f"{name}: ratio of its size after them to before", after[1] / before[1], "x")


@dataclass
class Sizes:
    """The rows and bytes of the few sessions; PostgreSQL: the bytes of one of the many."""

    counts: Any
    a_session: float = 0.0
    a_small_one: float = 0.0

    def now(self) -> tuple[int, int]:
        """Return all rows of all tables, and their bytes."""
        found: tuple[int, int] = self.counts()
        return found


def _f_of(who: int) -> bytes:
    return hashlib.sha256(b"%d" % who).digest()[:16]


def _made(who: int, now: float, *, small: bool = False) -> SessionRow:
    f = _f_of(who)
    about = {"issuer": DEVELOPMENT_ISSUER, "audience": "unbroken"}
    if not small:
        about |= {"ip": (ip := f"203.0.113.{who % 250}"), "user_agent": compact_user_agent(BROWSER)}
        about["presenter"] = party_of(ip, BROWSER)
    ends = {"idle_expires_at": now + 7 * 86400.0, "expires_at": now + 90 * 86400.0}
    sid = hashlib.sha256(f).hexdigest()[:22]  # as long as a real one
    return SessionRow(row_key(f), sid, f"user-{who}", now, now, **ends, client_id="first-party", **about)


# ---- SQLite --------------------------------------------------------------------------------------------------------


@contextmanager
def _in_sqlite(n: int) -> Iterator[tuple[Crowd, Crowd, Sizes]]:
    with tempfile.TemporaryDirectory(prefix="unbroken-bench-") as folder:
        few, many = (_sqlite(Path(folder) / f"{size}.db", size) for size in (FEW, n))
        db = few.sessions.store._file.connection(durable=False)  # type: ignore[attr-defined]  # the store has no method that counts pages

        def counts() -> tuple[int, int]:
            names = ("session", "revocation", "key", "account", "marker")
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            return sum(db.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in names), (
                db.execute("PRAGMA page_count").fetchone()[0] * 4096
            )

        yield few, many, Sizes(counts)
        for crowd in (few, many):
            crowd.sessions.close()


def _sqlite(path: Path, n: int) -> Crowd:
    store, now = SqliteSessionStore(path), time.time()
    db = store._file.connection(durable=False)
    for setting in ("synchronous = OFF", "cache_size = -600000"):
        db.execute(f"PRAGMA {setting}")
    for start in range(0, n, 50_000):
        db.execute("BEGIN")
        db.executemany(
            sqlite_statements.INSERT, (astuple(_made(who, now)) for who in range(start, min(start + 50_000, n)))
        )
        db.execute("COMMIT")
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    store.close()
    return Crowd(Sessions(SqliteSessionStore(path)), n)


# ---- PostgreSQL ----------------------------------------------------------------------------------------------------


@contextmanager
def _in_postgres(n: int) -> Iterator[tuple[Crowd, Crowd, Sizes]]:
    with postgres_server() as server:
        stores: dict[str, SessionStore] = {}
        with psycopg.connect(server.url, autocommit=True) as connection:
            for name in ("few", "many", "small"):
                connection.execute(f"CREATE DATABASE {name}")
                upgrade_schema(url := server.url.replace("/postgres", f"/{name}"))
                stores[name] = open_store(url)
        urls = {name: server.url.replace("/postgres", f"/{name}") for name in stores}
        sizes = [
            _copied(urls["small"], 20_000, small=True),
            _copied(urls["few"], FEW),
            _copied(urls["many"], n),
        ]
        few, many = Crowd(Sessions(stores["few"]), FEW), Crowd(Sessions(stores["many"]), n)
        with psycopg.connect(urls["few"], autocommit=True) as connection:
            yield few, many, Sizes(lambda: _postgres_counts(connection), sizes[2], sizes[0])
        for crowd in (few, many):
            crowd.sessions.close()
        stores["small"].close()


def _copied(url: str, n: int, *, small: bool = False) -> float:
    """Write *n* sessions; return the bytes of one."""
    now = time.time()
    with psycopg.connect(url, autocommit=True) as connection:
        copy = f"COPY unbroken_session ({postgres_statements.COLUMNS}) FROM STDIN"
        with connection.cursor().copy(copy) as into:
            for who in range(n):
                into.write_row(astuple(_made(who, now, small=small)))
        connection.execute("VACUUM ANALYZE unbroken_session")
        connection.execute("CHECKPOINT")
        return _relation_size(connection) / n


def _relation_size(connection: psycopg.Connection[Any]) -> int:
    found: Any = connection.execute("SELECT pg_total_relation_size('unbroken_session')").fetchone()
    return int(found[0])


def _postgres_counts(connection: psycopg.Connection[Any]) -> tuple[int, int]:
    rows = 0
    for table in ("session", "revocation", "key", "account", "marker"):
        found: Any = connection.execute(f"SELECT count(*) FROM unbroken_{table}").fetchone()
        rows += found[0]
    return rows, _relation_size(connection)
