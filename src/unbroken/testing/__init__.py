"""For the tests of whoever uses unbroken: a real server with faults on request, and a clock that obeys.

The pytest plugin gives them as fixtures: ``unbroken_server``, ``unbroken_session`` and ``unbroken_clock``.
"""

from unbroken.testing.clock import ManualClock
from unbroken.testing.network import Network
from unbroken.testing.server import LoopbackServer, running

__all__ = ["LoopbackServer", "ManualClock", "Network", "running"]
