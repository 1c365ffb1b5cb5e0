"""A process that forks in the middle of its work, over every store: parent and children go on, and share no connection.

The parent's threads work all the time, so that a fork finds connections in use, locks held and transactions open: worse
than a server that loads the application and then forks its workers (``gunicorn --preload``). Who is stuck is ended by
the time limit.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

CHILDREN = 4
SCRIPT = """
import json, os, sys, threading, time
kind, url, children = sys.argv[1], sys.argv[2], int(sys.argv[3])

{make}

stop, failures, done = threading.Event(), [], []

def work(name, rounds):
    step = start(name)
    for _ in range(rounds):
        if stop.is_set():
            break
        try:
            step()
            done.append(name)
        except BaseException as error:
            failures.append(f"{{name}}: {{type(error).__name__}}: {{error}}")
            return

def run_threads(prefix, number, rounds):
    threads = [threading.Thread(target=work, args=(f"{{prefix}}{{n}}", rounds)) for n in range(number)]
    for thread in threads:
        thread.start()
    return threads

def child(number):
    done.clear()
    failures.clear()
    inherited = open_files()
    for thread in run_threads(f"child{{number}}-", 2, 8):
        thread.join()
    tell(len(done), inherited)
    os._exit(0)

def tell(steps, inherited):
    facts = {{"done": steps, "failures": failures, "connection": connection(), "files": inherited}}
    os.write(1, json.dumps(facts).encode() + b"\\n")

def open_files():
    if not url.startswith("sqlite"):
        return []
    opened = []
    for one in os.listdir("/proc/self/fd"):
        try:
            opened.append(os.readlink("/proc/self/fd/" + one))
        except OSError:
            pass
    ends = (".refresh", ".write") if kind == "file" else ""  # the token file itself may be open: it is only read
    return [one for one in opened if one.startswith(url.split("///")[1]) and one.endswith(ends)]

threads = run_threads("parent", 3, 10**9)
while len(done) < 10 and not failures:
    time.sleep(0.01)
ids = []
for number in range(children):
    ids.append(os.fork())
    if ids[-1] == 0:
        stop = threading.Event()
        child(number)
    time.sleep(0.03)
statuses = [os.waitpid(one, 0)[1] for one in ids]
before = len(done)
while len(done) < before + 10 and not failures:
    time.sleep(0.01)
stop.set()
for thread in threads:
    thread.join()
tell(16, [])
print(json.dumps(statuses))
"""
SERVER = """
from unbroken._concurrency import run_sync
from unbroken.server import Sessions, open_store
store = open_store(url)
sessions = Sessions(store, issuer="https://id.example.com")

def start(name):
    tokens = [sessions.create(name).refresh_token]
    def step():
        tokens.append(sessions.refresh(tokens[-1]).refresh_token)
        if len(tokens) % 4 == 0:
            sessions.create(name)  # a durable transaction
            assert len(sessions.list_sessions(name)) >= 1
    return step

def connection():
    if kind == "postgres":
        return run_sync(store._driver.rows("SELECT pg_backend_pid()"))[0][0]
    if kind == "redis":
        return run_sync(store._driver.execute("CLIENT", "ID"))
    return os.getpid()
"""
CLIENT = """
from dataclasses import replace
from unbroken import Tokens
from unbroken.client.core.token_store import EMPTY, StoredSession
{store}
store = Store(url)

def start(name):
    mine = Store(url, name)
    def step():
        for one in (mine, store):
            with one.lock(30.0):
                found = one.load()
                version = found.version + 1
                assert one.save(StoredSession(version, 1, Tokens("a", "r", version=version, epoch=1)), found)
                assert one.load().version == version
    return step

def connection():
    store.load()
    if kind == "postgres":
        return store._connection.execute("SELECT pg_backend_pid()").fetchone()[0]
    if kind == "redis":
        return store._redis.client_id()
    return os.getpid()
"""
STORES = {
    "sqlite": (
        "from unbroken.client.stores.sqlite import SqliteStore\n"
        "Store = lambda url, name='all': SqliteStore(url.split('///')[1], name)"
    ),
    "postgres": "from unbroken.client.stores.postgres import PostgresStore as Store",
    "redis": "from unbroken.client.stores.redis import RedisStore as Store",
    "file": "from unbroken import FileStore\nStore = lambda url, name='all': FileStore(url.split('///')[1] + name)",
}


@pytest.fixture
def url_of(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], str]:
    def find(kind: str) -> str:
        if kind in ("sqlite", "file"):
            return f"sqlite:///{tmp_path}/one.db"
        return str(request.getfixturevalue("database") if kind == "postgres" else request.getfixturevalue("redis").url)

    return find


def fork_while_at_work(make: str, kind: str, url: str) -> None:
    command = [
        sys.executable,
        "-W",
        "ignore::DeprecationWarning",
        "-c",
        SCRIPT.format(make=make),
        kind,
        url,
        str(CHILDREN),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr
    *parts, statuses = [json.loads(line) for line in done.stdout.splitlines()]
    assert statuses == [0] * CHILDREN, done.stderr
    assert len(parts) == CHILDREN + 1
    assert [part["failures"] for part in parts] == [[]] * (CHILDREN + 1)
    assert {part["done"] for part in parts} == {16}
    assert [part["files"] for part in parts] == [[]] * (CHILDREN + 1), "a child has inherited an open file"
    assert len({part["connection"] for part in parts}) == CHILDREN + 1


@pytest.mark.parametrize("kind", ["sqlite", "postgres", "redis"])
def test_a_server_that_forks_at_work_goes_on(kind: str, url_of: Callable[[str], str]) -> None:
    fork_while_at_work(SERVER, kind, url_of(kind))


@pytest.mark.parametrize("kind", STORES)
def test_a_client_that_forks_at_work_goes_on(kind: str, url_of: Callable[[str], str]) -> None:
    fork_while_at_work(CLIENT.format(store=STORES[kind]), kind, url_of(kind))
