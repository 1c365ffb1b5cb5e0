"""Whoever gives up waiting for a refresh, first in line or not, leaves the refresh and everybody else alone."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from tests.contract.adapters.api import Api, begun
from tests.support.adapters import Answer, Client
from tests.support.waiting import until
from unbroken import Session
from unbroken.events import ClientEvent, RefreshJoined
from unbroken.testing import ManualClock

IN_LOOPS = ["httpx2-async", "httpx2-trio", "httpx-async", "aiohttp"]
BLOCKING = ["httpx2", "httpx", "requests"]


class Waiting:
    """A server that holds one refresh, a client, and how many wait for it beside the first."""

    def __init__(self, server: Api, connect: Callable[[Session], Client], clock: ManualClock) -> None:
        self.events: list[ClientEvent] = []
        self.server, self.url = server, server.url + "/echo"
        self.session = server.login(clock=clock, on_event=self.events.append, refresh_timeout=15.0)
        self.client = connect(self.session)

    def joined(self) -> int:
        return sum(isinstance(event, RefreshJoined) for event in self.events)

    def get(self) -> Answer:
        return self.client.request("GET", self.url)

    def all_is_well(self) -> None:
        """One refresh was made for all, and the tokens it brought are in use."""
        until(lambda: not self.session.status.refreshing)
        assert self.get().status == 200
        assert (self.server.refreshes, self.server.alarms()) == (1, 0)


@pytest.fixture(params=["challenged", "expired"])
def held(
    request: pytest.FixtureRequest, server: Api, connect: Callable[[Session], Client], clock: ManualClock
) -> Iterator[Waiting]:
    """The token is no good: the server says so, or the clock does. The refresh is held."""
    waiting = Waiting(server, connect, clock)
    server.expire() if request.param == "challenged" else clock.advance(1800)
    server.hold_next()
    yield waiting
    server.opened.set()


def gives_up(future: Any) -> None:
    """Cancels a request, which ends at once although the refresh is still held."""
    assert future.cancel()
    with pytest.raises(CancelledError):
        future.result(10)


@pytest.mark.parametrize("connect", IN_LOOPS, indirect=True)
def test_when_the_leader_is_cancelled_its_followers_get_their_tokens(held: Waiting, pool: ThreadPoolExecutor) -> None:
    leader = begun(held.client, held.url)
    until(lambda: held.server.refreshes == 1)
    followers = [pool.submit(held.get) for _ in range(3)]
    until(lambda: held.joined() == 3)
    gives_up(leader)
    assert held.session.status.refreshing, "the refresh goes on"
    held.server.opened.set()
    assert [one.result(10).status for one in followers] == [200] * 3
    held.all_is_well()


@pytest.mark.parametrize("connect", IN_LOOPS, indirect=True)
def test_when_a_follower_is_cancelled_no_other_request_notices(held: Waiting, pool: ThreadPoolExecutor) -> None:
    leader = pool.submit(held.get)
    until(lambda: held.server.refreshes == 1)
    follower, other = begun(held.client, held.url), pool.submit(held.get)
    until(lambda: held.joined() == 2)
    gives_up(follower)
    held.server.opened.set()
    assert [one.result(10).status for one in (leader, other)] == [200] * 2
    held.all_is_well()


@pytest.mark.parametrize("connect", IN_LOOPS, indirect=True)
def test_when_all_are_cancelled_the_refresh_is_still_of_use(held: Waiting) -> None:
    all_of_them = [begun(held.client, held.url) for _ in range(3)]
    until(lambda: held.server.refreshes == 1 and held.joined() == 2)
    for one in all_of_them:
        gives_up(one)
    held.server.opened.set()
    held.all_is_well()


@pytest.mark.parametrize("connect", IN_LOOPS, indirect=True)
def test_what_the_server_has_rotated_is_not_lost_with_a_cancelled_leader(
    server: Api, connect: Any, clock: ManualClock
) -> None:
    """The old refresh token is spent already; the new one is on its way when the only one who waits gives up."""
    waiting = Waiting(server, connect, clock)
    server.expire()
    server.hold_next_answer()
    leader = begun(waiting.client, waiting.url)
    assert server.rotated.wait(10)
    gives_up(leader)
    server.opened.set()
    waiting.all_is_well()


class Interrupted(Exception):
    """What a signal raises in a program that waits, as Ctrl+C does."""


@contextmanager
def interrupted_when(condition: Callable[[], bool]) -> Iterator[None]:
    """A signal interrupts the main thread when *condition* holds."""

    def interrupt(*_: object) -> None:
        raise Interrupted

    def wait_and_send() -> None:
        until(condition)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, interrupt)
    sender = threading.Thread(target=wait_and_send)
    sender.start()
    try:
        yield
    finally:
        sender.join(10)
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize("connect", BLOCKING, indirect=True)
def test_when_a_blocking_leader_is_interrupted_its_followers_get_their_tokens(
    held: Waiting, pool: ThreadPoolExecutor
) -> None:
    followers: list[Any] = []

    def all_wait() -> bool:
        if held.server.refreshes == 1 and not followers:
            followers.extend(pool.submit(held.get) for _ in range(3))
        return held.joined() == 3

    with interrupted_when(all_wait), pytest.raises(Interrupted):
        held.get()
    assert held.session.status.refreshing, "the refresh goes on"
    held.server.opened.set()
    assert [one.result(10).status for one in followers] == [200] * 3
    held.all_is_well()


@pytest.mark.parametrize("connect", BLOCKING, indirect=True)
def test_when_a_blocking_follower_is_interrupted_no_other_request_notices(
    held: Waiting, pool: ThreadPoolExecutor
) -> None:
    leader = pool.submit(held.get)
    until(lambda: held.server.refreshes == 1)
    with interrupted_when(lambda: held.joined() == 1), pytest.raises(Interrupted):
        held.get()
    held.server.opened.set()
    assert leader.result(10).status == 200
    held.all_is_well()


@pytest.mark.parametrize("connect", BLOCKING, indirect=True)
def test_what_the_server_has_rotated_is_not_lost_with_an_interrupted_leader(
    server: Api, connect: Any, clock: ManualClock
) -> None:
    waiting = Waiting(server, connect, clock)
    server.expire()
    server.hold_next_answer()
    with interrupted_when(server.rotated.is_set), pytest.raises(Interrupted):
        waiting.get()
    server.opened.set()
    waiting.all_is_well()
