"""Tokens in PostgreSQL, shared by hosts.

1. Each session has one row; the first use creates the table. A save is one durable statement that compares and sets.
2. The lock is a lease in the same row (``lease.py``), by the clock of the database: while it is held it needs no
   connection of its own, and it works through a connection pooler. The row says which connection has extended the lease
   last, if PostgreSQL shows it, so that others see when it has ended. A pooler keeps its connections: behind it the
   lease alone counts, and so it does after a restart of the database.
3. Each process has one connection, opened when it is needed, and again when it broke or the process was forked.
4. Every call is bounded: a connection that does not respond in time is cut, and a dead database raises
   StoreUnavailable.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

try:
    import psycopg
except ImportError as error:
    raise ImportError("PostgresStore needs psycopg: pip install 'unbroken[postgres]'") from error

from unbroken._arguments import checked_class
from unbroken._concurrency import Closeable, close_copy, register_fork_aware
from unbroken._time import Duration, to_seconds
from unbroken.client.core.token_store import EMPTY, Lease, StoredSession
from unbroken.client.stores.codec import CorruptRecord, EncryptionKey, SessionCodec
from unbroken.client.stores.lease import (
    LEASE_SECONDS,
    LeaseLock,
    lease_seconds,
    machine_lock_path,
    seconds_after_connection,
)
from unbroken.errors import ConfigurationError, StoreUnavailable

__all__ = ["PostgresStore"]

NOT_SHOWN = (psycopg.ProgrammingError, psycopg.NotSupportedError)  # no right to see connections, or no such view

# ---- SQL -------------------------------------------------------------------------------------------------------------

CREATE_TABLE = """
    CREATE TABLE IF NOT EXISTS unbroken_tokens (
        name text PRIMARY KEY, stamp text NOT NULL, data bytea, holder text, held_until timestamptz, connection text
    )
"""
LOAD = "SELECT data FROM unbroken_tokens WHERE name = %s"
SAVE = "UPDATE unbroken_tokens SET stamp = %s, data = %s WHERE name = %s AND stamp = %s RETURNING 1"
INSERT_EMPTY = "INSERT INTO unbroken_tokens (name, stamp) VALUES (%s, %s) ON CONFLICT DO NOTHING"
OWN_CONNECTION = """
    (SELECT pid || ' ' || extract(epoch FROM pg_postmaster_start_time())
     FROM pg_stat_activity WHERE pid = pg_backend_pid())
"""
NO_CONNECTION = "NULL"
TAKE_LEASE = """
    UPDATE unbroken_tokens SET holder = %s, held_until = now() + make_interval(secs => %s), connection = {connection}
    WHERE name = %s AND (held_until IS NULL OR held_until < now() OR holder = %s) RETURNING 1
"""
EXTEND_LEASE = """
    UPDATE unbroken_tokens SET held_until = now() + make_interval(secs => %s), connection = {connection}
    WHERE name = %s AND holder = %s RETURNING 1
"""
CUT_LEASE = """
    UPDATE unbroken_tokens SET held_until = now() + make_interval(secs => %s)
    WHERE name = %s AND held_until > now() + make_interval(secs => %s)
    AND split_part(connection, ' ', 2) = extract(epoch FROM pg_postmaster_start_time())::text
    AND NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid::text = split_part(connection, ' ', 1)) RETURNING 1
"""
RELEASE_LEASE = """
    UPDATE unbroken_tokens SET holder = NULL, held_until = NULL, connection = NULL
    WHERE name = %s AND holder = %s RETURNING 1
"""


@checked_class()
class PostgresStore(Closeable):
    """Tokens in the PostgreSQL at *url* (``postgresql://``, or any libpq connection string), for the session *name*.

    *key* encrypts them (``codec.py``). *lease* is after how many seconds the lock of a crashed holder expires,
    *timeout* how many seconds a connection or a statement may take.
    """

    def __init__(
        self,
        url: str,
        name: str = "default",
        *,
        key: EncryptionKey | None = None,
        lease: Duration = LEASE_SECONDS,
        timeout: Duration = 3.0,
    ) -> None:
        self.name, self.lease = name, lease_seconds(lease)
        self._timeout = to_seconds("timeout", timeout, above_zero=True)
        self._arguments = (url, name, key, self.lease, self._timeout)
        try:
            settings = psycopg.conninfo.conninfo_to_dict(url)
        except psycopg.ProgrammingError:  # its message repeats the string, and the password in it
            raise ConfigurationError("the connection string of the PostgreSQL store cannot be read") from None
        place = " ".join(str(settings.get(part, "")) for part in ("host", "hostaddr", "port", "dbname", "service"))
        self._lease_lock = LeaseLock(self, machine_lock_path("postgresql", place, name))
        self._codec = SessionCodec(f"the session {name!r} in PostgreSQL", key)
        self._shows_connections = True  # until it turns out that the database does not
        self._connection: Any = None
        self._connection_lock = threading.Lock()  # one statement at a time
        register_fork_aware(self)

    def reset_after_fork(self) -> None:
        """Start without a connection, and with a lock that is free: those of the parent stay the parent's."""
        if self._connection is not None:
            _of_parents.append(self._connection)
            with contextlib.suppress(psycopg.Error):
                close_copy(self._connection.fileno())
        self._connection, self._connection_lock = None, threading.Lock()

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, self._arguments)

    def load(self) -> StoredSession:
        """Return the record; ``EMPTY`` if there is none."""
        row = self._query(LOAD, (self.name,))
        if not row or row[0] is None:
            return EMPTY
        try:
            return self._codec.decode(bytes(row[0]))
        except CorruptRecord as error:
            raise StoreUnavailable(f"{error}: delete the row, and log in again") from error

    def save(self, record: StoredSession, expected: StoredSession) -> bool:
        """Replace *expected* by *record*, durably. Return False if another record is there."""
        if expected.same(EMPTY):
            self._query(INSERT_EMPTY, (self.name, EMPTY.stamp))
        # rule 1
        return self._query(SAVE, (record.stamp, self._codec.encode(record), self.name, expected.stamp)) is not None

    def lock(self, timeout: float) -> AbstractContextManager[Lease]:
        """Return the lock of a refresh; entering it raises StoreBusy after *timeout* seconds."""
        return self._lease_lock.acquire(timeout)

    def close(self) -> None:
        """Close the connection. The next use opens another."""
        with self._connection_lock:
            self._drop()

    def take_lease(self, holder: str) -> bool:
        """Give the lease to *holder*, if no other has it now; return whether *holder* has it.

        Cut the lease of a holder whose connection has ended.
        """
        self._query(INSERT_EMPTY, (self.name, EMPTY.stamp))
        if self._query_of_holder(TAKE_LEASE, (holder, self.lease, self.name, holder)) is not None:  # rule 2
            return True
        seconds = seconds_after_connection(self.lease)
        if self._shows_connections:
            self._query(CUT_LEASE, (seconds, self.name, seconds))
        return False

    def extend_lease(self, holder: str) -> bool:
        """Extend the lease, if *holder* was the last to have it; return whether it was."""
        return self._query_of_holder(EXTEND_LEASE, (self.lease, self.name, holder)) is not None

    def release_lease(self, holder: str) -> None:
        """Release the lease, if *holder* has it."""
        self._query(RELEASE_LEASE, (self.name, holder))

    def _query_of_holder(self, statement: str, values: Sequence[object]) -> Any:
        """Return the first row. The statement notes the connection, where the database shows it (rule 2)."""
        if self._shows_connections:
            try:
                return self._query(statement.format(connection=OWN_CONNECTION), values)
            except StoreUnavailable as error:
                if not isinstance(error.__cause__, NOT_SHOWN):
                    raise
        row = self._query(statement.format(connection=NO_CONNECTION), values)
        self._shows_connections = False
        return row

    def _query(self, statement: str, values: Sequence[object]) -> Any:
        """Return the first row. A connection that turns out to be broken is opened again, once."""
        if not self._connection_lock.acquire(timeout=2 * self._timeout):
            raise StoreUnavailable("the token store in PostgreSQL does not respond")
        try:
            return self._execute_twice(statement, values)
        except (psycopg.OperationalError, psycopg.InterfaceError) as error:
            raise StoreUnavailable("the token store in PostgreSQL cannot be reached") from error
        except psycopg.Error as error:
            raise StoreUnavailable(f"the token store in PostgreSQL cannot be used: {type(error).__name__}") from error
        finally:
            self._connection_lock.release()

    def _execute_twice(self, statement: str, values: Sequence[object]) -> Any:
        ends = time.monotonic() + self._timeout
        try:
            return self._execute(statement, values)
        except (psycopg.OperationalError, psycopg.InterfaceError):
            if time.monotonic() >= ends:
                raise
        return self._execute(statement, values)

    def _execute(self, statement: str, values: Sequence[object]) -> Any:
        try:
            if self._connection is None:
                self._connect()  # rule 3
            with _cut_after(self._timeout, self._connection):  # rule 4
                cursor = self._connection.execute(statement, values)
                return cursor.fetchone() if cursor.description else None
        except psycopg.Error:
            self._drop()
            raise

    def _connect(self) -> None:
        timeout = self._timeout
        bounds: dict[str, Any] = {"connect_timeout": max(int(timeout), 2), "tcp_user_timeout": int(timeout * 1000)}
        self._connection = psycopg.connect(self._arguments[0], autocommit=True, prepare_threshold=None, **bounds)
        created_by_another = contextlib.suppress(psycopg.errors.UniqueViolation, psycopg.errors.DuplicateTable)
        with created_by_another, _cut_after(timeout, self._connection):
            self._connection.execute(CREATE_TABLE)

    def _drop(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(psycopg.Error):
                self._connection.close()
            self._connection = None


_of_parents: list[Any] = []  # connections of parent processes: one that is dropped would warn that it is still open


@contextlib.contextmanager
def _cut_after(seconds: float, connection: Any) -> Iterator[None]:
    """Cut *connection* if the block takes longer than *seconds*: libpq itself has no such limit (rule 4)."""
    ending, over = threading.Lock(), threading.Event()

    def cut() -> None:
        with ending, contextlib.suppress(OSError, psycopg.Error):
            if not over.is_set():  # else its descriptor may belong to another connection
                with socket.fromfd(connection.fileno(), socket.AF_INET, socket.SOCK_STREAM) as copy:
                    copy.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        with ending:
            over.set()


def _rebuild(url: str, name: str, key: EncryptionKey | None, lease: float, timeout: float) -> PostgresStore:
    return PostgresStore(url, name, key=key, lease=lease, timeout=timeout)
