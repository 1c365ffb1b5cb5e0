"""What is particular about the store in Redis; what every store must do is in the contract suite.

Modules: _drivers/redis.py, _drivers/redis_clients.py, _drivers/redis_errors.py, server/stores/redis_rows.py,
server/stores/redis_scripts.py.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from typing import Any

import anyio
import pytest
import redis as driver
from redis.crc import key_slot

from tests.support.services import Service, free_port, redis_server
from tests.support.waiting import eventually, until
from unbroken._concurrency import run_sync
from unbroken._drivers.redis_errors import ServerInfo
from unbroken.errors import ConfigurationError, InvalidGrant, InvalidRequest, InvalidToken, StoreUnavailable
from unbroken.server import Sessions
from unbroken.server.core.rotation import Policy, PresentedToken, SessionRow
from unbroken.server.events import ReuseDetected, ServerEvent, SessionRefreshed
from unbroken.server.keys.keyring import new_mac_key
from unbroken.server.stores import Account
from unbroken.server.stores import redis as store_module
from unbroken.server.stores import redis_scripts as scripts
from unbroken.server.stores.redis import RedisSessionStore
from unbroken.server.stores.redis_rows import (
    CHANGING_FIELDS,
    account_from,
    encode_key,
    encode_values,
    fixed_text,
    keys_from,
    session_row,
)

NOW = 1_000.0


def row(sid: str = "sid", **fields: Any) -> SessionRow:
    return replace(
        SessionRow(sid.encode() * 4, sid, "ada", NOW, NOW, NOW + 500.0, NOW + 900.0, label="läptop"), **fields
    )


@pytest.fixture
def url(redis: Service) -> str:
    """A place of its own on the Redis of the whole run."""
    return f"{redis.url}?prefix={uuid.uuid4().hex}"


@pytest.fixture
def store(url: str) -> Iterator[RedisSessionStore]:
    made = RedisSessionStore(url)
    yield made
    made.close()


@pytest.fixture
def mortal() -> Iterator[Service]:
    """A Redis that this test may kill."""
    with redis_server() as service:
        yield service


@pytest.fixture
def raw(redis: Service) -> Iterator[Any]:
    with driver.Redis.from_url(redis.url) as client:
        yield client


def in_loop(flow: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    return anyio.run(flow)


STYLES: dict[str, Callable[[Callable[[], Coroutine[Any, Any, Any]]], Any]] = {
    "blocking": lambda flow: run_sync(flow()),
    "asyncio": lambda flow: anyio.run(flow, backend="asyncio"),
    "trio": lambda flow: anyio.run(flow, backend="trio"),
}


@pytest.fixture(params=STYLES)
def run(request: pytest.FixtureRequest) -> Any:
    return STYLES[request.param]


# ---- all styles ------------------------------------------------------------------------------------------------------


def test_a_session_lives_in_every_style(store: RedisSessionStore, run: Any) -> None:
    async def life() -> None:
        await store.insert(row())
        assert await store.read(row().key) == row()
        assert await store.rotate(row().key, PresentedToken(0, 0, b"a"), NOW + 1, Policy(refresh_ttl=300.0))
        assert not await store.rotate(row().key, PresentedToken(0, 0, b"b"), NOW + 1, Policy(refresh_ttl=300.0))
        [found] = await store.sessions("ada")
        assert (found.generation, found.idempotency_hash, found.idle_expires_at) == (1, b"a", NOW + 301)
        assert await store.revoke(NOW + 2, "revoked", NOW + 9, subject="ada") == ["sid"]
        _, revoked = await store.revocations(0)
        assert revoked == [("sid", NOW + 9)]
        await store.health()
        await store.aclose()

    run(life)


def test_of_many_tasks_and_threads_with_one_token_one_rotates_it(store: RedisSessionStore) -> None:
    run_sync(store.insert(row()))
    rotated: list[bool] = []

    async def one() -> None:
        rotated.append(await store.rotate(row().key, PresentedToken(0, 0), NOW, Policy(refresh_ttl=300.0)))

    async def many() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(64):
                group.start_soon(one)

    threads = [threading.Thread(target=lambda: run_sync(one())) for _ in range(8)]
    for thread in threads:
        thread.start()
    in_loop(many)
    for thread in threads:
        thread.join()
    assert sorted(rotated) == [False] * 71 + [True]


def test_who_stops_waiting_leaves_the_others_their_responses(store: RedisSessionStore) -> None:
    rows = [row(str(number)) for number in range(40)]
    for one in rows:
        run_sync(store.insert(one))
    right: list[bool] = []

    async def read(one: SessionRow) -> None:
        right.append(await store.read(one.key) == one)

    async def main() -> None:
        for _ in range(5):
            async with anyio.create_task_group() as group:
                for number, one in enumerate(rows):
                    if number % 4:
                        group.start_soon(read, one)
                    else:
                        with anyio.CancelScope() as scope:
                            scope.cancel()
                            await read(one)
                with anyio.move_on_after(0.0005):
                    for one in rows:
                        await read(one)

    in_loop(main)
    assert len(right) >= 150
    assert all(right)


def test_a_loop_that_ends_leaves_nothing_open(url: str) -> None:
    code = """
import asyncio, gc, sys
from unbroken._concurrency import run_sync
from unbroken.server.stores.redis import RedisSessionStore
store = RedisSessionStore(sys.argv[1], timeout=20.0)
for _ in range(2):
    asyncio.run(store.health(), debug=False)  # a busy machine is slow: that is no warning
run_sync(store.health())
notifications = store.notifications()
notifications.wait(0.01)
notifications.close()
store.close()
del store
gc.collect()
print("end")
"""
    command = [sys.executable, "-W", "error", "-X", "dev", "-c", code, url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("end\n", "")


def test_a_forked_child_has_connections_of_its_own(store: RedisSessionStore) -> None:
    run_sync(store.insert(row()))
    child = os.fork()
    if child == 0:
        try:
            for _ in range(50):
                assert run_sync(store.read(row().key)) == row()
            os._exit(0)
        except BaseException:  # noqa: BLE001  # the child says so by its status
            os._exit(1)
    for _ in range(50):
        assert run_sync(store.read(row().key)) == row()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# ---- slots and lifetimes ---------------------------------------------------------------------------------------------


def test_all_of_a_session_is_in_one_slot_and_all_of_a_subject(store: RedisSessionStore, raw: Any) -> None:
    run_sync(store.insert(row(subject="}{ada")))
    run_sync(store.revoke(NOW, "revoked", NOW + 9, subject="}{ada"))
    names = store._names
    slots = {key: key_slot(key) for key in raw.scan_iter(match=f"*{names.prefix}*", count=10_000)}
    of_subject = (*names.subject("}{ada"), names.unrevoked("}{ada"))
    for pair in (names.session(row().key), of_subject, (names.revocations, names.last_revocation)):
        assert len({slots[name.encode()] for name in pair}) == 1
    assert len(slots) == 9


def test_everything_of_a_session_goes_by_itself(store: RedisSessionStore, raw: Any) -> None:
    run_sync(store.insert(row()))
    names = store._names
    for name in (*names.session(row().key), names.sid("sid"), names.subject("ada")[0], names.unrevoked("ada")):
        assert 900_000 < raw.pttl(name) <= 960_000
    run_sync(store.rotate(row().key, PresentedToken(0, 0), NOW, Policy(refresh_ttl=300.0)))
    assert 900_000 < raw.pttl(names.session(row().key)[0]) <= 960_000, "a rotation changes nothing about that"


@pytest.mark.parametrize("by", ["revoke", "compare_and_set"])
def test_a_revoked_session_stays_as_long_as_its_tokens_could_live(store: RedisSessionStore, raw: Any, by: str) -> None:
    run_sync(store.insert(row()))
    if by == "revoke":
        run_sync(store.revoke(NOW, "logged_out", NOW + 5_000, sid="sid"))
    else:
        run_sync(store.compare_and_set(row(), replace(row(), revoked_at=NOW, revoked_why="logged_out"), NOW + 5_000))
    assert all(raw.pttl(name) > 5_000_000 for name in store._names.session(row().key))
    found = run_sync(store.read(row().key))
    assert (found.revoked_at, found.revoked_why) == (NOW, "logged_out")


def test_the_list_of_a_subject_forgets_what_is_over(store: RedisSessionStore, raw: Any) -> None:
    for number in range(150):
        run_sync(store.insert(row(str(number))))
    run_sync(store.insert(row("new", created_at=NOW + 901, expires_at=NOW + 2000)))
    assert raw.zcard(store._names.subject("ada")[0]) == 51
    run_sync(store.insert(row("newer", created_at=NOW + 901, expires_at=NOW + 2000)))
    assert {found.sid for found in run_sync(store.sessions("ada"))} == {"new", "newer"}


def test_a_list_is_healed_of_what_a_crash_left_in_it(store: RedisSessionStore, raw: Any) -> None:
    for sid in ("half", "whole"):
        run_sync(store.insert(row(sid)))
    raw.delete(*store._names.session(row("half").key))
    assert [found.sid for found in run_sync(store.sessions("ada"))] == ["whole"]
    assert run_sync(store.sessions(sid="half")) == []
    assert run_sync(store.revoke(NOW, "revoked", NOW + 9, subject="ada")) == ["whole"]


def test_stores_with_different_prefixes_share_no_session(redis: Service, store: RedisSessionStore) -> None:
    run_sync(store.insert(row()))
    other = RedisSessionStore(f"{redis.url}?prefix={uuid.uuid4().hex}")
    assert run_sync(other.sessions()) == []
    other.close()


def test_ten_thousand_sessions_are_listed_in_parts(store: RedisSessionStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "MAX_SESSIONS_PER_PIPELINE", 7)
    for number in range(300):
        run_sync(store.insert(row(str(number), used_at=NOW + number)))
    assert [found.sid for found in run_sync(store.sessions())] == [str(number) for number in reversed(range(300))]
    assert len(run_sync(store.revoke(NOW, "revoked", NOW + 9))) == 300


# ---- all sessions of a subject ---------------------------------------------------------------------------------------


def test_all_sessions_of_a_subject_end_in_one_write(store: RedisSessionStore, run: Any) -> None:
    async def crash_after_the_write() -> None:
        for sid in ("a", "b"):
            await store.insert(row(sid))
        await store._revoke_subject("ada", NOW + 1, "revoked")
        assert not await store.rotate(row("a").key, PresentedToken(0, 0), NOW + 2, Policy(refresh_ttl=300.0))
        found = await store.read(row("b").key)
        assert (found.revoked_at, found.revoked_why) == (NOW + 1, "revoked")
        assert sorted(await store.revoke(NOW + 2, "revoked", NOW + 9, subject="ada")) == ["a", "b"]
        assert sorted((await store.revocations(0))[1]) == [("a", NOW + 9), ("b", NOW + 9)]
        await store.insert(row("later"))
        assert await store.rotate(row("later").key, PresentedToken(0, 0), NOW + 2, Policy(refresh_ttl=300.0)), (
            "a login after it is alive"
        )

    run(crash_after_the_write)


def test_a_login_that_was_half_done_when_all_were_ended_is_over(store: RedisSessionStore, url: str) -> None:
    other, execute_all, sent = RedisSessionStore(url), store._execute_all, []

    async def interrupted(commands: Any, **how: Any) -> Any:
        if len(sent) == 1:
            assert await other.revoke(NOW + 1, "revoked", NOW + 99, subject="ada") == []
        sent.append(commands)
        return await execute_all(commands, **how)

    store._execute_all = interrupted  # type: ignore[method-assign]
    run_sync(store.insert(row()))
    store._execute_all = execute_all  # type: ignore[method-assign]
    for one in (store, other):
        assert not run_sync(one.rotate(row().key, PresentedToken(0, 0), NOW + 2, Policy(refresh_ttl=300.0)))
        assert run_sync(one.read(row().key)).revoked_at == NOW + 1
    assert run_sync(other.revocations(0))[1] == [("sid", NOW + 99)], "and so are its access tokens"
    other.close()


def test_sessions_that_had_expired_before_stay_expired(store: RedisSessionStore) -> None:
    run_sync(store.insert(row(idle_expires_at=NOW + 1)))
    assert run_sync(store.revoke(NOW + 1, "revoked", NOW + 9, subject="ada")) == []
    assert run_sync(store.read(row().key)).revoked_at is None


def test_a_refresh_that_races_a_logout_never_survives_it(store: RedisSessionStore) -> None:
    async def refresh(one: SessionRow) -> None:
        place = 0
        while await store.rotate(one.key, PresentedToken(place, 0), NOW, Policy(refresh_ttl=300.0)):
            place += 1

    async def race(one: SessionRow) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(refresh, one)
            if int(one.sid) % 2:
                assert await store.revoke(NOW, "logged_out", NOW + 9, sid=one.sid) == [one.sid]
            else:
                assert await store.revoke(NOW, "revoked", NOW + 9, subject=one.subject) == [one.sid]

    async def all_of_them() -> None:
        for number in range(60):
            one = row(str(number), subject=f"user {number}")
            await store.insert(one)
            await race(one)
            found = await store.read(one.key)
            assert found.revoked_at == NOW
            assert not await store.rotate(
                one.key, PresentedToken(found.generation, found.branch), NOW, Policy(refresh_ttl=300.0)
            )

    in_loop(all_of_them)
    assert len(run_sync(store.revocations(0))[1]) == 60


# ---- what is to be announced -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["revoke", "compare_and_set"])
def test_a_revocation_that_was_not_announced_is_announced_by_the_next_reader(
    store: RedisSessionStore, url: str, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    run_sync(store.insert(row()))

    async def crash(*_: object) -> None:
        raise StoreUnavailable("gone")

    flow: Coroutine[Any, Any, Any] = store.revoke(NOW, "revoked", NOW + 9, sid="sid")
    if by == "compare_and_set":
        flow.close()
        flow = store.compare_and_set(row(), replace(row(), revoked_at=NOW, revoked_why="reuse"), NOW + 9)
    with monkeypatch.context() as patch:
        patch.setattr(store, "_announce", crash)
        with pytest.raises(StoreUnavailable):
            run_sync(flow)
    assert run_sync(store.revocations(0))[1] == []
    other = RedisSessionStore(url)
    assert run_sync(other.read(row().key)).revoked_at == NOW
    cursor, revoked = run_sync(store.revocations(0))
    assert revoked == [("sid", NOW + 9)]
    run_sync(other.read(row().key))
    assert run_sync(store.revocations(cursor))[1] == [], "once is enough"
    other.close()


def test_a_change_that_is_asked_for_twice_is_made_once(store: RedisSessionStore) -> None:
    run_sync(store.insert(row()))
    end = ("EVALSHA", scripts.REVOKE, 2, *store._names.session(row().key), repr(NOW), "=revoked", repr(NOW + 9))
    assert [run_sync(store._execute(*end, name, 1000)) for name in ("one", "one", "other")] == [1, 1, 2]


def test_notifications_arrive_at_once(store: RedisSessionStore, url: str) -> None:
    run_sync(store.insert(row()))
    other = RedisSessionStore(url)
    notifications = other.notifications()
    notifications.wait(5.0)  # it may have missed something before it listened
    for announce in (
        store.revoke(NOW, "revoked", NOW + 9, sid="sid"),
        store.save_keys([new_mac_key(1, 0.0, 0.0)]),
    ):
        threading.Timer(0.05, lambda flow=announce: run_sync(flow)).start()
        began = time.monotonic()
        notifications.wait(20.0)
        assert time.monotonic() - began < 10
    began = time.monotonic()
    notifications.wait(0.2)
    assert time.monotonic() - began >= 0.19, "nothing is announced twice"
    threading.Timer(0.05, notifications.close).start()
    began = time.monotonic()
    notifications.wait(20.0)
    assert time.monotonic() - began < 10
    other.close()


def test_who_listens_to_a_dead_server_is_told(mortal: Service) -> None:
    store = RedisSessionStore(mortal.url)
    notifications = store.notifications()
    notifications.wait(1.0)
    mortal.stop(signal.SIGKILL)
    with pytest.raises(StoreUnavailable):
        notifications.wait(5.0)
    with pytest.raises(StoreUnavailable):
        notifications.wait(5.0)
    mortal.start()
    notifications.wait(5.0)
    notifications.close()
    store.close()


# ---- trouble ---------------------------------------------------------------------------------------------------------


def test_scripts_that_the_server_forgot_are_sent_again(store: RedisSessionStore, raw: Any, run: Any) -> None:
    async def main() -> None:
        await store.insert(row())
        raw.script_flush()
        assert await store.rotate(row().key, PresentedToken(0, 0), NOW, Policy(refresh_ttl=300.0))
        raw.script_flush()
        await store.insert(row("other"))
        assert await store.read(row("other").key) == row("other")

    run(main)


def test_a_connection_that_was_closed_while_idle_fails_no_request(mortal: Service, run: Any) -> None:
    store = RedisSessionStore(mortal.url)

    async def main() -> None:
        await store.insert(row())
        with driver.Redis.from_url(mortal.url) as raw:
            raw.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        assert await store.rotate(row().key, PresentedToken(0, 0), NOW, Policy(refresh_ttl=300.0))
        mortal.stop()
        mortal.start()
        eventually(lambda: run_sync(store.health()), StoreUnavailable)
        assert (await store.read(row().key)).generation == 1
        await store.aclose()

    run(main)


def test_a_dead_server_is_told_at_once_and_its_return_noticed(mortal: Service, run: Any) -> None:
    store = RedisSessionStore(mortal.url)

    async def main() -> None:
        await store.insert(row())
        wait_for_the_log(mortal.url)
        mortal.stop(signal.SIGKILL)
        began = time.monotonic()
        for ask in (
            store.read(row().key),
            store.rotate(row().key, PresentedToken(0, 0), NOW, Policy(refresh_ttl=300.0)),
            store.health(),
        ):
            with pytest.raises(StoreUnavailable, match="no connection"):
                await ask
        assert time.monotonic() - began < 10
        mortal.start()
        eventually(lambda: run_sync(store.health()), StoreUnavailable)
        assert await store.rotate(row().key, PresentedToken(0, 0), NOW, Policy(refresh_ttl=300.0))
        await store.aclose()

    run(main)


def test_a_server_that_hangs_is_waited_for_a_bounded_time(mortal: Service, run: Any) -> None:
    store = RedisSessionStore(mortal.url, timeout=1.0)

    async def main() -> None:
        await store.insert(row())
        process = mortal._process
        assert process is not None
        process.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        try:
            with pytest.raises(StoreUnavailable, match="in time"):
                await store.read(row().key)
        finally:
            process.send_signal(signal.SIGCONT)
        assert time.monotonic() - began < 8
        eventually(lambda: run_sync(store.health()), StoreUnavailable)
        assert await store.read(row().key) == row()
        await store.aclose()

    run(main)


def test_many_callers_of_a_hanging_server_wait_no_longer_than_one(mortal: Service) -> None:
    store, refused_ones = RedisSessionStore(mortal.url, timeout=1.0), 0

    async def ask() -> None:
        nonlocal refused_ones
        with pytest.raises(StoreUnavailable):
            await store.read(row().key)
        refused_ones += 1

    async def main() -> None:
        await store.health()
        process = mortal._process
        assert process is not None
        process.send_signal(signal.SIGSTOP)
        try:
            with anyio.fail_after(30):  # one after the other they would take minutes
                async with anyio.create_task_group() as group:
                    for _ in range(5000):
                        group.start_soon(ask)
        finally:
            process.send_signal(signal.SIGCONT)
        await store.aclose()

    in_loop(main)
    assert refused_ones == 5000


def test_kill_9_loses_nothing_that_was_confirmed(mortal: Service) -> None:
    sessions = Sessions(RedisSessionStore(mortal.url))
    tokens = {number: sessions.create(f"user {number}", coordinated=True).refresh_token for number in range(30)}
    for _ in range(3):
        tokens = {number: sessions.refresh(token or "").refresh_token for number, token in tokens.items()}
    assert sessions.logout(refresh_token=tokens.pop(0))
    ended = sessions.create("ended")
    assert sessions.revoke_subject("ended") == 1
    wait_for_the_log(mortal.url)
    mortal.stop(signal.SIGKILL)
    mortal.start()
    fresh = Sessions(RedisSessionStore(mortal.url))
    eventually(lambda: run_sync(fresh.store.health()), StoreUnavailable)
    assert {fresh.refresh(token or "").refresh_seq for token in tokens.values()} == {4}
    with pytest.raises(InvalidGrant):
        fresh.refresh(ended.refresh_token or "")
    with pytest.raises(InvalidToken):
        fresh.verify(ended.access_token)
    sessions.close()
    fresh.close()


def test_what_an_older_and_a_newer_release_have_written_is_read() -> None:
    written = encode_values(row("sid"))
    changing = {field.encode(): value for field, value in zip(CHANGING_FIELDS.values(), written, strict=True)}
    text = json.loads(fixed_text(row("sid")))
    assert session_row(row("sid").key, changing, json.dumps([*text, "what comes next"]).encode()) == row("sid")
    assert session_row(row("sid").key, changing | {b"new": b"1"}, json.dumps(text[:-1]).encode()) == row("sid")
    _, fixed, ends, life = encode_key(record := new_mac_key(1, 5.0, 5.0))
    found = {b"text 1": json.dumps([*json.loads(fixed), "next"]).encode(), b"ends 1": ends, b"ttl 1": life}
    assert keys_from(found) == [record]
    assert account_from("ada", b'["Ada", "hash", 1.0]') == Account("ada", "Ada", "hash", 1.0)
    assert account_from("ada", b'["Ada", "hash", 1.0, "ada#1"]') == Account("ada", "Ada", "hash", 1.0, "ada#1")
    newer = b'["Ada", "hash", 1.0, "ada#1", "read write", "next"]'
    assert account_from("ada", newer) == Account("ada", "Ada", "hash", 1.0, "ada#1", "read write")


def test_a_restored_older_state_heals_and_repeats_no_number(mortal: Service) -> None:
    seen: list[ServerEvent] = []
    sessions = Sessions(RedisSessionStore(mortal.url), on_event=seen.append)
    granted, other = sessions.create("ada", coordinated=True), sessions.create("bob")
    cursor, _ = run_sync(sessions.store.revocations(0))
    with driver.Redis.from_url(mortal.url) as raw:
        older = {key: (raw.dump(key), raw.pttl(key)) for key in raw.scan_iter(count=1000)}
        for _ in range(3):
            granted = sessions.refresh(granted.refresh_token or "", idempotency_key=str(_))
        sessions.revoke_subject("bob")
        cursor, _revoked = run_sync(sessions.store.revocations(cursor))
        with raw.pipeline(transaction=True) as restore:
            restore.flushall()
            for key, (dump, ttl) in older.items():
                restore.restore(key, max(ttl, 0), dump)
            restore.execute()
    assert sessions.refresh(granted.refresh_token or "", idempotency_key="x").refresh_seq == 4
    assert isinstance(seen[-1], SessionRefreshed)
    assert seen[-1].verdict == "healed"
    with pytest.raises(InvalidGrant):  # that end was lost with the rest, but this process knows of it
        sessions.refresh(other.refresh_token or "")
    assert sessions.revoke_subject("bob") == 0, "it was ended there again"
    assert len(run_sync(sessions.store.revocations(cursor))[1]) == 1, "a cursor of before misses nothing"
    assert not any(isinstance(event, ReuseDetected) for event in seen)
    sessions.close()


def test_a_replica_and_a_full_memory_are_try_later(mortal: Service, run: Any) -> None:
    store = RedisSessionStore(mortal.url)

    async def main() -> None:
        await store.insert(row())
        with driver.Redis.from_url(mortal.url) as raw:
            raw.config_set("replica-serve-stale-data", "yes")
            raw.replicaof("127.0.0.1", free_port())
            with pytest.raises(StoreUnavailable, match="replica"):
                await store.rotate(row().key, PresentedToken(0, 0), NOW, Policy(refresh_ttl=300.0))
            raw.replicaof("no", "one")
            assert await store.rotate(row().key, PresentedToken(0, 0), NOW, Policy(refresh_ttl=300.0))
            raw.config_set("maxmemory", 1)
            with pytest.raises(StoreUnavailable, match="memory is full"):
                await store.insert(row("other"))
            raw.config_set("maxmemory", 0)
            await store.insert(row("other"))
        await store.aclose()

    run(main)


def test_what_only_a_person_can_mend_is_said_in_one_line(mortal: Service, caplog: pytest.LogCaptureFixture) -> None:
    with driver.Redis.from_url(mortal.url) as raw:
        raw.config_set("maxmemory", 1_000_000_000)
        raw.config_set("maxmemory-policy", "volatile-lru")
        refused(RedisSessionStore(mortal.url), "noeviction")
        raw.config_set("maxmemory-policy", "noeviction")
        raw.config_set("appendonly", "no")
        with caplog.at_level(logging.WARNING, "unbroken"):
            store = RedisSessionStore(mortal.url)
            run_sync(store.health())
            run_sync(store.health())
            store.close()
        assert [record.message for record in caplog.records if "appendonly yes" in record.message] == [
            "this Redis loses sessions and logouts when it stops: set appendonly yes"
        ]
        raw.config_set("requirepass", "right")
        wrong = mortal.url.replace("redis://", "redis://:hunter2@")
        for url in (mortal.url, wrong):
            refused(RedisSessionStore(url), "password")
            with pytest.raises(ConfigurationError):
                in_loop(RedisSessionStore(url).health)
        assert "hunter2" not in repr(RedisSessionStore(wrong))
        right = RedisSessionStore(mortal.url.replace("redis://", "redis://:right@"))
        run_sync(right.health())
        right.close()


def refused(store: RedisSessionStore, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why) as caught:
        run_sync(store.health())
    assert "\n" not in str(caught.value)
    assert "hunter2" not in str(caught.value)
    store.close()


@pytest.mark.parametrize(
    "url",
    [
        "redis:/x",
        "http://h",
        "redis://h:port",
        "redis://user:hunter2@a:1,b:2/0",
        "unix+cluster:///x",
        "redis+wrong://h",
    ],
)
def test_a_malformed_url_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ConfigurationError, match="redis") as caught:
        RedisSessionStore(url)
    assert "hunter2" not in str(caught.value)


def test_what_is_no_text_is_an_invalid_request(store: RedisSessionStore) -> None:
    for ask in (store.sessions("\udcff"), store.account("\udcff"), store.revoke(NOW, "revoked", NOW, sid="\udcff")):
        with pytest.raises(InvalidRequest, match="not valid text"):
            run_sync(ask)


# ---- until the disk has it -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "logs", "cluster", "waits"),
    [("7.2.4", 1, False, True), ("8.0.1", 1, False, True), ("7.0.15", 1, False, False), ("7.2.4", 1, True, False)],
)
def test_servers_that_can_be_asked_about_their_disk_are_known(
    version: str, logs: int, cluster: bool, waits: bool
) -> None:
    assert ServerInfo.of({"redis_version": version, "aof_enabled": logs}, cluster).waits_for_disk is waits


def test_what_was_promised_waits_for_the_disk_and_a_rotation_does_not(store: RedisSessionStore) -> None:
    run_sync(store.insert(row("known")))  # from now on the server knows the scripts
    run_sync(store.rotate(row("known").key, PresentedToken(0, 0), NOW, Policy(refresh_ttl=300.0)))
    run_sync(store.revoke(NOW, "revoked", NOW + 9, sid="known"))
    run_sync(store.save_keys([]))
    client, sent, written = store._driver._blocking_client(), [], [1, 0]
    send = client.send

    async def with_a_newer_server(commands: Any) -> Any:
        sent.append([command[0] for command in commands])
        asked = [command for command in commands if command[0] != "WAITAOF"]
        return [*await send(asked), *([written] if len(asked) < len(commands) else [])]

    client.send = with_a_newer_server
    store._driver._server = ServerInfo(waits_for_disk=True)
    for promise in (store.insert(row()), store.revoke(NOW, "revoked", NOW + 9, sid="sid"), store.save_keys([])):
        sent.clear()
        run_sync(promise)
        assert sum(commands[-1] == "WAITAOF" for commands in sent) == 1
    run_sync(store.insert(row("other")))
    sent.clear()
    assert run_sync(store.rotate(row("other").key, PresentedToken(0, 0), NOW, Policy(refresh_ttl=300.0)))
    assert sent == [["EVALSHA"]]
    written[0] = 0
    with pytest.raises(StoreUnavailable, match="disk"):
        run_sync(store.insert(row("third")))


def wait_for_the_log(url: str) -> None:
    """Return when Redis has given its log to the system, which a slow disk delays by up to two seconds."""
    with driver.Redis.from_url(url) as client:
        until(lambda: client.info("persistence")["aof_buffer_length"] == 0, "the log of Redis is written")
