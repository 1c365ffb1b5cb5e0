"""1,000 requests at once with a token that the client knows to be expired, compared with a valid one.

Each contender runs in a process of its own, valid and expired in turns; the ratio is the median over the turns.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from bench.clients import cell
from bench.clients.cell import Step, Task
from bench.clients.contenders import BY_MAKER
from bench.clients.matrix import server
from bench.clients.start import Start
from bench.figure import Figure

REQUESTS = 1000
TURNS = 7
LIMIT = 1.1
MAKERS = (
    "ours.httpx2_async",
    "peers_httpx.authlib_httpx2_async",
    "peers_httpx.mcp_sdk",
    "ours.aiohttp_async",
    "peers_aiohttp.cookbook",
    "peers_aiohttp.example",
    "peers_aiohttp.google_stock",
    "peers_aiohttp.google_custom",
    "ours.httpx_async",
    "peers_httpx.authlib_httpx_async",
)
LIMITED = ("ours.httpx2_async", "ours.aiohttp_async")
FEW = {"peers_httpx.mcp_sdk": 1}  # one request after the other: half a minute a turn


def figures() -> Iterator[Figure]:
    with server("bench.clients.backend") as port:
        for maker in MAKERS:
            turns = FEW.get(maker, TURNS)
            start = Start(f"http://127.0.0.1:{port}", "", "", "", 0.0)
            [steps] = cell.run(Task("rounds", maker, start, REQUESTS, what=str(turns), limit=60.0))
            yield from _figures(maker, steps)


def _figures(maker: str, steps: list[Step]) -> Iterator[Figure]:
    contender = BY_MAKER[maker]
    what = f"{REQUESTS:,} at once, {contender.name} ({contender.stack})"
    failures = sum(step.failures for step in steps)
    if not steps or failures:
        limited = False if maker in LIMITED else None
        yield Figure(f"{what}: failed, or did not end", failures, "requests", "none", limited)
        return
    turns = list(zip(steps[::3], steps[1::3], steps[2::3], strict=True))
    ratio = statistics.median(expired.wall / (valid.wall + one.wall) for valid, expired, one in turns)
    wall = statistics.median(expired.wall for _, expired, _ in turns)
    limit = f"at most {LIMIT:g}" if maker in LIMITED else ""
    yield Figure(f"{what}: expired over (valid + one refresh)", ratio, "x", limit, ratio <= LIMIT if limit else None)
    yield Figure(f"{what}: expired", wall * 1000, "ms")
