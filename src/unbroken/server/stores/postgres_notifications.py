"""Wait for notifications of PostgreSQL (LISTEN), on a connection of its own.

One thread waits, any thread may close. A connection that broke is opened again by the next ``wait``; what was sent
meanwhile is lost, so the caller must read the tables too.
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
    """A subscription to *channel* in the database of *driver*."""

    def __init__(self, driver: PostgresDriver, channel: str) -> None:
        self._driver, self._channel = driver, channel
        self._lock = threading.Lock()  # guards _connection; held by the thread that waits
        self._connection: psycopg.Connection[Any] | None = None
        self._closed = False
        self._wakes_up, self._wake_up = socket.socketpair()

    def wait(self, timeout: float) -> None:
        """Return after a notification, or after *timeout* seconds. Raise StoreUnavailable.

        The first call, and each call after a failure, subscribes and returns at once.
        """
        with self._lock:
            if self._closed:
                raise StoreUnavailable("this subscription is closed")
            try:
                self._wait(timeout)
            except psycopg.Error as error:
                self._disconnect()
                raise self._driver.translate_error(error) from error

    def close(self) -> None:
        """End a ``wait`` in another thread, and close the connection."""
        self._closed = True
        with contextlib.suppress(OSError):  # closed before
            self._wake_up.send(b"!")
        with self._lock:
            self._disconnect()
            self._wakes_up.close()
            self._wake_up.close()

    def _wait(self, timeout: float) -> None:
        if self._connection is None:
            self._connection = self._driver.connection()
            self._connection.execute(f"LISTEN {self._channel}")
            return  # earlier notifications are lost: the caller must read the tables now
        with selectors.DefaultSelector() as either:
            either.register(self._wakes_up, selectors.EVENT_READ)
            either.register(self._connection.fileno(), selectors.EVENT_READ)
            either.select(timeout)
        self._connection.pgconn.consume_input()
        while self._connection.pgconn.notifies():
            pass  # several notifications are one reason to read the tables

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
