"""Runs the matrix and prints a Markdown table for each scenario, ours first. A row of ours that is not ideal says NO.

``python -m bench clients [a b c …] [NAME …]``: only these scenarios, only contenders whose name has NAME in it.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from bench.clients import cell
from bench.clients.cell import Task
from bench.clients.contenders import BARE, OURS, PEERS, Contender
from bench.clients.scenarios import SCENARIOS, VALID, Scenario, Steps, Variety
from bench.clients.start import Start
from bench.figure import WRONG

PACKAGES = (
    "Authlib", "httpx", "httpx2", "requests", "aiohttp", "requests-oauthlib", "httpx-auth", "google-auth",
    "requests-oauth2client", "singleflight-auth", "mcp",
)  # fmt: skip
LEFT_OUT = {
    "httpx-oauth": "has `refresh_token()` and `is_expired()`, but never refreshes by itself",
    "threads in (f)": "a thread cannot be cancelled",
    "a file in (g) on async httpx and httpx2": "these libraries take none as a body",
}


@dataclass(frozen=True)
class Row:
    """One contender in one variety. ``reached``: whether it is ideal; None for a contender that does not promise it."""

    contender: Contender
    variety: Variety
    steps: Steps

    @property
    def reached(self) -> bool | None:
        if not self.contender.ours:
            return None
        return bool(self.steps) and self.variety.ideal(self.steps, self.variety.n(self.contender))

    @property
    def mark(self) -> str:
        return {True: "yes", False: "**NO**", None: ""}[self.reached]

    @property
    def served(self) -> bool:
        return bool(self.steps) and not self.steps[0].failures


def main(words: list[str]) -> int:
    """Print the matrix; return ``WRONG`` if a row of ours is not ideal."""
    letters = {word for word in words if len(word) == 1}
    names = [word.lower() for word in words if len(word) > 1]
    chosen = [one for one in (*OURS, *PEERS) if not names or any(name in one.name.lower() for name in names)]
    if unknown := letters - {scenario.letter for scenario in SCENARIOS}:
        sys.exit(f"bench: there is no scenario {min(unknown)!r}")
    if not chosen:
        sys.exit(f"bench: no contender has a name like {', '.join(names)}")
    began, missed, cells = time.monotonic(), 0, 0
    print("Versions:", ", ".join(f"{name} {version(name)}" for name in PACKAGES) + ".")
    with server("bench.clients.backend") as port:
        url = f"http://127.0.0.1:{port}"
        if not letters:
            _alone(url)
        for scenario in SCENARIOS:
            if not letters or scenario.letter in letters:
                rows = _rows(scenario, url, chosen)
                missed += sum(row.reached is False for row in rows)
                cells += len(rows)
    print("\nNot run: " + "; ".join(f"{what} ({why})" for what, why in LEFT_OUT.items()) + ".")
    print(f"\n{cells} cells in {time.monotonic() - began:.0f} s; {missed} of ours are not as they must be.")
    return WRONG if missed else 0


@contextlib.contextmanager
def server(module: str) -> Iterator[str]:
    """Yield a server process, and the first line that it prints."""
    process = subprocess.Popen(
        [sys.executable, "-m", module], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        yield process.stdout.readline().decode().strip()  # type: ignore[union-attr]  # it is a pipe
    finally:
        process.kill()
        process.wait()


def _alone(url: str) -> None:
    print("\n### The HTTP libraries alone, with a valid token\n")
    print("| library | by | n | wall s | loop stall ms |\n|---|---|---|---|---|")
    for one in BARE:
        for n in (64,) if one.blocks else (100, 1000):
            variety = Variety("bare", "burst", {}, VALID, n, n, limit=45.0)
            for step in _steps(one, variety, url)[:1]:
                stall = f"{step.stall * 1000:.0f}" if step.stall else "-"
                print(f"| {one.name} | {one.kind} | {n} | {step.wall:.2f} | {stall} |", flush=True)


def _rows(scenario: Scenario, url: str, chosen: list[Contender]) -> list[Row]:
    """Run a scenario, and print its table row by row."""
    rows: list[Row] = []
    head = ["contender", "by", *_heads(scenario), "as it must be"]
    print(f"\n### ({scenario.letter}) {scenario.title}\n")
    print("|", " | ".join(head), "|\n|" + "---|" * len(head))
    if scenario.one_row:
        for one in chosen:
            line = [_row(one, variety, url) if _possible(one, variety) else None for variety in scenario.varieties]
            rows += [row for row in line if row]
            mark = "" if not one.ours else "**NO**" if any(row and row.reached is False for row in line) else "yes"
            _print([one.name, one.kind, *(_in_short(row, scenario) for row in line), mark])
        return rows
    for variety in scenario.varieties:
        for one in chosen:
            if not _takes_part(scenario, variety, one, rows):
                continue
            rows.append(_row(one, variety, url))
            n = str(variety.n(one))
            told = _told(rows[-1], *scenario.columns.values())
            _print([one.name, one.kind, variety.name, n, *told, rows[-1].mark])
    return rows


def _heads(scenario: Scenario) -> list[str]:
    if scenario.one_row:
        return [variety.name for variety in scenario.varieties]
    return ["how", "n", *scenario.columns]


def _takes_part(scenario: Scenario, variety: Variety, one: Contender, rows: list[Row]) -> bool:
    if (one.blocks and scenario.tasks_only) or (variety.ours and not one.ours) or not variety.n(one):
        return False
    return not variety.after or any(
        row.served for row in rows if row.contender == one and row.variety.name == variety.after
    )


def _possible(one: Contender, variety: Variety) -> bool:
    return variety.what != "file" or one.blocks or one.stack == "aiohttp"


def _in_short(row: Row | None, scenario: Scenario) -> str:
    if row is None:
        return "-"
    return " ".join(_told(row, *scenario.columns.values()) + [row.mark] * (row.reached is False))


def _told(row: Row, *columns: object) -> list[str]:
    if not row.steps:
        return ["did not end"] + ["-"] * (len(columns) - 1)
    return [column(row.steps) for column in columns]  # type: ignore[operator]  # they are functions of the steps


def _print(texts: list[str]) -> None:
    print("|", " | ".join(texts), "|", flush=True)


def _row(one: Contender, variety: Variety, url: str) -> Row:
    return Row(one, variety, _steps(one, variety, url))


def _steps(one: Contender, variety: Variety, url: str) -> Steps:
    """Return the steps of one process or of several; an empty list if one of them did not end."""
    if variety.ours:
        return _at_ours(one, variety)
    made = cell.family(url, variety.family)
    tokens = (made["family"], made["access_token"], made["refresh_token"])
    lifetime = variety.believes if variety.believes > 0 else VALID
    task = _task(one, variety, Start(url, *tokens, variety.believes, lifetime))
    if variety.processes == 1:
        return cell.run(task)[0]
    return _together(one, variety, task)


def _task(one: Contender, variety: Variety, start: Start) -> Task:
    more = {"what": variety.what, "spread": variety.spread, "limit": variety.limit}
    return Task(variety.kind, one.made_by, start, variety.n(one), **more)  # type: ignore[arg-type]  # three kinds of values


def _together(one: Contender, variety: Variety, task: Task) -> Steps:
    """Start several processes at one moment; contenders that can share tokens through a file do so."""
    with tempfile.TemporaryDirectory() as folder:
        start = task.start
        if one.shares:
            start = Start(**vars(start) | {"file": str(Path(folder) / "tokens.json")})
            cell.run(Task("prepare", one.made_by, start))
        begin = time.time() + 0.5
        same = Task(**vars(task) | {"start": start, "begin": begin})
        seen = cell.run(*[same] * variety.processes)
    if not all(seen):
        return []
    steps = [step for steps in seen for step in steps]
    return sorted(steps, key=lambda step: step.counters["refreshes"])


def _at_ours(one: Contender, variety: Variety) -> Steps:
    """Run the same at our own server, a new one each time."""
    from unbroken.testing.server import PASSWORD

    with server("bench.clients.our_backend") as url:
        start = Start(url, "", "", PASSWORD, variety.believes, ours=True)
        cell.expire(start)  # here: the next response is lost
        task = _task(one, variety, start)
        return cell.run(Task(**vars(task) | {"path": "/echo"}))[0]
