"""What is done with the keys of a server: publish, rotate, retire. They are in the store, for all processes alike.

1. A new key is published before it signs, so that verifiers know it when its first tokens arrive.
2. Each operation has two spellings (rule 1 of ``sessions.py``).
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from unbroken._arguments import checked_class
from unbroken._concurrency import run_sync
from unbroken.server.freshness import KeyAndRevocationCache
from unbroken.server.keys.keyring import KeyRecord, Keyring
from unbroken.server.stores import SessionStore
from unbroken.server.stores.base import in_worker, inline, run_inline

__all__ = ["KeyAdmin"]


@checked_class("arotate_keys", "aretire_key")  # the blocking spellings run these
class KeyAdmin:
    """The methods of ``Sessions`` for its keys. ``Sessions`` sets the attributes."""

    store: SessionStore
    clock: Callable[[], float]
    _freshness: KeyAndRevocationCache

    def keyring(self) -> Keyring:
        """Return the keys as the store has them now."""
        return run_sync(self.akeyring())

    @inline
    async def akeyring(self) -> Keyring:
        """``keyring`` for event loops."""
        await self._freshness.refresh_now()
        return self._freshness.keyring

    async def acached_keyring(self, mac_number: int | None = None) -> Keyring:
        """Return the keys as this process knows them, for login endpoints.

        For a token that names the unknown MAC key *mac_number* the store is asked, but not for every such token.
        """
        freshness = self._freshness
        if monotonic() > freshness.fresh_until:
            await run_inline(self.store, freshness.refresh_if_due)
        if mac_number is not None:
            await run_inline(self.store, lambda: freshness.refresh_for_unknown_key(mac_number))
        return freshness.keyring

    def rotate_keys(self, *, publish_ahead: float = 600.0) -> list[KeyRecord]:
        """Make new keys, which are published now and used in *publish_ahead* seconds, and return all keys.

        With 0, other processes and verifiers may not know the new keys when their first tokens arrive.
        """
        return run_sync(self.arotate_keys(publish_ahead=publish_ahead))

    @in_worker
    async def arotate_keys(self, *, publish_ahead: float = 600.0) -> list[KeyRecord]:
        """``rotate_keys`` for event loops."""
        freshness = self._freshness
        await freshness.refresh_now()
        await self.store.save_keys(freshness.keyring.rotated(self.clock(), publish_ahead))  # rule 1
        await freshness.refresh_now()
        return list(freshness.keyring.records)

    def retire_key(self, kid: str) -> bool:
        """Retire a key at once: no token it made is accepted any more. Return False if there is no such key."""
        return run_sync(self.aretire_key(kid))

    @in_worker
    async def aretire_key(self, kid: str) -> bool:
        """``retire_key`` for event loops."""
        freshness = self._freshness
        await freshness.refresh_now()
        records = freshness.keyring.retired(kid, self.clock())
        await self.store.save_keys(records)
        await freshness.refresh_now()
        return bool(records)

    def jwks(self) -> dict[str, object]:
        """Return the public keys as a JWK set (RFC 7517 §5)."""
        return run_sync(self.ajwks())

    @inline
    async def ajwks(self) -> dict[str, object]:
        """``jwks`` for event loops."""
        await self._freshness.refresh_if_due()
        return self._freshness.keyring.jwks(self.clock())
