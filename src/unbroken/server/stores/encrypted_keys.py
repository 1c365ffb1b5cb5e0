"""The server's keys, sealed in its store: so a dump of the store, or a backup, signs nothing.

    store = encrypted_keys(open_store("postgresql://…"), keys_from_environment("UNBROKEN_SEAL_KEY"))
    sessions = Sessions(store)

1. What is sealed is each key's secret, together with its name: no key can be put in another's place.
2. Several keys may be given: the first seals, every one opens. What lies in the store stays as it is, sealed or not,
   until ``reencrypt_keys``: so all processes can be given a new key before anything needs it.
3. A sealed secret takes the place of an unsealed one, and never the other way round (``KeyRecord.joined``).
4. A key that cannot be opened is ConfigurationError, in the log of every process that meets it; nobody is logged out.
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
from unbroken.server.stores import SessionStore, StoreWrapper

__all__ = [
    "count_unencrypted",
    "encrypted_keys",
    "keys_from_environment",
    "keys_from_file",
    "new_key",
    "reencrypt_keys",
]

MAX_CACHED_RECORDS = 1000  # keys are few; of what was opened, the same text is found again each time the store is asked


def encrypted_keys(store: SessionStore, key: EncryptionKey) -> SessionStore:
    """*store*, whose keys are sealed from now on with *key*, or the first of several. Raises ConfigurationError for a
    key that is none.
    """
    return cast("SessionStore", _EncryptedKeyStore(store, Encryptor(key)))


class _EncryptedKeyStore(StoreWrapper):
    """A store that keeps keys sealed, and gives them open."""

    def __init__(self, inside: SessionStore, sealer: Encryptor) -> None:
        super().__init__(inside)
        self.sealer = sealer
        self._open: BoundedCache[tuple[str, str], str] = BoundedCache(MAX_CACHED_RECORDS)  # by name and sealed text
        self._sealed: BoundedCache[tuple[str, str], str] = BoundedCache(MAX_CACHED_RECORDS)  # by name and open text

    async def keys(self) -> list[KeyRecord]:
        return [self.opened(record) for record in await self.inside.keys()]

    async def save_keys(self, records: Sequence[KeyRecord], *, first: bool = False) -> None:
        await self.inside.save_keys([self._as_it_lies(record) for record in records], first=first)

    def opened(self, record: KeyRecord) -> KeyRecord:
        """*record* with its secret open. Raises ConfigurationError."""
        if not record.is_encrypted:
            self._sealed.put((record.kid, record.secret), record.secret)
            return record
        secret = self._open.get((record.kid, record.secret))
        if secret is None:
            secret = self._unsealed(record)
            self._open.put((record.kid, record.secret), secret)
            self._sealed.put((record.kid, secret), record.secret)
        return replace(record, secret=secret)

    def sealed(self, record: KeyRecord) -> KeyRecord:
        """*record* with its secret sealed by the first key."""
        return replace(record, secret=ENCRYPTED_PREFIX + self.sealer.encrypt(f"{record.kid}\n{record.secret}"))

    def _as_it_lies(self, record: KeyRecord) -> KeyRecord:
        """The text that is in the store already, or for a new key a sealed one (rule 2)."""
        known = self._sealed.get((record.kid, record.secret))
        return replace(record, secret=known) if known else self.sealed(record)

    def _unsealed(self, record: KeyRecord) -> str:
        text = self.sealer.decrypt(record.secret.removeprefix(ENCRYPTED_PREFIX))
        kid, _, secret = (text or "").partition("\n")
        if text is None or kid != record.kid:
            raise ConfigurationError(f"key {record.kid} in the store was sealed with another seal key")
        return secret


def reencrypt_keys(store: SessionStore) -> int:
    """Seals all keys in *store*, which is from ``encrypted_keys``, with its first key; how many it was needed for."""
    if not isinstance(store, _EncryptedKeyStore):
        raise ConfigurationError("there is no seal key: set UNBROKEN_SEAL_KEY, or --seal-key-file")
    records = run_sync(store.inside.keys())
    old = [record for record in records if not _is_done(store.sealer, record)]
    run_sync(store.inside.save_keys([store.sealed(store.opened(record)) for record in old]))
    return len(old)


def count_unencrypted(store: SessionStore) -> int:
    """How many keys lie unsealed in *store*."""
    inside = store.inside if isinstance(store, StoreWrapper) else store
    return sum(not record.is_encrypted for record in run_sync(inside.keys()))


def _is_done(sealer: Encryptor, record: KeyRecord) -> bool:
    return record.is_encrypted and sealer.uses_current_key(record.secret.removeprefix(ENCRYPTED_PREFIX))
