"""Find the kind of store that a URL names, and what can be done with it.

1. A kind of store is one ``StoreType``. The built-in ones are listed here; their modules, and the drivers that these
   need, are imported when a function of the type is called.
2. Another package adds a type by an entry point of the group ``unbroken.stores``, whose name is the URL's scheme and
   whose object is a ``StoreType``; a program adds one by ``register_store``.
3. No error and no name of this file contains the password of a URL.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from unbroken._arguments import checked, did_you_mean
from unbroken.errors import ConfigurationError
from unbroken.server.stores.base import SessionStore

__all__ = [
    "Schema",
    "SchemaVersion",
    "StoreType",
    "open_store",
    "redact_url",
    "register_store",
    "store_type",
    "store_types",
]

ENTRY_POINT_GROUP = "unbroken.stores"


@dataclass(frozen=True, slots=True)
class SchemaVersion:
    """The schema number that a store has (0: no tables yet), and the one that this version of unbroken needs."""

    found: int
    known: int


@dataclass(frozen=True, slots=True)
class Schema:
    """How to read and to upgrade the schema at a URL. Both raise ConfigurationError or StoreUnavailable."""

    version: Callable[[str], SchemaVersion]  # changes nothing
    upgrade: Callable[[str], None]  # any number of processes may call it at once


@dataclass(frozen=True, slots=True)
class StoreType:
    """A kind of store. *schemes* are the URL schemes that name it, *example* is a URL for error messages.

    *open* returns the store at a URL, without a connection yet; it raises ConfigurationError. *path* returns the file
    that a URL names. *shared*: several processes may use one store.
    """

    name: str
    schemes: tuple[str, ...]
    example: str
    open: Callable[[str], SessionStore]
    schema: Schema | None = None
    path: Callable[[str], str] | None = None
    shared: bool = True


@checked()
def open_store(url: str) -> SessionStore:
    """Return the store that *url* names: ``sqlite:///file.db`` (a relative path), ``sqlite:////path/file.db``,
    ``memory:``, ``postgresql://USER:PASSWORD@HOST/DATABASE``, ``redis://HOST/0`` (also ``rediss://``, ``unix://``,
    ``redis+cluster://A:1,B:2`` and ``rediss+cluster://``), or a URL of a registered type.

    A store on a server connects at first use; a file is opened here. Raise ConfigurationError, in one line that says
    what to do, for any other URL, for a driver that is not installed, and for a file that cannot be used.
    """
    return store_type(url).open(url)


def store_type(url: str) -> StoreType:
    """Return the type of the store that *url* names. Raise ConfigurationError if no type has its scheme."""
    scheme = _scheme(url)
    found = _by_scheme.get(scheme) or _from_entry_point(scheme)
    if found is None:
        raise ConfigurationError(_unknown_store(url, scheme))
    return found


def store_types() -> tuple[StoreType, ...]:
    """Return the built-in types and those that ``register_store`` added."""
    return tuple(dict.fromkeys(_by_scheme.values()))


def register_store(added: StoreType) -> None:
    """Add a type of store for this process. Raise ConfigurationError if one of its schemes is taken."""
    for scheme in added.schemes:
        if scheme in _by_scheme:
            raise ConfigurationError(f"the store {_by_scheme[scheme].name!r} has the scheme {scheme!r}: choose another")
    _by_scheme.update(dict.fromkeys(added.schemes, added))


def redact_url(url: str) -> str:
    """Return *url* without its password, its user and its parameters."""
    if "://" not in url:
        return re.sub(r"(?i)password\s*=\s*('(\\.|[^'\\])*'|\S+)", "", url)
    bare = url.partition("?")[0]
    return re.sub(r"(?<=://)[^/].*@", "", bare)  # up to the last @: a password may contain one


def _scheme(url: str) -> str:
    return url.partition(":")[0].lower() if ":" in url else ""


def _from_entry_point(scheme: str) -> StoreType | None:
    for entry in entry_points(group=ENTRY_POINT_GROUP, name=scheme):
        found = entry.load()
        if not isinstance(found, StoreType):
            raise ConfigurationError(f"the entry point {entry.value} is not an unbroken StoreType")
        return found
    return None


def _unknown_store(url: str, scheme: str) -> str:
    plain, plus, _ = scheme.partition("+")
    if plus and plain in _by_scheme:
        return f"unknown store {scheme + ':'!r}: write {plain}://…, without the name of a driver"
    examples = ", ".join(one.example for one in store_types())
    shown = scheme + ":" if scheme else url.partition("@")[0]
    return f"unknown store {shown!r}: {did_you_mean(scheme, _by_scheme)}use {examples}"


def _lazily(module: str, name: str) -> Callable[..., Any]:
    """Return a function that imports ``stores.<module>`` and calls *name* there (rule 1).

    Raise ConfigurationError if the module's driver is not installed; the extra has the module's name.
    """

    def call(*arguments: Any) -> Any:
        try:
            found = import_module(f"unbroken.server.stores.{module}")
        except ModuleNotFoundError as missing:
            message = f"this store needs {missing.name}: install 'unbroken[{module}]'"
            raise ConfigurationError(message) from missing
        return getattr(found, name)(*arguments)

    return call


BUILT_IN = (
    StoreType(
        "sqlite",
        schemes=("sqlite",),
        example="sqlite:///FILE",
        open=_lazily("sqlite", "open_url"),
        schema=Schema(_lazily("sqlite", "schema_version"), _lazily("sqlite", "upgrade_schema")),
        path=_lazily("sqlite", "path_of"),
    ),
    StoreType(
        "postgres",
        schemes=("postgresql", "postgres"),
        example="postgresql://HOST/DATABASE",
        open=_lazily("postgres", "PostgresSessionStore"),
        schema=Schema(_lazily("postgres", "schema_version"), _lazily("postgres", "upgrade_schema")),
    ),
    StoreType(
        "redis",
        schemes=("redis", "rediss", "unix", "redis+cluster", "rediss+cluster"),
        example="redis://HOST/0",
        open=_lazily("redis", "RedisSessionStore"),
    ),
    StoreType(
        "memory",
        schemes=("memory",),
        example="memory:",
        open=_lazily("memory", "open_url"),
        shared=False,
    ),
)
_by_scheme: dict[str, StoreType] = {scheme: one for one in BUILT_IN for scheme in one.schemes}
