"""Tokens in a SQLite file, shared by the processes of one machine, also where there is no ``flock``.

1. Each call opens its own connection: so the store may be used by any thread, and after a fork.
2. A save is one statement that compares and sets, and durable when it returns.
3. The lock is a lease in the same row (``lease.py``).
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from unbroken.client.core.record import EMPTY, Lease, StoredSession
from unbroken.client.stores.codec import CorruptRecord, EncryptionKey, SessionCodec
from unbroken.client.stores.lease import LEASE_SECONDS, LeaseLock
from unbroken.errors import StoreUnavailable

__all__ = ["SqliteStore"]

TABLE = """
    CREATE TABLE IF NOT EXISTS unbroken_tokens (
        name TEXT PRIMARY KEY, stamp TEXT NOT NULL, data BLOB, holder TEXT, held_until REAL
    ) WITHOUT ROWID
"""
LOAD = "SELECT data FROM unbroken_tokens WHERE name = ?"
SAVE = "UPDATE unbroken_tokens SET stamp = ?, data = ? WHERE name = ? AND stamp = ?"
BEGIN = "INSERT INTO unbroken_tokens (name, stamp) VALUES (?, ?) ON CONFLICT DO NOTHING"
TAKE = """
    UPDATE unbroken_tokens SET holder = ?, held_until = ?
    WHERE name = ? AND (held_until IS NULL OR held_until < ? OR holder = ?)
"""
LENGTHEN = "UPDATE unbroken_tokens SET held_until = ? WHERE name = ? AND holder = ?"
GIVE_BACK = "UPDATE unbroken_tokens SET holder = NULL, held_until = NULL WHERE name = ? AND holder = ?"


class SqliteStore:
    """Tokens in the SQLite file at *path*, for the session called *name*. *key* seals them (``form.py``).

    *lease* is how long a holder of the renewal lock that died is waited for, in seconds.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        name: str = "default",
        *,
        key: EncryptionKey | None = None,
        lease: float = LEASE_SECONDS,
    ) -> None:
        self.path, self.name, self.lease = Path(os.path.realpath(Path(path).expanduser())), name, lease
        self._lender = LeaseLock(self)
        self._key, self._form = key, SessionCodec(f"the session {name!r} in {self.path}", key)
        with self._opened() as database:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute(TABLE)
            database.execute(BEGIN, (self.name, EMPTY.stamp))
        if os.name == "posix":
            os.chmod(self.path, 0o600)

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (self.path, self.name, self._key, self.lease))

    def load(self) -> StoredSession:
        """The record as it stands now; ``EMPTY`` when there is none."""
        with self._opened() as database:
            found = database.execute(LOAD, (self.name,)).fetchone()
        if found is None or found[0] is None:
            return EMPTY
        try:
            return self._form.decode(found[0] if isinstance(found[0], bytes) else str(found[0]).encode())
        except CorruptRecord as error:
            raise StoreUnavailable(f"{error}: remove it, and log in again") from error

    def save(self, record: StoredSession, expected: StoredSession) -> bool:
        """Replaces *expected* by *record*, durably; False if it is another one now."""
        with self._opened() as database:
            database.execute(BEGIN, (self.name, EMPTY.stamp))
            values = (record.stamp, self._form.encode(record), self.name, expected.stamp)
            return bool(database.execute(SAVE, values).rowcount)

    def lock(self, timeout: float) -> AbstractContextManager[Lease]:
        """Held by one renewal at a time. Raises StoreBusy after *timeout* seconds, or StoreUnavailable."""
        return self._lender.acquire(timeout)

    def take_lease(self, holder: str) -> bool:
        """Lends the lock to *holder*, if nobody else has it now."""
        now = time.time()
        with self._opened() as database:
            return bool(database.execute(TAKE, (holder, now + self.lease, self.name, now, holder)).rowcount)

    def extend_lease(self, holder: str) -> bool:
        """Lends the lock for another while, if *holder* was the last to have it."""
        with self._opened() as database:
            return bool(database.execute(LENGTHEN, (time.time() + self.lease, self.name, holder)).rowcount)

    def release_lease(self, holder: str) -> None:
        """Frees the lock, if *holder* has it."""
        with self._opened() as database:
            database.execute(GIVE_BACK, (self.name, holder))

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        try:
            database = sqlite3.connect(self.path, timeout=5.0, isolation_level=None)
            try:
                database.execute("PRAGMA synchronous = FULL")
                yield database
            finally:
                database.close()
        except sqlite3.Error as error:
            raise StoreUnavailable(f"the token store {self.path} cannot be used: {error}") from error


def _rebuild(path: Path, name: str, key: EncryptionKey | None, lease: float) -> SqliteStore:
    return SqliteStore(path, name, key=key, lease=lease)
