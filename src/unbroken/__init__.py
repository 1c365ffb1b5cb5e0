"""Two-token sessions that never break. The names of the client's end; the server's are in ``unbroken.server``."""

from unbroken._http import Call, Reply
from unbroken.client.core.dialect import Ask, Dialect, When, oauth2, unbroken_server
from unbroken.client.core.schedule import Leeway, RefreshWindow
from unbroken.client.session import Session, Status
from unbroken.client.stores import FileStore, MemoryStore
from unbroken.errors import (
    BadAnswer,
    ConfigurationError,
    InvalidGrant,
    InvalidRequest,
    InvalidScope,
    InvalidToken,
    LoginRefused,
    NotReplayable,
    Refused,
    RenewalStorm,
    SessionOver,
    StoreBusy,
    StoreUnavailable,
    TryLater,
    UnbrokenError,
)
from unbroken.tokens import Fields, Granted, Tokens

__all__ = [
    "Ask",
    "BadAnswer",
    "Call",
    "ConfigurationError",
    "Dialect",
    "Fields",
    "FileStore",
    "Granted",
    "InvalidGrant",
    "InvalidRequest",
    "InvalidScope",
    "InvalidToken",
    "Leeway",
    "LoginRefused",
    "MemoryStore",
    "NotReplayable",
    "RefreshWindow",
    "Refused",
    "RenewalStorm",
    "Reply",
    "Session",
    "SessionOver",
    "Status",
    "StoreBusy",
    "StoreUnavailable",
    "Tokens",
    "TryLater",
    "UnbrokenError",
    "When",
    "oauth2",
    "unbroken_server",
]
