"""Two-token sessions that never break. These are the names of the client; ``unbroken.server`` has the server's."""

from unbroken._http import HttpRequest, HttpResponse, NotSent, ResponseLost, Send
from unbroken._time import Clock
from unbroken.client.core.backends import unbroken_server
from unbroken.client.core.device_flow import DeviceCode
from unbroken.client.core.dialect import Dialect, MfaChallenge, RequestTemplate, ResponseMatch
from unbroken.client.core.events import ClientEvent
from unbroken.client.core.login_endpoints import LoginEndpoints
from unbroken.client.core.metadata import AuthorizationServer, ProtectedResource
from unbroken.client.core.refresh_rules import GrantRejected, Indeterminate
from unbroken.client.core.schedule import Leeway, RefreshWindow
from unbroken.client.core.token_store import Lease, StoredSession, TokenStore
from unbroken.client.credentials import ClientCredentials, PasswordCredentials
from unbroken.client.discovery import oauth2
from unbroken.client.port import MfaPrompt
from unbroken.client.proof_key import ProofKey
from unbroken.client.session import Session, Status
from unbroken.client.stores import FileStore, MemoryStore, open_token_store
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
    TooManyAttempts,
    TryLater,
    UnbrokenError,
)
from unbroken.tokens import TokenFields, TokenResponse, Tokens

__all__ = [
    "AuthorizationServer",
    "BadResponse",
    "ClientCredentials",
    "ClientEvent",
    "Clock",
    "ConfigurationError",
    "DeviceCode",
    "Dialect",
    "FileStore",
    "GrantRejected",
    "HttpRequest",
    "HttpResponse",
    "Indeterminate",
    "InvalidGrant",
    "InvalidRequest",
    "InvalidScope",
    "InvalidToken",
    "Lease",
    "Leeway",
    "LoginEndpoints",
    "LoginRefused",
    "MemoryStore",
    "MfaChallenge",
    "MfaPrompt",
    "NotReplayable",
    "NotSent",
    "PasswordCredentials",
    "ProofKey",
    "ProtectedResource",
    "RefreshStorm",
    "RefreshWindow",
    "Refused",
    "RequestTemplate",
    "ResponseLost",
    "ResponseMatch",
    "Send",
    "Session",
    "SessionOver",
    "Status",
    "StoreBusy",
    "StoreUnavailable",
    "StoredSession",
    "TokenFields",
    "TokenResponse",
    "TokenStore",
    "Tokens",
    "TooManyAttempts",
    "TryLater",
    "UnbrokenError",
    "oauth2",
    "open_token_store",
    "unbroken_server",
]
