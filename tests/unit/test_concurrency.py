"""The at-fork registry, in real forked children."""

from __future__ import annotations

import gc
import multiprocessing
import os
import threading
import time
import weakref

import pytest

from tests.support.processes import ends_well, fork
from unbroken import _concurrency

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the system cannot fork")


class Recorder:
    """Counts its resets."""

    resets = 0

    def reset_after_fork(self) -> None:
        self.resets += 1


def exit_status_of_child(recorder: Recorder) -> int:
    """Fork a child that exits with the number of resets that it sees."""
    child = os.fork()
    if child == 0:
        os._exit(recorder.resets)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_an_object_is_reset_once_in_each_child_and_never_in_the_parent() -> None:
    recorder = Recorder()
    _concurrency.register_fork_aware(recorder)
    assert [exit_status_of_child(recorder), exit_status_of_child(recorder)] == [1, 1]
    assert recorder.resets == 0


def test_the_registry_keeps_no_object_alive() -> None:
    recorder = Recorder()
    _concurrency.register_fork_aware(recorder)
    gone = weakref.ref(recorder)
    del recorder
    gc.collect()
    assert gone() is None


class Guarded:
    """Notes what the gate asks of it."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def close_before_fork(self) -> None:
        self.asked.append("closed")

    def leave_to_parent(self) -> None:
        self.asked.append("left")


def asked_of(guarded: Guarded) -> tuple[str, str]:
    """What was asked of *guarded* by one fork, in the parent and in the child."""
    mine, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(theirs, " ".join(guarded.asked).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(theirs)
    with os.fdopen(mine, "rb") as told:
        return " ".join(guarded.asked), told.read().decode()


def test_what_is_guarded_is_closed_before_a_fork() -> None:
    gate, guarded = _concurrency.ForkGate(), Guarded()
    gate.guard(guarded)
    assert asked_of(guarded) == ("closed", "closed")


def test_a_thread_that_forks_inside_the_gate_closes_nothing() -> None:
    gate, guarded = _concurrency.ForkGate(), Guarded()
    gate.guard(guarded)
    with gate, gate:
        assert asked_of(guarded) == ("", "left")
    assert asked_of(guarded) == ("closed", "closed"), "it is outside again"


def test_a_fork_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_concurrency, "GATE_SECONDS", 0.05)
    gate, guarded, is_inside, may_leave = _concurrency.ForkGate(), Guarded(), threading.Event(), threading.Event()
    gate.guard(guarded)

    def stay() -> None:
        with gate:
            is_inside.set()
            may_leave.wait(10)

    staying = threading.Thread(target=stay)
    staying.start()
    assert is_inside.wait(10)
    assert asked_of(guarded) == ("", "left")
    may_leave.set()
    staying.join()


def test_a_thread_inside_may_enter_once_more_while_a_fork_waits_for_it() -> None:
    gate, is_inside, entered = _concurrency.ForkGate(), threading.Event(), threading.Event()

    def stay() -> None:
        with gate:
            is_inside.set()
            while not gate._is_forking:
                time.sleep(0.001)
            with gate:
                entered.set()

    staying = threading.Thread(target=stay)
    staying.start()
    assert is_inside.wait(10)
    started = time.monotonic()
    assert exit_status_of_child(Recorder()) == 0
    staying.join()
    assert entered.is_set()
    assert time.monotonic() - started < _concurrency.GATE_SECONDS


# ---- the gate --------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_waits_until_the_gate_is_empty_and_nobody_enters_meanwhile() -> None:
    gate, events, forked = _concurrency.ForkGate(), [], []
    inside, leave = threading.Event(), threading.Event()

    def stay() -> None:
        with gate:
            inside.set()
            leave.wait(5)
            events.append("left")

    def forks() -> None:
        forked.append(ends_well(fork(lambda: events == ["left"] and usable(gate))))

    threads = [threading.Thread(target=stay), threading.Thread(target=forks), threading.Thread(target=forks)]
    threads[0].start()
    inside.wait(5)
    for thread in threads[1:]:
        thread.start()
    time.sleep(0.1)
    assert (events, forked) == ([], [])
    leave.set()
    for thread in threads:
        thread.join()
    assert forked == [True, True]
    assert usable(gate)


def usable(gate: _concurrency.ForkGate) -> bool:
    began = time.monotonic()
    with gate:
        return time.monotonic() - began < 1.0


def test_a_thread_inside_the_gate_may_fork() -> None:
    gate = _concurrency.ForkGate()
    with gate:
        child = fork(lambda: usable(gate))
    assert ends_well(child)


# ---- worker processes ------------------------------------------------------------------------------------------------


def test_forked_children_and_those_of_multiprocessing_are_workers() -> None:
    assert not _concurrency.is_worker_process() or "PYTEST_XDIST_WORKER" in os.environ
    assert ends_well(fork(_concurrency.is_worker_process))
    child = multiprocessing.get_context("spawn").Process(target=exits_as_a_worker)
    child.start()
    child.join(20)
    assert child.exitcode == 7


def exits_as_a_worker() -> None:
    os._exit(7 if _concurrency.is_worker_process() else 1)
