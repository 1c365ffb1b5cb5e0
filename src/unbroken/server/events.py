"""Events of sessions and logins, for the listeners of ``Sessions``."""

from unbroken.server.core.events import (
    EventListener,
    KeyNotProven,
    LoginFailed,
    LoginRateLimited,
    RefreshRejected,
    ReuseDetected,
    ReuseSuspected,
    ServerEvent,
    SessionCreated,
    SessionRefreshed,
    SessionRevoked,
)

__all__ = [
    "EventListener",
    "KeyNotProven",
    "LoginFailed",
    "LoginRateLimited",
    "RefreshRejected",
    "ReuseDetected",
    "ReuseSuspected",
    "ServerEvent",
    "SessionCreated",
    "SessionRefreshed",
    "SessionRevoked",
]
