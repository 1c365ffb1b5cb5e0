"""The play of the demo, act by act, the live table, and the summary."""

from __future__ import annotations

import contextlib
import json
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.live import Live
from rich.table import Table

from unbroken.cli.demo.stage import Stage, ended, stage
from unbroken.cli.demo.workers import Seen, in_a_thread

__all__ = ["play"]

ACCESS_TTL = 1.0  # seconds
THEFT_LIMIT = 15.0  # seconds within which the theft must be found out
PLAYED_OUT = 4  # access tokens died, at least: then the play has shown what it is for
ENCORE_LIMIT = 30.0  # seconds more for a machine that is too busy to play it in time
Summary = dict[str, int | float | bool]


def play(seconds: float, workers: int, *, as_json: bool) -> int:
    """Plays it, and prints the summary; the exit status."""
    with stage(ACCESS_TTL) as built:
        summary, failures = _play(built, seconds, workers)
    if as_json:
        print(json.dumps(summary))
    else:
        _print(summary)
    for line in failures:
        print(f"a task saw: {line}", file=sys.stderr)
    return 0 if kept(summary) else 1


def kept(summary: Summary) -> bool:
    """Whether the promise was kept."""
    quiet = summary["user_visible_failures"] == 0 and summary["reuse_alarms_before_theft"] == 0
    return bool(quiet and summary["theft_detected"] and summary["requests"] and summary["expiries"])


def _play(built: Stage, seconds: float, workers: int) -> tuple[Summary, list[str]]:
    seen, end, began = Seen(), threading.Event(), time.monotonic()
    session = built.log_in()
    tasks = in_a_thread(session, built.url + "/api/echo", seen, workers, end)
    sibling = built.start_sibling(max(1, workers // 10))
    news = ["logged in once, as ada"]
    with _shown(built, seen, news, began):
        try:
            for at, what, act in _acts(built):
                time.sleep(max(0.0, began + at * seconds - time.monotonic()))
                news.append(what)
                act()
            time.sleep(max(0.0, began + seconds - time.monotonic()))
            _wait_for_the_last_act(built)
            other = ended(sibling)
            summary = _so_far(built, seen, other, time.monotonic() - began)
            failures = seen.what + other.what
            seen.end_is_due = True
            news.append("a thief has copied the token file")
            summary["theft_detected"] = _theft(built, seen)
            news.append("the theft was found out" if summary["theft_detected"] else "the theft was NOT found out")
        finally:
            end.set()
            sibling.kill()
            sibling.wait()
            tasks.join(timeout=30)
    return summary, failures


def _acts(built: Stage) -> Iterator[tuple[float, str, Callable[[], None]]]:
    """What happens, and when, as a part of the whole time."""
    for at in (0.10, 0.30, 0.50, 0.70):
        yield at, "an answer to a refresh is lost", built.lose_an_answer
        if at in (0.10, 0.50):
            yield at + 0.10, "all access tokens die before their time", built.expire_early
        else:
            yield at + 0.05, "the server is killed with -9", built.kill_server
    yield 0.85, "one more answer is lost", built.lose_an_answer


def _wait_for_the_last_act(built: Stage) -> None:
    """Until every answer that was to be lost is lost, and enough tokens have died; not for ever."""
    until = time.monotonic() + ENCORE_LIMIT
    while (built.network.lose or built.generation() < PLAYED_OUT) and time.monotonic() < until:
        time.sleep(0.1)


def _so_far(built: Stage, seen: Seen, other: Seen, seconds: float) -> Summary:
    times = sorted(seen.times) or [0.0]
    return {
        "requests": seen.requests + other.requests,
        "user_visible_failures": seen.failures + other.failures,
        "server_down": seen.server_down + other.server_down,
        "expiries": built.generation(),
        "exchanges": built.network.exchanges,
        "answers_lost": built.network.lost,
        "server_kills": built.kills,
        "reuse_alarms_before_theft": built.alarms(),
        "theft_detected": False,
        "p50_ms": round(statistics.median(times) * 1000, 2),
        "p99_ms": round(times[int(len(times) * 0.99)] * 1000, 2),
        "seconds": round(seconds, 1),
    }


def _theft(built: Stage, seen: Seen) -> bool:
    """A thief goes on with the stolen token while the tasks go on with theirs."""
    thief, until = built.steal(), time.monotonic() + THEFT_LIMIT
    while time.monotonic() < until:
        thief.refresh()
        if built.alarms() and thief.shut_out() and seen.over == "reuse":
            return True
        time.sleep(0.3)
    return False


@contextlib.contextmanager
def _shown(built: Stage, seen: Seen, news: list[str], began: float) -> Iterator[None]:
    """A live table on standard error, while the play goes on; plain silence where that is no terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield
        return
    with Live(get_renderable=lambda: _table(built, seen, news, began), console=console, refresh_per_second=4):
        yield


def _table(built: Stage, seen: Seen, news: list[str], began: float) -> Table:
    table = Table(title=f"unbroken demo, {time.monotonic() - began:.0f} s", min_width=60)
    table.add_column("what")
    table.add_column("count", justify="right")
    rows: dict[str, int] = {
        "requests answered": seen.requests,
        "failures that a user saw": seen.failures,
        "server was down": seen.server_down,
        "exchanges on the wire": built.network.exchanges,
        "answers lost": built.network.lost,
        "kill -9 of the server": built.kills,
    }
    for name, count in rows.items():
        table.add_row(name, f"{count:,}")
    for line in news[-5:]:
        table.add_row(line, "", style="dim")
    return table


def _print(summary: Summary) -> None:
    table = Table(title="The promise was kept" if kept(summary) else "THE PROMISE WAS BROKEN", min_width=60)
    table.add_column("what")
    table.add_column("", justify="right")
    for name, value in summary.items():
        table.add_row(name, f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value))
    Console().print(table)
