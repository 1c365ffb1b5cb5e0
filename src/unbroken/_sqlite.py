"""SQLite files that processes share: whose file it is, the switch to WAL, forks.

1. The file of another program is refused before anything in it changes, its journal mode included.
2. The switch to WAL needs the file alone, and SQLite does not wait for that by itself: it is tried until the time is
   over. Any number of processes may open a new file at once.
3. SQLite remembers the locks of a process in its memory. A forked child would inherit the memory without the locks, so
   a connection is open inside ``fork_gate`` only, or is closed before a fork by ``close_before_fork``.
"""

from __future__ import annotations

import contextlib
import random
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from unbroken._concurrency import ForkGate
from unbroken.errors import ConfigurationError

__all__ = ["BUSY_CODES", "fork_gate", "require_own_file", "use_wal"]

BUSY_CODES = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
FIRST_PAUSE_SECONDS, MAX_PAUSE_SECONDS = 0.001, 0.05

fork_gate = ForkGate()  # rule 3


def require_own_file(database: sqlite3.Connection, path: Path, application_id: int) -> int:
    """Return the schema number, which is 0 for an empty file.

    Raise ConfigurationError if the file has tables, but not our *application_id* (rule 1).
    """
    with _one_snapshot(database):
        [[owner]] = database.execute("PRAGMA application_id").fetchall()
        [[version]] = database.execute("PRAGMA user_version").fetchall()
        [[tables]] = database.execute("SELECT count(*) FROM sqlite_master").fetchall()
    if owner != application_id and (owner or version or tables):
        raise ConfigurationError(f"{path} is a database of another program: name another file")
    return int(version)


@contextlib.contextmanager
def _one_snapshot(database: sqlite3.Connection) -> Iterator[None]:
    """Keep other processes from making the tables between two statements of the block."""
    if database.in_transaction:
        yield
        return
    database.execute("BEGIN")
    try:
        yield
    finally:
        database.execute("COMMIT")


def use_wal(database: sqlite3.Connection, seconds: float) -> None:
    """Switch the file to WAL mode if it is in another, within *seconds* (rule 2). Raise sqlite3.OperationalError."""
    ends, pause = time.monotonic() + seconds, FIRST_PAUSE_SECONDS
    while True:
        try:
            database.execute("PRAGMA journal_mode = WAL").fetchall()
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF not in BUSY_CODES or time.monotonic() >= ends:
                raise
        time.sleep(pause * (0.5 + random.random()))  # noqa: S311  # spreads load only
        pause = min(pause * 2, MAX_PAUSE_SECONDS)
