"""Children of a test, forked or fresh, and what they tell."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable

__all__ = ["ends_well", "fork", "fresh_processes", "result_of_fork"]

IMPORTED = ("pytest", "unbroken.testing", "unbroken.client.stores", "psycopg", "psycopg_pool", "redis")


def fresh_processes() -> multiprocessing.context.ForkServerContext:
    """What makes processes that share nothing with this one. They come from a server that has imported the most."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(IMPORTED))
    return context


def result_of_fork(work: Callable[[], str]) -> str:
    """What *work* returns in a forked child."""
    context = multiprocessing.get_context("fork")
    mine, theirs = context.Pipe()
    child = context.Process(target=lambda: theirs.send(work()))
    child.start()
    try:
        assert mine.poll(20), "the child does not respond"
        result: str = mine.recv()
        return result
    finally:
        child.join(5)
        child.kill()


def fork(work: Callable[[], bool]) -> int:
    """The id of a forked child that ends well if *work* returns True."""
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if work() else 1)
        finally:
            os._exit(2)
    return child


def ends_well(child: int) -> bool:
    """Whether *child* ends with status 0 within 15 seconds; it is killed if it does not end."""
    ends = time.monotonic() + 15
    while time.monotonic() < ends:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status == 0
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False
