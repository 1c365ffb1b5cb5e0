"""Worker threads: how many at once, how many wait, and what a fork does to them."""

from __future__ import annotations

import threading
from functools import partial

import anyio
import anyio.to_thread
import pytest

from tests.support.processes import ends_well, fork
from tests.support.waiting import until
from unbroken._concurrency import run_sync
from unbroken.errors import TryLater
from unbroken.server.worker_pool import WorkerPool, preferred

FORK = "ignore:This process:DeprecationWarning"  # later Pythons warn of forks of threads: that is what is tested


@pytest.mark.filterwarnings(FORK)
def test_a_forked_child_has_empty_worker_pools() -> None:
    pool, inside, leave = WorkerPool(1), threading.Event(), threading.Event()

    def stays() -> None:
        inside.set()
        leave.wait(20)

    stands = threading.Thread(target=lambda: run_sync(pool.run(stays)))
    stands.start()
    assert inside.wait(10)
    child = fork(lambda: run_sync(pool.run(lambda: True)))
    well = ends_well(child)
    leave.set()
    stands.join(10)
    assert well


@pytest.mark.anyio
async def test_a_worker_pool_bounds_running_and_waiting_calls() -> None:
    pool, gate, responses = WorkerPool(2, 3), threading.Event(), []
    at_work, most, lock, full = 0, 0, threading.Lock(), threading.Event()

    def work() -> None:
        nonlocal at_work, most
        with lock:
            at_work += 1
            most = max(most, at_work)
            if at_work == 2:
                full.set()
        assert gate.wait(10)
        with lock:
            at_work -= 1

    async def one() -> None:
        try:
            responses.append(await pool.run(work))
        except TryLater as error:
            responses.append(error.retry_after)

    async with anyio.create_task_group() as group:
        for _ in range(8):
            group.start_soon(one)
        assert await anyio.to_thread.run_sync(full.wait, 10)
        assert responses == [1.0] * 3, "refused at once"
        gate.set()
    assert responses == [1.0] * 3 + [None] * 5
    assert most == 2
    assert await pool.run(lambda: "again") == "again"


def test_a_worker_pool_is_as_narrow_without_an_event_loop() -> None:
    pool, inside, most = WorkerPool(2), 0, 0
    lock, full = threading.Lock(), threading.Barrier(2)

    def work() -> None:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        full.wait(10)
        with lock:
            inside -= 1

    threads = [threading.Thread(target=lambda: run_sync(pool.run(work))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert (most, inside) == (2, 0)


# ---- who goes first --------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_who_is_preferred_goes_first_and_is_not_displaced_by_a_full_pool() -> None:
    pool, gate, order = WorkerPool(1, 3), threading.Event(), list[str]()

    async def one(name: str, *, first: bool) -> None:
        def work() -> None:
            assert gate.wait(10)
            order.append(name)

        with preferred(first):
            try:
                await pool.run(work)
            except TryLater:
                order.append(f"{name} refused")

    async with anyio.create_task_group() as group:
        for number in range(5):
            group.start_soon(partial(one, f"stranger {number}", first=False))
        await anyio.wait_all_tasks_blocked()
        for number in range(2):
            group.start_soon(partial(one, f"known {number}", first=True))
        await anyio.wait_all_tasks_blocked()
        gate.set()
    assert order[0].endswith("refused")
    assert order[1].startswith("stranger"), "it was at work already"
    assert {*order[2:4]} == {"known 0", "known 1"}
    assert len(order) == 7


@pytest.mark.anyio
async def test_who_is_cancelled_while_waiting_loses_no_thread() -> None:
    pool, gate = WorkerPool(1), threading.Event()
    async with anyio.create_task_group() as group:
        group.start_soon(partial(pool.run, lambda: gate.wait(10)))
        await anyio.wait_all_tasks_blocked()
        for _ in range(3):
            with anyio.move_on_after(0.01):
                await pool.run(lambda: None)
        gate.set()
    assert await pool.run(lambda: "free") == "free"


def test_who_is_preferred_goes_first_among_threads_too() -> None:
    pool, gate, order = WorkerPool(1, 3), threading.Event(), list[str]()

    def one(name: str, first: bool) -> None:
        def work() -> None:
            assert gate.wait(10)
            order.append(name)

        with preferred(first):
            run_sync(pool.run(work))

    threads = []
    for name, first in (("at work", False), ("stranger", False), ("stranger", False), ("known", True)):
        threads.append(threading.Thread(target=one, args=(name, first)))
        threads[-1].start()
        until(lambda: pool._working + sum(pool._waiting) == len(threads))
    gate.set()
    for thread in threads:
        thread.join(10)
    assert order == ["at work", "known", "stranger", "stranger"]
