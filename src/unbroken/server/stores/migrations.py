"""Which schema a store's tables are of, and how an operator brings them forward."""

from __future__ import annotations

from dataclasses import dataclass

from unbroken.server.stores import POSTGRES, open_store

__all__ = ["SchemaVersion", "schema_version", "upgrade_schema"]


@dataclass(frozen=True)
class SchemaVersion:
    """The number of the schema that was found (0: no tables yet), and of the one that this unbroken knows."""

    found: int
    known: int


def schema_version(url: str) -> SchemaVersion | None:
    """The tables of the store at *url*, which are only read; None for a store that has none.

    Raises ConfigurationError, or StoreUnavailable.
    """
    if url.startswith("sqlite:///"):
        from unbroken.server.stores import sqlite  # noqa: PLC0415  # each store only where it is asked for

        return SchemaVersion(sqlite.schema_of(url.removeprefix("sqlite:///")), len(sqlite.STEPS))
    if url.partition(":")[0] in POSTGRES:
        from unbroken._drivers.postgres import PostgresDriver  # noqa: PLC0415
        from unbroken.server.stores import postgres_schema  # noqa: PLC0415

        return SchemaVersion(postgres_schema.found_in(PostgresDriver(url)), len(postgres_schema.STEPS))
    open_store(url).close()
    return None


def upgrade_schema(url: str) -> SchemaVersion | None:
    """The tables of the store at *url* after they were brought forward, or made; None for a store that has none.

    Any number of processes may do so at once. Raises ConfigurationError for tables of a newer unbroken.
    """
    if url.partition(":")[0] in POSTGRES:
        from unbroken._drivers.postgres import PostgresDriver  # noqa: PLC0415
        from unbroken.server.stores import postgres_schema  # noqa: PLC0415

        postgres_schema.upgrade(PostgresDriver(url))
    else:
        open_store(url).close()  # a file is brought forward whenever it is opened
    return schema_version(url)
