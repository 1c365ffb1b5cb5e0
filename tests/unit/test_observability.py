"""What a session tells: events in their order, counters, spans; and never a secret."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import httpx2

from tests.support.backend import Backend
from unbroken.events import ClientEvent
from unbroken.httpx2 import SessionAuth


def test_in_steady_use_no_request_waits_or_is_challenged() -> None:
    """Four tokens of two seconds, ten threads that never pause: each renewal runs behind the requests."""
    events: list[ClientEvent] = []
    with Backend(access_ttl=2.0) as server:
        session = server.login(on_event=events.append)
        statuses: list[int] = []
        with httpx2.Client(auth=SessionAuth(session), timeout=20) as client, ThreadPoolExecutor(10) as pool:

            def work(_: int) -> None:
                ends = time.monotonic() + 7.5
                while time.monotonic() < ends:
                    statuses.append(client.get(server.url + "/echo").status_code)
                    time.sleep(0.02)

            list(pool.map(work, range(10)))
        kinds = [type(event).__name__ for event in events]
        assert set(statuses) == {200}
        assert kinds.count("TokensRefreshed") == server.exchanges >= 4
        assert "Replayed" not in kinds, "no challenge was ever seen"
        assert "RequestWaited" not in kinds, "no request waited for an exchange"
