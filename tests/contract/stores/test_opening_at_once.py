"""Processes that open one new SQLite file at the same moment: each finds a store that works."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from unbroken.client.stores.sqlite import SqliteStore
from unbroken.server import SqliteSessionStore

PROCESSES, ROUNDS = 8, 4
SCRIPT = """
import sys, time
from pathlib import Path
from unbroken._concurrency import run_sync
from unbroken.client.core.token_store import StoredSession
from unbroken.client.stores.sqlite import SqliteStore
from unbroken.server import SqliteSessionStore

def client(path):
    store = SqliteStore(path, "session " + sys.argv[3])
    assert store.save(StoredSession(1, 1), store.load())

def server(path):
    store = SqliteSessionStore(path)
    run_sync(store.health())
    run_sync(store.advance_marker(sys.argv[3].encode(), 1.0, 1.0, 9.0))
    store.close()

use = {"client": client, "server": server}[sys.argv[1]]
print("ready", flush=True)
for line in sys.stdin:
    number, moment = line.split()
    time.sleep(max(float(moment) - time.time(), 0.0))
    use(Path(sys.argv[2], number + ".db"))
    print("opened", flush=True)
"""


@pytest.mark.parametrize("end", ["client", "server"])
def test_a_new_file_may_be_opened_by_many_at_once(end: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", SCRIPT, end, str(tmp_path)]
    pipe = subprocess.PIPE
    processes = [
        subprocess.Popen([*command, str(number)], stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        for number in range(PROCESSES)
    ]
    first_lines = [process.stdout.readline() for process in processes if process.stdout]
    rounds = "".join(f"{number} {time.time() + 0.2 + number * 0.1}\n" for number in range(ROUNDS))
    for process in processes:
        if process.stdin:
            process.stdin.write(rounds)
            process.stdin.flush()
    told = [process.communicate(timeout=60) for process in processes]
    assert first_lines == ["ready\n"] * PROCESSES
    assert told == [("opened\n" * ROUNDS, "")] * PROCESSES


@pytest.mark.parametrize("use", [SqliteStore, SqliteSessionStore])
def test_the_switch_to_wal_waits_for_a_writer(use: Callable[[Path], object], tmp_path: Path) -> None:
    """SQLite itself does not: it says at once that the database is locked."""
    path = tmp_path / "new.db"
    path.touch(mode=0o600)
    writer = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    writer.execute("BEGIN IMMEDIATE")
    end = threading.Timer(0.2, writer.execute, ["COMMIT"])
    end.start()
    use(path)
    end.join()
    writer.close()
