"""For tests of programs that use unbroken: a real server with faults on request, and a clock that a test moves.

The pytest plugin provides them as fixtures: ``unbroken_server``, ``unbroken_session`` and ``unbroken_clock``. pytest
loads it wherever this package is installed, so nothing here is imported before its first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unbroken.testing.clock import ManualClock
    from unbroken.testing.network import Network
    from unbroken.testing.overrides import logged_in_as
    from unbroken.testing.server import LoopbackServer, running

__all__ = ["LoopbackServer", "ManualClock", "Network", "logged_in_as", "running"]

_MODULES = {
    "LoopbackServer": "server",
    "ManualClock": "clock",
    "Network": "network",
    "logged_in_as": "overrides",
    "running": "server",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
