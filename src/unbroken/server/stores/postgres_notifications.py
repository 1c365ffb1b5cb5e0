"""What a PostgreSQL announces (LISTEN), on a connection of its own.

One thread waits; any other may end that. A connection that broke is made anew by the next wait; what was announced
meanwhile is not repeated, so whoever waits looks at the tables too.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from typing import Any

import psycopg

from unbroken._drivers.postgres import PostgresDriver
from unbroken.errors import StoreUnavailable

__all__ = ["PostgresNotifications"]


class PostgresNotifications:
    """The announcements of *channel* in the database of *sql*."""

    def __init__(self, sql: PostgresDriver, channel: str) -> None:
        self._sql, self._channel = sql, channel
        self._turn = threading.Lock()  # held by the thread that waits
        self._connection: psycopg.Connection[Any] | None = None
        self._closed = False
        self._wakes, self._wake = socket.socketpair()

    def wait(self, timeout: float) -> None:
        """Blocks until something was announced, at most *timeout* seconds. Raises StoreUnavailable."""
        with self._turn:
            if self._closed:
                raise StoreUnavailable("nobody listens to this database any more")
            try:
                self._listen(timeout)
            except psycopg.Error as error:
                self._hang_up()
                raise self._sql.translate_error(error) from error

    def close(self) -> None:
        """Ends a wait, and lets go of the connection."""
        self._closed = True
        with contextlib.suppress(OSError):  # closed before
            self._wake.send(b"!")
        with self._turn:
            self._hang_up()
            self._wakes.close()
            self._wake.close()

    def _listen(self, timeout: float) -> None:
        if self._connection is None:
            self._connection = self._sql.connection()
            self._connection.execute(f"LISTEN {self._channel}")
            return  # what came before is known to nobody: look at once
        with selectors.DefaultSelector() as either:
            either.register(self._wakes, selectors.EVENT_READ)
            either.register(self._connection.fileno(), selectors.EVENT_READ)
            either.select(timeout)
        self._connection.pgconn.consume_input()
        while self._connection.pgconn.notifies():
            pass

    def _hang_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
