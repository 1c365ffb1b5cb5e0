"""What a session tells when nothing goes wrong."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import httpx2

from tests.support.backend import Backend
from tests.support.waiting import until
from unbroken.events import ClientEvent
from unbroken.httpx2 import SessionAuth
from unbroken.testing import ManualClock


def test_in_steady_use_no_request_waits_or_is_challenged(server: Backend) -> None:
    """Four tokens, ten threads that never pause: each token is refreshed in the background before it dies."""
    clock, events, statuses, ended = ManualClock(), list[ClientEvent](), list[int](), threading.Event()
    session = server.login(clock=clock, on_event=events.append)

    def count(kind: str) -> int:
        return sum(type(event).__name__ == kind for event in events)

    with httpx2.Client(auth=SessionAuth(session), timeout=20) as client, ThreadPoolExecutor(10) as pool:

        def work() -> None:
            while not ended.is_set():
                statuses.append(client.get(server.url + "/echo").status_code)

        threads = [pool.submit(work) for _ in range(10)]
        for generation in range(1, 5):
            clock.advance(1750)  # of 1800 seconds
            until(lambda generation=generation: count("TokensRefreshed") == generation)
        ended.set()
        for thread in threads:
            thread.result(20)
    assert set(statuses) == {200}
    assert server.refreshes == 4
    assert count("RequestReplayed") == count("RequestWaited") == 0
