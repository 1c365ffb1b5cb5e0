"""The server of ``unbroken.testing``, and what the tests of this project do with it besides."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from typing import Any

from unbroken.testing import LoopbackServer, running
from unbroken.testing.server import PASSWORD

__all__ = ["PASSWORD", "Backend", "RunningApp", "as_json", "running"]


class Backend(LoopbackServer):
    """A server whose refreshes can be held."""

    def hold_next(self) -> Callable[[], None]:
        """The next refresh waits until the function that is returned is called."""
        go_on = threading.Event()

        async def fault() -> None:
            await asyncio.to_thread(go_on.wait, 20)

        self._faults.append(fault)
        return go_on.set


class RunningApp:
    """An application that runs for all tests of a file; each test puts its own behind it, as ``app``."""

    def __init__(self) -> None:
        self.app: Any = None
        self.url = ""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)


def as_json(value: object) -> bytes:
    """*value* as the bytes of a JSON body."""
    return json.dumps(value).encode()
