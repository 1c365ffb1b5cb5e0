"""Sessions that live as long as the process: for tests, and for users who may log in again after a restart."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Sequence
from dataclasses import replace

from unbroken.server import rotation
from unbroken.server.keys import KeyRecord
from unbroken.server.rotation import Policy, Presented, Row
from unbroken.server.stores import Account

__all__ = ["MemoryStore"]


class MemoryStore:
    """Sessions, keys and accounts in memory, for any number of threads of one process."""

    blocking = False  # nothing here is slow enough for a thread of its own

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards all of it
        self._rows: dict[bytes, Row] = {}
        self._keys: dict[str, KeyRecord] = {}
        self._accounts: dict[str, Account] = {}
        self._revoked: list[tuple[str, float]] = []

    async def insert(self, row: Row) -> None:
        with self._lock:
            over = (key for key, old in self._rows.items() if old.expires_at < row.created_at)
            for key in list(itertools.islice(over, 100)):
                del self._rows[key]
            self._rows[row.key] = row

    async def read(self, key: bytes) -> Row | None:
        return self._rows.get(key)

    async def rotate(self, key: bytes, token: Presented, now: float, refresh_ttl: float) -> bool:
        with self._lock:
            row = self._rows.get(key)
            if row is None or rotation.why_dead(row, now) or token.g != row.g or row.seen not in (None, token.b):
                return False
            self._rows[key] = rotation.rotate(row, token, now, Policy(refresh_ttl=refresh_ttl))
            return True

    async def swap(self, before: Row, after: Row, dead_until: float) -> bool:
        with self._lock:
            if self._rows.get(before.key) != before:
                return False
            self._rows[before.key] = after
            if after.revoked_at is not None and before.revoked_at is None:
                self._revoked.append((after.sid, dead_until))
            return True

    async def revoke(
        self, now: float, why: str, dead_until: float, *, sid: str = "", subject: str = "", keep: str = ""
    ) -> list[str]:
        with self._lock:
            ended = [
                row
                for row in self._rows.values()
                if row.revoked_at is None and sid in ("", row.sid) and subject in ("", row.subject) and row.sid != keep
            ]
            for row in ended:
                self._rows[row.key] = replace(row, revoked_at=now, revoked_why=why)
                self._revoked.append((row.sid, dead_until))
            return [row.sid for row in ended]

    async def confirm(self, sid: str, g: int, b: int) -> None:
        with self._lock:
            for row in self._rows.values():
                if row.sid == sid and row.g == g and row.seen is None:
                    self._rows[row.key] = replace(row, seen=b)
                    return

    async def sessions(self, subject: str | None = None, sid: str | None = None) -> list[Row]:
        with self._lock:
            rows = [r for r in self._rows.values() if subject in (None, r.subject) and sid in (None, r.sid)]
        return sorted(rows, key=lambda row: -row.used_at)

    async def revocations(self, after: int) -> tuple[int, list[tuple[str, float]]]:
        return len(self._revoked), self._revoked[after:]

    async def keys(self) -> list[KeyRecord]:
        return list(self._keys.values())

    async def save_keys(self, records: Sequence[KeyRecord], *, first: bool = False) -> None:
        with self._lock:
            if not (first and self._keys):
                self._keys |= {record.kid: self._keys.get(record.kid, record).joined(record) for record in records}

    async def accounts(self) -> list[Account]:
        return sorted(self._accounts.values(), key=lambda account: account.name)

    async def account(self, name: str) -> Account | None:
        return self._accounts.get(name)

    async def add_account(self, account: Account) -> bool:
        with self._lock:
            return self._accounts.setdefault(account.name, account) is account

    async def change_account(self, name: str, password_hash: str | None) -> bool:
        with self._lock:
            account = self._accounts.pop(name, None)
            if account is not None and password_hash is not None:
                self._accounts[name] = replace(account, password_hash=password_hash)
            return account is not None

    def close(self) -> None:
        """Nothing is held."""
