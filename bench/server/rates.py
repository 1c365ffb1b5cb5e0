"""Refreshes per second over HTTP: every peer on its stores, a bare endpoint, and ours in each framework.

Turns alternate, so that other work of the machine affects all of them. A ratio is taken in each round, and the median
counts; the printed spread is from the lowest to the highest.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from urllib.parse import urlsplit

import psycopg

from bench.figure import Figure
from bench.server.contender import CONNECTIONS, WSGI, Contender, Load, served
from tests.support.services import postgres_server, redis_server

ROUNDS = 5  # and one that does not count
SECONDS = 1.0
BARE = Contender("bare", "bare", "uvicorn", "/refresh")
OURS = Contender("ours", "ours", "uvicorn", "/auth/refresh")
FACES = (
    replace(OURS, name="ours, FastAPI", app="ours:fastapi"),
    replace(OURS, name="ours, Flask", app="ours:flask", by=WSGI[0]),
    replace(OURS, name="ours, Django", app="ours:django", by=WSGI[0]),
)


def _of_all(name: str, app: str, path: str, kind: str) -> list[Contender]:
    """Return a peer with each WSGI server."""
    return [Contender(f"{name}|{by}", app, by, path, kind) for by in WSGI]


SIMPLE = _of_all("djangorestframework-simplejwt", "simple_jwt", "/refresh", "django")
TOOLKIT = _of_all("django-oauth-toolkit", "oauth_toolkit", "/o/token/", "form")
FLASK = _of_all("flask-jwt-extended", "flask_jwt", "/refresh", "bearer")
AUTHLIB = _of_all("Authlib", "authlib_flask", "/oauth/token", "form")[:1]
# The peers of each store, and how many times as fast as they ours must be; 0: no limit.
PEERS = {
    "SQLite": ([*SIMPLE, *TOOLKIT, *AUTHLIB], {SIMPLE[0].name: 15.0, TOOLKIT[0].name: 15.0, AUTHLIB[0].name: 0.0}),
    "PostgreSQL": ([*SIMPLE, *TOOLKIT], {SIMPLE[0].name: 10.0, TOOLKIT[0].name: 10.0}),
    "Redis": (FLASK, {FLASK[0].name: 3.0}),
}
LEAST_OF_BARE = 0.8
Rounds = dict[str, list[float]]
NewStore = Callable[[int], str]


def figures() -> Iterator[Figure]:
    yield Figure(f"made with {_versions()}", CONNECTIONS, "connections")
    with Load() as load:
        yield _ceiling(load)
        for store in PEERS:
            yield from _on(store, load)
        yield Figure("highest CPU use of the generator", load.most_core * 100, "%")


def _versions() -> str:
    names = ("uvicorn", "uvloop", "httptools", "gunicorn", "waitress", "starlette", "Django", "joserfc")
    return ", ".join(f"{name} {_version(name)}" for name in names)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "(none)"


def _ceiling(load: Load) -> Figure:
    with served(Contender("static", "static", "uvicorn", "/"), "none:") as static:
        load.open("static", static, "/", "json")
        rates = sorted(load.run("static", SECONDS)["rate"] for _ in range(4))
    load.most_core = 0.0
    return Figure("limit of the load generator: a static response", statistics.median(rates), "requests/s")


def _on(store: str, load: Load) -> Iterator[Figure]:
    peers, limits = PEERS[store]
    contenders = [*peers, BARE, OURS, *FACES]
    with STORES[store]() as new_store, ExitStack() as stack:
        for number, one in enumerate(contenders):
            at = stack.enter_context(served(one, new_store(number)))
            load.open(f"{store} {one.name}", at, one.path, one.kind)
        rates, notes = _turns(store, contenders, load)
    ours = rates[OURS.name]
    for limit_of, limit in limits.items():
        name = limit_of.partition("|")[0]
        best, by = _best(name, rates)
        yield _rate(f"{store}: {name} by {by}{_others(name, best, rates)}", rates[best], notes[best])
        yield _ratio(f"{store}: ours over {name}", ours, rates[best], limit)
    yield _rate(f"{store}: bare statement and one EdDSA token, Starlette", rates[BARE.name], notes[BARE.name])
    yield _rate(f"{store}: ours, Starlette", ours, notes[OURS.name])
    yield _ratio(f"{store}: ours over bare", ours, rates[BARE.name], LEAST_OF_BARE)
    for face in FACES:
        yield _rate(f"{store}: {face.name} by {face.by}", rates[face.name], notes[face.name])


def _turns(store: str, contenders: list[Contender], load: Load) -> tuple[Rounds, dict[str, str]]:
    """Return the rates of all rounds but the first; the CPU time of a response, and failures."""
    rates: Rounds = {one.name: [] for one in contenders}
    said, used, responses = dict.fromkeys(rates, ""), dict.fromkeys(rates, 0.0), dict.fromkeys(rates, 0)
    for turn in range(ROUNDS + 1):
        for one in contenders:
            seen = load.run(f"{store} {one.name}", SECONDS)
            if turn:
                rates[one.name].append(seen["rate"])
                used[one.name] += seen["used"]
                responses[one.name] += seen["responses"]
            if seen["wrong"]:
                said[one.name] = f"; {seen['wrong']} refused: {seen['said'][:80]!r}"
    return rates, {name: f"; {used[name] / max(responses[name], 1) * 1e6:,.0f} µs CPU{said[name]}" for name in rates}


def _best(name: str, rates: Rounds) -> tuple[str, str]:
    """Return the faster server for the peer *name*."""
    best = max((one for one in rates if one.startswith(name)), key=lambda one: statistics.median(rates[one]))
    return best, best.partition("|")[2]


def _others(name: str, best: str, rates: Rounds) -> str:
    others = [one for one in rates if one.startswith(name) and one != best]
    said = ", ".join(f"{one.partition('|')[2]}: {statistics.median(rates[one]):,.0f}" for one in others)
    return f" ({said})" if said else ""


def _rate(what: str, rates: list[float], note: str) -> Figure:
    return Figure(what, statistics.median(rates), f"refreshes/s ({min(rates):,.0f} to {max(rates):,.0f}{note})")


def _ratio(what: str, ours: list[float], others: list[float], limit: float) -> Figure:
    ratios = [mine / other if other else 0.0 for mine, other in zip(ours, others, strict=True)]
    ratio = statistics.median(ratios)
    said = f"x ({min(ratios):.2f} to {max(ratios):.2f})"
    return Figure(what, ratio, said, f"at least {limit:g}" if limit else "", ratio >= limit if limit else None)


@contextmanager
def _sqlite() -> Iterator[NewStore]:
    with tempfile.TemporaryDirectory(prefix="unbroken-bench-") as folder:
        yield lambda number: f"sqlite:///{folder}/{number}.db"


@contextmanager
def _postgres() -> Iterator[NewStore]:
    with postgres_server() as server, psycopg.connect(server.url, autocommit=True) as connection:

        def new(number: int) -> str:
            connection.execute(f"CREATE DATABASE bench_{number}")
            return urlsplit(server.url)._replace(path=f"/bench_{number}").geturl()

        yield new


@contextmanager
def _redis() -> Iterator[NewStore]:
    with redis_server() as server:
        yield lambda number: urlsplit(server.url)._replace(path=f"/{number}").geturl()


STORES = {"SQLite": _sqlite, "PostgreSQL": _postgres, "Redis": _redis}
