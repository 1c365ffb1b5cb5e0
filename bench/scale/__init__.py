"""Ten times the size: ``python -m bench scale``, and ``python -m bench soak``, print tables of their own.

sessions.py   what grows with the number of sessions: ``scale sessions [SQLite PostgreSQL Redis] [--sessions N]``
filled.py     stores with very many sessions, made by their own SQL
clients.py    very many tasks, and very many sessions, in one client process: ``scale clients [--small]``
nodes.py      one, two and four workers on one store: ``scale nodes [SQLite PostgreSQL Redis]``
soak.py       a long run of everything that a server does: ``soak [SQLite PostgreSQL Redis] [--minutes M] [--hours H]``

docs/scale.md has the figures, and the commands that make them.
"""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from bench.figure import print_figures

__all__ = ["main", "run_soak"]

STORES = ("SQLite", "PostgreSQL", "Redis")


def main(arguments: list[str]) -> int:
    """Run the parts that *arguments* name; return the exit status."""
    from bench.scale import clients, nodes, sessions  # each imports what only it needs

    parser = ArgumentParser(prog="python -m bench scale")
    parser.add_argument("part", choices=("sessions", "clients", "nodes"))
    parser.add_argument("stores", nargs="*", choices=(*STORES, []))
    parser.add_argument("--sessions", type=int, default=10_000_000)
    parser.add_argument("--small", action="store_true", help="a hundredth of everything")
    told: Any = parser.parse_args(arguments)
    stores = told.stores or list(STORES)
    if told.part == "clients":
        return print_figures(clients.figures(small=told.small))
    if told.part == "nodes":
        return print_figures(nodes.figures(stores, small=told.small))
    return print_figures(sessions.figures(stores, told.sessions // 100 if told.small else told.sessions))


def run_soak(arguments: list[str]) -> int:
    """Run the soak test that *arguments* describe; return the exit status."""
    from bench.scale import soak

    parser = ArgumentParser(prog="python -m bench soak")
    parser.add_argument("stores", nargs="*", choices=(*STORES, []))
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--hours", type=float, default=0.0)
    told: Any = parser.parse_args(arguments)
    return print_figures(soak.figures(told.stores or list(STORES), told.hours * 60 or told.minutes))
