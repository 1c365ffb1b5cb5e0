"""For the tests of whoever uses unbroken: a real server with faults on request, and a clock that obeys.

The pytest plugin gives them as fixtures: ``unbroken_server``, ``unbroken_session`` and ``unbroken_clock``. It is loaded
wherever this package is installed, so nothing here is imported before somebody uses it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unbroken.testing.clock import ManualClock
    from unbroken.testing.network import Network
    from unbroken.testing.server import LoopbackServer, running

__all__ = ["LoopbackServer", "ManualClock", "Network", "running"]

WHERE = {"LoopbackServer": "server", "ManualClock": "clock", "Network": "network", "running": "server"}


def __getattr__(name: str) -> Any:
    if name not in WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{WHERE[name]}"), name)
