"""The server's end of a session: issue, verify, rotate, revoke, list."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

try:
    import joserfc as joserfc
except ModuleNotFoundError as error:
    message = "unbroken.server needs joserfc and more: pip install 'unbroken[server]'"
    raise ModuleNotFoundError(message, name=error.name) from error

from unbroken.server.core.events import EventListener, ServerEvent
from unbroken.server.core.proof import RequestProof
from unbroken.server.core.rotation import Policy, SessionRow
from unbroken.server.core.session_info import (
    Caller,
    NewSession,
    RefreshInspection,
    Revocation,
    RevocationPage,
    SessionInfo,
    SessionPage,
)
from unbroken.server.grants.tickets import Ticket
from unbroken.server.http.cookies import Cookies
from unbroken.server.http.endpoints import Endpoints
from unbroken.server.http.old_tokens import OldTokens
from unbroken.server.keys.access_token import Claims
from unbroken.server.keys.keyring import KeyRecord, Keyring
from unbroken.server.listeners import EventLog
from unbroken.server.login.accounts import Accounts
from unbroken.server.login.authenticator import Identity, MfaRequired
from unbroken.server.login.rate_limit import RateLimitPolicy
from unbroken.server.proofs.policy import ProofPolicy
from unbroken.server.proofs.verification import VerifiedProof
from unbroken.server.sessions import Sessions
from unbroken.server.stores import SessionStore, open_store
from unbroken.server.stores.encrypted_keys import encrypted_keys
from unbroken.server.stores.memory import MemorySessionStore
from unbroken.server.stores.sqlite import SqliteSessionStore
from unbroken.server.webhook import Webhook

if TYPE_CHECKING:
    from unbroken.server.stores.postgres import PostgresSessionStore as PostgresSessionStore
    from unbroken.server.stores.redis import RedisSessionStore as RedisSessionStore

__all__ = [
    "Accounts",
    "Caller",
    "Claims",
    "Cookies",
    "Endpoints",
    "EventListener",
    "EventLog",
    "Identity",
    "KeyRecord",
    "Keyring",
    "MemorySessionStore",
    "MfaRequired",
    "NewSession",
    "OldTokens",
    "Policy",
    "ProofPolicy",
    "RateLimitPolicy",
    "RefreshInspection",
    "RequestProof",
    "Revocation",
    "RevocationPage",
    "ServerEvent",
    "SessionInfo",
    "SessionPage",
    "SessionRow",
    "SessionStore",
    "Sessions",
    "SqliteSessionStore",
    "Ticket",
    "VerifiedProof",
    "Webhook",
    "encrypted_keys",
    "open_store",
]

# Not in __all__: each needs a driver that may not be installed, and is imported when it is first asked for.
LAZY = {"PostgresSessionStore": "unbroken.server.stores.postgres", "RedisSessionStore": "unbroken.server.stores.redis"}


def __getattr__(name: str) -> Any:
    if name in LAZY:
        return getattr(import_module(LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
