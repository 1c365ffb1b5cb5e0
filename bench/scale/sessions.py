"""What grows with the number of sessions, and what must not: a refresh, a listing, a revocation, a purge, a restart.

1. A refresh is that of a session drawn from all. Few and many take turns; the first turn warms up.
2. Expired rows are purged by logins, a hundred at each (``SessionStore.insert``). Meanwhile refreshes go on: their p99
   is compared with that beside logins with nothing to purge.
"""

from __future__ import annotations

import random
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

from bench.figure import Figure
from bench.scale.filled import PER_SUBJECT, Filled, filled
from bench.server.growth import Crowd
from unbroken.server import Sessions, open_store
from unbroken.server.sessions import DEVELOPMENT_ISSUER

FEW = 10_000
TURNS, REFRESHES = 5, 2_000
LISTINGS = 200
LOGINS_A_SECOND = 50
PURGE_SECONDS = 5.0
P50_RATIO, BYTES, P99_RATIO = 1.2, 400.0, 2.0


def figures(stores: list[str], n: int) -> Iterator[Figure]:
    for store in stores:
        with ExitStack() as stack:
            few, many = (stack.enter_context(filled(store, size)) for size in (min(FEW, n), n))
            yield from _sizes(store, many)
            crowds = [_crowd(one) for one in (few, many)]
            yield from _refreshes(store, *crowds)
            yield from _operations(store, crowds[1])
            if store != "Redis":  # which lets keys expire by itself
                yield from _purge(store, *crowds)
            yield _restart(store, crowds[1], many)
            crowds[0].sessions.close()


def _crowd(made: Filled) -> Crowd:
    return Crowd(Sessions(open_store(made.url), issuer=DEVELOPMENT_ISSUER, encryption_key="none"), made.n)


def _sizes(store: str, made: Filled) -> Iterator[Figure]:
    yield Figure(f"{store}: making {made.n:,} sessions", made.seconds, "s")
    total = sum(made.sizes.values())
    for name, size in made.sizes.items():
        yield Figure(f"{store}: a session in {name}", size, "bytes")
    limit, reached = (f"at most {BYTES:g}", total <= BYTES) if store == "PostgreSQL" else ("", None)
    yield Figure(f"{store}: a session, with all indexes", total, "bytes", limit, reached)


def _alive(crowd: Crowd) -> int:
    """Return the number of a session that has not expired."""
    return crowd.drawn.randrange(crowd.n // 10) * 10 + crowd.drawn.randrange(1, 10)


def _turn(crowd: Crowd, refreshes: int = REFRESHES) -> list[float]:
    return sorted(crowd.refresh(_alive(crowd)) * 1e6 for _ in range(refreshes))


def _p99(times: list[float]) -> float:
    return times[int(len(times) * 0.99)]


def _refreshes(store: str, few: Crowd, many: Crowd) -> Iterator[Figure]:
    turns = [(_turn(few), _turn(many)) for _ in range(TURNS + 1)][1:]
    for name, read, limit in (("p50", statistics.median, P50_RATIO), ("p99", _p99, 0.0)):
        values = [(read(one), read(other)) for one, other in turns]
        for crowd, found in ((few, [one for one, _ in values]), (many, [other for _, other in values])):
            yield Figure(f"{store}: {name} of a refresh among {crowd.n:,}", statistics.median(found), "µs")
        ratio = statistics.median(other / one for one, other in values)
        said = ("at most " + f"{limit:g}", ratio <= limit) if limit else ("", None)
        yield Figure(f"{store}: ratio of many to few, {name}", ratio, "x", *said)


def _operations(store: str, crowd: Crowd) -> Iterator[Figure]:
    subjects, sessions = crowd.n // PER_SUBJECT, crowd.sessions
    works: dict[str, Callable[[str], object]] = {
        f"the list of a subject's {PER_SUBJECT} sessions": sessions.list_sessions,
        "revoking all sessions of a subject": sessions.revoke_subject,
    }
    for what, work in works.items():
        times = []
        for _ in range(min(LISTINGS, subjects)):
            subject, began = f"user-{crowd.drawn.randrange(subjects // 2)}", time.perf_counter()
            work(subject)
            times.append((time.perf_counter() - began) * 1e3)
        yield Figure(f"{store}: {what}", statistics.median(times), f"ms (p99 {_p99(sorted(times)):.2f})")


def _purge(store: str, few: Crowd, many: Crowd) -> Iterator[Figure]:
    """Compare refreshes beside logins that purge with those beside logins that find nothing to purge (rule 2)."""
    while _purged_by_login(few):  # nothing is left there
        pass
    p99 = {}
    for name, crowd in (("nothing", few), ("expired rows", many)):
        done = threading.Event()
        logins = threading.Thread(target=_log_in_until, args=(crowd.sessions, done))
        logins.start()
        times, ends = list[float](), time.monotonic() + PURGE_SECONDS
        while time.monotonic() < ends:
            times.append(crowd.refresh(_high(crowd)) * 1e6)
        done.set()
        logins.join()
        p99[name] = _p99(sorted(times))
        yield Figure(f"{store}: p99 of a refresh beside logins that purge {name}", p99[name], "µs")
    ratio = p99["expired rows"] / p99["nothing"]
    yield Figure(f"{store}: ratio of these", ratio, "x", f"at most {P99_RATIO:g}", ratio <= P99_RATIO)


def _high(crowd: Crowd) -> int:
    """Return a session of the half that ``_operations`` did not revoke."""
    return crowd.n // 20 * 10 + random.randrange(crowd.n // 20) * 10 + random.randrange(1, 10)


def _purged_by_login(crowd: Crowd) -> bool:
    crowd.sessions.create("somebody")
    crowd.generations[-1] = crowd.generations.get(-1, 0) + 1
    return crowd.generations[-1] <= crowd.n // 1000 + 1


def _log_in_until(sessions: Sessions, done: threading.Event) -> None:
    while not done.wait(1 / LOGINS_A_SECOND):
        sessions.create("somebody")


def _restart(store: str, crowd: Crowd, made: Filled) -> Figure:
    crowd.sessions.close()
    began = time.perf_counter()
    again = _crowd(made)
    again.generations = crowd.generations
    again.refresh(_high(again))
    again.sessions.close()
    return Figure(f"{store}: opening it, and the first refresh", (time.perf_counter() - began) * 1e3, "ms")
