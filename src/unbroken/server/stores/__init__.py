"""Where the server keeps its sessions, its keys and its accounts.

``base`` is the protocol of a store, ``registry`` finds the store that a URL names, ``migrations`` upgrades tables.
``memory``, ``sqlite``, ``postgres`` and ``redis`` are the stores. ``encrypted_keys`` wraps a store, and ``markers``
builds on one: single use, counters of the rate limit, known devices.

What is exported here is what a store in another package needs (``docs/extend/server-store.md``).
"""

from unbroken._concurrency import in_sync_context
from unbroken.server.core.rotation import PresentedToken, SessionBinding, Verdict, present, why_inactive
from unbroken.server.stores.base import (
    MAX_TRIMMED_SESSIONS,
    Account,
    DatabaseLocked,
    Notifications,
    SessionStore,
    StoreProblem,
    StoreWrapper,
)
from unbroken.server.stores.pages import next_page_cursor, page_position, place_of
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

__all__ = [  # noqa: RUF022  # sorted as text, as everywhere
    "Account",
    "DatabaseLocked",
    "MAX_TRIMMED_SESSIONS",
    "Notifications",
    "PresentedToken",
    "Schema",
    "SchemaVersion",
    "SessionBinding",
    "SessionStore",
    "StoreProblem",
    "StoreType",
    "StoreWrapper",
    "Verdict",
    "in_sync_context",
    "next_page_cursor",
    "open_store",
    "page_position",
    "place_of",
    "present",
    "redact_url",
    "register_store",
    "store_type",
    "store_types",
    "why_inactive",
]
