"""PostgreSQL behind a real PgBouncer in transaction mode: each transaction may go to another of the server's processes.

What holds for a connection alone does not last there: a prepared statement, a LISTEN. The store needs neither.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.support.commands import unbroken
from tests.support.services import Service, free_port, unavailable
from unbroken._concurrency import run_sync
from unbroken._drivers.postgres import PostgresDriver
from unbroken.client.core.token_store import EMPTY
from unbroken.client.stores.postgres import PostgresStore as TokenStore
from unbroken.errors import InvalidToken
from unbroken.server import Sessions
from unbroken.server.stores import postgres_schema
from unbroken.server.stores.postgres import PostgresSessionStore

DATABASE = "behind_pgbouncer"
PROCESSES = 3  # of the server, for any number of connections
SETTINGS = """
[databases]
{database} = host=127.0.0.1 port={port} user=unbroken
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {own}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {processes}
"""


@pytest.fixture
def direct(postgres: Service) -> Iterator[str]:
    """The URL of an empty database, past PgBouncer."""
    with psycopg.connect(postgres.url, autocommit=True) as db:
        db.execute(f"CREATE DATABASE {DATABASE}".encode())
    yield postgres.url.removesuffix("postgres") + DATABASE
    with psycopg.connect(postgres.url, autocommit=True) as db:
        db.execute(f"DROP DATABASE {DATABASE} WITH (FORCE)".encode())


@pytest.fixture
def url(direct: str, tmp_path: Path) -> Iterator[str]:
    """The URL of the same database, through PgBouncer."""
    program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin") or ""
    if not program:
        unavailable("PgBouncer", "apt-get install pgbouncer")
    port, own = psycopg.conninfo.conninfo_to_dict(direct)["port"], free_port()
    settings = SETTINGS.format(database=DATABASE, port=port, own=own, processes=PROCESSES)
    if _version(program) >= (1, 21):
        settings += "max_prepared_statements = 0\n"  # as older ones, which know no such thing
    (tmp_path / "pgbouncer.ini").write_text(settings)
    command = [program, "--quiet", str(tmp_path / "pgbouncer.ini")]
    command += ["--user=nobody"] if os.geteuid() == 0 else []  # it refuses to run as root
    service = Service(f"postgresql://unbroken@127.0.0.1:{own}/{DATABASE}", command, own)
    service.start()
    yield service.url
    service.stop(signal.SIGKILL)  # how it understands the others depends on its version


def _version(program: str) -> tuple[int, ...]:
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True, timeout=20).stdout
    found = re.search(r"(\d+)\.(\d+)", said)
    assert found, said
    return int(found[1]), int(found[2])


def processes_of(direct: str) -> int:
    """How many of the server's processes are at work on the database, but for the one that is asked."""
    with psycopg.connect(direct) as db:
        asked = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()"
        found = db.execute(asked, (DATABASE,)).fetchone()
    assert found is not None
    return int(found[0])


def test_threads_and_tasks_refresh_while_they_share_a_few_processes_of_the_server(url: str, direct: str) -> None:
    sessions = Sessions(PostgresSessionStore(url))

    def in_a_thread(name: str) -> Any:
        token = sessions.create(name).refresh_token or ""
        for _ in range(20):
            granted = sessions.refresh(token)
            token = granted.refresh_token or ""
            assert sessions.verify(granted.access_token).subject == name
        return granted.refresh_seq

    async def in_a_task(name: str) -> Any:
        token = (await sessions.acreate(name)).refresh_token or ""
        for _ in range(20):
            granted = await sessions.arefresh(token)
            token = granted.refresh_token or ""
        return granted.refresh_seq

    async def in_tasks() -> list[Any]:
        return await asyncio.gather(*(in_a_task(f"task {number}") for number in range(8)))

    with ThreadPoolExecutor(8) as pool:
        threads = list(pool.map(in_a_thread, [f"thread {number}" for number in range(8)]))
    assert threads == asyncio.run(in_tasks()), "each was refreshed as often as it was asked for"
    assert len(set(threads)) == 1
    assert 1 <= processes_of(direct) <= PROCESSES
    sessions.close()


def test_a_revocation_and_new_keys_reach_another_node(url: str) -> None:
    here, there = Sessions(PostgresSessionStore(url)), Sessions(PostgresSessionStore(url))
    granted = here.create("ada")
    assert there.verify(granted.access_token).subject == "ada"
    assert here.revoke_subject("ada") == 1
    assert _refused_in_the_end(there, granted.access_token)
    here.rotate_keys(publish_ahead=0.0)
    assert there.verify(here.create("bob").access_token).subject == "bob"
    here.close()
    there.close()


def _refused_in_the_end(sessions: Sessions, token: str) -> bool:
    ends = time.monotonic() + 10
    while time.monotonic() < ends:
        try:
            sessions.verify(token)
        except InvalidToken:
            return True
        time.sleep(0.01)
    return False


def test_tables_are_brought_forward_by_several_at_once(url: str, direct: str, tmp_path: Path) -> None:
    with psycopg.connect(direct, autocommit=True) as db:
        db.execute(f"CREATE TABLE unbroken_schema AS SELECT 1 AS number; {postgres_schema.STEPS[0]}".encode())
    assert unbroken(tmp_path, "db", "check", UNBROKEN_STORE=url).returncode == 1
    with ThreadPoolExecutor(3) as pool:
        upgrades = [pool.submit(unbroken, tmp_path, "db", "upgrade", UNBROKEN_STORE=url) for _ in range(3)]
        assert [one.result().returncode for one in upgrades] == [0, 0, 0]
    done = unbroken(tmp_path, "check", UNBROKEN_STORE=url)
    assert done.stdout == "no problems\n"


def test_frequent_statements_are_prepared_on_direct_connections(url: str, direct: str) -> None:
    for asked, prepared in ((direct, True), (url, False)):
        sql = PostgresDriver(asked)
        for _ in range(20):
            found = run_sync(sql.rows("SELECT count(*) > 0 FROM pg_prepared_statements"))
        assert found == [(prepared,)]
        sql.close()


def test_a_clients_tokens_are_kept_there_too(url: str) -> None:
    store = TokenStore(url)
    for _ in range(10):
        with store.lock(5.0):
            assert store.load().same(EMPTY)
    store.close()
