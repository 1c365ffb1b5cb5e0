"""One SQLite file: how it is opened, by whom, and how long anybody waits for it.

1. WAL: readers never wait. A connection either flushes each commit to the disk (``FULL``), or not (``NORMAL``).
2. Each thread has its own connections, and a forked child makes new ones. In an event loop they wait for other writers
   some milliseconds only (``briefly``).
3. What the driver raises becomes StoreUnavailable (wait and try again), ConfigurationError (one line: what to do), or
   InvalidRequest (a text that is none).
4. The file is its owner's alone, and another program's file is left alone.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from unbroken.errors import ConfigurationError, InvalidRequest, StoreUnavailable
from unbroken.server.stores import Busy

__all__ = ["SqliteFile", "schema_of"]

APPLICATION_ID = 0x756E6272  # "unbr"
BUSY_SECONDS = 5.0
BRIEF_SECONDS = 0.005
BUSY_CODES = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


class SqliteFile:
    """The file at *path*, made if it is missing. Each of *steps* makes the tables of the next schema.

    Raises ConfigurationError when it cannot be used, in one line that says why.
    """

    def __init__(self, path: str | os.PathLike[str], steps: Sequence[str]) -> None:
        self._steps = steps
        self.path = Path(path).expanduser().absolute()
        self._local = threading.local()
        self.briefly = Briefly(self._local)
        if sqlite3.sqlite_version_info < (3, 35):
            raise ConfigurationError(f"SQLite 3.35 or newer is needed, this Python has {sqlite3.sqlite_version}")
        if not self.path.parent.is_dir():
            raise ConfigurationError(f"the folder {self.path.parent} does not exist: make it, or name another file")
        try:
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
            self._prepare(self.connection(durable=True))
        except OSError as error:
            raise ConfigurationError(f"{self.path} cannot be written: {error.strerror}") from error
        except sqlite3.DatabaseError as error:
            raise ConfigurationError(f"{self.path} cannot be used as a database: {error}") from error

    def __repr__(self) -> str:
        return f"<SqliteFile {self.path}>"

    def close(self) -> None:
        """Closes this thread's connections; those of other threads close with their threads."""
        for db in vars(self._local).get("held", {}).values():
            db.close()
        vars(self._local).clear()

    def connection(self, *, durable: bool) -> sqlite3.Connection:
        """This thread's connection; *durable*: what it commits is on the disk."""
        mine = self._local.__dict__
        held: dict[tuple[bool, bool], sqlite3.Connection] = mine.get("held", {})
        if mine.get("pid") != os.getpid():
            mine["pid"], mine["held"] = os.getpid(), (held := {})
        kind = durable, mine.get("brief", False)
        if kind not in held:
            wait = BRIEF_SECONDS if kind[1] else BUSY_SECONDS
            db = sqlite3.connect(self.path, timeout=wait, isolation_level=None, check_same_thread=False)
            db.execute("PRAGMA journal_mode = WAL")
            db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            held[kind] = db
        return held[kind]

    def select(self, statement: str, values: Any = ()) -> list[Any]:
        """One statement, and its rows; a write is committed without a flush."""
        try:
            return self.connection(durable=False).execute(statement, values).fetchall()
        except (sqlite3.Error, UnicodeError) as error:
            raise self._said(error) from error

    def change(self, statement: str, values: Any) -> bool:
        """One statement, committed without a flush; whether it has changed a row."""
        try:
            return self.connection(durable=False).execute(statement, values).rowcount > 0
        except (sqlite3.Error, UnicodeError) as error:
            raise self._said(error) from error

    @contextlib.contextmanager
    def writing(self, *, durable: bool = True) -> Iterator[sqlite3.Connection]:
        """A transaction; *durable*: it is on the disk when it ends."""
        db = None
        try:
            db = self.connection(durable=durable)
            db.execute("BEGIN IMMEDIATE")
            yield db
            db.execute("COMMIT")
        except (sqlite3.Error, UnicodeError) as error:
            raise self._said(error) from error
        finally:
            if db is not None and db.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    db.execute("ROLLBACK")

    def _said(self, error: sqlite3.Error | UnicodeError) -> StoreUnavailable | InvalidRequest:
        """The error to raise for the driver's."""
        if isinstance(error, UnicodeError):
            return InvalidRequest("what was asked for is not valid text")
        busy = getattr(error, "sqlite_errorcode", 0) & 0xFF in BUSY_CODES
        kind = Busy if busy else StoreUnavailable
        return kind(f"the database {self.path} does not answer: {error}", retry_after=1.0)

    def _prepare(self, db: sqlite3.Connection) -> None:
        """Makes the tables, brings older ones forward, and checks that they are ours and not from the future."""
        db.execute("BEGIN IMMEDIATE")
        try:
            version, owner, empty = _state(db)
            if not empty and owner != APPLICATION_ID:
                raise ConfigurationError(f"{self.path} is a database of another program: name another file")
            if version > len(self._steps):
                known = f"schema {version}, this one knows {len(self._steps)}"
                raise ConfigurationError(f"{self.path} was made by a newer unbroken ({known}): upgrade")
            for statement in ";\n".join(self._steps[version:]).split(";\n"):
                db.execute(statement)
            if version < len(self._steps):
                db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                db.execute(f"PRAGMA user_version = {len(self._steps)}")
            db.execute("COMMIT")
        finally:
            if db.in_transaction:
                db.execute("ROLLBACK")


def schema_of(path: str | os.PathLike[str]) -> int:
    """The number of the schema in the file at *path*, which is only read; 0 for one that has none yet.

    Raises ConfigurationError if it is missing or not ours.
    """
    where = Path(path).expanduser().absolute()
    try:
        with contextlib.closing(sqlite3.connect(f"{where.as_uri()}?mode=ro", uri=True, timeout=BUSY_SECONDS)) as db:
            version, owner, empty = _state(db)
    except sqlite3.Error as error:
        raise ConfigurationError(f"{where} cannot be read as a database: {error}") from error
    if not empty and owner != APPLICATION_ID:
        raise ConfigurationError(f"{where} is a database of another program: name another file")
    return version


def _state(db: sqlite3.Connection) -> tuple[int, int, bool]:
    """The number of the schema, whose it is, and whether nothing is there yet."""
    (version,), (owner,) = db.execute("PRAGMA user_version").fetchone(), db.execute("PRAGMA application_id").fetchone()
    empty = db.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
    return version, owner, empty and not version


class Briefly:
    """While it is entered, this thread's connections are those that wait for a short time only."""

    def __init__(self, local: threading.local) -> None:
        self._local = local

    def __enter__(self) -> None:
        self._local.brief = True

    def __exit__(self, *_: object) -> None:
        self._local.brief = False
