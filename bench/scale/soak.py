"""A long run on each store: logins, refreshes, revocations, thefts, key rotations; what must stay flat, stays flat.

1. ``SESSIONS`` sessions live at a time. Each step is a refresh; of a hundred steps one is a login in the place of a
   logout, of a thousand one is a theft (an old token comes, and the session must end), and every minute keys rotate.
2. It runs at half of the rate that it reaches in the first seconds.
3. The run has ten parts. Memory, threads, descriptors and p99 of the last are compared with those of the second: the
   first fills caches. A session that is refused without a theft is lost: none may be.
"""

from __future__ import annotations

import gc
import logging
import os
import random
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from bench.figure import Figure
from bench.server.rates import STORES
from unbroken.errors import InvalidGrant
from unbroken.server import Policy, Sessions, open_store

SESSIONS = 2_000
PARTS = 10
LOGIN_EVERY, THEFT_EVERY = 100, 1_000
KEYS_EVERY_SECONDS = 60.0
WARM_UP_SECONDS = 3.0
MEMORY_RATIO, P99_RATIO, HOT = 1.1, 2.0, 0.95


@dataclass
class Run:
    """One run: a token of each session, and what was seen."""

    sessions: Sessions
    tokens: list[str]
    steps: int = 0
    lost: int = 0
    missed: int = 0  # thefts that were not detected
    times: list[float] = field(default_factory=list)

    def step(self) -> None:
        """Refresh one session, and sometimes do more (rule 1)."""
        self.steps += 1
        who = random.randrange(len(self.tokens))
        old = self.tokens[who]
        if not self._refresh(who):
            self.lost += 1
            self.tokens[who] = self._login()
        elif self.steps % THEFT_EVERY == 0:
            self._steal(who, old)
        elif self.steps % LOGIN_EVERY == 0:
            self.sessions.logout(refresh_token=self.tokens[who])
            self.tokens[who] = self._login()

    def _refresh(self, who: int) -> bool:
        began = time.perf_counter()
        try:
            self.tokens[who] = (
                self.sessions.refresh(self.tokens[who], idempotency_key=os.urandom(8).hex()).refresh_token or ""
            )
        except InvalidGrant:
            return False
        self.times.append(time.perf_counter() - began)
        return True

    def _steal(self, who: int, old: str) -> None:
        self._refresh(who)  # *old* is two generations old
        for token in (old, self.tokens[who]):
            try:
                self.sessions.refresh(token, idempotency_key=os.urandom(8).hex())
                self.missed += 1
            except InvalidGrant:
                pass
        self.tokens[who] = self._login()

    def _login(self) -> str:
        return self.sessions.create(f"user-{random.randrange(SESSIONS)}", coordinated=True).refresh_token or ""


@dataclass(frozen=True)
class State:
    """What must stay flat."""

    memory: float
    threads: int
    descriptors: int
    p99: float


def figures(stores: list[str], minutes: float) -> Iterator[Figure]:
    logging.getLogger("unbroken").setLevel(logging.ERROR)  # each theft is a warning
    for store in stores:
        with ExitStack() as stack:
            url = stack.enter_context(STORES[store]())(0)
            sessions = Sessions(open_store(url), policy=Policy(grace=0.0), issuer="https://id.example.com")
            yield from _run(store, sessions, minutes * 60)
            if store == "PostgreSQL":
                yield _hot_updates(url)
            sessions.close()


def _run(store: str, sessions: Sessions, seconds: float) -> Iterator[Figure]:
    run = Run(sessions, [])
    run.tokens = [run._login() for _ in range(SESSIONS)]
    began = time.monotonic()
    while time.monotonic() < began + WARM_UP_SECONDS:
        run.step()
    pause = WARM_UP_SECONDS / run.steps  # as long as a step takes: half of the rate (rule 2)
    states, next_keys = [], time.monotonic() + KEYS_EVERY_SECONDS
    for _ in range(PARTS):
        run.times.clear()
        ends = time.monotonic() + seconds / PARTS
        while (now := time.monotonic()) < ends:
            run.step()
            if now > next_keys:
                sessions.rotate_keys(publish_ahead=1.0)
                next_keys = now + KEYS_EVERY_SECONDS
            time.sleep(pause)
        states.append(_state(run))
    first, last = states[1], states[-1]
    yield Figure(f"{store}: steps in {seconds / 60:g} minutes, at half of the rate", run.steps, "")
    yield Figure(f"{store}: sessions lost", run.lost, "", "0", run.lost == 0)
    yield Figure(f"{store}: thefts that were not detected", run.missed, "", "0", run.missed == 0)
    for name, ratio, limit in (
        ("memory", last.memory / first.memory, MEMORY_RATIO),
        ("p99 of a refresh", last.p99 / first.p99, P99_RATIO),
        ("threads", last.threads / first.threads, 1.0),
        ("descriptors", last.descriptors / first.descriptors, 1.0),
    ):
        yield Figure(f"{store}: {name}, last part to second", ratio, "x", f"at most {limit:g}", ratio <= limit)
    yield Figure(f"{store}: p99 of a refresh in the last part", last.p99 * 1e6, "µs")


def _state(run: Run) -> State:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    times = sorted(run.times)
    return State(
        pages * os.sysconf("SC_PAGE_SIZE"),
        threading.active_count(),
        len(os.listdir("/proc/self/fd")),
        times[int(len(times) * 0.99)],
    )


def _hot_updates(url: str) -> Figure:
    time.sleep(1.5)  # PostgreSQL publishes its counts once a second
    with psycopg.connect(url, autocommit=True) as db:
        table = "pg_stat_user_tables WHERE relname = 'unbroken_session'"
        found = db.execute(f"SELECT n_tup_hot_upd::float8 / greatest(n_tup_upd, 1) FROM {table}").fetchone()
    ratio = float(found[0]) if found else 0.0
    return Figure("PostgreSQL: HOT updates", ratio, "of all", f"at least {HOT:g}", ratio >= HOT)
