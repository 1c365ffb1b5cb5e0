"""Sessions in PostgreSQL (13 or newer), shared by all processes and hosts that open it.

1. Each operation is one statement, committed on its own. Rotation does not wait for the disk (``synchronous_commit``
   off), because rule R1h of rotation heals what a crash takes away. Login, logout, revocation, keys and accounts wait
   as the server is configured.
2. One row a session, changed in place (``postgres_schema``): no number of refreshes adds a row.
3. A statement that deletes old rows skips those that other transactions use, and deletes a bounded number: no
   operation waits for it.
4. A revocation and its notification are one transaction. A cursor of revocations is the oldest transaction that was
   running when it was read: a transaction that began earlier and commits later is not missed. A cursor is valid on all
   nodes, for one run of one server. Another server, or a restored one, counts differently: then all revocations are
   returned once more.
5. The tables are created, or their schema is checked, once in a process, before its first statement.
"""

# ruff: noqa: S608  # statements consist of constants of this file

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, astuple, fields
from typing import Any

from unbroken._drivers.postgres import PostgresDriver
from unbroken.server.core.rotation import (
    RETURNED_COLUMNS,
    Policy,
    PresentedToken,
    SessionBinding,
    SessionRow,
    hour_of,
    rotated_row,
)
from unbroken.server.keys.keyring import ENCRYPTED_PREFIX, KeyRecord
from unbroken.server.stores import postgres_schema
from unbroken.server.stores.base import COMPARED_FIELDS, MAX_TRIMMED, Account, StoreProblem, clock_problems
from unbroken.server.stores.migrations import SchemaVersion
from unbroken.server.stores.pages import next_page_cursor, page_position
from unbroken.server.stores.postgres_notifications import PostgresNotifications

__all__ = ["PostgresSessionStore", "schema_version", "upgrade_schema"]

CHANNEL = "unbroken_notification"
KEYS_LOCK_ID = 0x756E6273
CURSOR_START_RANGE = 2**16  # a cursor contains the start time of its server, modulo this (rule 4)
FIELDS = tuple(column.name for column in fields(SessionRow))
COLUMNS = ", ".join(FIELDS)

# The commit does not wait for the disk (rule 1). In RETURNING, it is set only if a row was changed.
WITHOUT_FLUSH = "set_config('synchronous_commit', 'off', true)"
INSERT = f"""
WITH expired AS (
    DELETE FROM unbroken_session WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM unbroken_session WHERE expires_at < %s ORDER BY expires_at LIMIT 100 FOR UPDATE SKIP LOCKED
    ))
)
INSERT INTO unbroken_session ({COLUMNS}) VALUES ({", ".join(["%s"] * len(FIELDS))})
"""
READ = f"SELECT {COLUMNS} FROM unbroken_session WHERE key = %s"
# R1: the condition is that of ``rotation.present``, the change that of ``rotation.rotate``.
R1 = """
UPDATE unbroken_session SET
    generation = generation + 1, branch = 0,
    previous_rotated_at = rotated_at, previous_promoted_branch = promoted_branch,
    rotated_at = %(now)s, promoted_branch = %(branch)s,
    idempotency_key_repeated = coalesce(idempotency_hash = %(idempotency_hash)s, false),
    idempotency_hash = %(idempotency_hash)s, first_used_branch = NULL, presenter = %(party)s, shared = false,
    shared_streak = CASE WHEN shared THEN shared_streak + 1
                         WHEN abs(%(now)s - rotated_at) < %(grace)s THEN shared_streak ELSE 0 END,
    used_earlier_at = CASE WHEN used_at < %(hour)s THEN used_at ELSE used_earlier_at END,
    used_at = %(now)s, idle_expires_at = least(%(now)s + %(refresh_ttl)s, expires_at)
WHERE key = %(key)s AND generation = %(generation)s
    AND CASE WHEN first_used_branch IS NULL THEN branch = %(branch)s OR NOT coordinated
             ELSE first_used_branch = %(branch)s END
    AND revoked_at IS NULL AND idle_expires_at > %(now)s AND expires_at > %(now)s
"""
ROTATE = f"{R1} RETURNING {WITHOUT_FLUSH}"
ROTATE_RETURNING = f"""
{R1} AND client_id = coalesce(%(client_id)s::text, client_id) AND issuer = coalesce(%(issuer)s::text, issuer)
    AND audience = coalesce(%(audience)s::text, audience)
RETURNING {WITHOUT_FLUSH}, {RETURNED_COLUMNS}
"""
CHANGE_COMPARED = f"""
UPDATE unbroken_session SET {", ".join(f"{name} = %(new_{name})s" for name in FIELDS)}
WHERE key = %(key)s AND {" AND ".join(f"{name} IS NOT DISTINCT FROM %({name})s" for name in COMPARED_FIELDS)}
    AND revoked_at IS NULL
"""
COMPARE_AND_SET = f"{CHANGE_COMPARED} RETURNING {WITHOUT_FLUSH}"
# Also deletes the oldest revocations that have ended.
ANNOUNCE = f"""
announced AS (INSERT INTO unbroken_revocation (sid, until) SELECT sid, %(announce_until)s FROM revoked),
ended AS (DELETE FROM unbroken_revocation WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM unbroken_revocation WHERE until < %(now)s ORDER BY until LIMIT 100 FOR UPDATE SKIP LOCKED
)))
SELECT sid, pg_notify('{CHANNEL}', '') FROM revoked
"""
COMPARE_AND_REVOKE = f"WITH revoked AS ({CHANGE_COMPARED} RETURNING sid), {ANNOUNCE}"
# The rows are locked in one order, so two processes that revoke the same sessions cannot deadlock.
REVOKE = f"""
WITH found AS (
    SELECT key FROM unbroken_session
    WHERE revoked_at IS NULL AND idle_expires_at > %(now)s AND expires_at > %(now)s{{conditions}}
    ORDER BY key FOR UPDATE
), revoked AS (
    UPDATE unbroken_session SET revoked_at = %(now)s, revoked_why = %(reason)s FROM found
    WHERE unbroken_session.key = found.key RETURNING sid
), {ANNOUNCE}"""
UNREVOKED = "hashtext(subject) = hashtext(%(subject)s) AND subject = %(subject)s AND revoked_at IS NULL"
COUNT_UNREVOKED = f"SELECT count(*) FROM (SELECT FROM unbroken_session WHERE {UNREVOKED} LIMIT %(most)s) AS first"
# Two logins of a subject trim one after the other: each sees what the other has left.
LOCK_SUBJECT = "SELECT pg_advisory_xact_lock(hashtext('unbroken'), hashtext(%(subject)s))"
TRIM = f"""
WITH first AS MATERIALIZED (
    SELECT key, used_at, created_at FROM unbroken_session WHERE {UNREVOKED} ORDER BY expires_at LIMIT %(most)s
), found AS (
    SELECT key FROM unbroken_session WHERE revoked_at IS NULL AND key = ANY (ARRAY(
        SELECT key FROM first ORDER BY used_at, created_at, key
        LIMIT greatest((SELECT count(*) FROM first) - %(keep)s, 0)
    )) ORDER BY key FOR UPDATE
), trimmed AS (
    UPDATE unbroken_session SET revoked_at = %(now)s,
        revoked_why = CASE WHEN least(idle_expires_at, expires_at) > %(now)s THEN %(reason)s ELSE 'expired' END
    FROM found WHERE unbroken_session.key = found.key RETURNING sid, revoked_why
), revoked AS (SELECT sid FROM trimmed WHERE revoked_why = %(reason)s), {ANNOUNCE}
"""
PAGE = f"""
SELECT {COLUMNS} FROM unbroken_session
WHERE expires_at <= %(expires_at)s AND (expires_at, sid) < (%(expires_at)s, %(sid)s){{conditions}}
ORDER BY expires_at DESC, sid DESC LIMIT %(limit)s
"""
SESSIONS = f"SELECT {COLUMNS} FROM unbroken_session WHERE true{{conditions}} ORDER BY used_at DESC"
# A statement contains only the conditions that are given, so that PostgreSQL uses an index.
CONDITIONS = {
    "sid": " AND sid = %(sid)s",
    "subject": " AND hashtext(subject) = hashtext(%(subject)s) AND subject = %(subject)s",
    "except_sid": " AND sid <> %(except_sid)s",
}
RECORD_FIRST_USE = f"""
UPDATE unbroken_session SET first_used_branch = %s
WHERE sid = %s AND generation = %s AND first_used_branch IS NULL RETURNING {WITHOUT_FLUSH}
"""
REVOCATIONS = """
SELECT oldest::text, started, sid, until FROM (
    SELECT pg_snapshot_xmin(pg_current_snapshot()) AS oldest,
        (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::int8 AS started
) AS running LEFT JOIN unbroken_revocation ON xid >= %s::text::xid8
"""
KEYS = """
SELECT kid, use, alg, secret, created_at, signs_from, verifies_until, token_ttl FROM unbroken_key
ORDER BY created_at, kid
"""
LOCK_KEYS = f"SELECT pg_advisory_xact_lock({KEYS_LOCK_ID})"
# What ``KeyRecord.merged_with`` returns. *first*: only if no other keys are stored, by whichever process.
SAVE_KEY = f"""
INSERT INTO unbroken_key AS old (kid, use, alg, secret, created_at, signs_from, verifies_until, token_ttl)
SELECT %(kid)s, %(use)s, %(alg)s, %(secret)s, %(created_at)s::float8, %(signs_from)s::float8,
    %(verifies_until)s::float8, %(token_ttl)s::float8
WHERE NOT %(first)s OR NOT EXISTS (SELECT FROM unbroken_key WHERE kid <> ALL (%(kids)s))
ON CONFLICT (kid) DO UPDATE SET
    verifies_until = least(old.verifies_until, excluded.verifies_until),
    token_ttl = greatest(old.token_ttl, excluded.token_ttl),
    secret = CASE WHEN left(excluded.secret, {len(ENCRYPTED_PREFIX)}) = '{ENCRYPTED_PREFIX}'
                  THEN excluded.secret ELSE old.secret END
"""
NOTIFY = f"SELECT pg_notify('{CHANNEL}', '')"
ACCOUNTS = "SELECT name, shown, password_hash, created_at, subject FROM unbroken_account ORDER BY name"
ACCOUNT = "SELECT name, shown, password_hash, created_at, subject FROM unbroken_account WHERE name = %s"
ADD_ACCOUNT = "INSERT INTO unbroken_account VALUES (%s, %s, %s, %s, %s) ON CONFLICT DO NOTHING RETURNING name"
CHANGE_ACCOUNT = """
UPDATE unbroken_account SET password_hash = %(hash)s
WHERE name = %(name)s AND password_hash = coalesce(%(expected)s, password_hash) RETURNING name
"""
DELETE_ACCOUNT = """
DELETE FROM unbroken_account
WHERE name = %(name)s AND password_hash = coalesce(%(expected)s, password_hash) RETURNING name
"""
ADVANCE_MARKER = f"""
WITH past AS (
    DELETE FROM unbroken_marker WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM unbroken_marker WHERE until < %(now)s AND key <> %(key)s
        ORDER BY until LIMIT 100 FOR UPDATE SKIP LOCKED
    ))
)
INSERT INTO unbroken_marker AS old VALUES (%(key)s, least(%(now)s + %(step)s, %(now)s + %(max_ahead)s))
ON CONFLICT (key) DO UPDATE
    SET until = least(greatest(old.until, %(now)s) + %(step)s, %(now)s + %(max_ahead)s)
RETURNING until, {WITHOUT_FLUSH}
"""
READ_MARKERS = "SELECT key, until FROM unbroken_marker WHERE key = ANY (%s)"
CLEAR_MARKERS = f"""
WITH found AS (SELECT key FROM unbroken_marker WHERE key = ANY (%s) ORDER BY key FOR UPDATE)
DELETE FROM unbroken_marker USING found WHERE unbroken_marker.key = found.key RETURNING {WITHOUT_FLUSH}
"""
HEALTH = "SELECT number FROM unbroken_schema"
SETTINGS = """
SELECT extract(epoch FROM clock_timestamp())::float8, current_setting('fsync'),
    (SELECT reset_val FROM pg_settings WHERE name = 'synchronous_commit'), current_setting('full_page_writes')
"""


class PostgresSessionStore:
    """Sessions, keys, accounts and markers in the PostgreSQL at *url* (``postgresql://``, or what else libpq reads).

    ``?pool_size=20`` in the URL limits the connections of all threads, and of each event loop. Connects at first use,
    which raises ConfigurationError for a schema of another version (rule 5). Raises ConfigurationError for a malformed
    URL.
    """

    blocking = False  # it suspends where it can

    def __init__(self, url: str) -> None:
        self._driver = PostgresDriver(url, prepare=postgres_schema.create_or_check)
        self._rows = self._driver.rows

    def __repr__(self) -> str:
        return f"<PostgresSessionStore {self._driver.name}>"

    def short_timeout(self) -> AbstractContextManager[object]:
        return nullcontext()

    # ---- sessions ------------------------------------------------------------------------------------------------

    async def insert(self, row: SessionRow) -> None:
        await self._rows(INSERT, (row.created_at, *astuple(row)))

    async def read(self, key: bytes) -> SessionRow | None:
        rows = await self._rows(READ, (key,))
        return SessionRow(*rows[0]) if rows else None

    async def rotate(self, key: bytes, token: PresentedToken, now: float, policy: Policy) -> bool:
        return bool(await self._rows(ROTATE, _rotate_values(key, token, now, policy)))

    async def rotate_returning(
        self, key: bytes, token: PresentedToken, now: float, policy: Policy, binding: SessionBinding | None
    ) -> SessionRow | None:
        values = _rotate_values(key, token, now, policy)
        values |= dict(zip(SessionBinding._fields, binding or (None, None, None), strict=True))
        rows = await self._rows(ROTATE_RETURNING, values)
        return rotated_row(key, token, float(now), policy, rows[0][1:]) if rows else None

    async def compare_and_set(self, before: SessionRow, after: SessionRow, announce_until: float) -> bool:
        values = {"key": before.key} | {name: getattr(before, name) for name in COMPARED_FIELDS}
        values |= {f"new_{name}": value for name, value in zip(FIELDS, astuple(after), strict=True)}
        if after.revoked_at is None:
            return bool(await self._rows(COMPARE_AND_SET, values))
        values |= {"announce_until": announce_until, "now": after.revoked_at}
        return bool(await self._rows(COMPARE_AND_REVOKE, values))

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
        given = {"sid": sid, "subject": subject, "except_sid": except_sid}
        values = {"now": now, "reason": reason, "announce_until": announce_until, **given}
        return [row[0] for row in await self._rows(REVOKE.format(conditions=_conditions(given)), values)]

    async def trim(self, subject: str, keep: int, now: float, reason: str, announce_until: float) -> list[str]:
        counted = await self._rows(COUNT_UNREVOKED, {"subject": subject, "most": keep + 1})
        if counted[0][0] <= keep:
            return []
        values = {"subject": subject, "keep": keep, "most": keep + MAX_TRIMMED, "now": float(now), "reason": reason}
        values["announce_until"] = float(announce_until)
        trimmed = await self._driver.transaction([(LOCK_SUBJECT, {"subject": subject}), (TRIM, values)])
        return [row[0] for row in trimmed]

    async def record_first_use(self, sid: str, generation: int, branch: int) -> None:
        await self._rows(RECORD_FIRST_USE, (branch, sid, generation))

    async def sessions(self, subject: str | None = None, sid: str | None = None) -> list[SessionRow]:
        given = {"sid": sid, "subject": subject}
        return [SessionRow(*row) for row in await self._rows(SESSIONS.format(conditions=_conditions(given)), given)]

    async def page(
        self, subject: str | None, limit: int, cursor: str, *, include_revoked: bool
    ) -> tuple[list[SessionRow], str]:
        expires_at, sid = page_position(cursor)
        conditions = "" if subject is None else CONDITIONS["subject"]
        if subject is not None and not include_revoked:
            conditions += " AND revoked_at IS NULL"
        values = {"expires_at": expires_at, "sid": sid, "subject": subject, "limit": limit}
        found = [SessionRow(*row) for row in await self._rows(PAGE.format(conditions=conditions), values)]
        return found, next_page_cursor(found, limit)

    async def revocations(self, after: int) -> tuple[int, list[tuple[str, float]]]:
        oldest, start = divmod(after, CURSOR_START_RANGE)
        rows = await self._rows(REVOCATIONS, (oldest,))
        if after and (rows[0][1] % CURSOR_START_RANGE != start or int(rows[0][0]) < oldest):  # rule 4
            rows = await self._rows(REVOCATIONS, (0,))
        cursor = int(rows[0][0]) * CURSOR_START_RANGE + rows[0][1] % CURSOR_START_RANGE
        return cursor, [(sid, until) for *_, sid, until in rows if sid is not None]

    # ---- keys and accounts ---------------------------------------------------------------------------------------

    async def keys(self) -> list[KeyRecord]:
        return [KeyRecord(*row) for row in await self._rows(KEYS)]

    async def save_keys(self, records: Sequence[KeyRecord], *, first: bool = False) -> None:
        shared = {"first": first, "kids": [record.kid for record in records]}
        saves = [(SAVE_KEY, asdict(record) | shared) for record in records]
        await self._driver.transaction([(LOCK_KEYS, ()), *saves, (NOTIFY, ())])

    async def accounts(self) -> list[Account]:
        return [Account(*row) for row in await self._rows(ACCOUNTS)]

    async def account(self, name: str) -> Account | None:
        rows = await self._rows(ACCOUNT, (name,))
        return Account(*rows[0]) if rows else None

    async def add_account(self, account: Account) -> bool:
        return bool(await self._rows(ADD_ACCOUNT, astuple(account)))

    async def change_account(self, name: str, password_hash: str | None, *, expected: str | None = None) -> bool:
        statement = DELETE_ACCOUNT if password_hash is None else CHANGE_ACCOUNT
        return bool(await self._rows(statement, {"hash": password_hash, "name": name, "expected": expected}))

    # ---- markers -------------------------------------------------------------------------------------------------

    async def advance_marker(self, key: bytes, now: float, step: float, max_ahead: float) -> float:
        values = {"key": key, "now": float(now), "step": float(step), "max_ahead": float(max_ahead)}
        [(until, _)] = await self._rows(ADVANCE_MARKER, values)
        return float(until)

    async def read_markers(self, keys: Sequence[bytes]) -> list[float]:
        found = dict(await self._rows(READ_MARKERS, (list(keys),)))
        return [found.get(key, 0.0) for key in keys]

    async def clear_markers(self, keys: Sequence[bytes]) -> None:
        await self._rows(CLEAR_MARKERS, (list(keys),))

    # ---- the store -----------------------------------------------------------------------------------------------

    def notifications(self) -> PostgresNotifications:
        return PostgresNotifications(self._driver, CHANNEL)

    async def health(self) -> None:
        await self._rows(HEALTH)

    async def problems(self) -> list[StoreProblem]:
        asked_at = time.time()
        [(server_time, fsync, commit, pages)] = await self._rows(SETTINGS)
        found = clock_problems(float(server_time), asked_at, time.time())
        if fsync != "on":
            found.append(StoreProblem("durability", "PostgreSQL runs with fsync off: a crash can destroy all data"))
        if commit == "off":
            advice = "set it to on; unbroken relaxes it where it may"
            found.append(StoreProblem("durability", f"PostgreSQL's synchronous_commit is off: {advice}"))
        if pages != "on":
            message = "PostgreSQL runs with full_page_writes off: a crash can destroy pages"
            found.append(StoreProblem("durability", message))
        return found

    async def aclose(self) -> None:
        await self._driver.aclose()

    def close(self) -> None:
        self._driver.close()


def _conditions(given: dict[str, str | None]) -> str:
    return "".join(CONDITIONS[name] for name, value in given.items() if value is not None)


def _rotate_values(key: bytes, token: PresentedToken, now: float, policy: Policy) -> dict[str, Any]:
    return {
        "key": key,
        "generation": token.generation,
        "branch": token.branch,
        "idempotency_hash": token.idempotency_hash,
        "party": token.party,
        "now": float(now),  # an int would make PostgreSQL prepare another statement
        "hour": float(hour_of(now)),
        "refresh_ttl": policy.refresh_ttl,
        "grace": policy.grace,
    }


# ---- by URL ----------------------------------------------------------------------------------------------------------


def schema_version(url: str) -> SchemaVersion:
    """Return the schema at *url*, and change nothing. Raises ConfigurationError or StoreUnavailable."""
    return postgres_schema.read_version(PostgresDriver(url))


def upgrade_schema(url: str) -> None:
    """Create or upgrade the tables at *url*. Raises ConfigurationError or StoreUnavailable."""
    postgres_schema.upgrade(PostgresDriver(url))
