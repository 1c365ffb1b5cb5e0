"""A figure, and how times are measured: in turns, and the median of several rounds counts.

A wrong count is a mistake on every machine (exit status 1). A limit of time or size may be missed because the machine
is busy (exit status 3).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

ROUNDS = 7
WRONG, MISSED = 1, 3
COUNTS = ("", "calls", "requests", "rows")  # the first word of a unit


@dataclass(frozen=True)
class Figure:
    """One figure and its limit. ``reached``: whether the figure is within the limit; None without a limit."""

    what: str
    value: float
    unit: str
    limit: str = ""
    reached: bool | None = None

    @property
    def is_count(self) -> bool:
        return self.unit.split(" ")[0] in COUNTS

    def row(self) -> str:
        mark = {True: "yes", False: "NO", None: ""}[self.reached]
        return f"| {self.what} | {self.value:,.2f} {self.unit} | {self.limit} | {mark} |"


def print_figures(figures: Iterable[Figure]) -> int:
    """Print *figures* as a table, each as it comes. Return ``WRONG``, ``MISSED`` or 0 as the exit status."""
    missed = []
    print("| what | figure | limit | reached |\n|---|---|---|---|")
    for figure in figures:
        print(figure.row(), flush=True)
        missed += [figure] if figure.reached is False else []
    return WRONG if any(figure.is_count for figure in missed) else MISSED if missed else 0


def in_turns(works: dict[str, Callable[[], float]], rounds: int = ROUNDS) -> dict[str, float]:
    """Return the median of the values of each function, called A B A B …, after one round that does not count."""
    results: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(rounds + 1):
        for name, work in works.items():
            value = work()
            if turn:
                results[name].append(value)
    return {name: statistics.median(values) for name, values in results.items()}


def per_call(work: Callable[[], object], calls: int) -> Callable[[], float]:
    """Return a function that measures one call of *work* in microseconds, for ``in_turns``."""

    def run() -> float:
        began = time.perf_counter()
        for _ in range(calls):
            work()
        return (time.perf_counter() - began) / calls * 1e6

    return run
