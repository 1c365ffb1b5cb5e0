"""The database is killed, replaced by a replica that lags, or restored from an older state: nobody is logged out.

A node finds its way back by itself. What rotation wrote without waiting for the disk may be gone: then tokens come back
that are newer than their rows, and their sessions are healed (R1h). Logins that are older than what was kept last.
A session that ended after it stays ended, as far as any node has heard of it that is still there.
"""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.chaos.clients import Herd, Visitor, reuse_alarms
from tests.chaos.databases import Postgres, Redis, postgres, redis_of_its_own, replica_of
from tests.chaos.node import Node, ask
from tests.chaos.parties import Dead, log_in, whoami
from tests.support.waiting import until

FEW, MANY = 32, 128


@pytest.fixture
def clients(full: bool) -> int:
    """How many."""
    return MANY if full else FEW


def hear_of_logouts(here: Node, there: Node) -> None:
    """Fails unless what ends at one of them has ended at the other a second later."""
    with Dead([here.url, there.url]) as dead:
        for one, other in ((here, there), (there, here)):
            tokens = log_in(one.url)
            assert whoami(other.url, tokens["access_token"])[0] == 200
            assert ask(one.url, "POST", "/auth/logout", {"refresh_token": tokens["refresh_token"]})[0] == 204
            dead.soon([tokens["access_token"]])


def logs_out(tokens: dict[str, str], *nodes: Node) -> None:
    """One of *nodes* is told, all of them hear of it."""
    assert ask(nodes[0].url, "POST", "/auth/logout", {"refresh_token": tokens["refresh_token"]})[0] == 204
    with Dead([node.url for node in nodes]) as dead:
        dead.soon([tokens["access_token"]])


def stays_out(tokens: dict[str, str], *nodes: Node) -> None:
    for node in nodes:
        status, said = ask(node.url, "POST", "/auth/refresh", {"refresh_token": tokens["refresh_token"]})
        assert (status, said.get("error")) == (400, "invalid_grant")
        assert whoami(node.url, tokens["access_token"])[0] == 401


@pytest.mark.parametrize("kind", ["postgres", "redis"])
def test_a_database_that_is_killed_loses_nothing_that_was_promised(
    kind: str, node: Callable[[str], Node], clients: int, full: bool
) -> None:
    chance = random.Random(kind)
    with postgres() if kind == "postgres" else redis_of_its_own() as database:
        alone, other = node(database.url), node(database.url)
        hear_of_logouts(alone, other)
        with Herd(alone.url, clients) as herd:
            visitor = Visitor(alone.url, "visitor")
            visitor.start()
            for _ in range(10 if full else 2):
                herd.run_for(chance.randrange(50, 400))
                before = herd.failures
                database.kill()
                until(lambda before=before: herd.failures > before, "somebody who notices it")
                database.start()
                herd.all_have_their_sessions()
            visitor.ended.set()
            visitor.join(60.0)
        herd.are_let_in()
        visitor.check()
        hear_of_logouts(alone, other)
        alone.check()
        other.check()
        assert reuse_alarms(database.url) == 0


def test_a_replica_that_lags_is_promoted_and_heals_what_it_has_not_heard_of(
    node: Callable[[str], Node], clients: int
) -> None:
    with postgres() as primary, replica_of(primary) as replica:
        both = f"postgresql://unbroken@127.0.0.1:{primary.port},127.0.0.1:{replica.port}/postgres"
        alone, other = node(both), node(both)
        hear_of_logouts(alone, other)
        with Herd(alone.url, clients) as herd:
            herd.all_have_their_sessions()
            leaver = log_in(alone.url)
            cut_off(primary, replica)
            logs_out(leaver, alone, other)
            herd.all_have_their_sessions(times=4)
            primary.kill()
            assert replica.ask("SELECT pg_promote()") is True
            herd.all_have_their_sessions(times=2)
        herd.are_let_in()
        stays_out(leaver, alone, other)
        hear_of_logouts(alone, other)
        alone.check()
        other.check()
        assert alone.verdicts()["healed"] >= clients, "each row was older than its token"
        assert reuse_alarms(replica.url) == 0


def cut_off(primary: Postgres, replica: Postgres) -> None:
    """*replica* has heard of all logins, and hears nothing from now on.

    What it has received it would replay before it is promoted, even if replaying was paused: so it must not receive.
    """
    position = primary.ask("SELECT pg_current_wal_insert_lsn()")
    primary.ask("SELECT pg_switch_wal()")  # what was not flushed yet is now
    until(lambda: replica.ask(f"SELECT pg_last_wal_replay_lsn() >= '{position}'"), "a replica that has heard of it")
    replica.ask("ALTER SYSTEM SET primary_conninfo = ''")
    replica.ask("SELECT pg_reload_conf()")
    until(lambda: replica.ask("SELECT count(*) FROM pg_stat_wal_receiver") == 0, "the end of the stream")


@pytest.mark.parametrize("kept", ["log", "snapshot"])
def test_a_redis_that_is_restored_from_an_older_state_heals(
    kept: str, node: Callable[[str], Node], clients: int
) -> None:
    with redis_of_its_own() as database:
        alone, other = node(database.url), node(database.url)
        hear_of_logouts(alone, other)
        with Herd(alone.url, clients) as herd:
            herd.all_have_their_sessions()
            leaver = log_in(alone.url)
            restore = keep(database, kept)
            logs_out(leaver, alone, other)
            herd.all_have_their_sessions(times=4)
            database.kill()
            restore()
            herd.all_have_their_sessions(times=2)
        herd.are_let_in()
        stays_out(leaver, alone, other)
        hear_of_logouts(alone, other)
        alone.check()
        other.check()
        assert alone.verdicts()["healed"] >= clients
        assert reuse_alarms(database.url) == 0


def keep(database: Redis, what: str) -> Callable[[], None]:
    """Keeps its state as of now; gives what brings it back, after the server has ended."""
    log, folder = Path(database.folder, "appendonlydir"), Path(database.folder)
    kept = folder / "kept"
    if what == "log":
        database.writes_out()
        shutil.copytree(log, kept)
    else:
        database.save()
        shutil.copy(folder / "dump.rdb", kept)

    def restore() -> None:
        shutil.rmtree(log)
        if what == "log":
            kept.rename(log)
        else:
            kept.rename(folder / "dump.rdb")
        database.start(appends=what == "log")  # with a log, Redis does not look at a snapshot

    return restore


def test_a_sqlite_file_that_is_restored_from_an_older_copy_heals(
    tmp_path: Path, node: Callable[[str], Node], clients: int
) -> None:
    path, copy = tmp_path / "unbroken.db", tmp_path / "copy.db"
    alone = node(f"sqlite:///{path}")
    with Herd(alone.url, clients) as herd:
        herd.all_have_their_sessions()
        with closing(sqlite3.connect(path)) as now, closing(sqlite3.connect(copy)) as then:
            now.backup(then)
        herd.all_have_their_sessions(times=4)
        alone.kill()
        for end in ("-wal", "-shm"):
            Path(f"{path}{end}").unlink(missing_ok=True)
        copy.replace(path)
        alone.start()
        herd.all_have_their_sessions(times=2)
    herd.are_let_in()
    alone.check()
    assert alone.verdicts()["healed"] >= clients
    assert reuse_alarms(alone.store) == 0
