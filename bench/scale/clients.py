"""The client at size: very many tasks on one session, very many sessions in one process, and cancellation in masses."""

from __future__ import annotations

import asyncio
import os
import threading
import time
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from bench.figure import Figure
from tests.support.services import redis_server
from unbroken import HttpRequest, HttpResponse, Leeway, Session, TokenResponse, open_token_store
from unbroken.server.stores.encrypted_keys import new_key

URL = "http://127.0.0.1:9"
PARKED, SESSIONS, STORED = 100_000, 1_000, 10_000
ROUNDS, CANCELLED, PATIENCE = 100, 1_000, 0.01
SERVER_SECONDS = 0.05  # of a refresh, at a server that takes its time
TOKENS = b'{"access_token": "new", "refresh_token": "r2", "token_type": "Bearer", "expires_in": 3600, "refresh_seq": 2}'


class Server:
    """Responds to refreshes after *seconds*, or when it is released; counts those under way at once."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds, self.released = seconds, threading.Event()
        self.refreshes = self.under_way = self.most = 0
        self._lock = threading.Lock()
        if seconds:
            self.released.set()

    def send(self, request: HttpRequest, timeout: float) -> HttpResponse:
        with self._lock:
            self.refreshes += 1
            self.under_way += 1
            self.most = max(self.most, self.under_way)
        self.released.wait(timeout)
        time.sleep(self.seconds)
        with self._lock:
            self.under_way -= 1
        key = request.headers.get("idempotency-key", "")
        return HttpResponse(200, {"content-type": "application/json", "idempotency-key": key}, TOKENS)


def figures(*, small: bool = False) -> Iterator[Figure]:
    part = 100 if small else 1
    yield from asyncio.run(_parked(PARKED // part))
    yield from asyncio.run(_many_sessions(max(SESSIONS // part, 20)))
    yield from asyncio.run(_cancellations(max(ROUNDS // part, 5)))
    yield from _stored(STORED // part)


def _session(server: Server, store: str | None = None) -> Session:
    session = Session(URL, store, send=server.send, refresh_timeout=60.0, leeway=Leeway(0.0))
    session.import_tokens(TokenResponse("old", "r1", 0.001))
    time.sleep(0.002)
    return session


async def _parked(count: int) -> Iterator[Figure]:
    """Tasks that wait for one refresh: the memory of each, and how long it takes to wake them all."""
    server = Server()
    session = _session(server)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    tasks = [asyncio.create_task(session.atoken()) for _ in range(count)]
    await asyncio.sleep(0)
    await asyncio.sleep(0.2)
    size = (tracemalloc.get_traced_memory()[0] - before) / count
    tracemalloc.stop()
    server.released.set()
    began = time.perf_counter()
    await asyncio.gather(*tasks)
    woken, refreshes = time.perf_counter() - began, server.refreshes
    return iter(
        (
            Figure(f"memory of each of {count:,} waiting tasks", size / 1024, "KiB", "at most 2 KiB", size <= 2048),
            Figure("waking all of them", woken, "s"),
            Figure("their refreshes", refreshes, "", "1", refreshes == 1),
        )
    )


async def _many_sessions(count: int) -> Iterator[Figure]:
    """Sessions that expire at once: they do not wait for each other."""
    server = Server(SERVER_SECONDS)
    sessions = [_session(server) for _ in range(count)]
    before, began = threading.active_count(), time.perf_counter()
    await asyncio.gather(*(session.atoken() for session in sessions))
    took = time.perf_counter() - began
    await asyncio.sleep(0.5)
    return iter(
        (
            Figure(f"{count:,} sessions expire at once: all served after", took, "s"),
            Figure("their refreshes", server.refreshes, "", f"{count}", server.refreshes == count),
            Figure("refreshes at once, at most (each in a thread)", server.most, ""),
            Figure(
                "threads that are left", threading.active_count() - before, "", "0", threading.active_count() <= before
            ),
        )
    )


async def _cancellations(rounds: int) -> Iterator[Figure]:
    """Rounds in which ``CANCELLED`` tasks lose their patience while a refresh is under way."""
    counts = []
    for _ in range(rounds):
        server = Server()
        session = _session(server)
        tasks = [asyncio.create_task(asyncio.wait_for(session.atoken(), PATIENCE)) for _ in range(CANCELLED)]
        await asyncio.gather(*tasks, return_exceptions=True)
        server.released.set()
        await session.aclose()
        counts.append((threading.active_count(), len(os.listdir("/proc/self/fd"))))
    (threads, descriptors), (threads_after, descriptors_after) = counts[1], counts[-1]
    is_flat = threads_after <= threads and descriptors_after <= descriptors
    said = f"threads ({threads} before), {descriptors_after} descriptors ({descriptors} before)"
    return iter(
        (Figure(f"after {rounds} × {CANCELLED:,} cancelled tasks", threads_after, said, "as many as before", is_flat),)
    )


def _stored(count: int) -> Iterator[Figure]:
    """Sessions of many users in one Redis store, each refreshed once, by 16 threads."""
    server, key = Server(0.0001), new_key()
    with redis_server() as service:
        names = [f"user-{number}" for number in range(count)]
        began = time.perf_counter()

        def one(name: str) -> str:
            session = Session(URL, open_token_store(service.url, name, key=key), send=server.send)
            session.import_tokens(TokenResponse("old", "r1", 0.001))
            time.sleep(0.002)
            token = session.token()
            session.close()
            return token

        with ThreadPoolExecutor(16) as threads:
            good = sum(token == "new" for token in threads.map(one, names))
        took = time.perf_counter() - began
    yield Figure(
        f"{count:,} sessions in one Redis store, each opened, refreshed, closed", took / count * 1e3, "ms each"
    )
    yield Figure("of them refreshed", good, "", f"{count}", good == count)
