"""Sessions in Redis (from 6.2 on) or Valkey, or in a cluster of it, shared by any number of hosts.

1. A session is in one hash slot, so is all of a subject, and the feed of revocations. What one of them needs is one
   script (``redis_scripts.py``); what concerns several is written in an order in which a crash loses nothing that was
   promised: lists before the session itself, a session's end before its announcement. An end that was not announced
   says so in the session, and whoever meets it next announces it.
2. Rotation relies on the server's own log, because R1h heals what a power cut takes away. Login, logout, revocation,
   keys and accounts wait until the disk has them, where the server can say so: WAITAOF, from Redis 7.2 on, with
   ``appendonly yes``, outside of a cluster; with ``appendfsync everysec`` that is up to a second. Elsewhere a power cut
   takes what was written since the last flush: one second with ``everysec``, nothing with ``always``. That the process
   is killed takes nothing.
3. A session goes by itself when it must have expired; a revoked one stays until then, and as long as its tokens could
   live. Lists keep no more than that, and are cleared of a hundred entries at each login.
4. All sessions of a subject end in one write: a new *epoch*. A session whose login was in an older one is over, also
   a login that was half done just then.
5. Epochs and the feed count by the clock of Redis, and never back: a restored older state repeats no number.
"""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import astuple, replace
from math import ceil
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from unbroken._bounded_cache import BoundedCache
from unbroken._drivers.redis import Command, RedisDriver
from unbroken.server.core import rotation
from unbroken.server.core.rotation import PresentedToken, SessionRow
from unbroken.server.keys.keyring import KeyRecord
from unbroken.server.stores import Account, Notifications
from unbroken.server.stores import redis_scripts as scripts
from unbroken.server.stores.redis_rows import (
    CHANGING,
    Entry,
    Names,
    account_of,
    ended_by,
    key_written,
    keys_of,
    lasting,
    row_of,
    values_of,
)

__all__ = ["RedisSessionStore"]

AT_ONCE = 200  # sessions that are asked for in one question
EPOCH = ("n", "r", "w")
MARGIN = 60.0  # seconds that Redis keeps what is over: hosts' clocks differ
EPOCH_KEPT = 90 * 86400.0  # at least, if no list says how long the sessions of a subject can live
SUBJECTS_REMEMBERED = 20_000
CHANGING_NAMES = tuple(CHANGING.values())


class RedisSessionStore:
    """Sessions, keys and accounts in the Redis at *url*: ``redis://HOST:PORT/0``, ``rediss://``, ``unix://``; a cluster
    is ``redis+cluster://HOST:PORT``, also with several nodes. Applications that share a server: ``?prefix=shop``.

    *timeout*, in seconds, bounds every wait: for a connection, and for each answer. Nothing is asked before it is used.
    """

    blocking = False  # there is a driver for event loops, too

    def __init__(self, url: str, *, timeout: float = 2.0) -> None:
        url, prefix = _without_prefix(url)
        self._bind, self._names = RedisDriver(url, timeout=timeout), Names(prefix)
        self._ask, self._ask_all = self._bind.ask, self._bind.ask_all
        self._subjects: BoundedCache[bytes, str] = BoundedCache(SUBJECTS_REMEMBERED)  # of sessions; that never changes

    def __repr__(self) -> str:
        return f"<RedisSessionStore {self._bind!r}>"

    def short_timeout(self) -> contextlib.nullcontext[None]:
        return contextlib.nullcontext()

    def close(self) -> None:
        """Closes the connections of threads; those of an event loop close when it ends, or by ``aclose``."""
        self._bind.close()

    async def aclose(self) -> None:
        await self._bind.aclose()

    async def health(self) -> None:
        await self._ask("EXISTS", self._names.keys)

    def notifications(self) -> Notifications:
        return self._bind.listener(self._names.channel)

    # ---- sessions ------------------------------------------------------------------------------------------------

    async def insert(self, row: SessionRow) -> None:
        entry, life = Entry(row.key, row.sid).text(), _ms(row.expires_at - row.created_at + MARGIN)
        now, ends_at = repr(row.created_at), repr(row.expires_at)
        epoch, _, over = await self._ask_all(
            [
                ("EVALSHA", scripts.LIST, 2, *self._names.subject(row.subject), entry, ends_at, life, now),
                ("SET", self._names.sid(row.sid), row.key, "PX", life),
                ("EVALSHA", scripts.ENDS, 1, self._names.ends, entry, ends_at, now),
            ]
        )
        values = [part for pair in zip(CHANGING_NAMES, values_of(row), strict=True) if pair[1] for part in pair]
        made = (scripts.INSERT, 2, *self._names.row(row.key), life, lasting(row), "e", epoch, *values)
        cleared = [("UNLINK", *self._names.row(Entry.read(one).key)) for one in over]
        await self._ask_all([*cleared, ("EVALSHA", *made)], durably=True)
        self._subjects.put(row.key, row.subject)

    async def read(self, key: bytes) -> SessionRow | None:
        [row] = await self._rows([key])
        return row

    async def rotate(self, key: bytes, token: PresentedToken, now: float, refresh_ttl: float) -> bool:
        subject = self._subjects.get(key)
        if subject is None:
            row = await self.read(key)
            if row is None:
                return False
            subject = row.subject
        attempt = b"" if token.idempotency_hash is None else b"=" + token.idempotency_hash
        values = (token.generation, token.branch, repr(now), repr(now + refresh_ttl), attempt, token.generation + 1)
        name, (_, epoch) = self._names.row(key)[0], self._names.subject(subject)
        if not self._bind.cluster:
            return await self._ask("EVALSHA", scripts.ROTATE, 2, name, epoch, *values) is not None
        # The epoch is in another slot. If it is a later one, what was just rotated is over all the same.
        newest, then = await self._ask_all([("HGET", epoch, "n"), ("EVALSHA", scripts.ROTATE, 1, name, *values)])
        return then is not None and int(newest or 0) <= int(then)

    async def rotate_returning(
        self, key: bytes, token: PresentedToken, now: float, refresh_ttl: float, client_id: str | None
    ) -> SessionRow | None:
        row = await self.read(key)  # it says whose it is, and so where the end of all their sessions would stand
        if row is None or row.generation != token.generation or client_id not in (None, row.client_id):
            return None
        if not await self.rotate(key, token, now, refresh_ttl):
            return None
        return rotation.rotate(row, token, now, refresh_ttl)

    async def compare_and_set(self, before: SessionRow, after: SessionRow, dead_until: float) -> bool:
        ends = after.revoked_at is not None and before.revoked_at is None
        life = _ms(dead_until - (after.revoked_at or 0.0) + MARGIN) if ends else ""
        about = lasting(after) if lasting(after) != lasting(before) else ""
        rest = (secrets.token_bytes(8), repr(dead_until) if ends else "", about, life)
        values = (len(CHANGING), *CHANGING_NAMES, *values_of(before), *values_of(after), *rest)
        names = self._names.row(before.key)
        if not await self._ask("EVALSHA", scripts.SWAP, 2, *names, *values):
            return False
        if ends:
            await self._announce([Entry(after.key, after.sid)], after.revoked_at or 0.0, dead_until)
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
        everybody = sid is None and subject is not None and keep is None
        found = await (self._bumped(subject or "", now, why) if everybody else self._entries(sid, subject))
        ended: list[str] = []
        end = (repr(now), "=" + why, repr(dead_until), secrets.token_bytes(8), _ms(dead_until - now + MARGIN))
        told = {1, 2, -1} if everybody else {1, 2}  # -1: a login that is half done, and over already
        for some in _parts([entry for entry in found if entry.sid != keep]):
            asked = [("EVALSHA", scripts.END, 2, *self._names.row(entry.key), *end) for entry in some]
            states = list(zip(some, await self._ask_all(asked), strict=True))
            await self._announce([entry for entry, state in states if state in told], now, dead_until)
            ended += [entry.sid for entry, state in states if state == 1]
        return ended

    async def record_first_use(self, sid: str, generation: int, branch: int) -> None:
        key = await self._ask("GET", self._names.sid(sid))
        if key is not None:
            await self._ask("EVALSHA", scripts.CONFIRM, 1, self._names.row(key)[0], generation, branch)

    async def sessions(self, subject: str | None = None, sid: str | None = None) -> list[SessionRow]:
        found: dict[bytes, SessionRow] = {}
        for some in _parts(await self._entries(sid, subject)):
            rows = await self._rows([entry.key for entry in some])
            found |= {row.key: row for row in rows if row is not None and subject in (None, row.subject)}
        return sorted(found.values(), key=lambda row: -row.used_at)

    async def revocations(self, after: int) -> tuple[int, list[tuple[str, float]]]:
        answer = await self._ask("ZRANGE", self._names.feed, f"({after}", "+inf", "BYSCORE", "WITHSCORES")
        found = [text.decode().partition(" ") for text in answer[::2]]
        return (int(float(answer[-1])) if answer else after), [(sid, float(until)) for until, _, sid in found]

    # ---- keys, accounts, and times -------------------------------------------------------------------------------

    async def keys(self) -> list[KeyRecord]:
        return keys_of(await self._ask("HGETALL", self._names.keys))

    async def save_keys(self, records: Sequence[KeyRecord], *, first: bool = False) -> None:
        values = [part for record in records for part in key_written(record)]
        command = (scripts.SAVE_KEYS, 1, self._names.keys, self._names.channel, int(first), *values)
        await self._ask_all([("EVALSHA", *command)], durably=True)

    async def accounts(self) -> list[Account]:
        found = await self._ask("HGETALL", self._names.accounts)
        return sorted((account_of(name.decode(), text) for name, text in found.items()), key=lambda one: one.name)

    async def account(self, name: str) -> Account | None:
        text = await self._ask("HGET", self._names.accounts, name)
        return None if text is None else account_of(name, text)

    async def add_account(self, account: Account) -> bool:
        name, *rest = astuple(account)
        command = ("HSETNX", self._names.accounts, name, json.dumps(rest))
        [added] = await self._ask_all([command], once=True, durably=True)
        return bool(added)

    async def change_account(self, name: str, password_hash: str | None, *, expected: str | None = None) -> bool:
        while (text := await self._ask("HGET", self._names.accounts, name)) is not None:
            account = account_of(name, text)
            if expected not in (None, account.password_hash):
                return False
            rest = [] if password_hash is None else astuple(replace(account, password_hash=password_hash))[1:]
            after = json.dumps(rest) if rest else ""
            command = ("EVALSHA", scripts.CHANGE_ACCOUNT, 1, self._names.accounts, name, text, after)
            if (await self._ask_all([command], once=True, durably=True))[0]:
                return True
        return False

    async def advance_marker(self, key: bytes, now: float, every: float, most: float) -> float:
        values = (repr(float(now)), repr(float(every)), repr(float(most)))
        return float(await self._ask("EVALSHA", scripts.STRIKE, 1, self._names.time(key), *values))

    async def read_markers(self, keys: Sequence[bytes]) -> list[float]:
        return [float(time or 0) for time in await self._ask_all([("GET", self._names.time(key)) for key in keys])]

    async def clear_markers(self, keys: Sequence[bytes]) -> None:
        await self._ask_all([("UNLINK", self._names.time(key)) for key in keys])

    # ---- parts ---------------------------------------------------------------------------------------------------

    async def _rows(self, keys: Sequence[bytes]) -> list[SessionRow | None]:
        """The rows with these keys, as they are in their subjects' epochs. An end that is not announced yet, is now."""
        names = [self._names.row(key) for key in keys]
        asked: list[Command] = [part for row, about in names for part in (("HGETALL", row), ("GET", about))]
        known = {subject for key in keys if (subject := self._subjects.get(key)) is not None}
        answers = await self._ask_all([*asked, *self._epochs_of(known)])
        hashes, texts = answers[: len(asked) : 2], answers[1 : len(asked) : 2]
        rows = [row_of(key, *found) for key, *found in zip(keys, hashes, texts, strict=True)]
        epochs = dict(zip(known, answers[len(asked) :], strict=True))
        more = {row.subject for row in rows if row is not None} - known
        epochs |= dict(zip(more, await self._ask_all(self._epochs_of(more)), strict=True))
        return [await self._now(row, hashes[n], epochs) for n, row in enumerate(rows)]

    async def _now(
        self, row: SessionRow | None, changing: dict[bytes, bytes], epochs: dict[str, Any]
    ) -> SessionRow | None:
        if row is None:
            return None
        self._subjects.put(row.key, row.subject)
        if (until := changing.get(b"o")) and row.revoked_at is not None:
            await self._announce([Entry(row.key, row.sid)], row.revoked_at, float(until))
        return ended_by(row, changing[b"e"], epochs[row.subject])

    def _epochs_of(self, subjects: Iterable[str]) -> list[Command]:
        return [("HMGET", self._names.subject(subject)[1], *EPOCH) for subject in subjects]

    async def _announce(self, entries: Sequence[Entry], now: float, until: float) -> None:
        """Tells other processes, durably; then the sessions no longer say that it is to be done."""
        if not entries:
            return
        feed = (scripts.ANNOUNCE, 2, self._names.feed, self._names.last, self._names.channel)
        sids = [entry.sid for entry in entries]
        await self._ask_all([("EVALSHA", *feed, repr(now), repr(until), *sids)], durably=True)
        await self._ask_all([("HDEL", self._names.row(entry.key)[0], "o") for entry in entries])

    async def _entries(self, sid: str | None, subject: str | None) -> list[Entry]:
        """The entries of those sessions; also of some that are no more."""
        if sid is not None:
            key = await self._ask("GET", self._names.sid(sid))
            row = await self.read(key) if key is not None and subject is not None else None
            fits = key is not None and (subject is None or (row is not None and row.subject == subject))
            return [Entry(key, sid)] if fits else []
        if subject is not None:
            return list(map(Entry.read, await self._ask("ZRANGE", self._names.subject(subject)[0], 0, -1)))
        found: dict[Entry, None] = {}  # a scan may give one twice
        cursor: int | None = None
        while cursor != 0:
            at, scored = await self._ask("ZSCAN", self._names.ends, cursor or 0, "COUNT", AT_ONCE)
            cursor = int(at)
            found |= {Entry.read(text): None for text, _ in scored}
        return list(found)

    async def _bumped(self, subject: str, now: float, why: str) -> list[Entry]:
        """The entries of all sessions of *subject*, which are over by now."""
        command = (scripts.BUMP, 2, *self._names.subject(subject), repr(now), why, _ms(EPOCH_KEPT))
        return list(map(Entry.read, await self._ask("EVALSHA", *command)))


def _parts(entries: Sequence[Entry]) -> Iterable[Sequence[Entry]]:
    return (entries[at : at + AT_ONCE] for at in range(0, len(entries), AT_ONCE))


def _ms(seconds: float) -> int:
    return max(1, ceil(seconds * 1000))


def _without_prefix(url: str) -> tuple[str, str]:
    """*url* as Redis takes it, and the prefix of all names."""
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query))
    prefix = query.pop("prefix", "unbroken")
    return (url if "prefix" not in parts.query else urlunsplit((*parts[:3], urlencode(query), parts[4]))), prefix
