"""Worker threads: how many at once, how many wait, and what a fork does to them."""

from __future__ import annotations

import threading

import anyio.to_thread
import pytest

from tests.support.processes import ends_well, fork
from unbroken._sync import run_sync
from unbroken.errors import TryLater
from unbroken.server.worker_pool import WorkerPool

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
