"""The one at-fork registry of the package: what drops its locks, threads and connections in a forked child.

1. A forked child has one thread. A lock that another thread of the parent held stays locked there, a worker thread is
   missing, and a connection is shared with the parent: each must be replaced before it is used.
2. The registry holds its objects weakly: a registered object lives no longer for it.
"""

from __future__ import annotations

import os
from typing import Protocol
from weakref import WeakSet

__all__ = ["ForkAware", "register_fork_aware"]


class ForkAware(Protocol):
    """An object that holds locks, threads or connections."""

    def reset_after_fork(self) -> None:
        """Replace them. Called in the forked child, before any other thread runs there."""


_registered: WeakSet[ForkAware] = WeakSet()  # rule 2


def register_fork_aware(one: ForkAware) -> None:
    """Call ``one.reset_after_fork()`` in every child that this process forks from now on."""
    _registered.add(one)


def _reset_all() -> None:
    for one in list(_registered):
        one.reset_after_fork()


if hasattr(os, "register_at_fork"):  # not on Windows, which cannot fork
    os.register_at_fork(after_in_child=_reset_all)
