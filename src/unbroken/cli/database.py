"""``unbroken db``: the tables of a store, when unbroken itself is upgraded."""

from __future__ import annotations

import typer

from unbroken.cli.options import with_settings
from unbroken.cli.settings import Settings
from unbroken.cli.terminal import say
from unbroken.errors import ConfigurationError
from unbroken.server.stores.migrations import SchemaVersion, schema_version, upgrade_schema

__all__ = ["db"]

NO_TABLES = "this store has no tables: nothing to do"

db = typer.Typer(no_args_is_help=True, help="The tables of the store.")


@db.command("upgrade")
@with_settings("store")
def db_upgrade(settings: Settings) -> None:
    """Bring the tables forward to what this unbroken needs, or make them. Any number of nodes may do so at once."""
    tables = upgrade_schema(settings.store)
    say(f"schema {tables.found}, as this unbroken needs" if tables else NO_TABLES)


@db.command("check")
@with_settings("store")
def db_check(settings: Settings) -> int:
    """Say whether the tables are what this unbroken needs, and change nothing: 0 if so, 1 if they must be upgraded."""
    tables = schema_version(settings.store)
    if tables is None:
        say(NO_TABLES)
        return 0
    return _judged(tables)


def _judged(tables: SchemaVersion) -> int:
    if tables.found > tables.known:
        known = f"schema {tables.found}, this one knows {tables.known}"
        raise ConfigurationError(f"the tables were made by a newer unbroken ({known}): upgrade unbroken")
    if tables.found == tables.known:
        say(f"schema {tables.found}, as this unbroken needs")
        return 0
    found = f"schema {tables.found}" if tables.found else "no tables yet"
    say(f"{found}, this unbroken needs schema {tables.known}: run `unbroken db upgrade`")
    return 1
