"""The server's end of a session: issue, verify, rotate, revoke, list."""

from unbroken.server.core.rotation import Policy
from unbroken.server.grants.tickets import Ticket
from unbroken.server.http.cookies import Cookies
from unbroken.server.http.endpoints import Endpoints
from unbroken.server.keys.access_token import Claims
from unbroken.server.keys.keyring import Keyring
from unbroken.server.listeners import EventLog
from unbroken.server.login.accounts import Accounts
from unbroken.server.login.authenticator import Identity, OneMoreStep
from unbroken.server.login.rate_limit import GuardPolicy
from unbroken.server.sessions import SessionInfo, Sessions
from unbroken.server.stores import open_store
from unbroken.server.stores.encrypted_keys import sealed_keys
from unbroken.server.stores.memory import MemoryStore
from unbroken.server.stores.sqlite import SqliteStore
from unbroken.server.webhook import Webhook

__all__ = [
    "Accounts",
    "Claims",
    "Cookies",
    "Endpoints",
    "EventLog",
    "GuardPolicy",
    "Identity",
    "Keyring",
    "MemoryStore",
    "OneMoreStep",
    "Policy",
    "SessionInfo",
    "Sessions",
    "SqliteStore",
    "Ticket",
    "Webhook",
    "open_store",
    "sealed_keys",
]
