"""Sessions that live as long as the process: for tests, and for users who may log in again after a restart.

Nothing takes longer, or more room, because of sessions that are over: they are found by when they expire, and what was
revoked is forgotten when its last access token is dead. The table of strikes is bounded: of too many, the oldest go.
"""

from __future__ import annotations

import contextlib
import heapq
import threading
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import islice

from unbroken.server.core import rotation
from unbroken.server.core.rotation import PresentedToken, SessionRow
from unbroken.server.keys.keyring import KeyRecord
from unbroken.server.stores import Account

__all__ = ["MemorySessionStore"]

CLEARED_AT_ONCE = 100
STRIKES_REMEMBERED = 100_000


class MemorySessionStore:
    """Sessions, keys and accounts in memory, for any number of threads of one process."""

    blocking = False  # nothing here is slow enough for a thread of its own

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards all of it
        self._rows: dict[bytes, SessionRow] = {}
        self._by_sid: dict[str, bytes] = {}
        self._by_subject: dict[str, dict[bytes, None]] = {}
        self._ends: list[tuple[float, bytes]] = []  # when rows expire: a heap
        self._keys: dict[str, KeyRecord] = {}
        self._accounts: dict[str, Account] = {}
        self._revoked: deque[tuple[int, str, float]] = deque()  # number, sid, until
        self._number = 0
        self._strikes: dict[bytes, float] = {}  # the one that was moved last stands last

    def short_timeout(self) -> contextlib.nullcontext[None]:
        return contextlib.nullcontext()

    async def insert(self, row: SessionRow) -> None:
        with self._lock:
            for _ in range(CLEARED_AT_ONCE):
                if not self._ends or self._ends[0][0] >= row.created_at:
                    break
                self._clear(heapq.heappop(self._ends)[1])
            self._rows[row.key] = row
            self._by_sid[row.sid] = row.key
            self._by_subject.setdefault(row.subject, {})[row.key] = None
            heapq.heappush(self._ends, (row.expires_at, row.key))

    async def read(self, key: bytes) -> SessionRow | None:
        return self._rows.get(key)

    async def rotate(self, key: bytes, token: PresentedToken, now: float, refresh_ttl: float) -> bool:
        return self._rotated(key, token, now, refresh_ttl, None) is not None

    async def rotate_returning(
        self, key: bytes, token: PresentedToken, now: float, refresh_ttl: float, client_id: str | None
    ) -> SessionRow | None:
        return self._rotated(key, token, now, refresh_ttl, client_id)

    def _rotated(
        self, key: bytes, token: PresentedToken, now: float, refresh_ttl: float, client_id: str | None
    ) -> SessionRow | None:
        with self._lock:
            row = self._rows.get(key)
            if (
                row is None
                or rotation.why_inactive(row, now)
                or token.generation != row.generation
                or row.first_used_branch not in (None, token.branch)
            ):
                return None
            if client_id not in (None, row.client_id):
                return None
            self._rows[key] = after = rotation.rotate(row, token, now, refresh_ttl)
            return after

    async def compare_and_set(self, before: SessionRow, after: SessionRow, dead_until: float) -> bool:
        with self._lock:
            if self._rows.get(before.key) != before:
                return False
            self._rows[before.key] = after
            if after.revoked_at is not None and before.revoked_at is None:
                self._announce(after.sid, dead_until, after.revoked_at)
            return True

    async def revoke(
        self,
        now: float,
        why: str,
        dead_until: float,
        *,
        sid: str | None = None,
        subject: str | None = None,
        keep: str | None = None,
    ) -> list[str]:
        with self._lock:
            found = self._found(subject, sid)
            ended = [row for row in found if row.sid != keep and not rotation.why_inactive(row, now)]
            for row in ended:
                self._rows[row.key] = replace(row, revoked_at=now, revoked_why=why)
                self._announce(row.sid, dead_until, now)
            return [row.sid for row in ended]

    async def record_first_use(self, sid: str, generation: int, branch: int) -> None:
        with self._lock:
            for row in self._found(None, sid):
                if row.generation == generation and row.first_used_branch is None:
                    self._rows[row.key] = replace(row, first_used_branch=branch)

    async def sessions(self, subject: str | None = None, sid: str | None = None) -> list[SessionRow]:
        with self._lock:
            return sorted(self._found(subject, sid), key=lambda row: -row.used_at)

    async def revocations(self, after: int) -> tuple[int, list[tuple[str, float]]]:
        with self._lock:
            return self._number, [(sid, until) for number, sid, until in self._revoked if number > after]

    async def keys(self) -> list[KeyRecord]:
        return sorted(self._keys.values(), key=lambda key: (key.created_at, key.kid))

    async def save_keys(self, records: Sequence[KeyRecord], *, first: bool = False) -> None:
        with self._lock:
            if not (first and self._keys):
                self._keys |= {record.kid: self._keys.get(record.kid, record).merged_with(record) for record in records}

    async def accounts(self) -> list[Account]:
        return sorted(self._accounts.values(), key=lambda account: account.name)

    async def account(self, name: str) -> Account | None:
        return self._accounts.get(name)

    async def add_account(self, account: Account) -> bool:
        with self._lock:
            return self._accounts.setdefault(account.name, account) is account

    async def change_account(self, name: str, password_hash: str | None, *, expected: str | None = None) -> bool:
        with self._lock:
            account = self._accounts.get(name)
            if account is None or expected not in (None, account.password_hash):
                return False
            if password_hash is None:
                del self._accounts[name]
            else:
                self._accounts[name] = replace(account, password_hash=password_hash)
            return True

    async def advance_marker(self, key: bytes, now: float, every: float, most: float) -> float:
        with self._lock:
            until = min(max(self._strikes.pop(key, 0.0), now) + every, now + most)
            self._strikes[key] = until
            for old in list(islice(self._strikes, CLEARED_AT_ONCE)):
                if self._strikes[old] < now or len(self._strikes) > STRIKES_REMEMBERED:
                    del self._strikes[old]
            return until

    async def read_markers(self, keys: Sequence[bytes]) -> list[float]:
        return [self._strikes.get(key, 0.0) for key in keys]

    async def clear_markers(self, keys: Sequence[bytes]) -> None:
        with self._lock:
            for key in keys:
                self._strikes.pop(key, None)

    def notifications(self) -> None:
        """Nobody else is there to announce anything."""

    async def health(self) -> None:
        """It is there."""

    async def aclose(self) -> None:
        self.close()

    def close(self) -> None:
        """Nothing is held."""

    # ---- under the lock ----------------------------------------------------------------------------------------

    def _found(self, subject: str | None, sid: str | None) -> list[SessionRow]:
        """The rows of this subject, with this sid, where given."""
        keys: Iterable[bytes] = self._rows
        if sid is not None:
            keys = [self._by_sid[sid]] if sid in self._by_sid else []
        elif subject is not None:
            keys = self._by_subject.get(subject, ())
        rows = [self._rows[key] for key in keys if key in self._rows]
        return [row for row in rows if subject in (None, row.subject)]

    def _announce(self, sid: str, until: float, now: float) -> None:
        """For ``revocations``; what nobody needs to know any more is forgotten."""
        while self._revoked and self._revoked[0][2] < now:
            self._revoked.popleft()
        self._number += 1
        self._revoked.append((self._number, sid, until))

    def _clear(self, key: bytes) -> None:
        row = self._rows.pop(key, None)
        if row is None:
            return
        self._by_sid.pop(row.sid, None)
        mine = self._by_subject.get(row.subject, {})
        mine.pop(key, None)
        if not mine:
            self._by_subject.pop(row.subject, None)
