"""``unbroken.testing`` as its users use it: a project of their own, by the plugin, blocking and async.

Modules: testing/server.py, testing/network.py.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import httpx2
import pytest
import requests

import unbroken.aiohttp
import unbroken.httpx2
import unbroken.requests
from tests.support.waiting import until
from unbroken import Session, SessionOver, TryLater
from unbroken.testing import LoopbackServer, ManualClock


def by_httpx2(session: Session, url: str) -> list[int]:
    with httpx2.Client(auth=unbroken.httpx2.SessionAuth(session), timeout=30) as client:
        return [client.get(url).status_code for _ in range(3)]


def by_requests(session: Session, url: str) -> list[int]:
    with requests.Session() as client:
        client.auth = unbroken.requests.SessionAuth(session)
        return [client.get(url, timeout=20).status_code for _ in range(3)]


def by_aiohttp(session: Session, url: str) -> list[int]:
    async def all_at_once() -> list[int]:
        async with aiohttp.ClientSession(middlewares=[unbroken.aiohttp.SessionMiddleware(session)]) as client:

            async def one() -> int:
                async with client.get(url) as response:
                    return response.status

            return await asyncio.gather(*(one() for _ in range(3)))

    return asyncio.run(all_at_once())


def by_async_httpx2(session: Session, url: str) -> list[int]:
    async def all_at_once() -> list[int]:
        async with httpx2.AsyncClient(auth=unbroken.httpx2.SessionAuth(session), timeout=30) as client:
            return [response.status_code for response in await asyncio.gather(*(client.get(url) for _ in range(3)))]

    return asyncio.run(all_at_once())


CLIENTS = {"httpx2": by_httpx2, "requests": by_requests, "aiohttp": by_aiohttp, "httpx2-async": by_async_httpx2}


@pytest.mark.parametrize("get", CLIENTS.values(), ids=CLIENTS)
def test_every_fault_of_the_server_is_got_over(
    unbroken_server: LoopbackServer,
    unbroken_session: Session,
    unbroken_clock: ManualClock,
    get: Callable[[Session, str], list[int]],
) -> None:
    url = unbroken_server.url + "/echo"
    faults: list[Callable[[], Any]] = [
        unbroken_server.lose_next,
        unbroken_server.junk_next,
        lambda: unbroken_server.fail_next(503),
        lambda: unbroken_server.slow_next(0.05),
        lambda: unbroken_server.skew(300),
    ]
    for fault in faults:
        fault()
        unbroken_server.expire()
        assert get(unbroken_session, url) == [200] * 3
        unbroken_clock.advance(60)
    assert unbroken_server.alarms() == 0
    with unbroken_server.assert_one_refresh():
        unbroken_clock.advance(1800)
        assert get(unbroken_session, url) == [200] * 3


def test_a_fault_is_over_when_it_has_happened(
    unbroken_server: LoopbackServer, unbroken_session: Session, unbroken_clock: ManualClock
) -> None:
    unbroken_clock.advance(1800)
    unbroken_server.fail_next(503, headers={"retry-after": "30"})
    with pytest.raises(TryLater) as caught:
        unbroken_session.token()
    assert caught.value.retry_after == pytest.approx(30, abs=1)
    unbroken_clock.advance(31)
    assert unbroken_session.token()


def test_a_refresh_behind_a_request_is_waited_for(
    unbroken_server: LoopbackServer, unbroken_session: Session, unbroken_clock: ManualClock
) -> None:
    unbroken_clock.advance(1700)
    for _ in range(5):
        with unbroken_server.assert_one_refresh():
            unbroken_session.token()
        until(lambda: not unbroken_session.status.refreshing)
        unbroken_clock.advance(1700)


@pytest.mark.parametrize("times", [0, 2])
def test_another_number_of_refreshes_is_told(
    unbroken_server: LoopbackServer, unbroken_session: Session, times: int
) -> None:
    def refreshes() -> None:
        with unbroken_server.assert_one_refresh():
            for _ in range(times):
                unbroken_server.expire()
                assert by_httpx2(unbroken_session, unbroken_server.url + "/echo") == [200] * 3

    with pytest.raises(AssertionError, match=f"expected one refresh and no reuse; refreshes: {times}, reuse: 0"):
        refreshes()


def test_a_failure_in_the_block_is_the_tests_own(unbroken_server: LoopbackServer) -> None:
    with pytest.raises(ZeroDivisionError), unbroken_server.assert_one_refresh():
        raise ZeroDivisionError


def test_a_reused_refresh_token_is_counted_as_an_alarm(
    unbroken_server: LoopbackServer, unbroken_session: Session, unbroken_clock: ManualClock
) -> None:
    tokens = unbroken_session.store.load().tokens
    assert tokens is not None
    stolen = {"refresh_token": tokens.refresh_token}
    reason = ""
    for _ in range(4):
        response = httpx2.post(unbroken_server.url + "/auth/refresh", json=stolen, timeout=30)
        stolen = {"refresh_token": response.json().get("refresh_token", stolen["refresh_token"])}
        unbroken_clock.advance(1800)
        try:
            unbroken_session.token()
        except SessionOver as over:
            reason = over.reason
            break
    assert (reason, unbroken_server.alarms()) == ("reuse", 1)


def test_a_server_that_does_not_run_yet_says_what_to_write() -> None:
    for use in (LoopbackServer().login, LoopbackServer().lose_next):
        with pytest.raises(RuntimeError, match="with LoopbackServer"):
            use()


@pytest.mark.parametrize("go", [ManualClock.advance, ManualClock.sleep])
def test_time_does_not_run_backwards_by_mistake(go: Callable[[ManualClock, float], None]) -> None:
    clock = ManualClock()
    before = clock.wall(), clock.monotonic()
    with pytest.raises(ValueError, match=r"set\(\) changes the time of day"):
        go(clock, -5)
    assert (clock.wall(), clock.monotonic()) == before
    clock.set(-5)
    assert (clock.wall(), clock.monotonic()) == (before[0] - 5, before[1])


NOT_THERE = ["uvicorn", "starlette"]


def test_without_its_packages_the_plugin_is_no_trouble_and_says_what_to_install(tmp_path: Path) -> None:
    """pytest finds the plugin wherever the core is installed; what its fixtures need may not be there."""
    (tmp_path / "test_it.py").write_text(
        "def test_other(): pass\ndef test_server(unbroken_server): pass\ndef test_clock(unbroken_clock): pass\n"
    )
    code = (
        f"import sys; sys.modules |= dict.fromkeys({NOT_THERE}); import pytest;"
        "sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider', '-c', '/dev/null', '--rootdir', '.', '.']))"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path)
    assert "2 passed, 1 error" in done.stdout, done.stdout + done.stderr
    assert re.search("this fixture needs (uvicorn|starlette): pip install 'unbroken.testing.'", done.stdout)
