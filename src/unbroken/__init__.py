"""Two-token sessions that never break. The names of the client's end; the server's are in ``unbroken.server``."""

from unbroken._http import HttpRequest, HttpResponse
from unbroken.client.core.dialect import Dialect, RequestTemplate, ResponseMatch, oauth2, unbroken_server
from unbroken.client.core.schedule import Leeway, RefreshWindow
from unbroken.client.session import Session, Status
from unbroken.client.stores import FileStore, MemoryStore
from unbroken.errors import (
    BadResponse,
    ConfigurationError,
    InvalidGrant,
    InvalidRequest,
    InvalidScope,
    InvalidToken,
    LoginRefused,
    NotReplayable,
    RefreshStorm,
    Refused,
    SessionOver,
    StoreBusy,
    StoreUnavailable,
    TryLater,
    UnbrokenError,
)
from unbroken.tokens import TokenFields, TokenResponse, Tokens

__all__ = [
    "BadResponse",
    "ConfigurationError",
    "Dialect",
    "FileStore",
    "HttpRequest",
    "HttpResponse",
    "InvalidGrant",
    "InvalidRequest",
    "InvalidScope",
    "InvalidToken",
    "Leeway",
    "LoginRefused",
    "MemoryStore",
    "NotReplayable",
    "RefreshStorm",
    "RefreshWindow",
    "Refused",
    "RequestTemplate",
    "ResponseMatch",
    "Session",
    "SessionOver",
    "Status",
    "StoreBusy",
    "StoreUnavailable",
    "TokenFields",
    "TokenResponse",
    "Tokens",
    "TryLater",
    "UnbrokenError",
    "oauth2",
    "unbroken_server",
]
