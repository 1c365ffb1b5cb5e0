"""Many requests with an expired token: refreshes, time, memory. The server is real, in a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import multiprocessing
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2

from bench.figure import Figure
from unbroken import FileStore, Session, unbroken_server
from unbroken.httpx2 import SessionAuth
from unbroken.server import Accounts, Policy, Sessions, SqliteSessionStore

REQUESTS = 1000
PARKED = 10_000


def figures() -> Iterator[Figure]:
    with tempfile.TemporaryDirectory() as folder, server(folder) as (url, sessions):
        valid, expired, refresh, refreshes = asyncio.run(_bursts(url, sessions))
        yield Figure(
            f"refreshes for {REQUESTS} requests with an expired token", refreshes, "", "exactly 1", refreshes == 1
        )
        ratio = expired / (valid + refresh)
        yield Figure("their time over (valid token + one refresh)", ratio, "x", "at most 1.1", ratio <= 1.1)
        calls, failures, generations = _processes(url, sessions, folder)
        worst = max(generations) if generations else 0
        yield Figure("4 processes x 50 tasks on one file: refreshes per generation", worst, "", "exactly 1", worst == 1)
        yield Figure(f"their failures, in {calls:,} requests", failures, "", "0", failures == 0)
    size = asyncio.run(_parked())
    yield Figure(f"memory of each of {PARKED:,} waiting tasks", size / 1024, "KiB", "at most 2 KiB", size <= 2048)


@contextlib.contextmanager
def server(folder: str, access_ttl: float = 1800.0) -> Iterator[tuple[str, Sessions]]:
    """Run the demo's server; yield its URL and its sessions, through the same file."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url, database = f"http://127.0.0.1:{port}", str(Path(folder) / "bench.db")
    store = SqliteSessionStore(database)
    Accounts(store).add("ada", "pw")
    sessions = Sessions(store, policy=Policy(access_ttl=access_ttl), issuer=url)
    command = [sys.executable, "-m", "unbroken.cli.demo.server", database, str(port), str(access_ttl), url]
    process = subprocess.Popen(command)
    try:
        for _ in range(400):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
                break
            time.sleep(0.025)
        yield url, sessions
    finally:
        process.kill()
        process.wait()


def expire(sessions: Sessions) -> None:
    """Make all access tokens invalid."""
    old = sessions.keyring().signer(time.time())
    sessions.rotate_keys(publish_ahead=0.0)
    sessions.retire_key(old.kid)
    time.sleep(1.0)


async def _bursts(url: str, sessions: Sessions) -> tuple[float, float, float, int]:
    """Return median seconds of a burst with a valid token, an expired one, of one refresh; refreshes per burst."""
    session = Session(url)
    await session.alogin("ada", "pw")
    limits = httpx2.Limits(max_connections=100, max_keepalive_connections=100)
    valid, expired, refresh, refreshes = [], [], [], []
    async with httpx2.AsyncClient(auth=SessionAuth(session), limits=limits, timeout=60) as client:
        await _burst(client, url)
        for _ in range(5):
            valid.append(await _burst(client, url))
            before = sessions.list_sessions("ada")[0]
            generation = session.store.load().tokens.refresh_seq  # type: ignore[union-attr]
            session._state.active.refresh_at_monotonic = session._state.active.refresh_at_wall = 0.0  # type: ignore[union-attr]
            session._state.active.ages = session._state.active.ages._replace(
                refresh_in_background_at=0.0, refresh_before_use_at=0.0
            )  # type: ignore[union-attr]
            expired.append(await _burst(client, url))
            refreshes.append(session.store.load().tokens.refresh_seq - generation)  # type: ignore[union-attr,operator]
            began = time.perf_counter()
            live = session._authorize()
            await session._ahandle_challenge(live, time.perf_counter())
            refresh.append(time.perf_counter() - began)
            assert before.sid
            session._state.storm_limit.refreshes.clear()
    return statistics.median(valid), statistics.median(expired), statistics.median(refresh), max(refreshes)


async def _burst(client: httpx2.AsyncClient, url: str) -> float:
    async def one() -> None:
        response = await client.post(url + "/api/echo", json={"echo": "x"})
        assert response.status_code == 200

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(REQUESTS):
            group.create_task(one())
    return time.perf_counter() - began


def _processes(url: str, sessions: Sessions, folder: str) -> tuple[int, int, list[int]]:
    """Return requests, failures, and the generations that each of three expiries took."""
    file = str(Path(folder) / "tokens.json")
    Session(unbroken_server(url), FileStore(file)).login("ada", "pw")
    context = multiprocessing.get_context("spawn")
    queue: Any = context.Queue()
    end = time.time() + 9.0
    workers = [context.Process(target=_work, args=(url, file, end, queue)) for _ in range(4)]
    for worker in workers:
        worker.start()
    time.sleep(2.0)
    generations = []
    for _ in range(3):
        before = json.loads(Path(file).read_text())["tokens"]["refresh_seq"]
        expire(sessions)
        time.sleep(0.8)
        generations.append(json.loads(Path(file).read_text())["tokens"]["refresh_seq"] - before)
    seen = [queue.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join()
    return sum(calls for calls, _ in seen), sum(failures for _, failures in seen), generations


def _work(url: str, file: str, end: float, queue: Any) -> None:
    async def run() -> tuple[int, int]:
        counts = [0, 0]
        async with httpx2.AsyncClient(auth=SessionAuth(Session(url, FileStore(file))), timeout=60) as client:

            async def task() -> None:
                while time.time() < end:
                    counts[0] += 1
                    try:
                        response = await client.post(url + "/api/echo", json={"echo": "x"})
                        counts[1] += response.status_code != 200
                    except Exception:
                        counts[1] += 1
                    await asyncio.sleep(0.05)

            async with asyncio.TaskGroup() as group:
                for _ in range(50):
                    group.create_task(task())
        return counts[0], counts[1]

    queue.put(asyncio.run(run()))


async def _parked() -> float:
    """Return the memory in bytes of a task that waits in ``atoken``, beyond one that waits for an event of its loop."""

    async def measure(wait: Any) -> float:
        gc.collect()
        tracemalloc.start()
        tasks = [asyncio.ensure_future(wait()) for _ in range(PARKED)]
        await asyncio.sleep(0.5)
        size, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return size / PARKED

    def slow(_call: Any, _timeout: float) -> Any:
        time.sleep(3)
        raise ConnectionError("only here to take time")

    session = Session("http://127.0.0.1:9", send=slow)
    session.import_tokens({"access_token": "a", "refresh_token": "r", "expires_in": 1000})
    live = session._state.active
    assert live is not None
    live.refresh_at_monotonic = live.refresh_at_wall = 0.0
    live.ages = live.ages._replace(refresh_in_background_at=0.0, refresh_before_use_at=0.0)
    event = asyncio.Event()
    plain = await measure(event.wait)
    return await measure(session.atoken) - plain
