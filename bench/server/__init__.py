"""The server and its peers: ``scripts/bench server`` prints one table, ``server --small`` a quicker one.

rates.py      refreshes per second over HTTP: peers, the bare minimum, ours      apps/, contender.py, generator.py
protected.py  a page with and without authentication
growth.py     a refresh among 10,000 and among 1,000,000 sessions; the size of a session in the store
forged.py     what a forged refresh token costs
floor.py      rotation and verification without HTTP
"""

from __future__ import annotations

from collections.abc import Iterator

from bench.figure import Figure

__all__ = ["figures"]


def figures(*, small: bool = False) -> Iterator[Figure]:
    from bench.server import floor, forged, growth, protected, rates  # not in the processes of the applications

    yield from floor.figures()
    yield from forged.figures()
    yield from protected.figures()
    yield from growth.figures(small=small)
    yield from rates.figures()
