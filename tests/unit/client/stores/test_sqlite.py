"""What is particular to the SQLite file of a client."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from unbroken import StoreUnavailable
from unbroken.client.core.record import EMPTY, StoredSession
from unbroken.client.stores.keyring import KeyringStore
from unbroken.client.stores.sqlite import SqliteStore


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
