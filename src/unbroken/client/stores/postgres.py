"""Tokens in PostgreSQL, shared by hosts.

1. One row a session; the table is made at the first use. A save is one statement that compares and sets, and durable.
2. The lock is a lease in the same row, by the database's clock: it needs no connection of its own while it is held, and
   goes through a connection pooler.
3. One connection a process, made when it is needed, made anew when it broke or the process was forked.
4. Every call is bounded: a connection that does not answer in time is cut, and a dead database is told by
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

import psycopg

from unbroken._fork import register_fork_aware
from unbroken.client.core.record import EMPTY, Lease, StoredSession
from unbroken.client.stores.codec import CorruptRecord, EncryptionKey, SessionCodec
from unbroken.client.stores.lease import LEASE_SECONDS, LeaseLock
from unbroken.errors import ConfigurationError, StoreUnavailable

__all__ = ["PostgresStore"]

TABLE = """
    CREATE TABLE IF NOT EXISTS unbroken_tokens (
        name text PRIMARY KEY, stamp text NOT NULL, data bytea, holder text, held_until timestamptz
    )
"""
LOAD = "SELECT data FROM unbroken_tokens WHERE name = %s"
SAVE = "UPDATE unbroken_tokens SET stamp = %s, data = %s WHERE name = %s AND stamp = %s RETURNING 1"
BEGIN = "INSERT INTO unbroken_tokens (name, stamp) VALUES (%s, %s) ON CONFLICT DO NOTHING"
TAKE = """
    UPDATE unbroken_tokens SET holder = %s, held_until = now() + make_interval(secs => %s)
    WHERE name = %s AND (held_until IS NULL OR held_until < now() OR holder = %s) RETURNING 1
"""
LENGTHEN = """
    UPDATE unbroken_tokens SET held_until = now() + make_interval(secs => %s)
    WHERE name = %s AND holder = %s RETURNING 1
"""
GIVE_BACK = "UPDATE unbroken_tokens SET holder = NULL, held_until = NULL WHERE name = %s AND holder = %s RETURNING 1"


class PostgresStore:
    """Tokens in the PostgreSQL at *url* (``postgresql://``, or any libpq connection string), for the session *name*.

    *key* seals them (``form.py``). *lease* is how long a holder of the renewal lock that died is waited for, *timeout*
    how long a connection or a statement may take; both in seconds.
    """

    def __init__(
        self,
        url: str,
        name: str = "default",
        *,
        key: EncryptionKey | None = None,
        lease: float = LEASE_SECONDS,
        timeout: float = 3.0,
    ) -> None:
        self._made_of = (url, name, key, lease, timeout)
        try:
            psycopg.conninfo.conninfo_to_dict(url)
        except psycopg.ProgrammingError:  # its message repeats the string, and the password in it
            raise ConfigurationError("the connection string of the PostgreSQL store cannot be read") from None
        self.name, self.lease, self._lender = name, lease, LeaseLock(self)
        self._form = SessionCodec(f"the session {name!r} in PostgreSQL", key)
        self._timeout = timeout
        self.reset_after_fork()
        register_fork_aware(self)

    def reset_after_fork(self) -> None:
        """Also after a fork: the connection, and a lock that was held, are the parent's."""
        self._connection: Any = None
        self._turn = threading.Lock()  # one statement at a time on the connection

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, self._made_of)

    def load(self) -> StoredSession:
        """The record as it stands now; ``EMPTY`` when there is none."""
        found = self._asked(LOAD, (self.name,))
        if not found or found[0] is None:
            return EMPTY
        try:
            return self._form.decode(bytes(found[0]))
        except CorruptRecord as error:
            raise StoreUnavailable(f"{error}: delete the row, and log in again") from error

    def save(self, record: StoredSession, expected: StoredSession) -> bool:
        """Replaces *expected* by *record*, durably; False if it is another one now."""
        if expected.same(EMPTY):
            self._asked(BEGIN, (self.name, EMPTY.stamp))
        return self._asked(SAVE, (record.stamp, self._form.encode(record), self.name, expected.stamp)) is not None

    def lock(self, timeout: float) -> AbstractContextManager[Lease]:
        """Held by one renewal at a time. Raises StoreBusy after *timeout* seconds, or StoreUnavailable."""
        return self._lender.acquire(timeout)

    def close(self) -> None:
        """Closes the connection; the next call makes another."""
        with self._turn:
            self._drop()

    def take_lease(self, holder: str) -> bool:
        """Lends the lock to *holder*, if nobody else has it now."""
        self._asked(BEGIN, (self.name, EMPTY.stamp))
        return self._asked(TAKE, (holder, self.lease, self.name, holder)) is not None

    def extend_lease(self, holder: str) -> bool:
        """Lends the lock for another while, if *holder* was the last to have it."""
        return self._asked(LENGTHEN, (self.lease, self.name, holder)) is not None

    def release_lease(self, holder: str) -> None:
        """Frees the lock, if *holder* has it."""
        self._asked(GIVE_BACK, (self.name, holder))

    def _asked(self, statement: str, values: Sequence[object]) -> Any:
        """The first row of the answer. A connection that turns out to be broken is made anew, once."""
        if not self._turn.acquire(timeout=2 * self._timeout):
            raise StoreUnavailable("the token store in PostgreSQL does not answer")
        try:
            return self._answer(statement, values)
        except (psycopg.OperationalError, psycopg.InterfaceError) as error:
            raise StoreUnavailable("the token store in PostgreSQL cannot be reached") from error
        except psycopg.Error as error:
            raise StoreUnavailable(f"the token store in PostgreSQL cannot be used: {type(error).__name__}") from error
        finally:
            self._turn.release()

    def _answer(self, statement: str, values: Sequence[object]) -> Any:
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
                self._connect()
            with _cut_after(self._timeout, self._connection):
                cursor = self._connection.execute(statement, values)
                return cursor.fetchone() if cursor.description else None
        except psycopg.Error:
            self._drop()
            raise

    def _connect(self) -> None:
        timeout = self._timeout
        bounds: dict[str, Any] = {"connect_timeout": max(int(timeout), 2), "tcp_user_timeout": int(timeout * 1000)}
        self._connection = psycopg.connect(self._made_of[0], autocommit=True, prepare_threshold=None, **bounds)
        made_by_another = contextlib.suppress(psycopg.errors.UniqueViolation, psycopg.errors.DuplicateTable)
        with made_by_another, _cut_after(timeout, self._connection):
            self._connection.execute(TABLE)

    def _drop(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(psycopg.Error):
                self._connection.close()
            self._connection = None


@contextlib.contextmanager
def _cut_after(seconds: float, connection: Any) -> Iterator[None]:
    """Ends *connection* if it is still needed after so many *seconds*: libpq itself waits for ever."""

    ending, over = threading.Lock(), threading.Event()

    def cut() -> None:
        with ending, contextlib.suppress(OSError, psycopg.Error):
            if not over.is_set():  # else its descriptor may be somebody else's by now
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
