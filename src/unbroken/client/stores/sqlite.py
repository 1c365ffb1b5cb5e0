"""Tokens in a SQLite file, shared by the processes of one machine, also where there is no ``flock``.

1. Each call opens its own connection, so that any thread may use the store. A fork waits until none is open
   (``_sqlite.py``).
2. A save is one statement that compares and sets; it is durable when it returns.
3. The lock is a lease in the same row, and a lock file beside the file where the system has ``flock`` (``lease.py``).
4. Only its owner can read the file (0600), from its first byte on. A file or a folder of another user's is refused
   (``_private_files.py``), and so is the file of another program, which is left unchanged.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from unbroken._arguments import checked_class
from unbroken._private_files import ensure_private, has_flock, resolve_private
from unbroken._sqlite import fork_gate, require_own_file, use_wal
from unbroken._time import Duration
from unbroken.client.core.token_store import EMPTY, Lease, StoredSession
from unbroken.client.stores.codec import CorruptRecord, EncryptionKey, SessionCodec
from unbroken.client.stores.lease import LEASE_SECONDS, LeaseLock, lease_seconds
from unbroken.errors import StoreUnavailable

__all__ = ["SqliteStore"]

APPLICATION_ID = 0x756E6263  # "unbc": the mark of a file of ours (rule 4)
BUSY_SECONDS = 5.0  # how long a locked file is waited for

# ---- SQL -------------------------------------------------------------------------------------------------------------

CREATE_TABLE = """
    CREATE TABLE IF NOT EXISTS unbroken_tokens (
        name TEXT PRIMARY KEY, stamp TEXT NOT NULL, data BLOB, holder TEXT, held_until REAL
    ) WITHOUT ROWID
"""
LOAD = "SELECT data FROM unbroken_tokens WHERE name = ?"
SAVE = "UPDATE unbroken_tokens SET stamp = ?, data = ? WHERE name = ? AND stamp = ?"
INSERT_EMPTY = "INSERT INTO unbroken_tokens (name, stamp) VALUES (?, ?) ON CONFLICT DO NOTHING"
TAKE_LEASE = """
    UPDATE unbroken_tokens SET holder = ?, held_until = ?
    WHERE name = ? AND (held_until IS NULL OR held_until < ? OR holder = ?)
"""
EXTEND_LEASE = "UPDATE unbroken_tokens SET held_until = ? WHERE name = ? AND holder = ?"
RELEASE_LEASE = "UPDATE unbroken_tokens SET holder = NULL, held_until = NULL WHERE name = ? AND holder = ?"


@checked_class()
class SqliteStore:
    """Tokens in the SQLite file at *path*, for the session called *name*. *key* encrypts them (``codec.py``).

    *lease* is after how many seconds the lock of a crashed holder expires, where the system has no ``flock``.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        name: str = "default",
        *,
        key: EncryptionKey | None = None,
        lease: Duration = LEASE_SECONDS,
    ) -> None:
        self.path, self.name = resolve_private(path, "the token store"), name
        self.lease = lease_seconds(lease)
        self._lease_lock = LeaseLock(self, f"{self.path}.{_file_name(name)}.refresh" if has_flock() else None)  # rule 3
        self._key, self._codec = key, SessionCodec(f"the session {name!r} in {self.path}", key)
        with self._connection() as database:
            require_own_file(database, self.path, APPLICATION_ID)
            use_wal(database, BUSY_SECONDS)
            self._create_table(database)

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (self.path, self.name, self._key, self.lease))

    def load(self) -> StoredSession:
        """Return the record; ``EMPTY`` if there is none."""
        with self._connection() as database:
            row = database.execute(LOAD, (self.name,)).fetchone()
        if row is None or row[0] is None:
            return EMPTY
        try:
            return self._codec.decode(row[0] if isinstance(row[0], bytes) else str(row[0]).encode())
        except CorruptRecord as error:
            raise StoreUnavailable(f"{error}: remove it, and log in again") from error

    def save(self, record: StoredSession, expected: StoredSession) -> bool:
        """Replace *expected* by *record*, durably. Return False if another record is there."""
        with self._connection() as database:
            database.execute(INSERT_EMPTY, (self.name, EMPTY.stamp))
            values = (record.stamp, self._codec.encode(record), self.name, expected.stamp)
            return bool(database.execute(SAVE, values).rowcount)  # rule 2

    def lock(self, timeout: float) -> AbstractContextManager[Lease]:
        """Return the lock of a refresh; entering it raises StoreBusy after *timeout* seconds."""
        return self._lease_lock.acquire(timeout)

    def take_lease(self, holder: str) -> bool:
        """Give the lease to *holder*, if no other has it now; return whether *holder* has it."""
        now = time.time()
        with self._connection() as database:
            return bool(database.execute(TAKE_LEASE, (holder, now + self.lease, self.name, now, holder)).rowcount)

    def extend_lease(self, holder: str) -> bool:
        """Extend the lease, if *holder* was the last to have it; return whether it was."""
        with self._connection() as database:
            return bool(database.execute(EXTEND_LEASE, (time.time() + self.lease, self.name, holder)).rowcount)

    def release_lease(self, holder: str) -> None:
        """Release the lease, if *holder* has it."""
        with self._connection() as database:
            database.execute(RELEASE_LEASE, (self.name, holder))

    def _create_table(self, database: Any) -> None:
        database.execute("BEGIN IMMEDIATE")
        require_own_file(database, self.path, APPLICATION_ID)
        database.execute(CREATE_TABLE)
        database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        database.execute(INSERT_EMPTY, (self.name, EMPTY.stamp))
        database.execute("COMMIT")

    @contextmanager
    def _connection(self) -> Iterator[Any]:
        with fork_gate:  # rule 1
            yield from self._open()

    def _open(self) -> Iterator[Any]:
        try:
            ensure_private(self.path, "the token store")  # rule 4
            database = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None)
            try:
                database.execute("PRAGMA synchronous = FULL")  # rule 2
                yield database
            finally:
                database.close()
        except sqlite3.Error as error:
            raise StoreUnavailable(f"the token store {self.path} cannot be used: {error}") from error
        except OSError as error:
            raise StoreUnavailable(f"the token store {self.path} cannot be opened: {error.strerror}") from error


def _file_name(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:16]


def _rebuild(path: Path, name: str, key: EncryptionKey | None, lease: float) -> SqliteStore:
    return SqliteStore(path, name, key=key, lease=lease)
