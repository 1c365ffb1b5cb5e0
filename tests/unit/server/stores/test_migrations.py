"""Tables of older and newer versions, and the commands that bring them forward.

Modules: server/stores/postgres_schema.py, server/stores/sqlite_schema.py.
"""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.support.services import Service
from unbroken._concurrency import run_sync
from unbroken._drivers.postgres import PostgresDriver
from unbroken.errors import ConfigurationError
from unbroken.server import Accounts, Sessions, SqliteSessionStore, open_store
from unbroken.server.stores import postgres_schema, sqlite_schema
from unbroken.server.stores.migrations import SchemaVersion, schema_version, upgrade_schema

NEWEST = len(postgres_schema.STEPS)
SQLITE_NEWEST = len(sqlite_schema.STEPS)
# A file that the version before strikes has made, at the time MADE_AT, and a refresh token from it.
OLD_TABLES = (Path(__file__).parent / "data" / "postgres_schema_1.sql").read_bytes()
OLD_FILE = (Path(__file__).parent / "data" / "sqlite_schema_1.sql").read_text()
MADE_AT = 1_760_000_000.0
OLD_TOKEN = "rt_AQGaoRKcbDCOR3n7fr7kqJLwAQB3MexR_nw7LHQD6T0I3RP5"


@pytest.fixture
def database(postgres: Service) -> Iterator[str]:
    """The URL of an empty database."""
    with psycopg.connect(postgres.url, autocommit=True) as db:
        db.execute("CREATE DATABASE of_tables")
    yield postgres.url.removesuffix("postgres") + "of_tables"
    with psycopg.connect(postgres.url, autocommit=True) as db:
        db.execute("DROP DATABASE of_tables WITH (FORCE)")


def older(database: str) -> str:
    """The database as the first version has made it."""
    with psycopg.connect(database, autocommit=True) as db:
        db.execute("CREATE TABLE unbroken_schema (number int4 NOT NULL)")
        db.execute("INSERT INTO unbroken_schema VALUES (1)")
        db.execute(OLD_TABLES)
        db.execute("INSERT INTO unbroken_account VALUES ('ada', 'Ada', 'hash', 1.0)")
    return database


def newer(database: str) -> str:
    use(database)
    with psycopg.connect(database, autocommit=True) as db:
        db.execute("UPDATE unbroken_schema SET number = 99")
    return database


def old_file(folder: Path) -> str:
    db = sqlite3.connect(folder / "old.db")
    db.executescript(OLD_FILE)
    db.close()
    return f"sqlite:///{folder}/old.db"


def begin(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "unbroken.cli", "db", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ends(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Its exit status, and what it printed."""
    said, complained = process.communicate(timeout=150)
    return process.returncode, said + complained


# ---- PostgreSQL ------------------------------------------------------------------------------------------------------


def use(database: str) -> None:
    """Use the store for the first time."""
    store = open_store(database)
    try:
        run_sync(store.health())
    finally:
        store.close()


def test_an_empty_database_gets_its_tables_at_first_use(database: str) -> None:
    assert schema_version(database) == SchemaVersion(0, NEWEST)
    use(database)
    assert schema_version(database) == SchemaVersion(NEWEST, NEWEST)


def test_an_older_database_is_left_alone_until_the_operator_says_so(database: str) -> None:
    older(database)
    with pytest.raises(ConfigurationError, match=r"of_tables is from an older unbroken .*run `unbroken db upgrade`"):
        use(database)
    assert schema_version(database) == SchemaVersion(1, NEWEST)
    assert upgrade_schema(database) == SchemaVersion(NEWEST, NEWEST)
    store = open_store(database)
    assert [account.shown for account in Accounts(store).list()] == ["Ada"], "what was there is there"
    store.close()


def test_a_newer_database_is_refused_and_left_alone(database: str) -> None:
    newer(database)
    for attempt in (use, upgrade_schema):
        with pytest.raises(ConfigurationError, match=r"newer unbroken .*schema 99"):
            attempt(database)
    assert schema_version(database) == SchemaVersion(99, NEWEST)


def test_ten_processes_may_upgrade_at_once(database: str) -> None:
    older(database)
    processes = [begin("upgrade", "--store", database) for _ in range(10)]
    assert {ends(process) for process in processes} == {(0, f"schema {NEWEST}, as this unbroken needs\n")}
    assert_serves(database)


def test_ten_processes_may_open_an_empty_database_at_once(database: str) -> None:
    code = "import sys; from unbroken.server import *; Sessions(open_store(sys.argv[1])).keyring()"
    command = [sys.executable, "-c", code, database]
    processes = [subprocess.Popen(command, stdout=-1, stderr=-1, text=True) for _ in range(10)]
    assert {ends(process) for process in processes} == {(0, "")}
    assert_serves(database)


def assert_serves(database: str) -> None:
    with psycopg.connect(database) as db:
        assert db.execute("SELECT number FROM unbroken_schema").fetchall() == [(NEWEST,)]
    sessions = Sessions(open_store(database))
    assert sessions.refresh(sessions.create("ada").refresh_token or "").refresh_seq == 1
    sessions.close()


def test_a_step_that_fails_leaves_the_tables_as_they_were(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    older(database)
    broken = "CREATE TABLE unbroken_new (a int); SELECT no_such_function()"
    monkeypatch.setattr(postgres_schema, "STEPS", (*postgres_schema.STEPS[:1], broken))
    with pytest.raises(Exception, match="no_such_function"):
        upgrade_schema(database)
    with psycopg.connect(database) as db:
        assert db.execute("SELECT to_regclass('unbroken_new')").fetchone() == (None,)
        assert db.execute("SELECT number FROM unbroken_schema").fetchall() == [(1,)]


def test_a_user_who_may_make_no_tables_is_told_so(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as db:
        db.execute("DROP ROLE IF EXISTS reader")
        db.execute("CREATE ROLE reader LOGIN")
        db.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    with pytest.raises(ConfigurationError, match="does not allow this user to do that"):
        use(database.replace("unbroken@", "reader@"))


def test_tables_that_vanish_are_a_mistake_of_the_operator(database: str) -> None:
    sessions = Sessions(open_store(database))
    sessions.create("ada")
    with psycopg.connect(database, autocommit=True) as db:
        db.execute("DROP TABLE unbroken_session")
    with pytest.raises(ConfigurationError, match="lacks tables"):
        sessions.create("ada")
    sessions.close()


# ---- SQLite ----------------------------------------------------------------------------------------------------------


def test_an_older_file_moves_forward_by_itself_and_its_sessions_go_on(tmp_path: Path) -> None:
    url = old_file(tmp_path)
    assert schema_version(url) == SchemaVersion(1, SQLITE_NEWEST)
    sessions = Sessions(SqliteSessionStore(tmp_path / "old.db"), clock=lambda: MADE_AT + 60)
    assert sessions.refresh(OLD_TOKEN).refresh_seq == 2
    assert [info.label for info in sessions.list_sessions("ada")] == ["laptop"]
    assert sessions.list_sessions("eve") == [], "what was revoked stays so"
    assert Accounts(sessions.store).authenticate("bob", "correct horse") == "bob"
    assert schema_version(url) == SchemaVersion(SQLITE_NEWEST, SQLITE_NEWEST)
    sessions.close()


def test_an_older_file_is_brought_forward_on_request(tmp_path: Path) -> None:
    url = old_file(tmp_path)
    assert upgrade_schema(url) == upgrade_schema(url) == SchemaVersion(SQLITE_NEWEST, SQLITE_NEWEST)


def test_processes_that_open_an_older_file_at_once_bring_it_forward_once(tmp_path: Path) -> None:
    url = old_file(tmp_path)
    processes = [begin("upgrade", "--store", url) for _ in range(4)]
    assert {ends(process) for process in processes} == {(0, f"schema {SQLITE_NEWEST}, as this unbroken needs\n")}


# ---- the commands ----------------------------------------------------------------------------------------------------


def test_db_check_says_what_is_to_be_done_and_changes_nothing(database: str, tmp_path: Path) -> None:
    needs = f"this unbroken needs schema {NEWEST}: run `unbroken db upgrade`\n"
    assert ends(begin("check", "--store", database)) == (1, f"no tables yet, {needs}")
    older(database)
    assert ends(begin("check", "--store", database)) == (1, f"schema 1, {needs}")
    assert ends(begin("check", "--store", old_file(tmp_path))) == (1, f"schema 1, {needs}")
    upgrade_schema(database)
    assert ends(begin("check", "--store", database)) == (0, f"schema {NEWEST}, as this unbroken needs\n")
    status, said = ends(begin("check", "--store", newer(database)))
    assert (status, said.splitlines()) == (
        2,
        [f"unbroken: the tables belong to a newer unbroken (schema 99, this one knows {NEWEST}): upgrade unbroken"],
    )


def test_db_check_tells_a_missing_file_and_a_missing_server_in_one_line(tmp_path: Path) -> None:
    for url in (f"sqlite:///{tmp_path}/none.db", "postgresql://ada:secret@127.0.0.1:1/x"):
        status, said = ends(begin("check", "--store", url))
        assert (status, said.count("\n")) == (2, 1)
        assert "secret" not in said
    assert not (tmp_path / "none.db").exists()


def test_a_store_without_tables_has_nothing_to_do(tmp_path: Path) -> None:
    for command in ("check", "upgrade"):
        assert ends(begin(command, "--store", "memory:")) == (0, "this store has no tables: nothing to do\n")


def test_another_programs_file_is_left_alone(tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "other.db")
    other.execute("CREATE TABLE somebody_elses (a)")
    other.close()
    with pytest.raises(ConfigurationError, match="another program"):
        schema_version(f"sqlite:///{tmp_path}/other.db")


def test_a_name_of_a_database_has_no_password() -> None:
    assert PostgresDriver("postgresql://ada:secret@db.example:5433/shop").name == "PostgreSQL at db.example:5433/shop"
