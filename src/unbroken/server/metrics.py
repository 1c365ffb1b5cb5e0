"""What is counted of a server, for whichever library keeps the numbers: ``unbroken.prometheus``, ``unbroken.otel``.

1. No label holds a secret, a user, an address or a URL, and each has a few values only: what an application says in its
   own words is counted as ``other``.
2. Each operation of the store is timed, by its name, whether it worked or not.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from time import perf_counter
from typing import Any

from unbroken.server.core import events
from unbroken.server.stores import SessionStore

__all__ = ["COUNTERS", "OPERATIONS", "counted", "time_store"]

# By name: what it is, and what it is told apart by.
COUNTERS: dict[str, tuple[str, str]] = {
    "logins": ("Sessions that began", ""),
    "login_refusals": ("Logins that were refused", "why"),
    "logins_throttled": ("Accounts and addresses that guess, told at most once a minute", ""),
    "refreshes": ("Refresh tokens that were exchanged, by the verdict on them", "verdict"),
    "refresh_refusals": ("Refresh tokens that were refused", "reason"),
    "reuse_detected": ("Sessions that were ended because a refresh token was used twice", ""),
    "sessions_ended": ("Sessions that were ended before they expired", "why"),
}
WORDS = {
    "why": frozenset({"password", "code", "logged_out", "revoked", "reuse"}),
    "verdict": frozenset({"rotated", "healed", "converged", "retried", "branched"}),
    "reason": frozenset({"malformed", "unknown", "expired", "revoked", "logged_out", "reuse", "wrong_client"}),
}
# The methods of a store that are timed.
OPERATIONS = tuple(
    name for name, member in vars(SessionStore).items() if inspect.iscoroutinefunction(member) and name != "aclose"
)


def counted(event: events.ServerEvent) -> list[tuple[str, str]]:
    """The counters that go up by one at *event*, each with the value of its label; empty for one without."""
    match event:
        case events.SessionCreated():
            return [("logins", "")]
        case events.LoginFailed():
            return [("login_refusals", _word("why", event.why))]
        case events.LoginRateLimited():
            return [("logins_throttled", "")]
        case events.SessionRefreshed():
            return [("refreshes", _word("verdict", event.verdict))]
        case events.ReuseDetected():
            return [("reuse_detected", ""), ("sessions_ended", "reuse")]
        case events.SessionRevoked():
            return [("sessions_ended", _word("why", event.why))]
        case events.RefreshRejected():
            return [("refresh_refusals", _word("reason", event.reason))]
    return []


def _word(label: str, value: str) -> str:
    return value if value in WORDS[label] else "other"


def time_store(store: SessionStore, tell: Callable[[str, float, bool], None]) -> None:
    """From now on, *tell* hears of each operation of *store*: its name, how many seconds, whether it failed."""
    for name in OPERATIONS:
        operation = getattr(store, name, None)
        if inspect.iscoroutinefunction(operation):
            setattr(store, name, _timed(name, operation, tell))


def _timed(name: str, operation: Any, tell: Callable[[str, float, bool], None]) -> Any:
    @wraps(operation)
    async def timed(*args: Any, **more: Any) -> Any:
        began, failed = perf_counter(), True
        try:
            result = await operation(*args, **more)
            failed = False
            return result
        finally:
            tell(name, perf_counter() - began, failed)

    return timed
