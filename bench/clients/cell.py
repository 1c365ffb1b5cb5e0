"""One cell of the matrix: one contender in one scenario, in a process of its own that is killed at its time limit.

1. Many requests at once are tasks of one loop, or threads that start together. One that has not ended in time hangs.
2. The outcome of a request is its status, or the name of the exception that it raised.
3. The counters are the server's, read after each step.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import multiprocessing
import os
import tempfile
import threading
import time
import traceback
import urllib.request
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any
from urllib.parse import urlencode

from bench.clients.contenders import BY_MAKER, Contender
from bench.clients.start import Client, Start

HANGS = "hangs"
SIZE = 10_000  # bytes of an upload
PRELOADED = ("httpx", "httpx2", "requests", "aiohttp", "unbroken", "bench.clients.cell")
Call = tuple[float, Callable[[], Any]]  # when it starts, and the function


@dataclass(frozen=True)
class Task:
    """The work of a cell. ``kind`` names a function of this file, ``what`` a variety of it; *limit* is for one step."""

    kind: str
    maker: str
    start: Start
    n: int = 1
    path: str = "/api"
    what: str = ""
    spread: float = 0.0
    limit: float = 15.0
    begin: float = 0.0  # the time of day at which it begins, for several processes


@dataclass
class Step:
    """The outcomes of the requests of one step, and the server's counters after it. Times are in seconds."""

    seen: dict[str, int] = field(default_factory=dict)
    wall: float = 0.0
    stall: float = 0.0
    counters: dict[str, Any] = field(default_factory=dict)

    @property
    def failures(self) -> int:
        return sum(number for word, number in self.seen.items() if word != "200")

    @property
    def words(self) -> str:
        """Return the outcomes of the requests that failed."""
        return ", ".join(sorted(word for word in self.seen if word != "200")) or "-"


def run(*tasks: Task) -> list[list[Step]]:
    """Return the steps of each of *tasks*, which run at the same time; an empty list for a task that did not end."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    running = []
    for task in tasks:
        mine, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_child, args=(task, theirs), daemon=True)
        process.start()
        theirs.close()
        running.append((process, mine, time.monotonic() + 3 * task.limit + 20))
    return [_outcome(*one) for one in running]


def _outcome(process: Any, pipe: Any, ends: float) -> list[Step]:
    try:
        steps = pipe.recv() if pipe.poll(max(ends - time.monotonic(), 0.0)) else []
    except EOFError:
        steps = []
    process.join(0.5)
    if process.is_alive():
        process.kill()
        process.join()
    return [Step(**step) for step in steps]


def _child(task: Task, pipe: Any) -> None:
    loud = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)  # warnings of contenders about what is being done to them
    try:
        steps = asyncio.run(_main(task))
        pipe.send([asdict(step) for step in steps])
        pipe.close()
    except BaseException:
        os.write(loud, f"{task.maker}: {traceback.format_exc()}".encode())
    os._exit(0)  # threads that hang stay behind


async def _main(task: Task) -> list[Step]:
    contender = BY_MAKER[task.maker]
    time.sleep(max(task.begin - time.time(), 0.0))  # noqa: ASYNC251  # nothing else runs yet
    steps: list[Step] = await KINDS[task.kind](task, contender)
    return steps


# ---- kinds of cells -------------------------------------------------------------------------------------------------


async def prepare(task: Task, contender: Contender) -> list[Step]:
    """Write the tokens where several processes find them."""
    await contender.build(task.start)
    return [Step()]


async def burst(task: Task, contender: Contender) -> list[Step]:
    """All at once, or spread; then ten more."""
    client = await contender.build(task.start)
    if client.warm:
        await client.warm()
    calls = [(task.spread * i / task.n, lambda: client.get(task.path)) for i in range(task.n)]
    first = await _step(task, contender, calls)
    return [first, await _step(task, contender, [(0.0, lambda: client.get(task.path))] * 10)]


async def rounds(task: Task, contender: Contender) -> list[Step]:
    """All at once with valid tokens, with expired ones, and one refresh alone: *what* times, each with new tokens."""
    steps = []
    for _ in range(int(task.what)):
        for expired in (False, True):
            made = family(task.start.url, {"expired": expired})
            start = Start(task.start.url, made.pop("family"), **_pair(made), expires_in=-100.0 if expired else 3600.0)
            client = await contender.build(start)
            if client.warm:
                await client.warm()
            here = replace(task, start=start)
            steps.append(await _step(here, contender, [(0.0, lambda: client.get(task.path))] * task.n))  # noqa: B023  # used at once
            await client.close()
        began = time.perf_counter()
        form = urlencode(start.form(_pair(family(task.start.url, {}))["refresh_token"])).encode()
        await asyncio.to_thread(lambda: urllib.request.urlopen(task.start.token_url, form, timeout=10).close())  # noqa: B023
        steps.append(Step({"200": 1}, time.perf_counter() - began))
    return steps


async def twice(task: Task, contender: Contender) -> list[Step]:
    """All at once, and the same again."""
    client = await contender.build(task.start)
    return [await _step(task, contender, [(0.0, lambda: client.get(task.path))] * task.n) for _ in range(2)]


async def stale(task: Task, contender: Contender) -> list[Step]:
    """A slow and a quick request with the same expired token: the slow one is challenged after the refresh."""
    client = await contender.build(task.start)
    return [await _step(task, contender, [(0.0, lambda: client.get("/slow")), (0.1, lambda: client.get("/api"))])]


async def cancelled(task: Task, contender: Contender) -> list[Step]:
    """The task that started the refresh is cancelled during it; then ten more."""
    client = await contender.build(task.start)
    leader = asyncio.create_task(client.get(task.path))
    for _ in range(100):
        if (await asyncio.to_thread(counters, task.start))["refreshes"]:
            break
        await asyncio.sleep(0.01)
    waiting = asyncio.create_task(_step(task, contender, [(0.0, lambda: client.get(task.path))] * task.n))
    await asyncio.sleep(0.1)
    landed = leader.cancel()
    with contextlib.suppress(asyncio.CancelledError, Exception):
        await leader
    first = await waiting
    first.counters["landed"] = landed and leader.cancelled()
    return [first, await _step(task, contender, [(0.0, lambda: client.get(task.path))] * 10)]


async def upload(task: Task, contender: Contender) -> list[Step]:
    """One POST whose body is ``what``: bytes, a file, or a generator."""
    client = await contender.build(task.start)
    body = _body(task.what, contender)
    return [await _step(task, contender, [(0.0, lambda: client.post("/api", body))])]


async def skewed(task: Task, contender: Contender) -> list[Step]:
    """Requests one after another, by a clock that is wrong by ``n`` seconds; ``step``: it was right before."""
    import time_machine

    async def ask(client: Client, number: int) -> Step:
        steps = [await _step(task, contender, [(0.0, lambda: client.get(task.path))]) for _ in range(number)]
        seen: Counter[str] = sum((Counter(step.seen) for step in steps), Counter())
        return Step(dict(seen), counters=steps[-1].counters)

    if task.what != "step":
        with time_machine.travel(time.time() + task.n, tick=True):
            return [await ask(await contender.build(task.start), 20)]
    client = await contender.build(task.start)
    await ask(client, 1)
    if task.n < 0:
        expire(task.start)
    with time_machine.travel(time.time() + task.n, tick=True):
        return [await ask(client, 20)]


KINDS: dict[str, Callable[[Task, Contender], Awaitable[list[Step]]]] = {
    made.__name__: made for made in (prepare, burst, rounds, twice, stale, cancelled, upload, skewed)
}


def _pair(made: dict[str, Any]) -> dict[str, Any]:
    return {name: made[name] for name in ("access_token", "refresh_token")}


def _body(what: str, contender: Contender) -> Any:
    if what == "bytes":
        return b"x" * SIZE
    if what == "file":
        file = tempfile.TemporaryFile()  # noqa: SIM115  # lives as long as the cell
        file.write(b"x" * SIZE)
        file.seek(0)
        return file
    return _chunks() if contender.blocks else _async_chunks()


def _chunks() -> Any:
    for _ in range(10):
        yield b"x" * (SIZE // 10)


async def _async_chunks() -> Any:
    for chunk in _chunks():
        yield chunk


# ---- many requests at once ------------------------------------------------------------------------------------------


async def _step(task: Task, contender: Contender, calls: Sequence[Call]) -> Step:
    began = time.perf_counter()
    if contender.blocks:
        seen, stall = _in_threads(calls, task.limit), 0.0
    else:
        seen, stall = await _in_tasks(calls, task.limit)
    wall = time.perf_counter() - began
    return Step(dict(Counter(seen)), wall, stall, await asyncio.to_thread(counters, task.start))


def _in_threads(calls: Sequence[Call], limit: float) -> list[str]:
    seen, ready = [HANGS] * len(calls), threading.Barrier(len(calls))

    def one(i: int) -> None:
        ready.wait()
        time.sleep(calls[i][0])
        try:
            seen[i] = str(calls[i][1]())
        except BaseException as error:
            seen[i] = type(error).__name__

    threads = [threading.Thread(target=one, args=(i,), daemon=True) for i in range(len(calls))]
    for thread in threads:
        thread.start()
    ends = time.monotonic() + limit
    for thread in threads:
        thread.join(max(ends - time.monotonic(), 0.0))
    return list(seen)


async def _in_tasks(calls: Sequence[Call], limit: float) -> tuple[list[str], float]:
    async def one(after: float, call: Callable[[], Any]) -> str:
        await asyncio.sleep(after)
        try:
            return str(await call())
        except asyncio.CancelledError:
            return HANGS if over else "CancelledError"
        except BaseException as error:
            return type(error).__name__

    over = False
    pulse = asyncio.create_task(_pulse())
    tasks = [asyncio.create_task(one(*call)) for call in calls]
    _, pending = await asyncio.wait(tasks, timeout=limit)
    over = True
    for task in pending:
        task.cancel()
    if pending:
        await asyncio.wait(pending, timeout=1.0)
    pulse.cancel()
    return [task.result() if task.done() else HANGS for task in tasks], await pulse


async def _pulse() -> float:
    """Return the longest time for which the event loop was blocked, in seconds."""
    worst = 0.0
    try:
        while True:
            began = time.perf_counter()
            await asyncio.sleep(0.005)
            worst = max(worst, time.perf_counter() - began - 0.005)
    except asyncio.CancelledError:
        return worst


# ---- the server's side ----------------------------------------------------------------------------------------------


def counters(start: Start) -> dict[str, Any]:
    """Return the server's counters for the family of *start*."""
    return counters_of(start.url, start.family)


def counters_of(url: str, name: str) -> dict[str, Any]:
    """Return the server's counters for the family *name*."""
    with urllib.request.urlopen(f"{url}/family?name={name}", timeout=10) as response:
        found: dict[str, Any] = json.load(response)
        return found


def family(url: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Make a new family at the server; return its name and its first tokens."""
    with urllib.request.urlopen(f"{url}/family", json.dumps(settings).encode(), timeout=10) as response:
        made: dict[str, Any] = json.load(response)
        return made


def expire(start: Start) -> None:
    """Expire all access tokens of the family of *start*; at our own server: lose the next response to a refresh."""
    urllib.request.urlopen(f"{start.url}/family?name={start.family}", b"{}", timeout=10).close()
