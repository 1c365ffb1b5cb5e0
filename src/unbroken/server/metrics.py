"""The metrics of a server, for any library that exports them: see ``unbroken.prometheus`` and ``unbroken.otel``.

1. No label holds a secret, a user, an address or a URL, and each has a few values only: an application's own word is
   counted as ``other``.
2. Each operation of the store is timed by its name, whether it succeeds or fails.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from functools import wraps
from time import perf_counter
from typing import Any

from unbroken.server.core import events
from unbroken.server.stores import SessionStore

__all__ = ["COUNTERS", "OPERATIONS", "count_drops", "counted", "time_store"]

# By name: the help text, and the label, if any.
COUNTERS: dict[str, tuple[str, str]] = {
    "logins": ("Sessions created", ""),
    "login_refusals": ("Logins refused, by reason", "why"),
    "logins_throttled": (
        "Logins that met the rate limit, counted at most once a minute for each account and address",
        "",
    ),
    "refreshes": ("Sessions refreshed, by the verdict on the refresh token", "verdict"),
    "refresh_refusals": ("Refresh tokens refused, by reason", "reason"),
    "reuse_detected": ("Sessions revoked because a refresh token was used twice", ""),
    "reuse_suspected": ("Responses to a used refresh token that a second holder may have caused", "verdict"),
    "keys_not_proven": ("Refresh tokens of bound sessions that came without a proof of the key, by reason", "reason"),
    "sessions_ended": ("Sessions revoked before they expired, by reason", "why"),
    "webhook_messages_dropped": ("Events that a webhook's receiver will not get, by kind", "kind"),
}
# The values of each label; any other word is counted as ``other`` (rule 1).
LABEL_VALUES = {
    "why": frozenset({"password", "code", "logged_out", "revoked", "reuse", "limit"}),
    "verdict": frozenset({"rotated", "healed", "converged", "retried", "branched"}),
    "reason": frozenset(
        {
            "malformed",
            "unknown",
            "expired",
            "revoked",
            "logged_out",
            "reuse",
            "limit",
            "wrong_client",
            "wrong_audience",
            "wrong_key",
            "not_bound",
            "missing",
        }
    ),
    "kind": frozenset(event.kind for event in events.ServerEvent.__subclasses__()),
}
# The operations of a store that are timed: all of them, in the order of the protocol.
OPERATIONS = tuple(
    name for name, method in vars(SessionStore).items() if inspect.iscoroutinefunction(method) and name != "aclose"
)


def counted(event: events.ServerEvent) -> list[tuple[str, str]]:
    """Return the counters to increment at *event*, each with the value of its label, or "" without a label."""
    match event:
        case events.SessionCreated():
            return [("logins", "")]
        case events.LoginFailed():
            return [("login_refusals", _label_value("why", event.why))]
        case events.LoginRateLimited():
            return [("logins_throttled", "")]
        case events.SessionRefreshed():
            return [("refreshes", _label_value("verdict", event.verdict))]
        case events.ReuseDetected():
            return [("reuse_detected", ""), ("sessions_ended", "reuse")]
        case events.ReuseSuspected():
            return [("reuse_suspected", _label_value("verdict", event.verdict))]
        case events.KeyNotProven():
            return [("keys_not_proven", _label_value("reason", event.reason))]
        case events.SessionRevoked():
            return [("sessions_ended", _label_value("why", event.why))]
        case events.RefreshRejected():
            return [("refresh_refusals", _label_value("reason", event.reason))]
    return []


def count_drops(listeners: Iterable[object], count: Callable[[str, str], None]) -> None:
    """Call *count* from now on for each event that one of *listeners*, a webhook, cannot deliver: counter and label."""
    for listener in listeners:
        if add := getattr(listener, "add_drop_listener", None):
            add(lambda kind: count("webhook_messages_dropped", _label_value("kind", kind)))


def _label_value(label: str, value: str) -> str:
    return value if value in LABEL_VALUES[label] else "other"


def time_store(store: SessionStore, observe: Callable[[str, float, bool], None]) -> None:
    """Call *observe* after each operation of *store* from now on: its name, its seconds, whether it failed (rule 2)."""
    for name in OPERATIONS:
        operation = getattr(store, name, None)
        if inspect.iscoroutinefunction(operation):
            setattr(store, name, _timed(name, operation, observe))


def _timed(name: str, operation: Any, observe: Callable[[str, float, bool], None]) -> Any:
    @wraps(operation)
    async def timed(*args: Any, **kwargs: Any) -> Any:
        started, failed = perf_counter(), True
        try:
            result = await operation(*args, **kwargs)
            failed = False
            return result
        finally:
            observe(name, perf_counter() - started, failed)

    return timed
