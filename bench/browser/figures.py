"""The figures of the browser's module beside their limits, and a table of the others beside ours."""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Iterator
from typing import Any

from bench.browser.bursts import HANGS, Row, opened, take_turns
from bench.browser.parts import PAGE, chromium, missing, node_modules
from bench.clients.cell import family
from bench.clients.matrix import server
from bench.figure import Figure
from tests.browser.build import BINDINGS
from unbroken.server.http.static import module_source

CALLS, TURNS = 2000, 15
LIMITS = {"unbroken-core.js": 6.0, **dict.fromkeys(BINDINGS, 1.0)}  # KiB


def figures() -> Iterator[Figure]:
    """Figures of ours. Prints the table of all after the last of them."""
    if what := missing():
        sys.exit(f"bench: {what}")
    yield from _sizes()
    node_modules()
    with server("bench.browser.backend") as port, chromium() as browser:
        url, context = f"http://127.0.0.1:{port}", browser.new_context()
        context.set_default_timeout(20_000)
        for storage in ("memory", "localStorage"):
            added = _added(context, url, storage)
            what = f"added time of session.fetch, tokens in {storage}"
            yield Figure(what, added, "µs", "at most 50 µs", added <= 50)
        rows = take_turns(context, url)
    for row in rows:
        if row.contender.ours:
            yield from _ours(row)
    _print(rows)


def _sizes() -> Iterator[Figure]:
    """Compressed, as they are served or come with the package."""
    yield Figure("unbroken.js, compressed", len(gzip.compress(module_source(), 9)) / 1024, "KiB")
    for part, limit in LIMITS.items():
        size = len(gzip.compress(module_source(part), 9)) / 1024
        yield Figure(f"{part}, compressed", size, "KiB", f"at most {limit:g} KiB", size <= limit)


def _added(context: Any, url: str, storage: str) -> float:
    with opened(context, url) as [page]:
        about = [storage, family(url, {}), TURNS, CALLS]
        added: float = page.evaluate("(about) => added(...about)", about)
        return added


def _ours(row: Row) -> Iterator[Figure]:
    about = f"{row.contender.name}, {row.scene.title}"
    yield Figure(f"{about}: refreshes", row.refreshes, "", "exactly 1", row.refreshes == 1)
    yield Figure(f"{about}: failures", row.failures, "", "0", row.failures == 0)
    what = f"{about}: time over (valid token + one refresh)"
    if row.scene.by_clock:
        yield Figure(what, row.ratio, "x", "at most 1.15", row.ratio <= 1.15)
    else:
        yield Figure(what, row.ratio, "x")


def _print(rows: list[Row]) -> None:
    """The table of all contenders."""
    versions = json.loads((PAGE / "package.json").read_text())["dependencies"]
    told = ", ".join(f"{name} {version}" for name, version in versions.items() if name != "esbuild")
    print(f"\nBeside others ({told}):\n")
    print("| scene | client | refreshes | failures | family revoked | wall s | over valid + refresh | turns |")
    print("|---|---|---|---|---|---|---|---|")
    for row in rows:
        counts = f"{row.refreshes} | {row.failures} | {'yes' if row.revoked else 'no'}"
        times = "hangs | -" if row.hangs else f"{row.wall:.2f} | {row.ratio:.2f} x"
        print(f"| {row.scene.title} | {row.contender.name} | {counts} | {times} | {len(row.bursts)} |")
    print(NOTES.format(hangs=HANGS), flush=True)


NOTES = """
Times are the middle of the turns, counts the worst of them. What hangs had not ended after {hangs:.0f} s. The same with
a valid token is bare fetch, or bare axios for clients of axios. Refreshes take 50 ms, answers of the API 10 ms, and a
dead token is refused at once. Tabs share one user's six connections. "By the clock" stand those who look at it; the
others learn of an expiry by a refused request, as in "dead early", where every request that is sent before the first
refusal has to be sent twice: no client can know better, and so the time has no limit there. Bare requests that are all
refused, a refresh, and the same requests again came to 1.5 to 1.6 x on two cores: what ours takes there is the work
sent twice, not the library. A client whose requests fail is soon done: its time says nothing. supertokens-website runs
in header mode without its core: the server answers in its words."""
