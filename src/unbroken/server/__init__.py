"""The server's end of a session: issue, verify, rotate, revoke, list."""

from unbroken.server.access_token import Claims
from unbroken.server.accounts import Accounts
from unbroken.server.cookies import Cookies
from unbroken.server.endpoints import Endpoints
from unbroken.server.events import EventLog
from unbroken.server.guard import GuardPolicy
from unbroken.server.keys import Keyring
from unbroken.server.login import Identity, OneMoreStep
from unbroken.server.rotation import Policy
from unbroken.server.sealing import sealed_keys
from unbroken.server.sessions import SessionInfo, Sessions
from unbroken.server.stores import open_store
from unbroken.server.stores.memory import MemoryStore
from unbroken.server.stores.sqlite import SqliteStore
from unbroken.server.tickets import Ticket
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
