"""What is particular to PostgreSQL: transactions, connections that break, bounded waits, and what a session costs.

Modules: server/stores/postgres_notifications.py, server/stores/postgres_statements.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, replace
from secrets import token_bytes, token_urlsafe
from typing import Any

import anyio
import psycopg
import pytest

from unbroken._concurrency import run_sync
from unbroken._drivers import postgres as sql_module
from unbroken._drivers import postgres_connection as sql_connection
from unbroken._drivers.postgres import PostgresDriver
from unbroken._drivers.postgres_connection import AsyncConnection, BlockingConnection
from unbroken.errors import ConfigurationError, InvalidRequest, StoreUnavailable, TryLater
from unbroken.server import Sessions, open_store
from unbroken.server.core.rotation import Policy, PresentedToken, SessionRow
from unbroken.server.http.endpoints import Endpoints
from unbroken.server.http.messages import Request
from unbroken.server.stores import SessionStore
from unbroken.server.stores import postgres_statements as statements
from unbroken.server.stores.postgres import CURSOR_START_RANGE, PostgresSessionStore

NOW = 100.0
FORK = "ignore::DeprecationWarning:__main__"  # later Pythons warn of forks of threads: that is what is tested
SERVED = """
import os, sys
from unbroken.server import Sessions, open_store
sessions = Sessions(open_store(sys.argv[1]), issuer='https://id.example.com')
token = sessions.create("ada").refresh_token
"""
FORKED = (
    SERVED
    + """
if os.fork() == 0:
    token = sessions.refresh(token).refresh_token
    print("child", sessions.refresh(token).refresh_seq, flush=True)
    sys.exit(0)
print("status", os.wait()[1])
print("parent", len(sessions.list_sessions("ada")), sessions.create("bob").refresh_seq)
"""
)
NEVER_CLOSED = (
    SERVED
    + """
import asyncio
async def main():
    print(sessions.verify((await sessions.arefresh(token)).access_token).subject)
asyncio.run(main())
"""
)

LEFT_ALONE = """
import asyncio, sys
from unbroken.server import open_store
store = open_store(sys.argv[1])
async def leaves(turns):
    asking = asyncio.create_task(store.read(b"sid"))
    for _ in range(turns):
        await asyncio.sleep(0)
for turns in range(60):
    asyncio.run(leaves(turns))
print("ended")
"""


@pytest.fixture
def url(database: str) -> str:
    """The URL of an empty database."""
    return database


@pytest.fixture
def db(url: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection of somebody else, who may do anything."""
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def store(url: str) -> Iterator[PostgresSessionStore]:
    opened = PostgresSessionStore(url)
    run_sync(opened.health())  # makes the tables
    yield opened
    opened.close()


def row(sid: str = "sid", **fields: Any) -> SessionRow:
    return replace(SessionRow(sid.encode(), sid, "ada", 1.0, 1.0, 1000.0, 5000.0), **fields)


def one(db: psycopg.Connection[Any], statement: str, *values: object) -> Any:
    found = db.execute(statement.encode(), values).fetchone()
    assert found is not None
    return found[0]


# ---- transactions ----------------------------------------------------------------------------------------------------


def test_a_revocation_that_commits_late_is_not_passed_over(url: str, store: PostgresSessionStore) -> None:
    run_sync(store.insert(row("early")))
    with psycopg.connect(url) as late:
        late.execute("INSERT INTO unbroken_revocation (sid, until) VALUES ('late', 200)")
        run_sync(store.revoke(NOW, "revoked", NOW + 9, sid="early"))
        cursor, told = run_sync(store.revocations(0))
        assert [sid for sid, _ in told] == ["early"]
        late.commit()
    cursor, told = run_sync(store.revocations(cursor))
    assert "late" in [sid for sid, _ in told]


def test_a_cursor_is_good_for_the_server_that_gave_it_only(store: PostgresSessionStore) -> None:
    run_sync(store.insert(row()))
    run_sync(store.revoke(NOW, "revoked", NOW + 9, sid="sid"))
    cursor, _ = run_sync(store.revocations(run_sync(store.revocations(0))[0]))
    of_another = cursor ^ 1  # one that started at another time: it may be a replica that has lost the last transactions
    cursor, told = run_sync(store.revocations(of_another))
    again = run_sync(store.revocations(cursor))[1]
    assert ("sid", NOW + 9) in told + again


def test_only_a_rotation_does_not_wait_for_the_disk(
    url: str, store: PostgresSessionStore, db: psycopg.Connection[Any]
) -> None:
    db.execute(f"ALTER DATABASE {db.info.dbname} SET synchronous_commit = off".encode())  # which would lose logins
    sql = PostgresDriver(url)
    run_sync(store.insert(row()))
    values = {"key": b"sid", "generation": 0, "branch": 0, "idempotency_hash": None, "now": NOW, "refresh_ttl": 300.0}
    values |= {"grace": 10.0, "hour": 0.0, "party": "", "jkt": None, "scope": None}
    assert run_sync(sql.rows(statements.ROTATE, values)) == [("off",)]
    assert run_sync(sql.rows("SHOW synchronous_commit")) == [("on",)]
    sql.close()


def test_clearing_away_waits_for_no_lock(url: str, store: PostgresSessionStore) -> None:
    for number in range(20):
        run_sync(store.insert(row(str(number), expires_at=50.0)))
    with psycopg.connect(url) as other:
        other.execute("SELECT 1 FROM unbroken_session WHERE sid = '7' FOR UPDATE")
        run_sync(store.insert(row("new", created_at=NOW)))  # else the statement would end by its timeout
        assert {found.sid for found in run_sync(store.sessions())} == {"7", "new"}
        other.execute("DELETE FROM unbroken_session WHERE sid = '7'")  # as another node that clears away
        run_sync(store.insert(row("newer", created_at=NOW)))
        assert run_sync(store.rotate(b"new", PresentedToken(0, 0), NOW, Policy(refresh_ttl=300.0))) is True


# ---- what a session costs --------------------------------------------------------------------------------------------


def copied(db: psycopg.Connection[Any], count: int) -> list[bytes]:
    """Stores sessions of a client that sends idempotency keys; their keys. Then each is refreshed twice."""
    keys, now = [token_bytes(32) for _ in range(count)], time.time()
    statement = f"COPY unbroken_session ({statements.COLUMNS}) FROM STDIN"
    about = {"coordinated": True, "scope": "read write", "ip": "203.0.113.77", "user_agent": "python-httpx2/2.16.2"}
    with db.cursor() as cursor, cursor.copy(statement.encode()) as copy:
        for number, key in enumerate(keys):
            at = now + number / 100
            new = SessionRow(
                key, token_urlsafe(16), f"user-{number // 2}", at, at, at + 604800, at + 7776000, "first-party"
            )
            copy.write_row(astuple(replace(new, **about)))
    change = """
        generation = generation + 1, previous_rotated_at = rotated_at, previous_promoted_branch = promoted_branch,
        rotated_at = used_at, promoted_branch = 0, idempotency_hash = substr(key, 1, 16)
    """
    for part in range(128):  # as they come, here and there
        db.execute(f"UPDATE unbroken_session SET {change} WHERE get_byte(key, 0) % 64 = {part % 64}".encode())
    return keys


def test_a_session_costs_at_most_400_bytes_with_its_indexes(
    store: PostgresSessionStore, db: psycopg.Connection[Any]
) -> None:
    # Who analyses the table just now keeps old versions of its rows from being cleared away: that would be chance.
    db.execute("ALTER TABLE unbroken_session SET (autovacuum_enabled = off)")
    copied(db, 100_000)
    db.execute("REINDEX TABLE unbroken_session")  # hashed indexes grow in leaps: where they stand is chance
    size = one(db, "SELECT pg_relation_size('unbroken_session') + pg_indexes_size('unbroken_session')") / 100_000
    assert size <= 400


def test_every_query_uses_an_index(store: PostgresSessionStore, db: psycopg.Connection[Any]) -> None:
    keys = copied(db, 5000)
    db.execute("ANALYZE unbroken_session")
    found = run_sync(store.sessions("user-77"))
    assert [info.subject for info in found] == ["user-77"] * 2
    plans = {
        "key": (statements.READ, (keys[0],)),
        "subject": (
            f"SELECT * FROM unbroken_session WHERE true{statements.CONDITIONS['subject']}",
            {"subject": "user-7"},
        ),
        "subject ": (statements.COUNT_UNREVOKED, {"subject": "user-7", "most": 11}),
        "subject  ": (
            statements.PAGE.format(conditions=f"{statements.CONDITIONS['subject']} AND revoked_at IS NULL"),
            {"subject": "user-7", "expires_at": float("inf"), "sid": "", "limit": 10},
        ),
        "sid": (statements.RECORD_FIRST_USE, (0, found[0].sid, 1)),
        "expires_at": (statements.INSERT, (time.time(), *astuple(row()))),
    }
    for index, (statement, values) in plans.items():
        plan = "\n".join(line for (line,) in db.execute(f"EXPLAIN {statement}".encode(), values))
        assert f"unbroken_session_{index.strip()}" in plan
        assert "Seq Scan" not in plan


def test_refreshes_add_no_row_and_touch_no_index(store: PostgresSessionStore, db: psycopg.Connection[Any]) -> None:
    keys = copied(db, 1000)
    generation = dict.fromkeys(keys, 2)
    before = [one(db, f"SELECT pg_relation_size('unbroken_session_{name}')") for name in ("key", "sid", "subject")]
    for _ in range(2000):
        key = random.choice(keys)
        assert run_sync(
            store.rotate(key, PresentedToken(generation[key], 0, b"a" * 16), time.time(), Policy(refresh_ttl=604800.0))
        )
        generation[key] += 1
    after = [one(db, f"SELECT pg_relation_size('unbroken_session_{name}')") for name in ("key", "sid", "subject")]
    assert one(db, "SELECT count(*) FROM unbroken_session") == 1000
    assert after == before
    counts = "SELECT array[n_tup_upd, n_tup_hot_upd] FROM pg_stat_user_tables WHERE relname = 'unbroken_session'"
    store.close()  # what a connection has counted is known when it ends
    ends = time.monotonic() + 20
    while (seen := one(db, counts))[0] < 2000 and time.monotonic() < ends:
        time.sleep(0.05)
    assert seen[0] >= 2000
    assert seen[1] >= 0.9 * seen[0], "nearly all of them are HOT"


# ---- connections that break ------------------------------------------------------------------------------------------


def kill_connections(db: psycopg.Connection[Any]) -> int:
    """Ends all other connections to the database, and returns when they are gone; how many. New ones may come."""
    others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    found = [pid for (pid,) in db.execute(f"SELECT pid {others}").fetchall()]
    for pid in found:
        db.execute("SELECT pg_terminate_backend(%s, 10000)", (pid,))
    gone = "SELECT count(*) FROM pg_stat_activity WHERE pid = ANY(%s)"
    assert db.execute(gone, (found,)).fetchall() == [(0,)]
    return len(found)


def test_connections_that_the_server_has_closed_fail_no_request(
    store: PostgresSessionStore, db: psycopg.Connection[Any]
) -> None:
    run_sync(store.insert(row()))
    assert kill_connections(db) >= 1
    assert run_sync(store.read(b"sid")) == row()
    asyncio.run(killed_and_asked(store, db))


async def killed_and_asked(store: PostgresSessionStore, db: psycopg.Connection[Any]) -> None:
    async with anyio.create_task_group() as group:
        for _ in range(8):
            group.start_soon(store.read, b"sid")
    assert kill_connections(db) >= 1
    assert await store.read(b"sid") == row()
    await store.aclose()


@pytest.mark.parametrize("run", [run_sync, asyncio.run], ids=["blocking", "asyncio"])
def test_a_server_that_stops_in_mid_response_is_given_up(
    url: str, db: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch, run: Callable[[Any], Any]
) -> None:
    monkeypatch.setattr(BlockingConnection, "response_seconds", 0.5)
    monkeypatch.setattr(AsyncConnection, "response_seconds", 0.5)
    sql = PostgresDriver(url)

    async def stopped() -> Any:
        [(pid,)] = await sql.rows("SELECT pg_backend_pid()")
        os.kill(pid, signal.SIGSTOP)  # a child of the server that was started for these tests
        try:
            with pytest.raises(StoreUnavailable, match="no response within"):
                await sql.rows("SELECT 1")
            return await sql.rows("SELECT 2")
        finally:
            os.kill(pid, signal.SIGCONT)
            await sql.aclose()

    assert run(stopped()) == [(2,)]


def test_a_statement_that_takes_too_long_is_ended(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql_connection, "STATEMENT_SECONDS", 0.2)
    sql = PostgresDriver(url)
    with pytest.raises(StoreUnavailable, match="statement timeout"):
        run_sync(sql.rows("SELECT pg_sleep(30)"))
    assert run_sync(sql.rows("SELECT 1")) == [(1,)]
    sql.close()


@pytest.mark.parametrize("kind", ["blocking", "asyncio"])
def test_who_finds_all_connections_busy_waits_for_a_bounded_time(
    url: str, db: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(sql_module, "POOL_WAIT_SECONDS", 0.3)
    sql = PostgresDriver(f"{url}?pool_size=1")
    db.execute("SELECT pg_advisory_lock(1)")
    wait = ("SELECT pg_advisory_lock(1)", ())

    async def both() -> None:
        async def holds() -> None:
            await sql.rows(*wait)

        async with anyio.create_task_group() as group:
            group.start_soon(holds)
            with anyio.fail_after(10):
                while not one(db, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"):  # noqa: ASYNC110  # another process's
                    await anyio.sleep(0.01)
            with pytest.raises(StoreUnavailable, match="all connections are busy"):
                await sql.rows("SELECT 1")
            db.execute("SELECT pg_advisory_unlock(1)")
        await sql.aclose()

    anyio.run(both, backend="asyncio" if kind == "asyncio" else "trio")


def test_tasks_that_are_cancelled_keep_no_connection(url: str) -> None:
    sql = PostgresDriver(f"{url}?pool_size=2")

    async def impatient(patience: float) -> None:
        with anyio.move_on_after(patience):
            await sql.transaction([("SELECT pg_sleep(0.002)", ()), ("SELECT 1", ())])

    async def many() -> Any:
        async with anyio.create_task_group() as group:
            for number in range(200):
                group.start_soon(impatient, number / 4000)
        with anyio.fail_after(30):
            async with anyio.create_task_group() as group:
                for _ in range(4):
                    group.start_soon(gets_through)
        await sql.aclose()

    async def gets_through() -> None:
        while True:  # on a busy machine, new connections may take longer than one wait for the pool
            with contextlib.suppress(StoreUnavailable):
                await sql.rows("SELECT 1")
                return

    asyncio.run(many())


def test_a_child_process_makes_connections_of_its_own(url: str) -> None:
    done = run_python(FORKED, url)
    assert (done.stdout.splitlines(), done.stderr) == (["child 2", "status 0", "parent 1 0"], "")


def test_a_program_that_closes_nothing_ends_without_a_warning(url: str) -> None:
    done = run_python(NEVER_CLOSED, url)
    assert (done.stdout, done.stderr, done.returncode) == ("ada\n", "", 0)


def test_an_event_loop_that_ends_while_a_connection_is_made_ends(url: str) -> None:
    done = run_python(LEFT_ALONE, url)
    assert (done.stdout, done.returncode) == ("ended\n", 0)


def run_python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-X", "dev", "-W", "error", "-W", FORK, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_a_store_that_was_closed_can_be_used_again(store: PostgresSessionStore) -> None:
    run_sync(store.insert(row()))
    store.close()
    store.close()
    assert run_sync(store.read(b"sid")) == row()


def test_several_event_loops_and_threads_share_a_store(store: PostgresSessionStore) -> None:
    sessions = Sessions(store)
    token = sessions.create("ada").refresh_token or ""

    async def refresh() -> str:
        return (await sessions.arefresh(token)).refresh_token or ""

    with ThreadPoolExecutor(6) as pool:
        work = [pool.submit(anyio.run, refresh, backend=kind) for kind in ("asyncio", "trio") * 3]
        answers = {one.result(30) for one in work} | {sessions.refresh(token).refresh_token}
    assert len(answers) == 1
    sessions.close()


# ---- mistakes --------------------------------------------------------------------------------------------------------


def test_a_server_that_does_not_run_is_unavailable_and_its_password_is_not_shown() -> None:
    store = open_store("postgresql://ada:secret@127.0.0.1:1/shop")
    with pytest.raises(StoreUnavailable, match=r"PostgreSQL at 127.0.0.1:1/shop does not respond") as caught:
        run_sync(store.health())
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    ["postgresql://ada:secret@[::1", "postgresql://ada:secret@h/db?no_such_setting=1"],
)
def test_a_malformed_url_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        open_store(url)
    assert "secret" not in str(caught.value)


def test_a_missing_driver_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [
        name for name in sys.modules if name.startswith(("unbroken.server.stores.postgres", "unbroken._drivers"))
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ConfigurationError, match=r"install 'unbroken\[postgres\]'"):
        open_store("postgresql://h/db")


def test_the_server_is_imported_without_a_driver() -> None:
    code = "import sys, unbroken.server; print(sorted({'psycopg', 'psycopg_pool', 'redis'} & set(sys.modules)))"
    assert run_python(code).stdout == "[]\n"


@pytest.mark.parametrize("subject", ["nul\0", "\ud800"])
def test_text_that_the_database_cannot_keep_is_the_askers_mistake(store: PostgresSessionStore, subject: str) -> None:
    with pytest.raises(InvalidRequest):
        run_sync(store.sessions(subject))
    assert run_sync(store.sessions("läuft")) == []


def test_a_server_that_has_become_a_replica_is_unavailable(
    url: str, store: PostgresSessionStore, db: psycopg.Connection[Any]
) -> None:
    run_sync(store.insert(row()))
    run_sync(store._driver.rows("SET default_transaction_read_only = on"))
    with pytest.raises(StoreUnavailable, match="read-only"):
        run_sync(store.rotate(b"sid", PresentedToken(0, 0), NOW, Policy(refresh_ttl=300.0)))
    assert run_sync(store.rotate(b"sid", PresentedToken(0, 0), NOW, Policy(refresh_ttl=300.0))) is True, (
        "on another connection"
    )


def test_a_crash_in_mid_load_ends_no_session(
    url: str, store: PostgresSessionStore, db: psycopg.Connection[Any]
) -> None:
    sessions = Sessions(store)
    tokens = [sessions.create("ada", coordinated=True).refresh_token or "" for _ in range(4)]
    stop = threading.Event()

    def refresh(token: str) -> str:
        number = 0
        while not stop.is_set():
            number += 1
            while True:  # as our client does: the same attempt until it is answered
                with contextlib.suppress(TryLater):
                    token = sessions.refresh(token, idempotency_key=str(number)).refresh_token or ""
                    break
        return token

    with ThreadPoolExecutor(4) as pool:
        work = [pool.submit(refresh, token) for token in tokens]
        for _ in range(10):
            with contextlib.suppress(AssertionError):  # new ones come at once
                kill_connections(db)
        stop.set()
        tokens = [one.result(60) for one in work]
    assert all(sessions.refresh(token, idempotency_key="last").refresh_seq for token in tokens)
    assert len(sessions.list_sessions("ada")) == 4
    sessions.close()


@pytest.fixture
def nodes(url: str) -> Iterator[tuple[PostgresSessionStore, PostgresSessionStore]]:
    """Two nodes on one database, of which the first has made more connections."""
    here, there = PostgresSessionStore(url), PostgresSessionStore(url)
    run_sync(here.health())
    here.close()
    yield here, there
    here.close()
    there.close()


def ended(store: SessionStore, sid: str) -> None:
    run_sync(store.insert(row(sid)))
    run_sync(store.revoke(NOW, "revoked", NOW + 9, sid=sid))


def all_told(store: SessionStore, cursor: int) -> tuple[int, set[str]]:
    cursor, told = run_sync(store.revocations(cursor))
    return cursor, {sid for sid, _ in told}


def test_a_cursor_of_one_node_is_good_on_another(nodes: tuple[PostgresSessionStore, PostgresSessionStore]) -> None:
    here, there = nodes
    ended(here, "first")
    cursor, told = all_told(here, 0)
    assert told == {"first"}
    ended(here, "second")
    assert "second" in all_told(there, cursor)[1]
    ends = time.monotonic() + 10  # somebody may be at work in the server
    while (told := all_told(there, cursor)[1]) and time.monotonic() < ends:
        cursor = all_told(here, cursor)[0]
    assert told == set()


def test_a_cursor_of_another_server_or_of_a_later_state_tells_everything_once_more(
    nodes: tuple[PostgresSessionStore, PostgresSessionStore],
) -> None:
    here, _ = nodes
    ended(here, "first")
    cursor, _ = all_told(here, 0)
    of_another = cursor ^ 1
    of_later = cursor + 1_000_000 * CURSOR_START_RANGE
    for _ in range(2):
        assert all_told(here, of_another)[1] == all_told(here, of_later)[1] == {"first"}


def test_the_list_of_revocations_can_be_followed_over_http(
    nodes: tuple[PostgresSessionStore, PostgresSessionStore],
) -> None:
    sessions = Sessions(nodes[0])
    endpoints = Endpoints(sessions, lambda _name, _password: None)
    token = sessions.create("service", scope="introspect").access_token

    def feed(after: int) -> Any:
        headers = {"authorization": f"Bearer {token}"}
        request = Request("GET", "/auth/revocations", headers, query=f"after={after}")
        return endpoints.handle_blocking(request)

    cursor, _ = sessions.revocations()
    assert cursor < 2**53  # as others read JSON
    assert feed(cursor).status == 200
    sessions.close()


def test_the_loser_of_a_rotation_is_told_so_however_the_database_isolates(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as db:
        db.execute(f"ALTER DATABASE {db.info.dbname} SET default_transaction_isolation = 'repeatable read'".encode())
    store = PostgresSessionStore(url)
    run_sync(store.insert(row()))
    answers: list[bool] = []
    with psycopg.connect(url) as other:
        other.execute("UPDATE unbroken_session SET generation = 1")
        loser = threading.Thread(
            target=lambda: answers.append(
                run_sync(store.rotate(b"sid", PresentedToken(0, 0), NOW, Policy(refresh_ttl=9.0, grace=0.0)))
            )
        )
        loser.start()
        wait_for_a_lock(url)
        other.commit()
        loser.join(10)
    assert answers == [False]
    store.close()


def wait_for_a_lock(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as db:
        for _ in range(1000):
            if db.execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchone():
                return
            time.sleep(0.01)
    raise AssertionError("nobody waits")


def test_a_transaction_whose_client_is_gone_holds_no_lock_forever(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bounded = sql_connection.CONFIGURE.replace(f"'{sql_connection.IDLE_TRANSACTION_SECONDS}s'", "'0.2s'")
    monkeypatch.setattr(sql_connection, "CONFIGURE", bounded)
    store = PostgresSessionStore(url)
    with store._driver._blocking_client()._pool.connection() as gone:
        gone.execute("BEGIN")
        gone.execute("SELECT pg_advisory_xact_lock(%s)", (statements.KEYS_LOCK_ID,))
        other = PostgresDriver(url)
        run_sync(other.rows("SELECT pg_advisory_xact_lock(%s)", (statements.KEYS_LOCK_ID,)))
        other.close()
        with pytest.raises(psycopg.errors.IdleInTransactionSessionTimeout):
            gone.execute("COMMIT")
    store.close()


def test_who_is_cancelled_does_not_wait_for_a_server_that_hangs(url: str) -> None:
    async def leaves(store: PostgresSessionStore) -> float:
        await store.health()
        with psycopg.connect(url, autocommit=True) as db:
            found = db.execute("SELECT pid FROM pg_stat_activity WHERE application_name = 'unbroken'").fetchall()
        for (pid,) in found:
            os.kill(pid, signal.SIGSTOP)
        try:
            asking = asyncio.create_task(store.health())
            await asyncio.sleep(0.1)
            asking.cancel()
            since = time.monotonic()
            await asyncio.wait([asking])
            return time.monotonic() - since
        finally:
            for (pid,) in found:
                os.kill(pid, signal.SIGCONT)
            await store.health()
            await store.aclose()

    assert asyncio.run(leaves(PostgresSessionStore(url))) < 10.0
