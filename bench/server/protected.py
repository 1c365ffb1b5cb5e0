"""What it costs to authenticate a request: a page with and without it, for the same requests, in short turns."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack

from bench.figure import Figure
from bench.server.contender import Contender, Load, served

ROUNDS = 16
SECONDS = 0.5
LIMIT = 0.95
PAIRS = {
    "Starlette, SessionMiddleware": ("page:app", "page:free", "uvicorn", LIMIT),
    "the same by asyncio and h11": ("page:app", "page:free", "uvicorn by itself", LIMIT),
    "FastAPI, Depends(auth.claims)": ("page:fastapi", "page:fastapi_free", "uvicorn", 0.0),
}


def figures() -> Iterator[Figure]:
    with tempfile.TemporaryDirectory(prefix="unbroken-bench-") as folder, Load() as load, ExitStack() as stack:
        for number, (protected, free, by, _) in enumerate(PAIRS.values()):
            for app in (protected, free):
                one = Contender(app, app, by, "/orders", "get")
                at = stack.enter_context(served(one, f"sqlite:///{folder}/{number}-{app.partition(':')[2]}.db"))
                load.open(f"{app} {by}", at, one.path, one.kind)
        for name, (protected, free, by, limit) in PAIRS.items():
            yield from _pair(name, f"{protected} {by}", f"{free} {by}", limit, load)


def _pair(name: str, protected: str, free: str, limit: float, load: Load) -> Iterator[Figure]:
    rates: dict[str, list[float]] = {protected: [], free: []}
    used: dict[str, list[float]] = {protected: [], free: []}
    for turn in range(ROUNDS + 2):
        for app in (protected, free) if turn % 2 else (free, protected):
            seen = load.run(app, SECONDS)
            if seen["wrong"]:
                raise RuntimeError(f"{name}: {seen['said']}")
            rates[app].append(seen["rate"])
            used[app].append(seen["used"] / seen["responses"] * 1e6)
    ratios = [one / other for one, other in zip(rates[protected][2:], rates[free][2:], strict=True)]
    ratio, low, high = statistics.median(ratios), min(ratios), max(ratios)
    for what, app in (("the page for all", free), ("the page for sessions", protected)):
        said = f"requests/s ({statistics.median(used[app][2:]):.1f} µs CPU)"
        yield Figure(f"{name}: {what}", statistics.median(rates[app][2:]), said)
    limit_text, reached = (f"at least {limit:g}", ratio >= limit) if limit else ("", None)
    yield Figure(
        f"{name}: ratio of the second to the first", ratio, f"x ({low:.2f} to {high:.2f})", limit_text, reached
    )
