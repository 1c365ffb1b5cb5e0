"""Single flight: one piece of work, and all who wait for it."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
import trio

from unbroken._single_flight import SingleFlight, flights_under_way
from unbroken.errors import StoreBusy, TryLater

SECONDS = 10.0


class Work:
    """Work that waits until the test lets it go on, and counts how often it was done."""

    def __init__(self) -> None:
        self.may_end, self.count = threading.Event(), 0

    def __call__(self) -> str:
        self.count += 1
        assert self.may_end.wait(SECONDS)
        return "tokens"


def test_threads_and_tasks_of_both_loop_libraries_share_one_result() -> None:
    work = Work()
    flight = SingleFlight(work, SECONDS)
    flight.start()

    async def ten_tasks() -> list[str]:
        return await asyncio.gather(*[flight.wait_async() for _ in range(10)])

    with ThreadPoolExecutor(4) as pool:
        waiting: list[Future[Any]] = [
            pool.submit(flight.wait),
            pool.submit(asyncio.run, ten_tasks()),
            pool.submit(trio.run, flight.wait_async),
        ]
        work.may_end.set()
        results = [one.result(SECONDS) for one in waiting]
    assert results == ["tokens", ["tokens"] * 10, "tokens"]
    assert work.count == 1


def test_a_waiter_that_is_cancelled_does_not_stop_the_work() -> None:
    work = Work()
    flight = SingleFlight(work, SECONDS)
    flight.start()

    async def cancelled() -> None:
        task = asyncio.ensure_future(flight.wait_async())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    assert not flight.done
    work.may_end.set()
    assert flight.wait(SECONDS) == "tokens"


def test_each_waiter_gets_its_own_copy_of_the_error() -> None:
    def fails() -> str:
        raise StoreBusy("the lock is held")

    flight = SingleFlight(fails, SECONDS)
    flight.start()
    caught = []
    for _ in range(2):
        with pytest.raises(StoreBusy, match="the lock is held") as error:
            flight.wait(SECONDS)
        caught.append(error.value)
    assert caught[0] is not caught[1]


def test_a_waiter_with_less_time_raises_try_later_and_the_work_goes_on() -> None:
    work = Work()
    flight = SingleFlight(work, SECONDS)
    flight.start()
    with pytest.raises(TryLater, match="this caller waits"):
        flight.wait(0.01)
    with pytest.raises(TryLater, match="this caller waits"):
        asyncio.run(flight.wait_async(0.01))
    work.may_end.set()
    assert flight.wait(SECONDS) == "tokens"


def test_work_beyond_its_limit_is_given_up_and_overdue_until_it_ends() -> None:
    work = Work()
    flight = SingleFlight(work, 0.05)
    flight.start()
    with pytest.raises(TryLater, match=r"0\.05 seconds"):
        flight.wait(SECONDS)
    assert flight.is_overdue
    work.may_end.set()
    flight.join(SECONDS)
    assert not flight.is_overdue


def test_a_program_that_ends_waits_for_the_work() -> None:
    work = Work()
    flight = SingleFlight(work, SECONDS)
    flight.start()
    [thread] = [one for one in flights_under_way() if one.is_alive()]
    assert not thread.daemon
    work.may_end.set()
    flight.join(SECONDS)
    assert thread not in flights_under_way()


def test_what_follows_the_work_runs_once_all_waiters_are_woken() -> None:
    after: list[bool] = []
    flight = SingleFlight(lambda: "tokens", SECONDS)
    flight.start(lambda: after.append(flight.done))
    flight.join(SECONDS)
    assert after == [True]


def test_a_flight_can_begin_with_its_result() -> None:
    flight = SingleFlight.landed("tokens")
    assert (flight.done, flight.wait(0), asyncio.run(flight.wait_async(0))) == (True, "tokens", "tokens")
