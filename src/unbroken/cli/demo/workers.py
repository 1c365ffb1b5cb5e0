"""Tasks that call the API without a pause, and what they saw."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from dataclasses import dataclass, field

import httpx2

from unbroken import Session, SessionOver, TryLater
from unbroken.httpx2 import SessionAuth

__all__ = ["Seen", "call_without_pause", "in_a_thread"]

PAUSE = 0.05  # seconds after a dead server


@dataclass
class Seen:
    """What the tasks of one process saw. ``over``: why the session ended, if it did.

    ``end_is_due``: after a theft the session must end; then that is no failure.
    """

    requests: int = 0
    failures: int = 0
    server_down: int = 0
    over: str = ""
    end_is_due: bool = False
    what: list[str] = field(default_factory=list)
    times: list[float] = field(default_factory=list)

    def failed(self, what: str) -> None:
        self.failures += 1
        if len(self.what) < 10:
            self.what.append(what)


async def call_without_pause(session: Session, url: str, seen: Seen, tasks: int, end: threading.Event) -> None:
    """*tasks* tasks that call *url* until *end*."""
    limits = httpx2.Limits(max_connections=tasks, max_keepalive_connections=tasks)
    async with (
        httpx2.AsyncClient(auth=SessionAuth(session), limits=limits, timeout=10) as client,
        asyncio.TaskGroup() as group,
    ):
        for number in range(tasks):
            group.create_task(_task(client, url, seen, number, end))


def in_a_thread(session: Session, url: str, seen: Seen, tasks: int, end: threading.Event) -> threading.Thread:
    """The same, in an event loop of a thread of its own."""
    thread = threading.Thread(target=lambda: asyncio.run(call_without_pause(session, url, seen, tasks, end)))
    thread.start()
    return thread


async def _task(client: httpx2.AsyncClient, url: str, seen: Seen, number: int, end: threading.Event) -> None:
    for turn in itertools.count():
        if end.is_set() or seen.over:
            return
        words, began = f"{number}/{turn}", time.perf_counter()
        try:
            answer = await client.post(url, json={"echo": words})
        except (httpx2.TransportError, TryLater):
            seen.server_down += 1
            await asyncio.sleep(PAUSE)
            continue
        except SessionOver as over:
            if not seen.end_is_due:
                seen.failed(f"SessionOver: {over.reason}")
            seen.over = over.reason
            return
        seen.times.append(time.perf_counter() - began)
        seen.requests += 1
        if answer.status_code != 200 or answer.json()["echo"] != words:
            seen.failed(f"status {answer.status_code}")
        await asyncio.sleep(0)
