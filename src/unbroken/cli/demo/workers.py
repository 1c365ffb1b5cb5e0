"""Tasks that call the API without a pause, and what they observe."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from dataclasses import dataclass, field

import httpx2

from unbroken import Session, SessionOver, TryLater
from unbroken.httpx2 import SessionAuth

__all__ = ["Observations", "call_repeatedly", "run_in_thread"]

RETRY_SECONDS = 0.05  # after a request that found no server
MAX_FAILURES_KEPT = 10


@dataclass
class Observations:
    """What the tasks of one process observed. ``over``: the reason why the session is over, if it is.

    ``end_is_expected``: after a theft the session must end, so that is no failure.
    """

    requests: int = 0
    failures: int = 0
    without_server: int = 0
    over: str = ""
    end_is_expected: bool = False
    first_failures: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def add_failure(self, message: str) -> None:
        self.failures += 1
        if len(self.first_failures) < MAX_FAILURES_KEPT:
            self.first_failures.append(message)


async def call_repeatedly(session: Session, url: str, seen: Observations, tasks: int, stop: threading.Event) -> None:
    """Call *url* in *tasks* tasks until *stop* is set."""
    limits = httpx2.Limits(max_connections=tasks, max_keepalive_connections=tasks)
    async with (
        httpx2.AsyncClient(auth=SessionAuth(session), limits=limits, timeout=10) as client,
        asyncio.TaskGroup() as group,
    ):
        for number in range(tasks):
            group.create_task(_call_repeatedly(client, url, seen, number, stop))


def run_in_thread(
    session: Session, url: str, seen: Observations, tasks: int, stop: threading.Event
) -> threading.Thread:
    """Start ``call_repeatedly`` in an event loop of a thread of its own, and return the thread."""
    thread = threading.Thread(target=lambda: asyncio.run(call_repeatedly(session, url, seen, tasks, stop)))
    thread.start()
    return thread


async def _call_repeatedly(
    client: httpx2.AsyncClient, url: str, seen: Observations, number: int, stop: threading.Event
) -> None:
    for turn in itertools.count():
        if stop.is_set() or seen.over:
            return
        text, started = f"{number}/{turn}", time.perf_counter()
        try:
            response = await client.post(url, json={"echo": text})
        except (httpx2.TransportError, TryLater):
            seen.without_server += 1
            await asyncio.sleep(RETRY_SECONDS)
            continue
        except SessionOver as over:
            if not seen.end_is_expected:
                seen.add_failure(f"SessionOver: {over.reason}")
            seen.over = over.reason
            return
        seen.seconds.append(time.perf_counter() - started)
        seen.requests += 1
        if response.status_code != 200 or response.json()["echo"] != text:
            seen.add_failure(f"status {response.status_code}")
        await asyncio.sleep(0)
