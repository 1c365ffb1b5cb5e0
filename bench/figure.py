"""What a measurement gives, and how times are taken: in turns, and the middle one of several counts."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

ROUNDS = 7


@dataclass(frozen=True)
class Figure:
    """One measured figure beside its limit. ``reached`` compares them; None where there is no limit."""

    what: str
    value: float
    unit: str
    limit: str = ""
    reached: bool | None = None

    def row(self) -> str:
        mark = {True: "yes", False: "NO", None: ""}[self.reached]
        return f"| {self.what} | {self.value:,.2f} {self.unit} | {self.limit} | {mark} |"


def in_turns(works: dict[str, Callable[[], float]], rounds: int = ROUNDS) -> dict[str, float]:
    """The median of what each work returns, run A B A B …, after one round that does not count."""
    results: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(rounds + 1):
        for name, work in works.items():
            value = work()
            if turn:
                results[name].append(value)
    return {name: statistics.median(values) for name, values in results.items()}


def per_call(work: Callable[[], object], calls: int) -> Callable[[], float]:
    """Microseconds of one call of *work*, as a function to take in turns."""

    def run() -> float:
        began = time.perf_counter()
        for _ in range(calls):
            work()
        return (time.perf_counter() - began) / calls * 1e6

    return run
