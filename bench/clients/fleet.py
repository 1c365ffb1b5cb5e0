"""16 processes of 20 tasks each share one session whose tokens live two seconds: on Redis, on PostgreSQL, on a file.

1. The server is strict: a refresh token that is used twice ends the session.
2. Each task sends every other request with a fixed token, that of another login: so both are measured at the same
   time, under the same load.
3. Each process makes its first request before the measurement starts, so that imports are not measured.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.clients import cell
from bench.clients.matrix import server
from bench.figure import Figure
from unbroken import FileStore, Session, TokenResponse, oauth2

PROCESSES, TASKS = 16, 20
LIFETIME = 2.0  # seconds
PAUSE = 1.0  # seconds between two requests of a task, on average
SECONDS = 60.0
LIMIT = 2.0


@dataclass
class Seen:
    """The observations of one process: seconds of its requests with our tokens and the fixed one, and failures."""

    ours: list[float] = field(default_factory=list)
    fixed: list[float] = field(default_factory=list)
    wrong: Counter[str] = field(default_factory=Counter)


def figures(seconds: float = SECONDS) -> Iterator[Figure]:
    with server("bench.clients.backend") as port:
        url = f"http://127.0.0.1:{port}"
        for name, place in (("Redis", _redis), ("PostgreSQL", _postgres), ("a file", _file)):
            with place() as store:
                yield from _figures(name, url, store, seconds)


@contextlib.contextmanager
def _redis() -> Iterator[Any]:
    from tests.support.services import redis_server
    from unbroken.client.stores.redis import RedisStore

    with redis_server() as service:
        yield RedisStore(service.url)


@contextlib.contextmanager
def _postgres() -> Iterator[Any]:
    from tests.support.services import postgres_server
    from unbroken.client.stores.postgres import PostgresStore

    with postgres_server() as service:
        store = PostgresStore(service.url)
        yield store
        store.close()


@contextlib.contextmanager
def _file() -> Iterator[Any]:
    with tempfile.TemporaryDirectory() as folder:
        yield FileStore(Path(folder) / "tokens.json")


def _figures(name: str, url: str, store: Any, seconds: float) -> Iterator[Figure]:
    shared: dict[str, Any] = {}
    fixed = cell.family(url, {})
    session = Session(oauth2(url + "/token"), store)

    def log_in() -> int:
        shared.update(cell.family(url, {"says": LIFETIME, "lives": LIFETIME}))
        return session.import_tokens(TokenResponse(shared["access_token"], shared["refresh_token"], LIFETIME)).version

    first, seen = _together(url, store, fixed["access_token"], seconds, log_in)
    counted = cell.counters_of(url, shared["family"])
    last = store.load()
    generations = (last.tokens.version if last.tokens else first) - first
    wrong = sum((one.wrong for one in seen), Counter[str]())
    ours, plain = sorted(t for one in seen for t in one.ours), sorted(t for one in seen for t in one.fixed)
    what = f"{PROCESSES} processes x {TASKS} tasks on {name}, {seconds:g} s"
    one = counted["refreshes"] == generations > seconds / LIFETIME - 2 and not counted["reuses"]
    yield Figure(f"{what}: refreshes for {generations} generations", counted["refreshes"], "", "as many", one)
    words = f" ({', '.join(f'{word} {n}' for word, n in wrong.items())})" if wrong else ""
    whole = len(seen) == PROCESSES and not wrong
    yield Figure(f"{what}: failures of {len(ours):,} requests{words}", wrong.total(), "", "0", whole)
    for part in (0.5, 0.99):
        ratio = _part(ours, part) / _part(plain, part)
        limit = f"at most {LIMIT:g}" if part > 0.9 else ""
        times = f"{_part(ours, part) * 1000:.1f} over {_part(plain, part) * 1000:.1f} ms"
        yield Figure(
            f"{what}: p{part * 100:g} over that of a fixed token, {times}",
            ratio,
            "x",
            limit,
            ratio <= LIMIT if limit else None,
        )


def _part(times: list[float], part: float) -> float:
    return times[min(int(len(times) * part), len(times) - 1)] if times else float("inf")


def _together(url: str, store: Any, fixed: str, seconds: float, log_in: Callable[[], int]) -> tuple[int, list[Seen]]:
    """Return what *log_in* returns when all processes are ready, and the observations of those that ended well."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*cell.PRELOADED, "bench.clients.fleet"])
    queue: Any = context.Queue()
    ready = context.Barrier(PROCESSES + 1)
    processes = [
        context.Process(target=_work, args=(url, store, fixed, seconds, ready, queue), daemon=True)
        for _ in range(PROCESSES)
    ]
    for process in processes:
        process.start()
    ready.wait(60)
    first, ends = log_in(), time.time() + seconds + 30
    ready.wait(60)
    seen: list[Seen] = []
    with contextlib.suppress(Exception):
        while len(seen) < PROCESSES:
            seen.append(queue.get(timeout=max(ends - time.time(), 0.1)))
    for process in processes:
        process.join(5)
        process.kill()
    return first, seen


def _work(url: str, store: Any, fixed: str, seconds: float, ready: Any, queue: Any) -> None:
    queue.put(asyncio.run(_requests(url, store, fixed, seconds, ready)))


async def _requests(url: str, store: Any, fixed: str, seconds: float, ready: Any) -> Seen:
    import httpx2

    from unbroken.httpx2 import SessionAuth

    seen = Seen()
    auth = SessionAuth(Session(oauth2(url + "/token"), store))
    plain = {"authorization": f"Bearer {fixed}"}
    async with httpx2.AsyncClient(timeout=30) as client:

        async def once(times: list[float], **how: Any) -> None:
            began = time.perf_counter()
            try:
                status = (await client.get(url + "/api", **how)).status_code
            except Exception as error:
                seen.wrong[type(error).__name__] += 1
                return
            times.append(time.perf_counter() - began)
            if status != 200:
                seen.wrong[str(status)] += 1

        async def task() -> None:
            await asyncio.sleep(random.random() * 2 * PAUSE)
            while time.time() < end:
                await once(seen.ours, auth=auth)
                await asyncio.sleep(random.uniform(0.5, 1.5) * PAUSE)
                await once(seen.fixed, headers=plain)
                await asyncio.sleep(random.uniform(0.5, 1.5) * PAUSE)

        await client.get(url + "/free")
        ready.wait(60)  # all are ready
        ready.wait(60)  # for the login
        end = time.time() + seconds
        await asyncio.gather(*[task() for _ in range(TASKS)])
    return seen
