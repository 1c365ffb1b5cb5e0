"""Health checks: whether this server is alive, and whether it can work now. For load balancers and monitoring.

    GET {prefix}/health          200 while the process responds; if it does not, restart it
    GET {prefix}/health/ready    200 if the store responds and its keys can be used; 503: send no requests here

1. The responses contain no details. The log has the reason, at most once in ten seconds.
2. A store that can be interrupted has two seconds. A blocking one has a time limit of its own for each operation.
"""

from __future__ import annotations

import logging
import time

from unbroken._concurrency import in_sync_context
from unbroken.errors import ConfigurationError, TryLater
from unbroken.server.http.bodies import HealthBody
from unbroken.server.http.messages import NO_STORE, Request, Response, Route, json_response
from unbroken.server.sessions import Sessions
from unbroken.server.stores.base import run_inline

__all__ = ["HealthEndpoints"]

_log = logging.getLogger("unbroken")
STORE_TIMEOUT_SECONDS = 2.0
RETRY_AFTER_SECONDS = 5  # load balancers ask at their own rate
LOG_INTERVAL_SECONDS = 10.0


class HealthEndpoints:
    """Serves the two checks. *store_timeout*: the seconds that the store has to respond."""

    def __init__(self, sessions: Sessions, *, store_timeout: float = STORE_TIMEOUT_SECONDS) -> None:
        self._sessions, self._store_timeout = sessions, store_timeout
        self._logged_at = float("-inf")
        self.routes = (Route("GET", "/health", self._health), Route("GET", "/health/ready", self._health_ready))

    async def _health(self, _request: Request, _sid: str) -> Response:
        return json_response(HealthBody(status="ok"))

    async def _health_ready(self, _request: Request, _sid: str) -> Response:
        problem = await self._problem()
        if not problem:
            return json_response(HealthBody(status="ok"))
        if time.monotonic() - self._logged_at > LOG_INTERVAL_SECONDS:  # rule 1
            self._logged_at = time.monotonic()
            _log.warning("not ready: %s", problem)
        headers = {**NO_STORE, "retry-after": str(RETRY_AFTER_SECONDS)}
        return json_response(HealthBody(status="unavailable"), 503, headers)

    async def _problem(self) -> str:
        """Return what keeps this server from working; empty if nothing does."""
        if in_sync_context() or self._sessions.store.blocking:  # rule 2
            return await self._store_problem()
        import anyio  # noqa: PLC0415  # blocking use needs no event loop library

        with anyio.move_on_after(self._store_timeout):
            return await self._store_problem()
        return f"the store has not responded within {self._store_timeout:g} seconds"

    async def _store_problem(self) -> str:
        try:
            await run_inline(self._sessions.store, self._sessions.store.health)
            await self._sessions.ajwks()
        except (TryLater, ConfigurationError) as error:
            return str(error)
        return ""
