"""Encrypt the server's signing and MAC keys in its store, so that a dump or a backup of the store signs nothing.

    sessions = Sessions("sqlite:///app.db")  # the key is in app.db.key, which the first start makes
    sessions = Sessions("postgresql://…", encryption_key=keys_from_file("/etc/app/encryption-key"))

1. The secret of each key is encrypted together with its key id: a secret cannot be moved to another key.
2. With several encryption keys, the first encrypts and each decrypts. Stored secrets stay unchanged, encrypted or
   not, until ``reencrypt_keys``: all processes can receive a new encryption key before any secret needs it.
3. An encrypted secret may replace a plain one, never the other way round (``KeyRecord.merged_with``).
4. A secret that cannot be decrypted raises ConfigurationError in each process that reads it. No session is revoked.
5. Keys are encrypted unless the operator says otherwise (``encrypted_by_default``): with the key that is given, or with
   that in UNBROKEN_ENCRYPTION_KEY, or with that in the file beside the store (``key_file.py``). ``none`` is the
   explicit choice of plain keys; in the environment it is for stores without such a file, as the file costs nothing. A
   store that needs no key ends with its process.
6. Plain keys in a file are encrypted when its key is found or made: who opens the file finds the key beside it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

from unbroken._arguments import checked
from unbroken._bounded_cache import BoundedCache
from unbroken._concurrency import run_sync
from unbroken._encryption import EncryptionKey, Encryptor, keys_from_environment, keys_from_file, keys_in, new_key
from unbroken.errors import ConfigurationError
from unbroken.server.keys.keyring import ENCRYPTED_PREFIX, KeyRecord
from unbroken.server.stores.base import SessionStore, StoreWrapper
from unbroken.server.stores.key_file import make_key_file, read_key_file
from unbroken.server.stores.registry import store_type

__all__ = [
    "ENVIRONMENT_VARIABLE",
    "NO_KEY",
    "check_key",
    "count_unencrypted",
    "encrypted_by_default",
    "encrypted_keys",
    "keys_from_environment",
    "keys_from_file",
    "new_key",
    "reencrypt_keys",
]

ENVIRONMENT_VARIABLE = "UNBROKEN_ENCRYPTION_KEY"
PLAIN = "none"
NO_KEY = (
    "the keys in this store need an encryption key, so that a dump of the store makes no tokens: set encryption_key"
    f" (`unbroken keys new-encryption-key` prints one) or {ENVIRONMENT_VARIABLE}; none leaves them unencrypted"
)
MAX_CACHED_SECRETS = 1000


@checked()
def encrypted_keys(store: SessionStore, key: EncryptionKey) -> SessionStore:
    """Return *store*, which from now on encrypts the secrets of new keys with *key*, or with the first of several.

    Raise ConfigurationError for a malformed *key*.
    """
    return cast("SessionStore", _EncryptedKeyStore(store, Encryptor(key)))


def encrypted_by_default(
    store: SessionStore, key: EncryptionKey | None = None, *, read_only: bool = False
) -> SessionStore:
    """Return *store*, which encrypts keys with *key*, or by rule 5. *key* ``"none"``: they are stored as they are.

    A store says by its attribute ``encryption_key_file`` where its key is; None if it ends with the process.
    *read_only*: neither a key file nor a key in the store is changed. Raise ConfigurationError if there is no key, for
    a key that cannot be used, and for a store that encrypts already.
    """
    if key is not None:
        if _encrypts(store):
            raise ConfigurationError("this store encrypts its keys already: give the encryption key once")
        return store if _is_none(key) else encrypted_keys(store, key)
    path = getattr(store, "encryption_key_file", "")
    if _encrypts(store) or path is None:
        return store
    from_environment = keys_in(os.environ.get(ENVIRONMENT_VARIABLE, ""))
    if from_environment and not _is_none(from_environment):
        return encrypted_keys(store, from_environment)
    if path:
        return _encrypted_by_file(store, path, read_only=read_only)
    if from_environment:
        return store
    raise ConfigurationError(NO_KEY)


def check_key(url: str, key: EncryptionKey | None) -> None:
    """Raise ConfigurationError if the store at *url*, which is not opened, needs a key and *key* is none."""
    kind = store_type(url)
    if not key and kind.shared and kind.path is None and not keys_in(os.environ.get(ENVIRONMENT_VARIABLE, "")):
        raise ConfigurationError(NO_KEY)


def _encrypted_by_file(store: SessionStore, path: str, *, read_only: bool) -> SessionStore:
    """Return *store*, encrypted with the key in the file at *path*, which is made if nothing is encrypted yet."""
    keys = read_key_file(path)
    if keys is None and any(record.is_encrypted for record in run_sync(store.keys())):
        keys = read_key_file(path)  # another process may have made both just now
        if keys is None:
            missing = f"set encryption_key, or encryption_key_file, or restore {path}"
            raise ConfigurationError(f"the keys in the store are encrypted: {missing}")
    if keys is None and read_only:
        return store
    opened = encrypted_keys(store, keys or make_key_file(path))
    if not read_only and count_unencrypted(opened):
        reencrypt_keys(opened)  # rule 6
    return opened


def _encrypts(store: SessionStore) -> bool:
    return bool(getattr(store, "encrypts_keys", False))  # also of a wrapper around such a store


def _is_none(key: EncryptionKey) -> bool:
    return key == PLAIN or (not isinstance(key, (str, bytes)) and list(key) == [PLAIN])


class _EncryptedKeyStore(StoreWrapper):
    """Encrypt keys before *inside* stores them, and decrypt the keys that it returns."""

    encrypts_keys = True

    def __init__(self, inside: SessionStore, encryptor: Encryptor) -> None:
        super().__init__(inside)
        self.encryptor = encryptor
        # By key id and secret. Decryption takes microseconds, and each poll of the store returns the same secrets.
        self._plain: BoundedCache[tuple[str, str], str] = BoundedCache(MAX_CACHED_SECRETS)
        self._stored: BoundedCache[tuple[str, str], str] = BoundedCache(MAX_CACHED_SECRETS)

    async def keys(self) -> list[KeyRecord]:
        return [self.decrypt(record) for record in await self.inside.keys()]

    async def save_keys(self, records: Sequence[KeyRecord], *, first: bool = False) -> None:
        await self.inside.save_keys([self._as_stored(record) for record in records], first=first)

    def decrypt(self, record: KeyRecord) -> KeyRecord:
        """Return *record* with its plain secret. Raise ConfigurationError if no encryption key fits."""
        if not record.is_encrypted:
            self._stored.put((record.kid, record.secret), record.secret)
            return record
        plain = self._plain.get((record.kid, record.secret))
        if plain is None:
            plain = self._decrypt_secret(record)
            self._plain.put((record.kid, record.secret), plain)
            self._stored.put((record.kid, plain), record.secret)
        return replace(record, secret=plain)

    def encrypt(self, record: KeyRecord) -> KeyRecord:
        """Return *record* with its secret encrypted by the first encryption key."""
        bound = f"{record.kid}\n{record.secret}"  # rule 1
        return replace(record, secret=ENCRYPTED_PREFIX + self.encryptor.encrypt(bound))

    def _as_stored(self, record: KeyRecord) -> KeyRecord:
        stored = self._stored.get((record.kid, record.secret))  # rule 2
        return replace(record, secret=stored) if stored else self.encrypt(record)

    def _decrypt_secret(self, record: KeyRecord) -> str:
        text = self.encryptor.decrypt(record.secret.removeprefix(ENCRYPTED_PREFIX))
        kid, _, secret = (text or "").partition("\n")
        if text is None or kid != record.kid:  # rules 1 and 4
            raise ConfigurationError(f"key {record.kid} in the store was encrypted with another encryption key")
        return secret


def reencrypt_keys(store: SessionStore) -> int:
    """Encrypt each key in *store* with the first encryption key; return how many keys that changed.

    Raise ConfigurationError if *store* does not come from ``encrypted_keys``.
    """
    if not isinstance(store, _EncryptedKeyStore):
        raise ConfigurationError("there is no encryption key: set encryption_key, or encryption_key_file")
    records = run_sync(store.inside.keys())
    outdated = [record for record in records if not _is_current(store.encryptor, record)]
    run_sync(store.inside.save_keys([store.encrypt(store.decrypt(record)) for record in outdated]))
    return len(outdated)


def count_unencrypted(store: SessionStore) -> int:
    """Return how many keys *store* holds in plain text."""
    inside = store.inside if isinstance(store, StoreWrapper) else store
    return sum(not record.is_encrypted for record in run_sync(inside.keys()))


def _is_current(encryptor: Encryptor, record: KeyRecord) -> bool:
    return record.is_encrypted and encryptor.uses_current_key(record.secret.removeprefix(ENCRYPTED_PREFIX))
