"""The server's end of a session: issue, verify, rotate, revoke, list."""

from unbroken.server.core.rotation import Policy
from unbroken.server.grants.tickets import Ticket
from unbroken.server.http.cookies import Cookies
from unbroken.server.http.endpoints import Endpoints
from unbroken.server.keys.access_token import Claims
from unbroken.server.keys.keyring import Keyring
from unbroken.server.listeners import EventLog
from unbroken.server.login.accounts import Accounts
from unbroken.server.login.authenticator import Identity, MfaRequired
from unbroken.server.login.rate_limit import RateLimitPolicy
from unbroken.server.sessions import SessionInfo, Sessions
from unbroken.server.stores import open_store
from unbroken.server.stores.encrypted_keys import encrypted_keys
from unbroken.server.stores.memory import MemorySessionStore
from unbroken.server.stores.sqlite import SqliteSessionStore
from unbroken.server.webhook import Webhook

__all__ = [
    "Accounts",
    "Claims",
    "Cookies",
    "Endpoints",
    "EventLog",
    "Identity",
    "Keyring",
    "MemorySessionStore",
    "MfaRequired",
    "Policy",
    "RateLimitPolicy",
    "SessionInfo",
    "Sessions",
    "SqliteSessionStore",
    "Ticket",
    "Webhook",
    "encrypted_keys",
    "open_store",
]
