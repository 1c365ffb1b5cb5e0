"""Sessions in Redis (6.2 or newer) or Valkey, or in a cluster of it, shared by any number of hosts.

1. A session is in one hash slot, and so is all of one subject, and so are all revocations. A change within one slot is
   one script (``redis_scripts``). A change of several slots is ordered so that a crash loses nothing that was promised:
   lists before the session itself, a revocation before its announcement. A revocation that was not announced says so
   in the session, and the next process that reads the session announces it.
2. Rotation relies on the append-only file as it is configured, because rule R1h of rotation heals what a power failure
   takes away. Login, logout, revocation, keys and accounts wait until they are on the disk, where the server can tell:
   WAITAOF, from Redis 7.2 on, with ``appendonly yes``, outside of a cluster. With ``appendfsync everysec`` that takes
   up to a second. Elsewhere a power failure takes the writes since the last flush: one second with ``everysec``, none
   with ``always``. A killed Redis loses nothing either, unless a slow disk delays its log, by up to two seconds.
3. A session is deleted by Redis when it must have expired; a revoked one stays until then, and at least as long as its
   access tokens. Lists keep nothing longer, and each login deletes up to a hundred of their expired entries.
4. All sessions of a subject are revoked in one write: a new *epoch*. A session of an earlier epoch is revoked; this
   includes a login that was half written at that moment.
5. Epochs and revocations count with the clock of Redis and never backwards: a restored backup repeats no number.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import time
from collections.abc import Iterable, Sequence
from dataclasses import astuple, replace
from math import ceil
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from unbroken import _base64
from unbroken._bounded_cache import BoundedCache
from unbroken._drivers.redis import Command, RedisDriver
from unbroken.errors import UnbrokenError
from unbroken.server.core import rotation
from unbroken.server.core.rotation import Policy, PresentedToken, SessionBinding, SessionFacts, SessionRow
from unbroken.server.keys.keyring import KeyRecord
from unbroken.server.stores import redis_scripts as scripts
from unbroken.server.stores.base import MAX_TRIMMED_SESSIONS, Account, Notifications, StoreProblem, clock_problems
from unbroken.server.stores.pages import page_position
from unbroken.server.stores.redis_rows import (
    CHANGING_FIELDS,
    ListEntry,
    RedisKeys,
    account_from,
    encode_key,
    encode_values,
    fixed_text,
    keys_from,
    session_row,
    with_subject_revocation,
)

__all__ = ["RedisSessionStore"]

MAX_SESSIONS_PER_PIPELINE = 200
EXPIRY_MARGIN_SECONDS = 60.0  # Redis keeps what is over so much longer: hosts' clocks differ
MIN_EPOCH_SECONDS = 90 * 86400.0  # an epoch outlives the sessions of its subject, also if its list was lost
MAX_CACHED_SUBJECTS = 20_000
CHANGING_NAMES = tuple(CHANGING_FIELDS.values())
SETTINGS = ("appendonly", "appendfsync", "maxmemory", "maxmemory-policy")


class RedisSessionStore:
    """Sessions, keys, accounts and markers in the Redis at *url*: ``redis://HOST:PORT/0``, ``rediss://``, ``unix://``;
    a cluster is ``redis+cluster://HOST:PORT``, also with several nodes. ``?prefix=shop`` lets applications share it.

    *timeout*, in seconds, is the limit of each wait: for a connection, and for each response. Connects at first use.
    """

    blocking = False  # it suspends where it can

    def __init__(self, url: str, *, timeout: float = 2.0) -> None:
        url, prefix = _split_prefix(url)
        self._driver, self._names = RedisDriver(url, timeout=timeout), RedisKeys(prefix)
        self._execute, self._execute_all = self._driver.execute, self._driver.execute_all
        # By session key: the subject, and whether the session is coordinated. Neither changes.
        self._subjects: BoundedCache[bytes, tuple[str, bool]] = BoundedCache(MAX_CACHED_SUBJECTS)

    def __repr__(self) -> str:
        return f"<RedisSessionStore {self._driver!r}>"

    def short_timeout(self) -> contextlib.nullcontext[None]:
        return contextlib.nullcontext()

    # ---- sessions ------------------------------------------------------------------------------------------------

    async def insert(self, row: SessionRow) -> None:
        entry, life = ListEntry(row.key, row.sid).encode(), _ms(row.expires_at - row.created_at + EXPIRY_MARGIN_SECONDS)
        now, expires_at = repr(row.created_at), repr(row.expires_at)
        lists = (*self._names.subject(row.subject), self._names.unrevoked(row.subject))
        epoch, _, expired = await self._execute_all(  # rule 1: lists first
            [
                ("EVALSHA", scripts.ADD_TO_SUBJECT, 3, *lists, entry, expires_at, life, now),
                ("SET", self._names.sid(row.sid), row.key, "PX", life),
                ("EVALSHA", scripts.ADD_TO_EXPIRIES, 1, self._names.expiries, entry, expires_at, now),
            ]
        )
        values = [part for pair in zip(CHANGING_NAMES, encode_values(row), strict=True) if pair[1] for part in pair]
        insert = (scripts.INSERT, 2, *self._names.session(row.key), life, fixed_text(row), "e", epoch, *values)
        deletes = [("UNLINK", *self._names.session(ListEntry.decode(one).key)) for one in expired]
        await self._execute_all([*deletes, ("EVALSHA", *insert)], durably=True)
        self._subjects.put(row.key, (row.subject, row.coordinated))

    async def read(self, key: bytes) -> SessionRow | None:
        [row] = await self._read_all([key])
        return row

    async def rotate(self, key: bytes, token: PresentedToken, now: float, policy: Policy) -> bool:
        known = self._subjects.get(key)
        if known is None:
            row = await self.read(key)
            if row is None:
                return False
            known = row.subject, row.coordinated
        subject, coordinated = known
        idempotency_hash = b"" if token.idempotency_hash is None else b"=" + token.idempotency_hash
        next_generation = token.generation + 1
        values = (
            token.generation,
            token.branch,
            repr(now),
            repr(now + policy.refresh_ttl),
            idempotency_hash,
            next_generation,
            "=" + token.party if token.party else "",
            repr(policy.grace),
            repr(rotation.hour_of(now)),
            int(coordinated),
            b"" if token.jkt is None else b"=" + token.jkt,
            b"" if token.scope is None else b"=" + token.scope,
        )
        name, (_, epoch) = self._names.session(key)[0], self._names.subject(subject)
        if not self._driver.cluster:
            return await self._execute("EVALSHA", scripts.ROTATE, 2, name, epoch, *values) is not None
        # The epoch is in another slot. A later epoch revokes the session even though it was rotated (rule 4).
        rotate = ("EVALSHA", scripts.ROTATE, 1, name, *values)
        current_epoch, own_epoch = await self._execute_all([("HGET", epoch, "n"), rotate])
        return own_epoch is not None and int(current_epoch or 0) <= int(own_epoch)

    async def rotate_returning(
        self, key: bytes, token: PresentedToken, now: float, policy: Policy, binding: SessionBinding | None
    ) -> SessionFacts | None:
        row = await self.read(key)  # also tells the subject, and with it where the epoch is
        if row is None or row.generation != token.generation or binding not in (None, row.binding):
            return None
        return row.facts if await self.rotate(key, token, now, policy) else None

    async def compare_and_set(self, before: SessionRow, after: SessionRow, announce_until: float) -> bool:
        revokes = after.revoked_at is not None and before.revoked_at is None
        life = _ms(announce_until - (after.revoked_at or 0.0) + EXPIRY_MARGIN_SECONDS) if revokes else ""
        text = fixed_text(after) if fixed_text(after) != fixed_text(before) else ""
        rest = (_change_id(), repr(announce_until) if revokes else "", text, life)
        values = (len(CHANGING_NAMES), *CHANGING_NAMES, *encode_values(before), *encode_values(after), *rest)
        names = self._names.session(before.key)
        if not await self._execute("EVALSHA", scripts.COMPARE_AND_SET, 2, *names, *values):
            return False
        if revokes:
            await self._announce([ListEntry(after.key, after.sid)], after.revoked_at or 0.0, announce_until)
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
        whole_subject = sid is None and subject is not None and except_sid is None
        found = await (self._revoke_subject(subject or "", now, reason) if whole_subject else self._find(sid, subject))
        announced = {1, 2, -1} if whole_subject else {1, 2}  # -1: a half written login, which the epoch revoked
        entries = [entry for entry in found if entry.sid != except_sid]
        return await self._revoke_entries(entries, now, reason, announce_until, announced)

    async def _revoke_entries(
        self, entries: Sequence[ListEntry], now: float, reason: str, announce_until: float, announced: set[int]
    ) -> list[str]:
        life = _ms(announce_until - now + EXPIRY_MARGIN_SECONDS)
        values = (repr(now), "=" + reason, repr(announce_until), _change_id(), life)
        revoked: list[str] = []
        for some in _in_pipelines(entries):
            commands = [("EVALSHA", scripts.REVOKE, 2, *self._names.session(entry.key), *values) for entry in some]
            states = list(zip(some, await self._execute_all(commands), strict=True))
            await self._announce([entry for entry, state in states if state in announced], now, announce_until)
            revoked += [entry.sid for entry, state in states if state == 1]
        return revoked

    async def trim(self, subject: str, keep: int, now: float, reason: str, announce_until: float) -> list[str]:
        name = self._names.unrevoked(subject)
        if await self._execute("ZCARD", name) <= keep:
            return []
        scored = await self._execute("ZRANGE", name, 0, keep + MAX_TRIMMED_SESSIONS - 1, "WITHSCORES")
        entries = list(map(ListEntry.decode, scored[::2]))
        rows = [row for some in _in_pipelines(entries) for row in await self._read_all([one.key for one in some])]
        active: list[tuple[SessionRow, ListEntry]] = []
        over: list[ListEntry] = []
        for entry, row, at in zip(entries, rows, scored[1::2], strict=True):
            if row is not None and not rotation.why_inactive(row, now):
                active.append((row, entry))
            elif row is not None or float(at) < now - EXPIRY_MARGIN_SECONDS:
                over.append(entry)
        # A login that is half written does not count: when it is whole, it trims by itself, and sees this one.
        active.sort(key=lambda one: (one[0].used_at, one[0].created_at, one[0].key))
        oldest = [entry for _, entry in active[: max(len(active) - keep, 0)]]
        revoked = await self._revoke_entries(oldest, now, reason, announce_until, {1, 2})
        if gone := [entry.encode() for entry in (*over, *oldest)]:
            await self._execute("ZREM", name, *gone)
        return revoked

    async def record_first_use(self, sid: str, generation: int, branch: int) -> None:
        key = await self._execute("GET", self._names.sid(sid))
        if key is not None:
            name, _ = self._names.session(key)
            await self._execute("EVALSHA", scripts.RECORD_FIRST_USE, 1, name, generation, branch)

    async def sessions(self, subject: str | None = None, sid: str | None = None) -> list[SessionRow]:
        found: dict[bytes, SessionRow] = {}
        for some in _in_pipelines(await self._find(sid, subject)):
            rows = await self._read_all([entry.key for entry in some])
            found |= {row.key: row for row in rows if row is not None and subject in (None, row.subject)}
        return sorted(found.values(), key=lambda row: -row.used_at)

    async def page(
        self, subject: str | None, limit: int, cursor: str, *, include_revoked: bool
    ) -> tuple[list[SessionRow], str]:
        name = self._names.expiries if subject is None else self._names.subject(subject)[0]
        if subject is not None and not include_revoked:
            name = self._names.unrevoked(subject)
        start = await self._page_start(name, cursor)
        scored = await self._execute("ZRANGE", name, start, start + limit - 1, "REV", "WITHSCORES")
        entries = list(map(ListEntry.decode, scored[::2]))
        rows = [row for some in _in_pipelines(entries) for row in await self._read_all([one.key for one in some])]
        found = [row for row in rows if row is not None and subject in (None, row.subject)]
        last = "" if len(entries) < limit else f"{float(scored[-1])!r}_{_base64.encode(scored[-2])}"
        return found, last

    async def _page_start(self, name: str, cursor: str) -> int:
        """Return where in the list *name* a page begins. Raise ValueError for a malformed *cursor*."""
        if not cursor:
            return 0
        score, entry = page_position(cursor)
        rank = await self._execute("ZREVRANK", name, _base64.decode(entry))
        if rank is not None:
            return int(rank) + 1
        return int(await self._execute("ZCOUNT", name, f"({score!r}", "+inf"))  # it was deleted meanwhile

    async def revocations(self, after: int) -> tuple[int, list[tuple[str, float]]]:
        command = ("ZRANGE", self._names.revocations, f"({after}", "+inf", "BYSCORE", "WITHSCORES")
        response = await self._execute(*command)
        found = [text.decode().partition(" ") for text in response[::2]]
        return (int(float(response[-1])) if response else after), [(sid, float(until)) for until, _, sid in found]

    # ---- keys and accounts ---------------------------------------------------------------------------------------

    async def keys(self) -> list[KeyRecord]:
        return keys_from(await self._execute("HGETALL", self._names.keys))

    async def save_keys(self, records: Sequence[KeyRecord], *, first: bool = False) -> None:
        values = [part for record in records for part in encode_key(record)]
        command = ("EVALSHA", scripts.SAVE_KEYS, 1, self._names.keys, self._names.channel, int(first), *values)
        await self._execute_all([command], durably=True)

    async def accounts(self) -> list[Account]:
        found = await self._execute("HGETALL", self._names.accounts)
        return sorted((account_from(name.decode(), text) for name, text in found.items()), key=lambda one: one.name)

    async def account(self, name: str) -> Account | None:
        text = await self._execute("HGET", self._names.accounts, name)
        return None if text is None else account_from(name, text)

    async def add_account(self, account: Account) -> bool:
        name, *rest = astuple(account)
        command = ("HSETNX", self._names.accounts, name, json.dumps(rest))
        [added] = await self._execute_all([command], once=True, durably=True)
        return bool(added)

    async def change_account(
        self, name: str, password_hash: str | None, *, expected: str | None = None, scope: str | None = None
    ) -> bool:
        while (text := await self._execute("HGET", self._names.accounts, name)) is not None:
            account = account_from(name, text)
            if expected not in (None, account.password_hash):
                return False
            after = ""
            if password_hash is not None:
                kept = account.scope if scope is None else scope
                after = json.dumps(astuple(replace(account, password_hash=password_hash, scope=kept))[1:])
            command = ("EVALSHA", scripts.CHANGE_ACCOUNT, 1, self._names.accounts, name, text, after)
            if (await self._execute_all([command], once=True, durably=True))[0]:
                return True
        return False

    # ---- markers -------------------------------------------------------------------------------------------------

    async def advance_marker(self, key: bytes, now: float, step: float, max_ahead: float) -> float:
        values = (repr(float(now)), repr(float(step)), repr(float(max_ahead)))
        return float(await self._execute("EVALSHA", scripts.ADVANCE_MARKER, 1, self._names.marker(key), *values))

    async def read_markers(self, keys: Sequence[bytes]) -> list[float]:
        found = await self._execute_all([("GET", self._names.marker(key)) for key in keys])
        return [float(marker or 0) for marker in found]

    async def clear_markers(self, keys: Sequence[bytes]) -> None:
        await self._execute_all([("UNLINK", self._names.marker(key)) for key in keys])

    # ---- the store -----------------------------------------------------------------------------------------------

    def notifications(self) -> Notifications:
        return self._driver.subscriber(self._names.channel)

    async def health(self) -> None:
        await self._execute("EXISTS", self._names.keys)

    async def problems(self) -> list[StoreProblem]:
        asked_at = time.time()
        seconds, microseconds = await self._execute("TIME")
        found = clock_problems(int(seconds) + int(microseconds) / 1e6, asked_at, time.time())
        settings = await self._settings()
        if settings.get("appendonly") == "no":
            message = "Redis runs with appendonly no: a restart loses sessions; set appendonly yes"
            found.append(StoreProblem("durability", message))
        elif settings.get("appendfsync") == "no":
            message = "Redis runs with appendfsync no: a power failure loses logins; set appendfsync everysec"
            found.append(StoreProblem("durability", message))
        policy = settings.get("maxmemory-policy", "noeviction")
        if policy != "noeviction" and settings.get("maxmemory", "0") != "0":
            message = f"Redis may evict sessions (maxmemory-policy {policy}): set maxmemory-policy noeviction"
            found.append(StoreProblem("eviction", message))
        return found

    async def aclose(self) -> None:
        await self._driver.aclose()

    def close(self) -> None:
        """Close the connections of threads; those of an event loop close when it ends, or with ``aclose``."""
        self._driver.close()

    # ---- parts ---------------------------------------------------------------------------------------------------

    async def _read_all(self, keys: Sequence[bytes]) -> list[SessionRow | None]:
        """Return the rows with these keys, each with the epoch of its subject applied (rule 4)."""
        names = [self._names.session(key) for key in keys]
        reads: list[Command] = [part for row, text in names for part in (("HGETALL", row), ("GET", text))]
        known = {cached[0] for key in keys if (cached := self._subjects.get(key)) is not None}
        responses = await self._execute_all([*reads, *self._read_epochs(known)])
        hashes, texts = responses[: len(reads) : 2], responses[1 : len(reads) : 2]
        rows = [session_row(key, *found) for key, *found in zip(keys, hashes, texts, strict=True)]
        epochs = dict(zip(known, responses[len(reads) :], strict=True))
        others = {row.subject for row in rows if row is not None} - known
        epochs |= dict(zip(others, await self._execute_all(self._read_epochs(others)), strict=True))
        return [await self._apply_epoch(row, hashes[n], epochs) for n, row in enumerate(rows)]

    async def _apply_epoch(
        self, row: SessionRow | None, changing: dict[bytes, bytes], epochs: dict[str, Any]
    ) -> SessionRow | None:
        if row is None:
            return None
        self._subjects.put(row.key, (row.subject, row.coordinated))
        if (announce_until := changing.get(b"o")) and row.revoked_at is not None:  # rule 1
            await self._announce([ListEntry(row.key, row.sid)], row.revoked_at, float(announce_until))
        return with_subject_revocation(row, changing[b"e"], epochs[row.subject])

    def _read_epochs(self, subjects: Iterable[str]) -> list[Command]:
        return [("HMGET", self._names.subject(subject)[1], "n", "r", "w") for subject in subjects]

    async def _announce(self, entries: Sequence[ListEntry], now: float, announce_until: float) -> None:
        """Announce revocations, durably; then delete the note in each session that this is still to be done."""
        if not entries:
            return
        names = (self._names.revocations, self._names.last_revocation)
        values = (self._names.channel, repr(now), repr(announce_until), *(entry.sid for entry in entries))
        await self._execute_all([("EVALSHA", scripts.ANNOUNCE, 2, *names, *values)], durably=True)
        await self._execute_all([("HDEL", self._names.session(entry.key)[0], "o") for entry in entries])

    async def _find(self, sid: str | None, subject: str | None) -> list[ListEntry]:
        """Return the entries of those sessions, and perhaps of some that were deleted."""
        if sid is not None:
            key = await self._execute("GET", self._names.sid(sid))
            row = await self.read(key) if key is not None and subject is not None else None
            fits = key is not None and (subject is None or (row is not None and row.subject == subject))
            return [ListEntry(key, sid)] if fits else []
        if subject is not None:
            return list(map(ListEntry.decode, await self._execute("ZRANGE", self._names.subject(subject)[0], 0, -1)))
        found: dict[ListEntry, None] = {}  # a scan may return an entry twice
        cursor: int | None = None
        while cursor != 0:
            command = ("ZSCAN", self._names.expiries, cursor or 0, "COUNT", MAX_SESSIONS_PER_PIPELINE)
            next_cursor, scored = await self._execute(*command)
            cursor = int(next_cursor)
            found |= {ListEntry.decode(data): None for data, _ in scored}
        return list(found)

    async def _revoke_subject(self, subject: str, now: float, reason: str) -> list[ListEntry]:
        """Revoke all sessions of *subject* with a new epoch (rule 4); return their entries."""
        values = (repr(now), reason, _ms(MIN_EPOCH_SECONDS))
        command = ("EVALSHA", scripts.REVOKE_SUBJECT, 2, *self._names.subject(subject), *values)
        return list(map(ListEntry.decode, await self._execute(*command)))

    async def _settings(self) -> dict[str, str]:
        """Return the settings of the server; those that it does not tell, as most hosted ones, are missing."""
        found: dict[str, str] = {}
        for name in SETTINGS:
            try:
                response = await self._execute("CONFIG", "GET", name)
            except UnbrokenError:
                return found
            pairs = response.items() if isinstance(response, dict) else zip(response[::2], response[1::2], strict=False)
            found |= {_text(key): _text(value) for key, value in pairs}
        return found


def _in_pipelines(entries: Sequence[ListEntry]) -> Iterable[Sequence[ListEntry]]:
    count = MAX_SESSIONS_PER_PIPELINE
    return (entries[at : at + count] for at in range(0, len(entries), count))


def _change_id() -> bytes:
    return secrets.token_bytes(8)  # a command that is sent twice makes one change


def _ms(seconds: float) -> int:
    return max(1, ceil(seconds * 1000))


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _split_prefix(url: str) -> tuple[str, str]:
    """Return *url* without ``?prefix=…``, and the prefix of all names."""
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query))
    prefix = query.pop("prefix", "unbroken")
    return (url if "prefix" not in parts.query else urlunsplit((*parts[:3], urlencode(query), parts[4]))), prefix
