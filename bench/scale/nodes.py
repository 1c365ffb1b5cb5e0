"""Several workers on one store: refreshes a second, and whose CPU a refresh uses.

On a machine of two cores the workers, the load generator and the database share them: the CPU seconds of a refresh tell
more than the rate.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import replace

from bench.figure import Figure
from bench.server.contender import Load, served
from bench.server.rates import OURS, STORES

WORKERS = (1, 2, 4)
ROUNDS, SECONDS = 5, 2.0


def figures(stores: list[str], *, small: bool = False) -> Iterator[Figure]:
    rounds, seconds = (1, 0.5) if small else (ROUNDS, SECONDS)
    for store in stores:
        with STORES[store]() as new_store, Load() as load:
            for workers in WORKERS:
                one = replace(OURS, name=f"{workers} workers", by=f"uvicorn, {workers} workers")
                with served(one, new_store(workers)) as at:
                    load.open(one.name, at, one.path, one.kind)
                    seen = [load.run(one.name, seconds) for _ in range(rounds + 1)][1:]
                rate = statistics.median(turn["rate"] for turn in seen)
                cpu = statistics.median(turn["used"] / max(turn["responses"], 1) * 1e6 for turn in seen)
                yield Figure(f"{store}: {workers} workers", rate, f"refreshes/s ({cpu:,.0f} µs CPU of the workers)")
                wrong = sum(turn["wrong"] for turn in seen)
                yield Figure(f"{store}: refused with {workers} workers", wrong, "", "0", wrong == 0)
