"""What one process knows of the keys and of revoked sessions, kept fresh by asking the store now and then.

1. What this process revokes, it knows at once. What another one on the same store revokes, it knows within ``EVERY``
   seconds: whoever verifies a token asks first, if the last answer is older than that.
2. One asks at a time; others go on with what is known, as long as that is younger than ``STALE`` seconds.
3. A revocation is forgotten when the last access token of its session must have expired: the set is bounded by the
   revocations of one access lifetime.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from unbroken.server.keys import Keyring, new_mac_key, new_signing_key
from unbroken.server.stores import Store

__all__ = ["Watch"]

EVERY = 0.4
STALE = 0.8


class Watch:
    """The keyring and the revoked sids, as of less than a second ago."""

    def __init__(self, store: Store, token_ttls: Mapping[str, float], clock: Callable[[], float]) -> None:
        self._store, self._token_ttls, self._clock = store, token_ttls, clock
        self._asking = threading.Lock()
        self._asked = float("-inf")  # on the monotonic clock
        self._cursor = 0
        self.keyring = Keyring(())
        self.revoked: dict[str, float] = {}

    @property
    def due(self) -> bool:
        """Whether the store should be asked before anything is believed."""
        return time.monotonic() - self._asked > EVERY

    async def look(self) -> None:
        """Asks the store if that is due. Makes the first keys if there are none."""
        wait = time.monotonic() - self._asked > STALE
        if not self.due or not self._asking.acquire(blocking=wait):
            return
        try:
            if self.due:
                await self.look_now()
        finally:
            self._asking.release()

    async def look_now(self) -> None:
        """Asks the store, whenever it was asked last."""
        asked = time.monotonic()
        records = await self._store.keys()
        if not records:
            now = self._clock()
            await self._store.save_keys((new_signing_key("EdDSA", now, now), new_mac_key(1, now, now)), first=True)
            records = await self._store.keys()
        if short := [record for record in records if record.token_ttl < self._token_ttls[record.use]]:
            await self._store.save_keys([replace(key, token_ttl=self._token_ttls[key.use]) for key in short])
            records = await self._store.keys()
        if tuple(records) != self.keyring.records:
            self.keyring = Keyring(records, self.keyring)
        self._cursor, news = await self._store.revocations(self._cursor)
        self.learn(news)
        self._asked = asked

    def learn(self, revocations: list[tuple[str, float]]) -> None:
        """Takes note of revoked sids, each with how long it must be remembered."""
        if revocations:
            now = self._clock()
            known = {sid: until for sid, until in self.revoked.items() if until > now}
            self.revoked = known | dict(revocations)
