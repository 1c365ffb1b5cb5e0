"""Where the tokens of a session live, and ``open_token_store``, which opens a store by its path or URL."""

from __future__ import annotations

import os

from unbroken._arguments import checked, did_you_mean
from unbroken._encryption import EncryptionKey
from unbroken.client.core.token_store import TokenStore
from unbroken.client.stores.file import FileStore
from unbroken.client.stores.memory import MemoryStore
from unbroken.errors import ConfigurationError

__all__ = ["FileStore", "MemoryStore", "open_token_store"]

KNOWN_FORMS = "a path, sqlite:///PATH, redis://HOST, postgresql://HOST/DATABASE, keyring:SERVICE, or memory:"
SCHEMES = ("sqlite", "redis", "rediss", "unix", "postgresql", "postgres", "keyring", "memory")


@checked()
def open_token_store(
    location: str | os.PathLike[str], name: str = "default", *, key: EncryptionKey | None = None
) -> TokenStore:
    """Return the token store at *location*.

    | ``tokens.json``, ``~/tokens``            | ``FileStore``: one session a file                             |
    | ``sqlite:///relative``, ``////absolute`` | ``SqliteStore``                                               |
    | ``redis://``, ``rediss://``, ``unix://`` | ``RedisStore``                                                |
    | ``postgresql://``, ``postgres://``       | ``PostgresStore``                                             |
    | ``keyring:SERVICE``                      | ``KeyringStore``: the secret store of the system              |
    | ``memory:``                              | ``MemoryStore``                                               |

    *name* tells sessions in one database or keyring apart; *key* encrypts the tokens in a file or a database. Raise
    ConfigurationError if the location is unknown, or its extra is not installed.
    """
    text = os.fspath(location)
    if isinstance(location, os.PathLike):
        return FileStore(text, key=key)
    scheme, colon, rest = text.partition(":")
    try:
        match scheme if colon else "":
            case "sqlite" if rest.startswith("///") and rest not in ("///", "///:memory:"):
                from unbroken.client.stores.sqlite import SqliteStore  # noqa: PLC0415  # sqlite3 takes its time to load

                return SqliteStore(rest.removeprefix("///"), name, key=key)
            case "redis" | "rediss" | "unix":
                from unbroken.client.stores.redis import RedisStore  # noqa: PLC0415  # an extra

                return RedisStore(text, name, key=key)
            case "postgresql" | "postgres":
                from unbroken.client.stores.postgres import PostgresStore  # noqa: PLC0415  # an extra

                return PostgresStore(text, name, key=key)
            case "keyring" if rest:
                from unbroken.client.stores.keyring import KeyringStore  # noqa: PLC0415  # an extra

                return KeyringStore(rest, name)
            case "memory" if not rest:
                return MemoryStore()
    except ImportError as error:
        raise ConfigurationError(str(error)) from error
    if not text or "://" in text or scheme in ("sqlite", "keyring", "memory"):
        shown = f"{scheme}:" if colon else text  # the rest may hold a password
        nearest = did_you_mean(scheme, SCHEMES) if colon and scheme not in SCHEMES else ""
        raise ConfigurationError(f"no token store is known for {shown!r}: {nearest}use {KNOWN_FORMS}")
    return FileStore(text, key=key)
