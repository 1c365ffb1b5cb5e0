"""What a process knows of keys and revocations, while threads, tasks and other processes change them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anyio
import pytest

from tests.support.processes import ends_well, fork
from unbroken._concurrency import run_sync
from unbroken.errors import InvalidGrant, InvalidToken, StoreUnavailable
from unbroken.server import MemorySessionStore, Sessions, SqliteSessionStore, freshness
from unbroken.server.freshness import KeyAndRevocationCache

TTLS = {"sign": 60.0, "mac": 600.0}


class Stopped(dict[str, float]):
    """Stands for a thread that is interrupted in the middle of noting something: it waits at ``gate``."""

    def __init__(self) -> None:
        super().__init__()
        self.inside, self.gate = threading.Event(), threading.Event()

    def _stop(self) -> None:
        if not self.inside.is_set():
            self.inside.set()
            assert self.gate.wait(10)

    def get(self, key: str, default: Any = None) -> Any:
        self._stop()
        return super().get(key, default)

    def items(self) -> Any:  # a copy, as one that is rebuilt would be made of
        found = dict(super().items()).items()
        self._stop()
        return found


class Slow(MemorySessionStore):
    """A store whose responses take their time, as over a network."""

    asked = 0
    error: Exception | None = None

    async def keys(self) -> Any:
        self.asked += 1
        await anyio.sleep(0.01)
        if self.error:
            raise self.error
        return await super().keys()


@pytest.fixture
def two(tmp_path: Path) -> Iterator[tuple[Sessions, Sessions]]:
    """Two processes on one file."""
    here, there = (Sessions(SqliteSessionStore(tmp_path / "s.db")) for _ in range(2))
    yield here, there
    here.close()
    there.close()


def dead(sessions: Sessions, token: str) -> str:
    with pytest.raises(InvalidToken) as caught:
        sessions.verify(token)
    return caught.value.reason


# ---- revocations -----------------------------------------------------------------------------------------------------


def test_a_revocation_is_not_forgotten_while_another_is_being_noted() -> None:
    watch = KeyAndRevocationCache(MemorySessionStore(), TTLS, time.time)
    watch.revoked = slow = Stopped()
    until = time.time() + 60
    one = threading.Thread(target=lambda: watch.add_revocations([("one", until)]))
    other = threading.Thread(target=lambda: watch.add_revocations([("other", until)]))
    one.start()
    assert slow.inside.wait(10)
    other.start()
    other.join(0.2)  # it waits for the first, or would be overwritten by it
    slow.gate.set()
    one.join(10)
    other.join(10)
    assert {"one", "other"} <= set(watch.revoked)


def test_revocations_from_here_and_from_elsewhere_are_all_known(two: tuple[Sessions, Sessions]) -> None:
    here, there = two
    until = time.time() + 3600
    here._freshness.add_revocations([(f"sid {number}", until) for number in range(50_000)])
    mine, theirs = ([here.create("ada").access_token for _ in range(60)] for _ in range(2))
    probe = here.create("bob").access_token
    with ThreadPoolExecutor(3) as pool:
        work = [
            pool.submit(lambda: [here.logout(access_token=token) for token in mine]),
            pool.submit(lambda: [there.logout(access_token=token) for token in theirs]),
        ]
        while not all(one.done() for one in work):
            run_sync(here._freshness.refresh_now())
            here.verify(probe)
    run_sync(here._freshness.refresh_now())
    assert {dead(here, token) for token in mine + theirs} == {"revoked"}


def test_what_is_revoked_is_forgotten_when_its_last_token_is_dead() -> None:
    now = [100.0]
    watch = KeyAndRevocationCache(MemorySessionStore(), TTLS, lambda: now[0])
    watch.add_revocations([("a", 110.0), ("b", 120.0), ("dead already", 100.0)])
    watch.add_revocations([("a", 130.0)])
    assert set(watch.revoked) == {"a", "b"}
    now[0] = 125.0
    watch.add_revocations([])
    assert set(watch.revoked) == {"a"}, "the later end counts"


def test_a_response_that_was_overtaken_brings_no_retired_key_back() -> None:
    store = MemorySessionStore()
    sessions = Sessions(store)
    kid = sessions.keyring().signing[0].kid
    watch, old = sessions._freshness, run_sync(store.keys())
    late = watch.refresh_now()
    asked = threading.Event()

    async def slow_keys() -> Any:
        if not asked.is_set():
            asked.set()
            sessions.retire_key(kid)  # by another task, asked later and answered earlier
            return old
        return await MemorySessionStore.keys(store)

    store.keys = slow_keys  # type: ignore[method-assign]
    run_sync(late)
    key = watch.keyring.verifier(kid)
    assert key is not None
    assert key.dead_from < time.time() + 1


# ---- stores that suspend ---------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_store_that_takes_its_time_is_asked_once_for_all_tasks() -> None:
    store = Slow()
    sessions = Sessions(store)
    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            for name in ("ada", "bob", "eve"):
                group.start_soon(sessions.acreate, name)
    assert len(sessions.list_sessions()) == 3
    assert store.asked <= 3, "one look: empty, after the first keys, after their lifetimes"


@pytest.mark.anyio
async def test_tasks_that_wait_for_one_that_is_cancelled_ask_for_themselves() -> None:
    class Gated(MemorySessionStore):
        """A store whose keys come when the test says so."""

        async def keys(self) -> Any:
            asked.set()
            await go_on.wait()
            return await super().keys()

    asked, go_on = anyio.Event(), anyio.Event()
    sessions = Sessions(Gated())
    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            gone = anyio.CancelScope()

            async def first() -> None:
                with gone:
                    await sessions.acreate("ada")

            group.start_soon(first)
            await asked.wait()
            group.start_soon(sessions.acreate, "bob")
            await anyio.wait_all_tasks_blocked()
            gone.cancel()
            go_on.set()
    assert [info.subject for info in sessions.list_sessions()] == ["bob"]


@pytest.mark.anyio
async def test_a_store_that_does_not_respond_fails_all_that_wait_at_once() -> None:
    store = Slow()
    store.error = StoreUnavailable("gone", retry_after=1.0)
    sessions, failed = Sessions(store), []

    async def one() -> None:
        try:
            await sessions.acreate("ada")
        except StoreUnavailable as error:
            failed.append(error)

    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(one)
    assert (len(failed), len({id(error) for error in failed}), store.asked) == (5, 5, 1)


# ---- keys ------------------------------------------------------------------------------------------------------------


def test_a_rotation_of_keys_ends_no_session_of_another_process(two: tuple[Sessions, Sessions]) -> None:
    here, there = two
    granted = here.create("ada")
    there.verify(granted.access_token)  # so it has just looked
    here.rotate_keys()
    granted = here.refresh(granted.refresh_token or "")
    granted = there.refresh(granted.refresh_token or "")
    assert granted.refresh_seq == 2


def test_a_key_that_was_made_a_moment_ago_is_looked_for(two: tuple[Sessions, Sessions]) -> None:
    here, there = two
    there.verify(here.create("ada").access_token)
    here.rotate_keys(publish_ahead=0)
    granted = here.create("bob")
    assert there.verify(granted.access_token).subject == "bob"
    here.rotate_keys(publish_ahead=0)
    granted = here.refresh(granted.refresh_token or "")
    time.sleep(freshness.UNKNOWN_KEY_RETRY_SECONDS)
    assert there.refresh(granted.refresh_token or "").refresh_seq == 2
    here.rotate_keys(publish_ahead=0)
    granted = here.create("eve")
    time.sleep(freshness.UNKNOWN_KEY_RETRY_SECONDS)
    assert there.logout(refresh_token=granted.refresh_token) is True


def test_unknown_keys_are_looked_up_at_a_bounded_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(freshness, "UNKNOWN_KEY_RETRY_SECONDS", 3600.0)
    sessions, other = Sessions(MemorySessionStore()), Sessions(MemorySessionStore())
    other.rotate_keys(publish_ahead=0)
    strange = other.create("ada")
    sessions.create("ada")
    looks = 0

    async def look_now() -> None:
        nonlocal looks
        looks += 1

    monkeypatch.setattr(sessions._freshness, "refresh_now", look_now)
    for _ in range(20):
        assert dead(sessions, strange.access_token) == "malformed"
        with pytest.raises(InvalidGrant) as caught:
            sessions.refresh(strange.refresh_token or "")
        assert caught.value.reason == "malformed"
    assert looks == 1


FORK = "ignore:This process:DeprecationWarning"  # later Pythons warn of forks of threads: that is what is tested


class Held(MemorySessionStore):
    """A store whose list of revocations comes when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()

    async def revocations(self, after: int) -> tuple[int, list[tuple[str, float]]]:
        self.asked.set()
        self.go_on.wait(20)
        return await super().revocations(after)


@pytest.mark.filterwarnings(FORK)
def test_a_child_that_is_forked_while_a_thread_asks_the_store_does_not_wait_for_that_thread() -> None:
    store = Held()
    sessions = Sessions(store)
    token = sessions.create("ada").access_token
    watch = sessions._freshness
    watch.fresh_until = float("-inf")
    store.go_on.clear()
    store.asked.clear()
    asks = threading.Thread(target=sessions.verify, args=(token,))
    asks.start()
    assert store.asked.wait(10)
    [asking] = watch._running_polls.values()
    # As if the child's next thread had the polling thread's number.
    watch._running_polls[threading.get_ident(), True] = asking

    def in_child() -> bool:
        store.go_on = threading.Event()
        store.go_on.set()
        return sessions.verify(token).subject == "ada"

    with watch._lock:  # and another one is just learning something
        child = fork(in_child)
    well = ends_well(child)
    store.go_on.set()
    asks.join(10)
    assert well
