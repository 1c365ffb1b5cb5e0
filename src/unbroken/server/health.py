"""Whether this server is alive, and whether it can work now: for load balancers and for those who watch.

    GET {prefix}/health          200 as long as the process answers: who does not is to be started again
    GET {prefix}/health/ready    200 if the store answers in time and its keys can be used, else 503: send nobody here

The answers say nothing else. Why a server is not ready is in its log, at most once in ten seconds.
"""

from __future__ import annotations

import logging
import time

from unbroken._once import is_blocking
from unbroken.errors import ConfigurationError, TryLater
from unbroken.server.http import NO_STORE, Request, Response, Route, json_response
from unbroken.server.sessions import Sessions

__all__ = ["HealthEndpoints"]

_log = logging.getLogger("unbroken")
IN_TIME = 2.0  # seconds for the store to answer, where it can be interrupted
AGAIN = "5"  # seconds, for who asks at no rate of its own
QUIET = 10.0  # seconds between two lines in the log


class HealthEndpoints:
    """The routes of health. *in_time*: how long the store may take, in seconds."""

    def __init__(self, sessions: Sessions, *, in_time: float = IN_TIME) -> None:
        self._sessions, self._in_time = sessions, in_time
        self._said = float("-inf")
        self.routes = (Route("GET", "/health", self._health), Route("GET", "/health/ready", self._health_ready))

    async def _health(self, _request: Request, _: str) -> Response:
        return json_response({"status": "ok"})

    async def _health_ready(self, _request: Request, _: str) -> Response:
        why = await self._why_not()
        if not why:
            return json_response({"status": "ok"})
        if time.monotonic() - self._said > QUIET:
            self._said = time.monotonic()
            _log.warning("not ready: %s", why)
        return json_response({"status": "unavailable"}, 503, {**NO_STORE, "retry-after": AGAIN})

    async def _why_not(self) -> str:
        """What keeps this server from working now; empty if nothing does."""
        if is_blocking() or self._sessions.store.blocking:
            return await self._ask()  # each operation of a store has an end of its own
        import anyio  # noqa: PLC0415  # blocking use needs no event loop library

        with anyio.move_on_after(self._in_time):
            return await self._ask()
        return "the store does not answer in time"

    async def _ask(self) -> str:
        try:
            await self._sessions._quickly(self._sessions.store.health)
            await self._sessions.ajwks()
        except (TryLater, ConfigurationError) as error:
            return str(error)
        return ""
