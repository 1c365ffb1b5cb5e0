"""Sessions in PostgreSQL (13 or newer), shared by all processes and hosts that open it.

1. Everything is one statement, committed by itself. Rotation does not wait for the disk (``synchronous_commit`` off),
   because R1h heals what a crash takes away; login, logout, revocation, keys and accounts wait as the server is set.
2. One row a session, changed in place (see ``postgres_schema.py``): no number of refreshes adds a row.
3. Whoever clears away skips rows that others are at work on, and takes a bounded number: no refresh waits for it.
4. A revocation and its announcement (NOTIFY) are one transaction. A reader's cursor is the oldest transaction that was
   still at work when he read: one that began before others and commits after them is not passed over. A cursor is good
   on all nodes, but for the server alone that gave it, and until that one starts again: another server, or one that was
   restored, counts differently, and tells everything once more.
"""

# ruff: noqa: S608  # statements are put together from constants of this file

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, astuple, fields
from typing import Any

from unbroken._drivers.postgres import PostgresDriver
from unbroken.server.core.rotation import RETURNED_COLUMNS, PresentedToken, SessionRow, rotated_row
from unbroken.server.keys.keyring import KeyRecord
from unbroken.server.stores import Account, postgres_schema
from unbroken.server.stores.postgres_notifications import PostgresNotifications

__all__ = ["PostgresSessionStore"]

NAMES = tuple(column.name for column in fields(SessionRow))
COLUMNS = ", ".join(NAMES)
READ = f"SELECT {COLUMNS} FROM unbroken_session WHERE key = %s"
INSERT = f"""
WITH gone AS (
    DELETE FROM unbroken_session WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM unbroken_session WHERE expires_at < %s ORDER BY expires_at LIMIT 100 FOR UPDATE SKIP LOCKED
    ))
)
INSERT INTO unbroken_session ({COLUMNS}) VALUES ({", ".join(["%s"] * len(NAMES))})
"""
# What is returned makes the commit not wait for the disk; it is asked for only where a row was changed.
RELAXED = "RETURNING set_config('synchronous_commit', 'off', true)"
# R1: the condition is that of ``rotation.present``, the change that of ``rotation.rotate``.
R1 = """
UPDATE unbroken_session SET generation = generation + 1, branch = 0, previous_rotated_at = rotated_at, previous_promoted_branch = promoted_branch, rotated_at = %(now)s, promoted_branch = %(branch)s, idempotency_hash = %(idempotency_hash)s,
    first_used_branch = NULL, used_at = %(now)s, idle_expires_at = least(%(now)s + %(refresh_ttl)s, expires_at)
WHERE key = %(key)s AND generation = %(generation)s AND (first_used_branch IS NULL OR first_used_branch = %(branch)s)
    AND revoked_at IS NULL AND idle_expires_at > %(now)s AND expires_at > %(now)s
"""
ROTATE = R1 + RELAXED
ROTATE_UNREAD = f"{R1} AND client_id = coalesce(%(client_id)s::text, client_id) {RELAXED}, {RETURNED_COLUMNS}"
SWAP = f"""
UPDATE unbroken_session SET {", ".join(f"{name} = %(new_{name})s" for name in NAMES)}
WHERE key = %(key)s AND generation = %(generation)s AND branch = %(branch)s AND label = %(label)s AND rotated_at IS NOT DISTINCT FROM %(rotated_at)s
    AND idempotency_hash IS NOT DISTINCT FROM %(idempotency_hash)s AND first_used_branch IS NOT DISTINCT FROM %(first_used_branch)s AND revoked_at IS NULL
"""
CONFIRM = f"UPDATE unbroken_session SET first_used_branch = %s WHERE sid = %s AND generation = %s AND first_used_branch IS NULL {RELAXED}"
NEWS = "unbroken_news"
STARTS = 2**16  # what a cursor keeps of when its server started
# What is oldest of the announcements that nobody needs any more is forgotten with each new one.
ANNOUNCE = f"""
told AS (INSERT INTO unbroken_revocation (sid, until) SELECT sid, %(until)s FROM ended),
forgotten AS (DELETE FROM unbroken_revocation WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM unbroken_revocation WHERE until < %(now)s ORDER BY until LIMIT 100 FOR UPDATE SKIP LOCKED
)))
SELECT sid, pg_notify('{NEWS}', '') FROM ended
"""
END_BY_SWAP = f"WITH ended AS ({SWAP} RETURNING sid), {ANNOUNCE}"
# The rows are locked in one order, so that two who end the same ones do not wait for each other.
END = """
WITH found AS (
    SELECT key FROM unbroken_session
    WHERE revoked_at IS NULL AND idle_expires_at > %(now)s AND expires_at > %(now)s{among} ORDER BY key FOR UPDATE
), ended AS (
    UPDATE unbroken_session SET revoked_at = %(now)s, revoked_why = %(why)s FROM found
    WHERE unbroken_session.key = found.key RETURNING sid
), """
AMONG = {
    "sid": " AND sid = %(sid)s",
    "subject": " AND hashtext(subject) = hashtext(%(subject)s) AND subject = %(subject)s",
    "keep": " AND sid <> %(keep)s",
}
REVOCATIONS = """
SELECT oldest::text, started, sid, until FROM (
    SELECT pg_snapshot_xmin(pg_current_snapshot()) AS oldest,
        (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::int8 AS started
) AS at_work LEFT JOIN unbroken_revocation ON xid >= %s::text::xid8
"""
# What ``KeyRecord.joined`` does. *first*: only if no other keys are there, whoever else makes the first ones.
KEYS_LOCK = 0x756E6273
SAVE_KEY = """
INSERT INTO unbroken_key AS old (kid, use, alg, secret, created_at, signs_from, verifies_until, token_ttl)
SELECT %(kid)s, %(use)s, %(alg)s, %(secret)s, %(created_at)s::float8, %(signs_from)s::float8,
    %(verifies_until)s::float8, %(token_ttl)s::float8
WHERE NOT %(first)s OR NOT EXISTS (SELECT FROM unbroken_key WHERE kid <> ALL (%(kids)s))
ON CONFLICT (kid) DO UPDATE SET
    verifies_until = least(old.verifies_until, excluded.verifies_until),
    token_ttl = greatest(old.token_ttl, excluded.token_ttl),
    secret = CASE WHEN left(excluded.secret, 7) = 'sealed:' THEN excluded.secret ELSE old.secret END
"""
KEYS = f"SELECT {', '.join(column.name for column in fields(KeyRecord))} FROM unbroken_key ORDER BY created_at, kid"
ACCOUNTS = "SELECT name, shown, password_hash, created_at FROM unbroken_account"
STRIKE = """
WITH gone AS (
    DELETE FROM unbroken_strike WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM unbroken_strike WHERE until < %(now)s AND key <> %(key)s
        ORDER BY until LIMIT 100 FOR UPDATE SKIP LOCKED
    ))
)
INSERT INTO unbroken_strike AS old VALUES (%(key)s, least(%(now)s + %(every)s, %(now)s + %(most)s))
ON CONFLICT (key) DO UPDATE
    SET until = least(greatest(old.until, %(now)s) + %(every)s, %(now)s + %(most)s)
RETURNING until, set_config('synchronous_commit', 'off', true)
"""
FORGIVE = f"""
WITH mine AS (SELECT key FROM unbroken_strike WHERE key = ANY (%s) ORDER BY key FOR UPDATE)
DELETE FROM unbroken_strike USING mine WHERE unbroken_strike.key = mine.key {RELAXED}
"""


class PostgresSessionStore:
    """Sessions, keys and accounts in the PostgreSQL at *url* (``postgresql://``, or what else libpq reads).

    An empty database is made ready. Raises ConfigurationError for one that another version of unbroken made, in one
    line that says what to do, and StoreUnavailable when nobody answers. ``?pool_size=20`` in the URL: at most so many
    connections for all threads, and as many for each event loop.
    """

    blocking = False  # it suspends where it can

    def __init__(self, url: str) -> None:
        self._sql = PostgresDriver(url)
        self._rows = self._sql.rows
        postgres_schema.make_ready(self._sql)

    def __repr__(self) -> str:
        return f"<PostgresSessionStore {self._sql.name}>"

    def short_timeout(self) -> AbstractContextManager[object]:
        return nullcontext()

    # ---- sessions ------------------------------------------------------------------------------------------------

    async def insert(self, row: SessionRow) -> None:
        await self._rows(INSERT, (row.created_at, *astuple(row)))

    async def read(self, key: bytes) -> SessionRow | None:
        rows = await self._rows(READ, (key,))
        return SessionRow(*rows[0]) if rows else None

    async def rotate(self, key: bytes, token: PresentedToken, now: float, refresh_ttl: float) -> bool:
        return bool(await self._rows(ROTATE, _presented(key, token, now, refresh_ttl)))

    async def rotate_returning(
        self, key: bytes, token: PresentedToken, now: float, refresh_ttl: float, client_id: str | None
    ) -> SessionRow | None:
        values = _presented(key, token, now, refresh_ttl)
        values["client_id"] = client_id
        rows = await self._rows(ROTATE_UNREAD, values)
        return rotated_row(key, token, float(now), float(refresh_ttl), rows[0][1:]) if rows else None

    async def compare_and_set(self, before: SessionRow, after: SessionRow, dead_until: float) -> bool:
        old = {
            name: getattr(before, name)
            for name in ("key", "generation", "branch", "label", "rotated_at", "idempotency_hash", "first_used_branch")
        }
        values = old | {f"new_{name}": value for name, value in zip(NAMES, astuple(after), strict=True)}
        if after.revoked_at is None:
            return bool(await self._rows(f"{SWAP} {RELAXED}", values))
        return bool(await self._rows(END_BY_SWAP, {**values, "until": dead_until, "now": after.revoked_at}))

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
        values = {"now": now, "why": why, "until": dead_until, "sid": sid, "subject": subject, "keep": keep}
        # Only what is given stands in the statement: so the rows are found by an index.
        among = "".join(condition for name, condition in AMONG.items() if values[name] is not None)
        return [row[0] for row in await self._rows(END.format(among=among) + ANNOUNCE, values)]

    async def record_first_use(self, sid: str, generation: int, branch: int) -> None:
        await self._rows(CONFIRM, (branch, sid, generation))

    async def sessions(self, subject: str | None = None, sid: str | None = None) -> list[SessionRow]:
        values = {"subject": subject, "sid": sid}
        among = "".join(AMONG[name] for name, value in values.items() if value is not None)
        statement = f"SELECT {COLUMNS} FROM unbroken_session WHERE true{among} ORDER BY used_at DESC"
        return [SessionRow(*found) for found in await self._rows(statement, values)]

    async def revocations(self, after: int) -> tuple[int, list[tuple[str, float]]]:
        oldest, start = divmod(after, STARTS)
        rows = await self._rows(REVOCATIONS, (oldest,))
        if after and (rows[0][1] % STARTS != start or int(rows[0][0]) < oldest):
            rows = await self._rows(REVOCATIONS, (0,))
        cursor = int(rows[0][0]) * STARTS + rows[0][1] % STARTS
        return cursor, [(sid, until) for *_, sid, until in rows if sid is not None]

    # ---- keys and accounts ---------------------------------------------------------------------------------------

    async def keys(self) -> list[KeyRecord]:
        return [KeyRecord(*found) for found in await self._rows(KEYS)]

    async def save_keys(self, records: Sequence[KeyRecord], *, first: bool = False) -> None:
        about = {"first": first, "kids": [record.kid for record in records]}
        saves = [(SAVE_KEY, asdict(record) | about) for record in records]
        lock = ("SELECT pg_advisory_xact_lock(%s)", (KEYS_LOCK,))
        await self._sql.transaction([lock, *saves, (f"SELECT pg_notify('{NEWS}', '')", ())])

    async def accounts(self) -> list[Account]:
        return [Account(*found) for found in await self._rows(f"{ACCOUNTS} ORDER BY name")]

    async def account(self, name: str) -> Account | None:
        rows = await self._rows(f"{ACCOUNTS} WHERE name = %s", (name,))
        return Account(*rows[0]) if rows else None

    async def add_account(self, account: Account) -> bool:
        statement = "INSERT INTO unbroken_account VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING RETURNING name"
        return bool(await self._rows(statement, astuple(account)))

    async def change_account(self, name: str, password_hash: str | None, *, expected: str | None = None) -> bool:
        change = "UPDATE unbroken_account SET password_hash = %(hash)s"
        if password_hash is None:
            change = "DELETE FROM unbroken_account"
        same = "password_hash = coalesce(%(expected)s, password_hash)"
        values = {"hash": password_hash, "name": name, "expected": expected}
        return bool(await self._rows(f"{change} WHERE name = %(name)s AND {same} RETURNING name", values))

    # ---- strikes, and the store itself ---------------------------------------------------------------------------

    async def advance_marker(self, key: bytes, now: float, every: float, most: float) -> float:
        values = {"key": key, "now": float(now), "every": float(every), "most": float(most)}
        [(until, _)] = await self._rows(STRIKE, values)
        return float(until)

    async def read_markers(self, keys: Sequence[bytes]) -> list[float]:
        known = dict(await self._rows("SELECT key, until FROM unbroken_strike WHERE key = ANY (%s)", (list(keys),)))
        return [known.get(key, 0.0) for key in keys]

    async def clear_markers(self, keys: Sequence[bytes]) -> None:
        await self._rows(FORGIVE, (list(keys),))

    def notifications(self) -> PostgresNotifications:
        return PostgresNotifications(self._sql, NEWS)

    async def health(self) -> None:
        await self._rows("SELECT number FROM unbroken_schema")

    async def aclose(self) -> None:
        await self._sql.aclose()

    def close(self) -> None:
        self._sql.close()


def _presented(key: bytes, token: PresentedToken, now: float, refresh_ttl: float) -> dict[str, Any]:
    """The values of ``ROTATE``."""
    return {
        "key": key,
        "generation": token.generation,
        "branch": token.branch,
        "idempotency_hash": token.idempotency_hash,
        "now": float(now),
        "refresh_ttl": float(refresh_ttl),
    }
