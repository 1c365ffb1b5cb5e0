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

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, astuple
from typing import Any

from unbroken._drivers.postgres import PostgresDriver
from unbroken.server.core.rotation import (
    Policy,
    PresentedToken,
    SessionBinding,
    SessionFacts,
    SessionRow,
    hour_of,
)
from unbroken.server.keys.keyring import KeyRecord
from unbroken.server.stores import postgres_schema
from unbroken.server.stores import postgres_statements as sql
from unbroken.server.stores.base import COMPARED_FIELDS, MAX_TRIMMED_SESSIONS, Account, StoreProblem, clock_problems
from unbroken.server.stores.migrations import SchemaVersion
from unbroken.server.stores.pages import next_page_cursor, page_position
from unbroken.server.stores.postgres_notifications import PostgresNotifications

__all__ = ["PostgresSessionStore", "schema_version", "upgrade_schema"]

CURSOR_START_RANGE = 2**16  # a cursor contains the start time of its server, modulo this (rule 4)


class PostgresSessionStore:
    """Sessions, keys, accounts and markers in the PostgreSQL at *url* (``postgresql://``, or what else libpq reads).

    ``?pool_size=20`` in the URL limits the connections of all threads, and of each event loop. ``?schema=sessions``
    puts the tables into that schema, which is made with them; else they are where the user's ``search_path`` says.
    Connects at first use, which raises ConfigurationError for a schema of another version (rule 5). Raise
    ConfigurationError for a malformed URL.
    """

    blocking = False  # it suspends where it can

    def __init__(self, url: str) -> None:
        self._driver = PostgresDriver(url, tables=postgres_schema.NAMES, prepare=postgres_schema.create_or_check)
        self._rows = self._driver.rows

    def __repr__(self) -> str:
        return f"<PostgresSessionStore {self._driver.name}>"

    def short_timeout(self) -> AbstractContextManager[object]:
        return nullcontext()

    # ---- sessions ------------------------------------------------------------------------------------------------

    async def insert(self, row: SessionRow) -> None:
        await self._rows(sql.INSERT, (row.created_at, *astuple(row)))

    async def read(self, key: bytes) -> SessionRow | None:
        rows = await self._rows(sql.READ, (key,))
        return SessionRow(*rows[0]) if rows else None

    async def rotate(self, key: bytes, token: PresentedToken, now: float, policy: Policy) -> bool:
        return bool(await self._rows(sql.ROTATE, _rotate_values(key, token, now, policy)))  # rule 1

    async def rotate_returning(
        self, key: bytes, token: PresentedToken, now: float, policy: Policy, binding: SessionBinding | None
    ) -> SessionFacts | None:
        values = _rotate_values(key, token, now, policy)
        values |= dict(zip(SessionBinding._fields, binding or (None, None, None), strict=True))
        rows = await self._rows(sql.ROTATE_RETURNING, values)  # rule 1
        return SessionFacts(key, *rows[0][1:]) if rows else None

    async def compare_and_set(self, before: SessionRow, after: SessionRow, announce_until: float) -> bool:
        values = {"key": before.key} | {name: getattr(before, name) for name in COMPARED_FIELDS}
        values |= {f"new_{name}": value for name, value in zip(sql.FIELDS, astuple(after), strict=True)}
        if after.revoked_at is None:
            return bool(await self._rows(sql.COMPARE_AND_SET, values))
        values |= {"announce_until": announce_until, "now": after.revoked_at}
        return bool(await self._rows(sql.COMPARE_AND_REVOKE, values))

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
        return [row[0] for row in await self._rows(sql.REVOKE.format(conditions=_conditions(given)), values)]

    async def trim(self, subject: str, keep: int, now: float, reason: str, announce_until: float) -> list[str]:
        counted = await self._rows(sql.COUNT_UNREVOKED, {"subject": subject, "most": keep + 1})
        if counted[0][0] <= keep:
            return []
        values = {
            "subject": subject,
            "keep": keep,
            "most": keep + MAX_TRIMMED_SESSIONS,
            "now": float(now),
            "reason": reason,
        }
        values["announce_until"] = float(announce_until)
        trimmed = await self._driver.transaction([(sql.LOCK_SUBJECT, {"subject": subject}), (sql.TRIM, values)])
        return [row[0] for row in trimmed]

    async def record_first_use(self, sid: str, generation: int, branch: int) -> None:
        await self._rows(sql.RECORD_FIRST_USE, (branch, sid, generation))

    async def sessions(self, subject: str | None = None, sid: str | None = None) -> list[SessionRow]:
        given = {"sid": sid, "subject": subject}
        return [SessionRow(*row) for row in await self._rows(sql.SESSIONS.format(conditions=_conditions(given)), given)]

    async def page(
        self, subject: str | None, limit: int, cursor: str, *, include_revoked: bool
    ) -> tuple[list[SessionRow], str]:
        expires_at, sid = page_position(cursor)
        conditions = "" if subject is None else sql.CONDITIONS["subject"]
        if subject is not None and not include_revoked:
            conditions += " AND revoked_at IS NULL"
        values = {"expires_at": expires_at, "sid": sid, "subject": subject, "limit": limit}
        found = [SessionRow(*row) for row in await self._rows(sql.PAGE.format(conditions=conditions), values)]
        return found, next_page_cursor(found, limit)

    async def revocations(self, after: int) -> tuple[int, list[tuple[str, float]]]:
        oldest, start = divmod(after, CURSOR_START_RANGE)
        rows = await self._rows(sql.REVOCATIONS, (oldest,))
        if after and (rows[0][1] % CURSOR_START_RANGE != start or int(rows[0][0]) < oldest):  # rule 4
            rows = await self._rows(sql.REVOCATIONS, (0,))
        cursor = int(rows[0][0]) * CURSOR_START_RANGE + rows[0][1] % CURSOR_START_RANGE
        return cursor, [(sid, until) for *_, sid, until in rows if sid is not None]

    # ---- keys and accounts ---------------------------------------------------------------------------------------

    async def keys(self) -> list[KeyRecord]:
        return [KeyRecord(*row) for row in await self._rows(sql.KEYS)]

    async def save_keys(self, records: Sequence[KeyRecord], *, first: bool = False) -> None:
        shared = {"first": first, "kids": [record.kid for record in records]}
        saves = [(sql.SAVE_KEY, asdict(record) | shared) for record in records]
        await self._driver.transaction([(sql.LOCK_KEYS, ()), *saves, (sql.NOTIFY, ())])

    async def accounts(self) -> list[Account]:
        return [Account(*row) for row in await self._rows(sql.ACCOUNTS)]

    async def account(self, name: str) -> Account | None:
        rows = await self._rows(sql.ACCOUNT, (name,))
        return Account(*rows[0]) if rows else None

    async def add_account(self, account: Account) -> bool:
        return bool(await self._rows(sql.ADD_ACCOUNT, astuple(account)))

    async def change_account(
        self, name: str, password_hash: str | None, *, expected: str | None = None, scope: str | None = None
    ) -> bool:
        statement = sql.DELETE_ACCOUNT if password_hash is None else sql.CHANGE_ACCOUNT
        values = {"hash": password_hash, "name": name, "expected": expected, "scope": scope}
        return bool(await self._rows(statement, values))

    # ---- markers -------------------------------------------------------------------------------------------------

    async def advance_marker(self, key: bytes, now: float, step: float, max_ahead: float) -> float:
        values = {"key": key, "now": float(now), "step": float(step), "max_ahead": float(max_ahead)}
        [(until, _)] = await self._rows(sql.ADVANCE_MARKER, values)
        return float(until)

    async def read_markers(self, keys: Sequence[bytes]) -> list[float]:
        found = dict(await self._rows(sql.READ_MARKERS, (list(keys),)))
        return [found.get(key, 0.0) for key in keys]

    async def clear_markers(self, keys: Sequence[bytes]) -> None:
        await self._rows(sql.CLEAR_MARKERS, (list(keys),))

    # ---- the store -----------------------------------------------------------------------------------------------

    def notifications(self) -> PostgresNotifications:
        return PostgresNotifications(self._driver, sql.CHANNEL)

    async def health(self) -> None:
        await self._rows(sql.HEALTH)

    async def problems(self) -> list[StoreProblem]:
        asked_at = time.time()
        [(server_time, fsync, commit, pages)] = await self._rows(sql.SETTINGS)
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
    return "".join(sql.CONDITIONS[name] for name, value in given.items() if value is not None)


def _rotate_values(key: bytes, token: PresentedToken, now: float, policy: Policy) -> dict[str, Any]:
    return {
        "key": key,
        "generation": token.generation,
        "branch": token.branch,
        "idempotency_hash": token.idempotency_hash,
        "party": token.party,
        "scope": token.scope,
        "jkt": token.jkt,
        "now": float(now),  # an int would make PostgreSQL prepare another statement
        "hour": float(hour_of(now)),
        "refresh_ttl": policy.refresh_ttl,
        "grace": policy.grace,
    }


# ---- by URL ----------------------------------------------------------------------------------------------------------


def schema_version(url: str) -> SchemaVersion:
    """Return the schema at *url*, and change nothing. Raise ConfigurationError or StoreUnavailable."""
    return postgres_schema.read_version(PostgresDriver(url, tables=postgres_schema.NAMES))


def upgrade_schema(url: str) -> None:
    """Create or upgrade the tables at *url*. Raise ConfigurationError or StoreUnavailable."""
    postgres_schema.upgrade(PostgresDriver(url, tables=postgres_schema.NAMES))
