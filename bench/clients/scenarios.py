"""The scenarios: what happens to a contender, what its row shows, and when a row of ours is ideal.

    (a) expired by the client's own clock      (f) the task that started the refresh is cancelled
    (b) expired at the server only             (g) uploads on an expired token
    (c) four processes, one refresh token      (h) clocks that are wrong
    (d) the response to the refresh is lost      (i) the refresh is rejected for good
    (e) the refresh gets a 503                  (j) a late challenge to a token that was replaced meanwhile

The ideal is one refresh request, no failure, and no family revoked. Exceptions: two requests after a lost response or
a 503; (d) at a strict server that is not ours cannot succeed: one quick retry, then SessionOver for all at once; (i)
one request, then SessionOver for all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from bench.clients.cell import SIZE, Step
from bench.clients.contenders import Contender

Steps = list[Step]
EXPIRED, VALID, SHORT = -100.0, 3600.0, 280.0  # seconds that the client believes are left


@dataclass(frozen=True)
class Variety:
    """One variety of a scenario, with cells of its own; ``Task`` and ``Family`` explain the fields."""

    name: str
    kind: str
    family: dict[str, Any] = field(default_factory=dict)
    believes: float = EXPIRED
    tasks: int = 100
    threads: int = 64
    what: str = ""
    spread: float = 0.0
    limit: float = 15.0
    processes: int = 1
    ours: bool = False  # at our own server, and for our own adapters only
    after: str = ""  # only for those who had no failure in this variety
    ideal: Callable[[Steps, int], bool] = lambda steps, n: False

    def n(self, contender: Contender) -> int:
        return self.threads if contender.blocks else self.tasks


@dataclass(frozen=True)
class Scenario:
    """Varieties in one table."""

    letter: str
    title: str
    varieties: tuple[Variety, ...]
    columns: dict[str, Callable[[Steps], str]]
    tasks_only: bool = False
    one_row: bool = False  # all varieties of a contender stand beside each other


def once(calls: int) -> Callable[[Steps, int], bool]:
    """Exactly *calls* refresh requests, and no request fails."""

    def ideal(steps: Steps, n: int) -> bool:
        trouble = any(step.failures or step.counters["revoked"] or step.counters["reuses"] for step in steps)
        return not trouble and max(step.counters["refreshes"] for step in steps) == calls

    return ideal


def _over(calls: int, within: float) -> Callable[[Steps, int], bool]:
    """Exactly *calls* refresh requests, and SessionOver for all at once."""

    def ideal(steps: Steps, n: int) -> bool:
        told = all(step.seen == {"SessionOver": n} and step.wall < within for step in steps)
        return told and steps[-1].counters["refreshes"] == calls

    return ideal


def _left_alone(steps: Steps, n: int) -> bool:
    """The cancelled task ended at once, and no other request failed."""
    return steps[0].counters["landed"] and once(1)(steps, n)


def _uploaded(text: str) -> Callable[[Steps, int], bool]:
    return lambda steps, n: _upload(steps) == text


def _asked(*calls: int) -> Callable[[Steps, int], bool]:
    return lambda steps, n: not steps[0].failures and steps[0].counters["refreshes"] in calls


def _upload(steps: Steps) -> str:
    bodies, words = steps[0].counters["bodies"], steps[0].words
    if not bodies:
        return f"not executed; caller saw {words}"
    if bodies != [SIZE]:
        return f"EXECUTED WITH {bodies} BYTES of {SIZE}"
    return "ok, once, whole" if words == "-" else f"executed; caller saw {words}"


def _refreshes(steps: Steps) -> str:
    return str(steps[0].counters["refreshes"])


def _count(name: str) -> Callable[[Steps], str]:
    return lambda steps: str(steps[-1].counters[name])


FIRST: dict[str, Callable[[Steps], str]] = {
    "refresh calls": _refreshes,
    "failures": lambda steps: str(steps[0].failures),
    "seen by callers": lambda steps: steps[0].words,
}
SECOND: dict[str, Callable[[Steps], str]] = {
    "calls in the second burst": lambda steps: str(steps[1].counters["refreshes"] - steps[0].counters["refreshes"]),
    "failures in it": lambda steps: str(steps[1].failures),
    "seen in it": lambda steps: steps[1].words,
}
LOGINS, REVOKED = {"password logins": _count("logins")}, {"family revoked": _count("revoked")}
WALL: dict[str, Callable[[Steps], str]] = {"wall s": lambda steps: f"{steps[0].wall:.2f}"}
TIMES = WALL | {"loop stall ms": lambda steps: f"{steps[0].stall * 1000:.0f}" if steps[0].stall else "-"}
NEXT: dict[str, Callable[[Steps], str]] = {"next 10: failed": lambda steps: str(steps[1].failures)}
BURST = FIRST | LOGINS | REVOKED | TIMES | NEXT
TWICE = FIRST | {"reuse hits": _count("reuses")} | SECOND | LOGINS | WALL
REFUSED = "not executed; caller saw 401"
WHOLE = "ok, once, whole"
DEAD = {"expired": True}


def _burst(name: str, believes: float, n: int, threads: int, **more: Any) -> Variety:
    return Variety(name, "burst", DEAD, believes, n, threads, ideal=once(1), **more)


def _upload_of(name: str, what: str, believes: float, expired: bool, good: str) -> Variety:
    family = {"expired": expired}
    return Variety(name, "upload", family, believes, 1, 1, what, ideal=_uploaded(good))


def _clock(name: str, off: int, believes: float, ideal: Callable[[Steps, int], bool], **more: Any) -> Variety:
    return Variety(name, "skewed", believes=believes, tasks=off, threads=off, ideal=ideal, **more)


SCENARIOS = (
    Scenario(
        "a",
        "expired by the client's own clock (and at the server)",
        (
            _burst("at once", EXPIRED, 100, 64),
            _burst("1,000 at once", EXPIRED, 1000, 0, limit=75.0, after="at once"),
        ),
        BURST,
    ),
    Scenario(
        "b",
        "expired at the server, the client's clock says valid",
        (
            _burst("at once", VALID, 100, 64),
            _burst("over 0.4 s", VALID, 200, 64, spread=0.4),
            _burst("1,000 at once", VALID, 1000, 0, limit=75.0, after="at once"),
        ),
        BURST,
    ),
    Scenario(
        "c",
        "four processes, one refresh token, 5 + 5 requests each",
        (Variety("at once", "twice", DEAD, tasks=5, threads=5, processes=4, limit=10.0, ideal=once(1)),),
        {
            "refresh calls": _count("refreshes"),
            "failures of 40": lambda steps: str(sum(step.failures for step in steps)),
            "seen by callers": lambda steps: (
                ", ".join(sorted({word for step in steps for word in step.seen} - {"200"})) or "-"
            ),
            "reuse hits": _count("reuses"),
        }
        | LOGINS
        | REVOKED,
    ),
    Scenario(
        "d",
        "the response to the refresh is lost once (20 at once, then 20 more)",
        (
            Variety("strict", "twice", DEAD | {"lose": 1}, tasks=20, threads=20, limit=10.0, ideal=_over(2, 2.0)),
            Variety(
                "grace 10 s",
                "twice",
                DEAD | {"lose": 1, "grace": 10.0},
                tasks=20,
                threads=20,
                limit=10.0,
                ideal=once(2),
            ),
            Variety("our server", "twice", tasks=20, threads=20, limit=10.0, ours=True, ideal=once(2)),
        ),
        TWICE,
    ),
    Scenario(
        "e",
        "the refresh gets a 503 once (20 at once, then 20 more)",
        (Variety("503", "twice", DEAD | {"unavailable": 1}, tasks=20, threads=20, limit=10.0, ideal=once(2)),),
        TWICE,
    ),
    Scenario(
        "f",
        "the leader is cancelled in the middle of the refresh (20 wait behind it)",
        (Variety("cancelled", "cancelled", DEAD | {"token_delay": 0.3}, tasks=20, limit=12.0, ideal=_left_alone),),
        {"cancelled in time": lambda steps: "yes" if steps[0].counters["landed"] else "no"} | FIRST | REVOKED | NEXT,
        tasks_only=True,
    ),
    Scenario(
        "g",
        f"uploads of {SIZE:,} bytes when the token turns out expired",
        (
            _upload_of("generator, expired by clock", "generator", EXPIRED, True, WHOLE),
            _upload_of("bytes, 401", "bytes", VALID, True, WHOLE),
            _upload_of("file, 401", "file", VALID, True, WHOLE),
            _upload_of("generator, 401", "generator", VALID, True, REFUSED),
            _upload_of("generator, valid token", "generator", VALID, False, WHOLE),
        ),
        {"": _upload},
        one_row=True,
    ),
    Scenario(
        "h",
        "wrong clocks, 20 requests one after another: refresh calls / failures",
        (
            _clock("300 s fast", 300, EXPIRED, _asked(1), family=DEAD),
            _clock("300 s slow", -300, EXPIRED, _asked(1), family=DEAD),
            _clock("jumps 300 s forwards", 300, SHORT, _asked(0, 1), what="step"),
            _clock("jumps 300 s back", -300, SHORT, _asked(1), what="step"),
            _clock("short lifetime", 0, 25.0, _asked(0), family={"says": 25.0}),
            _clock("overstated lifetime", 0, VALID, _asked(1), family=DEAD),
        ),
        {"": lambda steps: f"{_refreshes(steps)} / {steps[0].failures}"},
        one_row=True,
    ),
    Scenario(
        "i",
        "the refresh is rejected for good (all at once, then as many more)",
        (Variety("rejected", "twice", DEAD | {"deny": True}, ideal=_over(1, 3.0)),),
        TWICE,
    ),
    Scenario(
        "j",
        "a late challenge: to the old token, after the refresh",
        (Variety("late", "stale", DEAD, VALID, 2, 2, ideal=once(1)),),
        FIRST | {"reuse hits": _count("reuses")},
    ),
)
