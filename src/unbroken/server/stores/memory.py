"""Sessions in memory, which end with the process: for tests, and for users who may log in again after a restart.

Expired sessions are found by a heap, and revocations are forgotten when the last access token has expired: neither
time nor memory grows with sessions that are over. The number of markers is limited; the oldest leave first.
"""

from __future__ import annotations

import contextlib
import heapq
import threading
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import islice

from unbroken._concurrency import register_fork_aware
from unbroken.errors import ConfigurationError
from unbroken.server.core import rotation
from unbroken.server.core.rotation import Policy, PresentedToken, SessionBinding, SessionFacts, SessionRow
from unbroken.server.keys.keyring import KeyRecord
from unbroken.server.stores.base import MAX_TRIMMED_SESSIONS, Account, StoreProblem
from unbroken.server.stores.pages import next_page_cursor, page_position, place_of

__all__ = ["MemorySessionStore", "open_url"]

MAX_DELETED_AT_ONCE = 100
MAX_MARKERS = 100_000


class MemorySessionStore:
    """Sessions, keys, accounts and markers in memory, for any number of threads of one process."""

    blocking = False  # each method is fast enough for an event loop
    encryption_key_file = None  # the keys end with the process

    def __init__(self) -> None:
        self.reset_after_fork()
        register_fork_aware(self)
        self._rows: dict[bytes, SessionRow] = {}
        self._by_sid: dict[str, bytes] = {}
        self._by_subject: dict[str, dict[bytes, None]] = {}
        self._unrevoked: dict[str, dict[bytes, None]] = {}  # by subject, in the order of their logins
        self._expiries: list[tuple[float, bytes]] = []  # a heap
        self._keys: dict[str, KeyRecord] = {}
        self._accounts: dict[str, Account] = {}
        self._revocations: deque[tuple[int, str, float]] = deque()  # number, sid, announce_until
        self._last_number = 0
        self._markers: dict[bytes, float] = {}  # the last one advanced is the last entry

    def reset_after_fork(self) -> None:
        """Replace the lock. A forked child has a copy of all sessions, and shares none of their changes."""
        self._lock = threading.Lock()  # guards all the others

    def short_timeout(self) -> contextlib.nullcontext[None]:
        return contextlib.nullcontext()

    # ---- sessions ------------------------------------------------------------------------------------------------

    async def insert(self, row: SessionRow) -> None:
        with self._lock:
            for _ in range(MAX_DELETED_AT_ONCE):
                if not self._expiries or self._expiries[0][0] >= row.created_at:
                    break
                self._delete(heapq.heappop(self._expiries)[1])
            self._rows[row.key] = row
            self._by_sid[row.sid] = row.key
            self._by_subject.setdefault(row.subject, {})[row.key] = None
            self._unrevoked.setdefault(row.subject, {})[row.key] = None
            heapq.heappush(self._expiries, (row.expires_at, row.key))

    async def read(self, key: bytes) -> SessionRow | None:
        return self._rows.get(key)

    async def rotate(self, key: bytes, token: PresentedToken, now: float, policy: Policy) -> bool:
        return self._rotate(key, token, now, policy, None) is not None

    async def rotate_returning(
        self, key: bytes, token: PresentedToken, now: float, policy: Policy, binding: SessionBinding | None
    ) -> SessionFacts | None:
        row = self._rotate(key, token, now, policy, binding)
        return None if row is None else row.facts

    def _rotate(
        self, key: bytes, token: PresentedToken, now: float, policy: Policy, binding: SessionBinding | None
    ) -> SessionRow | None:
        with self._lock:
            row = self._rows.get(key)
            if row is None or binding not in (None, row.binding) or rotation.why_inactive(row, now):
                return None
            if not rotation.has_key(row, token):
                return None
            if not rotation.may_rotate(row, token):
                return None
            self._rows[key] = after = rotation.rotate(row, token, now, policy)
            return after

    async def compare_and_set(self, before: SessionRow, after: SessionRow, announce_until: float) -> bool:
        with self._lock:
            if self._rows.get(before.key) != before:
                return False
            self._rows[before.key] = after
            if after.revoked_at is not None and before.revoked_at is None:
                self._forget_unrevoked(after)
                self._announce(after.sid, announce_until, after.revoked_at)
            return True

    async def revoke(
        self,
        now: float,
        reason: str,
        announce_until: float,
        *,
        sid: str | None = None,
        subject: str | None = None,
        except_sid: str | None = None,
    ) -> list[str]:
        with self._lock:
            found = [row for row in self._find(subject, sid) if row.sid != except_sid]
            active = [row for row in found if not rotation.why_inactive(row, now)]
            self._revoke(active, now, reason, announce_until)
            return [row.sid for row in active]

    async def trim(self, subject: str, keep: int, now: float, reason: str, announce_until: float) -> list[str]:
        with self._lock:
            first = [self._rows[key] for key in islice(self._unrevoked.get(subject, ()), keep + MAX_TRIMMED_SESSIONS)]
            if len(first) <= keep:
                return []
            found = heapq.nsmallest(len(first) - keep, first, key=lambda row: (row.used_at, row.created_at, row.key))
            active = [row for row in found if not rotation.why_inactive(row, now)]
            self._revoke(active, now, reason, announce_until)
            for row in found:
                self._forget_unrevoked(row)
            return [row.sid for row in active]

    async def record_first_use(self, sid: str, generation: int, branch: int) -> None:
        with self._lock:
            for row in self._find(None, sid):
                if row.generation == generation and row.first_used_branch is None:
                    self._rows[row.key] = replace(row, first_used_branch=branch)

    async def sessions(self, subject: str | None = None, sid: str | None = None) -> list[SessionRow]:
        with self._lock:
            return sorted(self._find(subject, sid), key=lambda row: -row.used_at)

    async def page(
        self, subject: str | None, limit: int, cursor: str, *, include_revoked: bool
    ) -> tuple[list[SessionRow], str]:
        before = page_position(cursor)
        with self._lock:
            keys: Iterable[bytes] = self._rows
            if subject is not None:
                keys = (self._by_subject if include_revoked else self._unrevoked).get(subject, ())
            rows = (self._rows[key] for key in keys)
            found = heapq.nlargest(limit, (row for row in rows if place_of(row) < before), key=place_of)
        return found, next_page_cursor(found, limit)

    async def revocations(self, after: int) -> tuple[int, list[tuple[str, float]]]:
        with self._lock:
            return self._last_number, [(sid, until) for number, sid, until in self._revocations if number > after]

    # ---- keys and accounts ---------------------------------------------------------------------------------------

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

    async def change_account(
        self, name: str, password_hash: str | None, *, expected: str | None = None, scope: str | None = None
    ) -> bool:
        with self._lock:
            account = self._accounts.get(name)
            if account is None or expected not in (None, account.password_hash):
                return False
            if password_hash is None:
                del self._accounts[name]
            else:
                scope = account.scope if scope is None else scope
                self._accounts[name] = replace(account, password_hash=password_hash, scope=scope)
            return True

    # ---- markers -------------------------------------------------------------------------------------------------

    async def advance_marker(self, key: bytes, now: float, step: float, max_ahead: float) -> float:
        with self._lock:
            marker = min(max(self._markers.pop(key, 0.0), now) + step, now + max_ahead)
            self._markers[key] = marker
            for old in list(islice(self._markers, MAX_DELETED_AT_ONCE)):
                if self._markers[old] < now or len(self._markers) > MAX_MARKERS:
                    del self._markers[old]
            return marker

    async def read_markers(self, keys: Sequence[bytes]) -> list[float]:
        return [self._markers.get(key, 0.0) for key in keys]

    async def clear_markers(self, keys: Sequence[bytes]) -> None:
        with self._lock:
            for key in keys:
                self._markers.pop(key, None)

    # ---- the store -----------------------------------------------------------------------------------------------

    def notifications(self) -> None:
        """Return None: no other process uses this store."""

    async def health(self) -> None:
        """Return: memory always responds."""

    async def problems(self) -> list[StoreProblem]:
        message = "the store is in memory: all sessions and accounts are lost when this process ends"
        return [StoreProblem("memory", message, in_production_only=True)]

    async def aclose(self) -> None:
        self.close()

    def close(self) -> None:
        """Close nothing."""

    # ---- under the lock ------------------------------------------------------------------------------------------

    def _find(self, subject: str | None, sid: str | None) -> list[SessionRow]:
        keys: Iterable[bytes] = self._rows
        if sid is not None:
            keys = [self._by_sid[sid]] if sid in self._by_sid else []
        elif subject is not None:
            keys = self._by_subject.get(subject, ())
        rows = [self._rows[key] for key in keys if key in self._rows]
        return [row for row in rows if subject in (None, row.subject)]

    def _revoke(self, rows: Iterable[SessionRow], now: float, reason: str, announce_until: float) -> None:
        for row in rows:
            self._rows[row.key] = replace(row, revoked_at=now, revoked_why=reason)
            self._forget_unrevoked(row)
            self._announce(row.sid, announce_until, now)

    def _forget_unrevoked(self, row: SessionRow) -> None:
        others = self._unrevoked.get(row.subject, {})
        others.pop(row.key, None)
        if not others:
            self._unrevoked.pop(row.subject, None)

    def _announce(self, sid: str, announce_until: float, now: float) -> None:
        while self._revocations and self._revocations[0][2] < now:
            self._revocations.popleft()
        self._last_number += 1
        self._revocations.append((self._last_number, sid, announce_until))

    def _delete(self, key: bytes) -> None:
        row = self._rows.pop(key, None)
        if row is None:
            return
        self._by_sid.pop(row.sid, None)
        self._forget_unrevoked(row)
        others = self._by_subject.get(row.subject, {})
        others.pop(key, None)
        if not others:
            self._by_subject.pop(row.subject, None)


def open_url(url: str) -> MemorySessionStore:
    """Return a new store. Raise ConfigurationError for anything but ``memory:``."""
    if url.lower() not in ("memory:", "memory://"):
        raise ConfigurationError("a store in memory has no name: write memory:")
    return MemorySessionStore()
