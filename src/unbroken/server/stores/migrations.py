"""The schema of a store's tables: which version it has, and how an operator upgrades it.

1. A schema has a number. Each step makes the next schema from the one before; a released step never changes.
2. A newer schema is refused and left unchanged, in every store.
"""

from __future__ import annotations

from unbroken.errors import ConfigurationError
from unbroken.server.stores.registry import SchemaVersion, open_store, store_type

__all__ = ["SchemaVersion", "refuse_newer", "schema_version", "upgrade_schema"]


def schema_version(url: str) -> SchemaVersion | None:
    """Return the schema of the store at *url*, and change nothing; None for a store without tables.

    Raise ConfigurationError or StoreUnavailable.
    """
    schema = store_type(url).schema
    if schema is None:
        open_store(url).close()  # raises ConfigurationError for a malformed URL
        return None
    return schema.version(url)


def upgrade_schema(url: str) -> SchemaVersion | None:
    """Create or upgrade the tables of the store at *url*; return their schema, or None for a store without tables.

    Any number of processes may do so at once. Raise ConfigurationError for a newer schema (rule 2), or
    StoreUnavailable.
    """
    schema = store_type(url).schema
    if schema is not None:
        schema.upgrade(url)
    return schema_version(url)


def refuse_newer(version: SchemaVersion, name: str) -> None:
    """Raise ConfigurationError if the store *name* has a newer schema than this version of unbroken (rule 2)."""
    if version.found > version.known:
        numbers = f"schema {version.found}, this one knows {version.known}"
        raise ConfigurationError(f"{name} belongs to a newer unbroken ({numbers}): upgrade unbroken")
