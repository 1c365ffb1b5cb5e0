"""One subject with very many sessions: it costs its own oldest ones, and no other client waits."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, replace
from typing import Any

import pytest

from tests.support.attacks import Attacks
from unbroken._concurrency import run_sync
from unbroken.errors import InvalidGrant, InvalidRequest, InvalidToken
from unbroken.server import MemorySessionStore, Policy, Sessions, SqliteSessionStore, open_store
from unbroken.server.core.rotation import SessionRow
from unbroken.server.events import ServerEvent, SessionRevoked
from unbroken.server.http.endpoints import Endpoints
from unbroken.server.http.messages import Request
from unbroken.server.stores import postgres_statements, sqlite_statements
from unbroken.server.stores.postgres import PostgresSessionStore
from unbroken.server.stores.redis import RedisSessionStore

NOW = 1_700_000_000.0


@pytest.fixture(params=["memory", "sqlite", "postgres", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Any) -> Iterator[Any]:
    if request.param == "memory":
        yield MemorySessionStore()
    elif request.param == "sqlite":
        opened = SqliteSessionStore(tmp_path / "s.db")
        yield opened
        opened.close()
    else:
        database = request.getfixturevalue("database") if request.param == "postgres" else ""
        shared = open_store(database or f"{request.getfixturevalue('redis').url}?prefix={uuid.uuid4().hex}")
        yield shared
        shared.close()


def rows(count: int, subject: str = "ada", **fields: Any) -> list[SessionRow]:
    first = SessionRow(
        key=b"", sid="", subject=subject, created_at=NOW, used_at=NOW, idle_expires_at=NOW + 600, expires_at=NOW + 900
    )
    return [
        replace(first, key=f"{subject} {n}".encode(), sid=f"{subject}-{n}", used_at=NOW + n / 1e6, **fields)
        for n in range(count)
    ]


def fill(store: Any, many: list[SessionRow]) -> None:
    """Insert *many*, without a flush to the disk for each."""
    if isinstance(store, PostgresSessionStore):
        values = [(postgres_statements.INSERT, (row.created_at, *astuple(row))) for row in many]
        for at in range(0, len(many), 1_000):
            run_sync(store._driver.transaction(values[at : at + 1_000]))
    elif isinstance(store, SqliteSessionStore):
        with store._file.transaction() as db:
            db.executemany(sqlite_statements.INSERT, map(astuple, many))
    elif isinstance(store, RedisSessionStore):
        flushing = store._execute_all
        store._execute_all = lambda commands, **_: flushing(commands)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda row: run_sync(store.insert(row)), many))
        store._execute_all = flushing
    else:
        for row in many:
            run_sync(store.insert(row))


def test_a_login_beyond_the_limit_ends_the_session_used_least_recently(store: Any, attacks: Attacks) -> None:
    events: list[ServerEvent] = []
    now = [NOW]
    sessions = Sessions(
        store, issuer="https://id.example.com", policy=Policy(max_sessions_per_subject=5), on_event=events.append,
        clock=lambda: now[0],
    )  # fmt: skip
    other = sessions.create("bob")
    made = []
    for number in range(5):
        now[0] += 1
        made.append(sessions.create("ada", label=str(number)))
    now[0] += 20
    made[0] = sessions.refresh(made[0].refresh_token)  # so the second is the oldest idle one
    for number in range(5, 12):
        now[0] += 1
        attacks.try_one()
        made.append(sessions.create("ada", label=str(number)))
    labels = [info.label for info in sessions.list_sessions("ada")]
    assert labels == ["11", "10", "9", "8", "7"]
    ended = [event for event in events if isinstance(event, SessionRevoked)]
    assert [(event.subject, event.why) for event in ended] == [("ada", "limit")] * 7
    with pytest.raises(InvalidGrant) as refused:
        sessions.refresh(made[1].refresh_token)
    assert refused.value.reason == "limit"
    with pytest.raises(InvalidToken):
        sessions.verify(made[0].access_token)
    assert sessions.refresh(made[11].refresh_token)
    assert sessions.refresh(other.refresh_token), "nobody else's"


def test_a_single_session_for_a_user_is_a_limit_of_one(store: Any, attacks: Attacks) -> None:
    sessions = Sessions(store, issuer="https://id.example.com", policy=Policy(max_sessions_per_subject=1))
    attacks.try_one()
    first, second = sessions.create("ada"), sessions.create("ada")
    assert sessions.refresh(second.refresh_token)
    with pytest.raises(InvalidGrant, match="newer login"):
        sessions.refresh(first.refresh_token)
    assert len(sessions.list_sessions("ada")) == 1
    assert len(sessions.list_sessions("ada", include_revoked=True)) == 2


@pytest.mark.parametrize("most", [1, 3])
def test_logins_at_once_leave_as_many_as_are_allowed(store: Any, most: int, attacks: Attacks) -> None:
    sessions = Sessions(store, issuer="https://id.example.com", policy=Policy(max_sessions_per_subject=most))
    sessions.keyring()
    for _ in range(3):
        threads = [threading.Thread(target=sessions.create, args=("ada",)) for _ in range(8)]
        for thread in threads:
            attacks.try_one()
            thread.start()
        for thread in threads:
            thread.join()
        assert len(sessions.list_sessions("ada")) == most


def test_a_limit_that_is_new_is_reached_in_slices(store: Any, attacks: Attacks) -> None:
    attacks.try_one()
    fill(store, rows(350))
    trim = [len(run_sync(store.trim("ada", 10, NOW, "limit", NOW + 60))) for _ in range(5)]
    assert trim == [100, 100, 100, 40, 0]
    assert len(run_sync(store.revocations(0))[1]) == 340
    left = {row.sid for row in run_sync(store.sessions("ada")) if row.revoked_at is None}
    assert len(left) == 10


def test_expired_sessions_are_trimmed_without_an_announcement(store: Any, attacks: Attacks) -> None:
    attacks.try_one()
    for row in rows(20, idle_expires_at=NOW - 1.0):
        run_sync(store.insert(row))
    for row in rows(5, subject="eve"):
        run_sync(store.insert(row))
    run_sync(store.revoke(NOW, "logged_out", NOW + 60, sid="eve-0"))
    assert run_sync(store.trim("ada", 3, NOW, "limit", NOW + 60)) == []
    assert run_sync(store.trim("eve", 4, NOW, "limit", NOW + 60)) == []
    assert [sid for sid, _ in run_sync(store.revocations(0))[1]] == ["eve-0"]
    assert run_sync(store.trim("eve", 3, NOW, "limit", NOW + 60)) == ["eve-1"]


def test_pages_show_each_session_once(store: Any, attacks: Attacks) -> None:
    attacks.try_one()
    for row in rows(25) + rows(5, subject="bob"):
        run_sync(store.insert(row))
    sessions = Sessions(store, issuer="https://id.example.com", clock=lambda: NOW)
    for subject, count in (("ada", 25), (None, 30), ("bob", 5), ("nobody", 0)):
        for limit in (1, 4, 5, 100):
            found: list[str] = []
            page = sessions.page_sessions(subject, limit=limit)
            found += [info.sid for info in page.sessions]
            while page.next:
                assert len(page.sessions) <= limit
                page = sessions.page_sessions(subject, limit=limit, cursor=page.next)
                found += [info.sid for info in page.sessions]
            assert len(found) == len(set(found)) == count
    page = sessions.page_sessions("ada", limit=10)
    for info in page.sessions:
        sessions.revoke(info.sid)
    assert len(sessions.page_sessions("ada", limit=100, cursor=page.next).sessions) == 15, "a page that is gone"


@pytest.mark.parametrize("cursor", ["x", "_", "nan_x", "inf_", "1_\0", "1", "1e999_a", "\udcff_", "a_b", "1_é"])
def test_a_cursor_that_was_made_up_is_refused(store: Any, cursor: str, attacks: Attacks) -> None:
    sessions = Sessions(store, issuer="https://id.example.com")
    attacks.try_one()
    with contextlib.suppress(InvalidRequest):
        assert sessions.page_sessions("ada", cursor=cursor).sessions == []
    for limit in (0, -1, 1001):
        with pytest.raises(InvalidRequest):
            sessions.page_sessions("ada", limit=limit)


def test_a_page_of_the_endpoint_is_bounded(attacks: Attacks, size: Callable[[int, int], int]) -> None:
    store, count = MemorySessionStore(), size(5_000, 50_000)
    for row in rows(count):
        run_sync(store.insert(row))
    policy = Policy(max_sessions_per_subject=None)
    sessions = Sessions(store, issuer="https://id.example.com", clock=lambda: NOW + 1, policy=policy)
    endpoints = Endpoints(sessions, lambda *_: None)
    token = sessions.create("ada").access_token
    headers = {"authorization": f"Bearer {token}"}
    for query in ("", "limit=1000", "limit=0", "limit=1001", "limit=-5", "limit=999999999999", "cursor=x", "limit=%31",
                  "&".join(["limit=1"] * 50), "cursor=%00", "limit=²"):  # fmt: skip
        attacks.try_one()
        response = endpoints.handle_blocking(Request("GET", "/auth/sessions", headers, query=query))
        assert response is not None
        assert response.status in (200, 400), query
        assert len(response.body) < 600_000


async def longest_pause(work: Callable[[], Any]) -> float:
    """How long another task waits at most while *work* is done."""
    longest, done = 0.0, False

    async def watch() -> None:
        nonlocal longest
        while not done:
            began = time.monotonic()
            await asyncio.sleep(0.001)
            longest = max(longest, time.monotonic() - began)

    watching = asyncio.create_task(watch())
    await asyncio.sleep(0.01)
    await work()
    done = True
    await watching
    return longest


def test_to_list_and_to_revoke_very_many_delays_nobody(
    store: Any, attacks: Attacks, size: Callable[[int, int], int]
) -> None:
    count = size(3_000, 50_000)
    fill(store, rows(count))
    policy = Policy(max_sessions_per_subject=None)
    sessions = Sessions(store, issuer="https://id.example.com", clock=lambda: NOW, policy=policy)

    async def attack() -> tuple[float, float]:
        await sessions.akeyring()
        attacks.try_many(2)
        listing = await longest_pause(lambda: sessions.alist_sessions("ada"))
        revoking = await longest_pause(lambda: sessions.arevoke_subject("ada"))
        await sessions.aclose()
        return listing, revoking

    listing, revoking = asyncio.run(attack())
    told = f"of {count} sessions: others wait {listing:.3f} s for a list, {revoking:.3f} s for a revocation"
    assert max(listing, revoking) < 1.0, told
