"""Where the server keeps its sessions, its keys and its accounts.

``base`` is the protocol of a store, ``registry`` finds the store that a URL names, ``migrations`` upgrades tables.
``memory``, ``sqlite``, ``postgres`` and ``redis`` are the stores. ``encrypted_keys`` wraps a store, and ``markers``
builds on one: single use, counters of the rate limit, known devices.
"""

from unbroken.server.core.rotation import PresentedToken, SessionBinding
from unbroken.server.stores.base import Account, DatabaseLocked, Notifications, SessionStore, StoreProblem, StoreWrapper
from unbroken.server.stores.registry import (
    Schema,
    SchemaVersion,
    StoreType,
    open_store,
    redact_url,
    register_store,
    store_type,
    store_types,
)

__all__ = [
    "Account",
    "DatabaseLocked",
    "Notifications",
    "PresentedToken",
    "Schema",
    "SchemaVersion",
    "SessionBinding",
    "SessionStore",
    "StoreProblem",
    "StoreType",
    "StoreWrapper",
    "open_store",
    "redact_url",
    "register_store",
    "store_type",
    "store_types",
]
