"""The server's end of a session: issue, verify, rotate, revoke, list."""

from unbroken.server.access_token import Claims
from unbroken.server.accounts import Accounts
from unbroken.server.endpoints import Endpoints
from unbroken.server.keys import Keyring
from unbroken.server.rotation import Policy
from unbroken.server.sessions import SessionInfo, Sessions
from unbroken.server.stores import open_store
from unbroken.server.stores.memory import MemoryStore
from unbroken.server.stores.sqlite import SqliteStore

__all__ = [
    "Accounts",
    "Claims",
    "Endpoints",
    "Keyring",
    "MemoryStore",
    "Policy",
    "SessionInfo",
    "Sessions",
    "SqliteStore",
    "open_store",
]
