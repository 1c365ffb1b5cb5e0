"""The server's keys, sealed in its store: so a dump of the store, or a backup, signs nothing.

    store = sealed_keys(open_store("postgresql://…"), keys_from_environment("UNBROKEN_SEAL_KEY"))
    sessions = Sessions(store)

1. What is sealed is each key's secret, together with its name: no key can be put in another's place.
2. Several keys may be given: the first seals, every one opens. What lies in the store stays as it is, sealed or not,
   until ``seal_again``: so all processes can be given a new key before anything needs it.
3. A sealed secret takes the place of an unsealed one, and never the other way round (``KeyRecord.joined``).
4. A key that cannot be opened is ConfigurationError, in the log of every process that meets it; nobody is logged out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

from unbroken._bounded_cache import Recent
from unbroken._encryption import Key, Sealer, keys_from_environment, keys_from_file, new_key
from unbroken._sync import run_once
from unbroken.errors import ConfigurationError
from unbroken.server.keys.keyring import SEALED, KeyRecord
from unbroken.server.stores import Around, Store

__all__ = ["keys_from_environment", "keys_from_file", "new_key", "seal_again", "sealed_keys", "unsealed_of"]

REMEMBERED = 1000  # keys are few; of what was opened, the same text is found again each time the store is asked


def sealed_keys(store: Store, key: Key) -> Store:
    """*store*, whose keys are sealed from now on with *key*, or the first of several. Raises ConfigurationError for a
    key that is none.
    """
    return cast("Store", _SealedKeys(store, Sealer(key)))


class _SealedKeys(Around):
    """A store that keeps keys sealed, and gives them open."""

    def __init__(self, inside: Store, sealer: Sealer) -> None:
        super().__init__(inside)
        self.sealer = sealer
        self._open: Recent[tuple[str, str], str] = Recent(REMEMBERED)  # by name and sealed text
        self._sealed: Recent[tuple[str, str], str] = Recent(REMEMBERED)  # by name and open text

    async def keys(self) -> list[KeyRecord]:
        return [self.opened(record) for record in await self.inside.keys()]

    async def save_keys(self, records: Sequence[KeyRecord], *, first: bool = False) -> None:
        await self.inside.save_keys([self._as_it_lies(record) for record in records], first=first)

    def opened(self, record: KeyRecord) -> KeyRecord:
        """*record* with its secret open. Raises ConfigurationError."""
        if not record.is_sealed:
            self._sealed.keep((record.kid, record.secret), record.secret)
            return record
        secret = self._open.get((record.kid, record.secret))
        if secret is None:
            secret = self._unsealed(record)
            self._open.keep((record.kid, record.secret), secret)
            self._sealed.keep((record.kid, secret), record.secret)
        return replace(record, secret=secret)

    def sealed(self, record: KeyRecord) -> KeyRecord:
        """*record* with its secret sealed by the first key."""
        return replace(record, secret=SEALED + self.sealer.seal(f"{record.kid}\n{record.secret}"))

    def _as_it_lies(self, record: KeyRecord) -> KeyRecord:
        """The text that is in the store already, or for a new key a sealed one (rule 2)."""
        known = self._sealed.get((record.kid, record.secret))
        return replace(record, secret=known) if known else self.sealed(record)

    def _unsealed(self, record: KeyRecord) -> str:
        text = self.sealer.opened(record.secret.removeprefix(SEALED))
        kid, _, secret = (text or "").partition("\n")
        if text is None or kid != record.kid:
            raise ConfigurationError(f"key {record.kid} in the store was sealed with another seal key")
        return secret


def seal_again(store: Store) -> int:
    """Seals all keys in *store*, which is from ``sealed_keys``, with its first key; how many it was needed for."""
    if not isinstance(store, _SealedKeys):
        raise ConfigurationError("there is no seal key: set UNBROKEN_SEAL_KEY, or --seal-key-file")
    records = run_once(store.inside.keys())
    old = [record for record in records if not _is_done(store.sealer, record)]
    run_once(store.inside.save_keys([store.sealed(store.opened(record)) for record in old]))
    return len(old)


def unsealed_of(store: Store) -> int:
    """How many keys lie unsealed in *store*."""
    inside = store.inside if isinstance(store, Around) else store
    return sum(not record.is_sealed for record in run_once(inside.keys()))


def _is_done(sealer: Sealer, record: KeyRecord) -> bool:
    return record.is_sealed and sealer.is_newest(record.secret.removeprefix(SEALED))
