"""What is particular to SQLite: one file, several processes, crashes, and files that are not ours.

Modules: server/stores/sqlite_statements.py.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import anyio
import pytest

from unbroken._concurrency import run_sync
from unbroken.errors import ConfigurationError, InvalidRequest, StoreUnavailable
from unbroken.server import Sessions, SqliteSessionStore, open_store
from unbroken.server.stores import DatabaseLocked, sqlite

REFRESH = """
import sys
from unbroken.server import Sessions, SqliteSessionStore
sessions = Sessions(SqliteSessionStore(sys.argv[1]))
print("ready", flush=True); sys.stdin.readline()
print(sessions.refresh(sys.argv[2]).refresh_token)
"""
WRITE_FOR_EVER = """
import sys
from unbroken.server import Sessions, SqliteSessionStore
sessions = Sessions(SqliteSessionStore(sys.argv[1]))
token = sys.argv[2]
print("ready", flush=True)
for number in range(1000000):
    token = sessions.refresh(token, idempotency_key=str(number)).refresh_token
    print(token, flush=True)
"""


def run(code: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_processes_with_one_token_get_one_successor(tmp_path: Path) -> None:
    file = str(tmp_path / "s.db")
    token = Sessions(SqliteSessionStore(file)).create("ada").refresh_token or ""
    processes = [run(REFRESH, file, token) for _ in range(3)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    responses = {process.communicate("go\n", timeout=20)[0] for process in processes}
    assert len(responses) == 1
    assert "".join(responses).startswith("rt_")


def test_processes_that_start_at_once_on_a_new_file_agree_on_the_keys(tmp_path: Path) -> None:
    file = str(tmp_path / "new.db")
    code = "import sys; from unbroken.server import *; sessions = Sessions(SqliteSessionStore(sys.argv[1]));"
    code += "print(sessions.keyring().signing[0].kid)"
    processes = [run(code, file) for _ in range(4)]
    assert len({process.communicate(timeout=20)[0] for process in processes}) == 1


def test_kill_9_in_the_middle_leaves_a_good_file_and_a_good_session(tmp_path: Path) -> None:
    file = str(tmp_path / "s.db")
    sessions = Sessions(SqliteSessionStore(file))
    token = sessions.create("ada", coordinated=True).refresh_token or ""
    process = run(WRITE_FOR_EVER, file, token)
    assert process.stdout is not None
    for _ in range(50):
        token = process.stdout.readline().strip()
    process.kill()
    whole = [line.strip() for line in process.stdout if line.endswith("\n")]  # what it has read ahead comes first
    process.wait()
    process.stdout.close()
    token = whole[-1] if whole else token
    assert Sessions(SqliteSessionStore(file)).refresh(token, idempotency_key="after").refresh_seq
    assert sqlite3.connect(file).execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_no_number_of_refreshes_adds_a_row(tmp_path: Path) -> None:
    sessions = Sessions(SqliteSessionStore(tmp_path / "s.db"))
    token = sessions.create("ada").refresh_token or ""
    for _ in range(200):
        token = sessions.refresh(token).refresh_token or ""
    count = sqlite3.connect(tmp_path / "s.db").execute("SELECT count(*) FROM session").fetchone()
    assert count == (1,)


def test_a_dump_holds_no_usable_token(tmp_path: Path) -> None:
    sessions = Sessions(SqliteSessionStore(tmp_path / "s.db"))
    token = sessions.refresh(sessions.create("ada").refresh_token or "").refresh_token or ""
    sessions.close()
    import base64

    raw = base64.urlsafe_b64decode(token[3:] + "=" * (-len(token[3:]) % 4))
    stored = (tmp_path / "s.db").read_bytes() + b"".join(p.read_bytes() for p in tmp_path.glob("s.db-wal"))
    assert raw[2:18] not in stored, "the random part stands nowhere"
    assert token.encode() not in stored


def test_the_file_is_its_owners_alone(tmp_path: Path) -> None:
    SqliteSessionStore(tmp_path / "s.db")
    assert stat.S_IMODE(os.stat(tmp_path / "s.db").st_mode) == 0o600


def test_a_database_from_the_future_is_refused_and_left_alone(tmp_path: Path) -> None:
    SqliteSessionStore(tmp_path / "s.db").close()
    db = sqlite3.connect(tmp_path / "s.db")
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(ConfigurationError, match=r"newer unbroken \(schema 99"):
        SqliteSessionStore(tmp_path / "s.db")


def test_what_is_not_ours_is_refused_in_one_line(tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "other.db")
    other.execute("CREATE TABLE somebody_elses (a)")
    other.close()
    (tmp_path / "text.db").write_text(
        "this is not a database, however long it may be, and it goes on for a while " * 20
    )
    (tmp_path / "folder.db").mkdir()
    for name in ("other.db", "text.db", "folder.db", "missing/s.db"):
        with pytest.raises(ConfigurationError) as caught:
            SqliteSessionStore(tmp_path / name)
        assert "\n" not in str(caught.value)
        assert name.split("/")[0] in str(caught.value)
    assert (tmp_path / "text.db").read_text().startswith("this is not"), "left alone"


def test_a_locked_database_is_try_later_and_no_driver_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "BUSY_SECONDS", 0.05)
    sessions = Sessions(SqliteSessionStore(tmp_path / "s.db"))
    granted = sessions.create("ada")
    blocker = sqlite3.connect(tmp_path / "s.db", isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable):
        sessions.refresh(granted.refresh_token or "")
    blocker.execute("ROLLBACK")
    assert sessions.refresh(granted.refresh_token or "").refresh_seq == 1


@pytest.mark.parametrize("what", ["arefresh", "averify"])
def test_an_event_loop_goes_on_while_another_process_writes(tmp_path: Path, what: str) -> None:
    sessions = Sessions(SqliteSessionStore(tmp_path / "s.db"), confirm_first_use=True)
    granted = sessions.create("ada")
    blocker = sqlite3.connect(tmp_path / "s.db", isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    beats = 0

    async def beat() -> None:
        """Frees the file after twenty turns of the event loop: never, if the loop is blocked."""
        nonlocal beats
        while True:
            await anyio.sleep(0.01)
            beats += 1
            if beats == 20:
                blocker.execute("COMMIT")

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(beat)
            if what == "arefresh":
                assert (await sessions.arefresh(granted.refresh_token or "")).refresh_seq == 1
            else:
                assert (await sessions.averify(granted.access_token)).subject == "ada"
            group.cancel_scope.cancel()

    anyio.run(main)
    assert beats >= 20 or what == "averify", "a reader does not wait for a writer"
    blocker.close()


def test_what_waits_briefly_in_a_loop_waits_long_elsewhere(tmp_path: Path) -> None:
    store = SqliteSessionStore(tmp_path / "s.db")
    blocker = sqlite3.connect(tmp_path / "s.db", isolation_level=None, check_same_thread=False)
    with contextlib.closing(blocker):
        blocker.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        with store.short_timeout(), pytest.raises(DatabaseLocked):
            run_sync(store.record_first_use("sid", 0, 0))
        assert time.monotonic() - began < 1.0
        release = threading.Timer(0.3, blocker.execute, ["COMMIT"])
        release.start()
        run_sync(store.record_first_use("sid", 0, 0))  # raises nothing: it waits
        release.join()


@pytest.mark.parametrize(
    ("given", "index"),
    [({"sid": "a"}, "sid=?"), ({"subject": "a"}, "subject=?"), ({"subject": "a", "except_sid": "b"}, "subject=?")],
)
def test_a_revocation_finds_its_sessions_by_an_index(tmp_path: Path, given: dict[str, str], index: str) -> None:
    store, plans = SqliteSessionStore(tmp_path / "s.db"), []
    db = store._file.connection(durable=True)

    def note(statement: str) -> None:
        if "UPDATE session" in statement:
            plans.append(statement)

    db.set_trace_callback(note)
    run_sync(store.revoke(1.0, "revoked", 2.0, **given))
    db.set_trace_callback(None)
    [statement] = plans
    plan = " ".join(str(step[3]) for step in db.execute(f"EXPLAIN QUERY PLAN {statement}"))
    assert index in plan
    assert "SCAN" not in plan


def test_what_is_no_text_is_an_invalid_request_and_no_driver_error(tmp_path: Path) -> None:
    sessions = Sessions(SqliteSessionStore(tmp_path / "s.db"))
    sessions.create("ada")
    for ask in (lambda: sessions.revoke("\udcff"), lambda: sessions.list_sessions("\udcff")):
        with pytest.raises(InvalidRequest, match="text that the database cannot store"):
            ask()
    assert len(sessions.list_sessions()) == 1


def test_a_child_process_uses_connections_of_its_own(tmp_path: Path) -> None:
    store = SqliteSessionStore(tmp_path / "s.db")
    sessions = Sessions(store)
    sessions.create("ada")
    child = os.fork()
    if child == 0:
        try:
            sessions.create("bob")
            os._exit(0)
        except BaseException:  # noqa: BLE001  # the child says so by its status
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert len(sessions.list_sessions()) == 2


def test_many_threads_have_connections_of_their_own(tmp_path: Path) -> None:
    sessions, errors = Sessions(SqliteSessionStore(tmp_path / "s.db")), []

    def work() -> None:
        try:
            token = sessions.create("ada").refresh_token or ""
            for _ in range(5):
                token = sessions.refresh(token).refresh_token or ""
            time.sleep(0)
            sessions.close()
        except BaseException as error:  # noqa: BLE001  # looked at below
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


@pytest.mark.parametrize("url", ["", "sqlite:", "sqlite:///", "mysql://x", "mysql://user:secret@host/db"])
def test_an_unknown_store_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        open_store(url)
    assert "sqlite:///FILE" in str(caught.value)
    assert "secret" not in str(caught.value)
