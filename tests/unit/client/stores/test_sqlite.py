"""What is particular to the SQLite file of a client."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from unbroken import ConfigurationError, StoreUnavailable
from unbroken.client.core.token_store import EMPTY, StoredSession
from unbroken.client.stores import sqlite as client_sqlite
from unbroken.client.stores.keyring import KeyringStore
from unbroken.client.stores.sqlite import SqliteStore
from unbroken.server.stores import sqlite as server_sqlite
from unbroken.server.stores.sqlite import SqliteSessionStore


def test_the_holder_of_a_sqlite_lease_may_acquire_it_again(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "tokens.db")
    assert store.take_lease("me")
    assert store.take_lease("me")
    assert not store.take_lease("you")


def test_a_program_that_changes_its_folder_keeps_its_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sqlite, secrets = SqliteStore("tokens.db"), KeyringStore("a service", locks="locks")
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    assert sqlite.save(StoredSession(1, 1, None), EMPTY)
    assert sqlite.load().version == 1
    with secrets.lock(1.0):
        assert (tmp_path / "locks").is_dir()
    assert list((tmp_path / "other").iterdir()) == []


def test_a_sqlite_store_is_readable_by_its_owner_only_and_refuses_other_files(tmp_path: Path) -> None:
    SqliteStore(tmp_path / "t.db")
    assert (tmp_path / "t.db").stat().st_mode & 0o777 == 0o600
    (tmp_path / "text").write_text("this is no database, only a text that is long enough to be read as its header" * 9)
    with pytest.raises(StoreUnavailable, match="cannot be used"):
        SqliteStore(tmp_path / "text")
    with sqlite3.connect(tmp_path / "t.db") as database:
        database.execute("UPDATE unbroken_tokens SET data = 'junk'")
    database.close()
    with pytest.raises(StoreUnavailable, match="log in again"):
        SqliteStore(tmp_path / "t.db").load()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="locks of a process are a matter of POSIX systems")
@pytest.mark.parametrize("use", [lambda path: SqliteStore(path).load(), lambda path: SqliteSessionStore(path).close()])
def test_another_store_on_a_file_leaves_the_locks_of_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, use: Callable[[Path], object]
) -> None:
    """POSIX: a process that closes any descriptor of a file loses its locks on it."""
    for module in (client_sqlite, server_sqlite):
        monkeypatch.setattr(module, "BUSY_SECONDS", 0.05)
    path = tmp_path / "one.db"
    use(path)
    holds = sqlite3.connect(path, isolation_level=None)
    holds.execute("PRAGMA journal_mode = DELETE")  # its locks are on the file itself
    holds.execute("BEGIN EXCLUSIVE")
    with contextlib.suppress(StoreUnavailable, ConfigurationError):
        use(path)
    code = "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0).execute('BEGIN IMMEDIATE')"
    other = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=False)
    assert "database is locked" in other.stderr
    holds.close()
