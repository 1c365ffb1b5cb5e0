"""Calls of the application's own functions: plain or async, and whatever they raise.

1. A plain function runs in a worker thread, so that it may ask a database; an async one in the event loop.
2. What it raises proves nothing about a user or a session: it is TryLater, and the log has the traceback. Errors of
   ours pass.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from unbroken.errors import ConfigurationError, Refused, TryLater
from unbroken.server.worker_pool import WorkerPool

__all__ = ["call_application"]

_log = logging.getLogger("unbroken")
APPLICATION_RETRY_SECONDS = 5.0


async def call_application(what: str, pool: WorkerPool, function: Callable[..., Any], *args: Any) -> Any:
    """Return what the application's *function*, called *what* in errors, returns. Raise TryLater for its errors."""
    try:
        return await pool.call(function, *args)
    except (Refused, TryLater, ConfigurationError):
        raise
    except Exception as error:
        _log.exception("%s raised an error; the client is told to try again", what)
        raise TryLater(f"{what} failed", retry_after=APPLICATION_RETRY_SECONDS) from error
