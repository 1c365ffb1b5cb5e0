"""Encrypt the server's signing and MAC keys in its store, so that a dump or a backup of the store signs nothing.

    store = encrypted_keys(open_store("postgresql://…"), keys_from_environment("UNBROKEN_ENCRYPTION_KEY"))
    sessions = Sessions(store)

1. The secret of each key is encrypted together with its key id: a secret cannot be moved to another key.
2. With several encryption keys, the first encrypts and each decrypts. Stored secrets stay unchanged, encrypted or
   not, until ``reencrypt_keys``: all processes can receive a new encryption key before any secret needs it.
3. An encrypted secret may replace a plain one, never the other way round (``KeyRecord.merged_with``).
4. A secret that cannot be decrypted raises ConfigurationError in each process that reads it. No session is revoked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

from unbroken._bounded_cache import BoundedCache
from unbroken._encryption import EncryptionKey, Encryptor, keys_from_environment, keys_from_file, new_key
from unbroken._sync import run_sync
from unbroken.errors import ConfigurationError
from unbroken.server.keys.keyring import ENCRYPTED_PREFIX, KeyRecord
from unbroken.server.stores.base import SessionStore, StoreWrapper

__all__ = [
    "count_unencrypted",
    "encrypted_keys",
    "keys_from_environment",
    "keys_from_file",
    "new_key",
    "reencrypt_keys",
]

MAX_CACHED_SECRETS = 1000


def encrypted_keys(store: SessionStore, key: EncryptionKey) -> SessionStore:
    """Return *store*, which from now on encrypts the secrets of new keys with *key*, or with the first of several.

    Raises ConfigurationError for a malformed *key*.
    """
    return cast("SessionStore", _EncryptedKeyStore(store, Encryptor(key)))


class _EncryptedKeyStore(StoreWrapper):
    """Encrypt keys before *inside* stores them, and decrypt the keys that it returns."""

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
        """Return *record* with its plain secret. Raises ConfigurationError if no encryption key fits."""
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

    Raises ConfigurationError if *store* does not come from ``encrypted_keys``.
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
