"""The statements of the store in SQLite."""

# ruff: noqa: S608  # statements consist of constants of this file

from __future__ import annotations

from dataclasses import fields

from unbroken.server.core.rotation import SessionFacts, SessionRow
from unbroken.server.keys.keyring import ENCRYPTED_PREFIX
from unbroken.server.stores.base import COMPARED_FIELDS

FIELDS = tuple(column.name for column in fields(SessionRow))
BOOL_FIELDS = ("coordinated", "idempotency_key_repeated", "shared")
COLUMNS = ", ".join(FIELDS)
FACTS = ", ".join(SessionFacts._fields[1:])  # without the key, which the caller has
INSERT = f"INSERT INTO session ({COLUMNS}) VALUES ({', '.join('?' * len(FIELDS))})"
DELETE_EXPIRED = "DELETE FROM session WHERE key IN (SELECT key FROM session WHERE expires_at < ? LIMIT 100)"
READ = f"SELECT {COLUMNS} FROM session WHERE key = ?"
# R1: the condition is that of ``rotation.present``, the change that of ``rotation.rotate``.
ROTATE = """
UPDATE session SET
    generation = generation + 1, branch = 0,
    previous_rotated_at = rotated_at, previous_promoted_branch = promoted_branch,
    rotated_at = :now, promoted_branch = :branch,
    idempotency_key_repeated = coalesce(idempotency_hash = :idempotency_hash, 0),
    idempotency_hash = :idempotency_hash, first_used_branch = NULL, presenter = :party, shared = 0,
    newest_scope = :scope,
    shared_streak = CASE WHEN shared THEN shared_streak + 1
                         WHEN abs(:now - rotated_at) < :grace THEN shared_streak ELSE 0 END,
    used_earlier_at = CASE WHEN used_at < :hour THEN used_at ELSE used_earlier_at END,
    used_at = :now, idle_expires_at = min(:now + :refresh_ttl, expires_at)
WHERE key = :key AND generation = :generation
    AND CASE WHEN first_used_branch IS NULL THEN branch = :branch OR NOT coordinated
             ELSE first_used_branch = :branch END
    AND revoked_at IS NULL AND idle_expires_at > :now AND expires_at > :now AND (jkt IS NULL OR jkt = :jkt)
"""
ROTATE_RETURNING = f"""{ROTATE}
    AND client_id = coalesce(:client_id, client_id) AND issuer = coalesce(:issuer, issuer)
    AND audience = coalesce(:audience, audience)
RETURNING {FACTS}
"""
COMPARE_AND_SET = f"""
UPDATE session SET {", ".join(f"{name} = :new_{name}" for name in FIELDS)}
WHERE key = :key AND {" AND ".join(f"{name} IS :{name}" for name in COMPARED_FIELDS)} AND revoked_at IS NULL
RETURNING generation
"""
REVOKE = """
UPDATE session SET revoked_at = :now, revoked_why = :reason
WHERE revoked_at IS NULL AND idle_expires_at > :now AND expires_at > :now{conditions} RETURNING sid
"""
COUNT_UNREVOKED = """
SELECT count(*) FROM (
    SELECT 1 FROM session INDEXED BY session_unrevoked WHERE subject = :subject AND revoked_at IS NULL LIMIT :most
)
"""
TRIM = """
WITH first AS (
    SELECT key, used_at, created_at FROM session INDEXED BY session_unrevoked
    WHERE subject = :subject AND revoked_at IS NULL ORDER BY expires_at LIMIT :most
)
UPDATE session SET revoked_at = :now,
    revoked_why = CASE WHEN min(idle_expires_at, expires_at) > :now THEN :reason ELSE 'expired' END
WHERE key IN (
    SELECT key FROM first ORDER BY used_at, created_at, key LIMIT (SELECT max(count(*) - :keep, 0) FROM first)
)
RETURNING sid, revoked_why
"""
PAGE = f"""
SELECT {COLUMNS} FROM session WHERE expires_at <= :expires_at AND (expires_at, sid) < (:expires_at, :sid){{conditions}}
ORDER BY expires_at DESC, sid DESC LIMIT :limit
"""
SESSIONS = f"SELECT {COLUMNS} FROM session WHERE true{{conditions}} ORDER BY used_at DESC"
# A statement contains only the conditions that are given, so that SQLite uses an index.
CONDITIONS = {
    "sid": " AND sid = :sid",
    "subject": " AND subject = :subject",
    "except_sid": " AND sid <> :except_sid",
}
RECORD_FIRST_USE = """
UPDATE session SET first_used_branch = ?
WHERE sid = ? AND generation = ? AND first_used_branch IS NULL RETURNING generation
"""
ANNOUNCE = "INSERT INTO revocation (sid, until) VALUES (?, ?)"
DELETE_OLD_REVOCATIONS = """
DELETE FROM revocation WHERE seq IN (SELECT seq FROM revocation ORDER BY seq LIMIT 100) AND until < ?
"""
# The newest number ever given out, beside each revocation after the cursor; one row without a sid if there is none.
REVOCATIONS = """
SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'revocation'), 0), sid, until
FROM (SELECT 1) LEFT JOIN revocation ON seq > ? ORDER BY seq
"""
KEYS = "SELECT * FROM key ORDER BY created_at, kid"
# What ``KeyRecord.merged_with`` returns.
SAVE_KEY = f"""
INSERT INTO key VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (kid) DO UPDATE SET
    verifies_until = min(coalesce(verifies_until, excluded.verifies_until),
                         coalesce(excluded.verifies_until, verifies_until)),
    token_ttl = max(token_ttl, excluded.token_ttl),
    secret = CASE WHEN substr(excluded.secret, 1, {len(ENCRYPTED_PREFIX)}) = '{ENCRYPTED_PREFIX}'
                  THEN excluded.secret ELSE secret END
"""
ACCOUNTS = "SELECT * FROM account ORDER BY name"
ACCOUNT = "SELECT * FROM account WHERE name = ?"
ADD_ACCOUNT = "INSERT INTO account VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING RETURNING name"
CHANGE_ACCOUNT = """
UPDATE account SET password_hash = :hash, scope = coalesce(:scope, scope)
WHERE name = :name AND password_hash = coalesce(:expected, password_hash) RETURNING name
"""
DELETE_ACCOUNT = """
DELETE FROM account WHERE name = :name AND password_hash = coalesce(:expected, password_hash) RETURNING name
"""
ADVANCE_MARKER = """
INSERT INTO marker VALUES (:key, min(:now + :step, :now + :max_ahead))
ON CONFLICT (key) DO UPDATE SET until = min(max(until, :now) + :step, :now + :max_ahead) RETURNING until
"""
DELETE_PAST_MARKERS = "DELETE FROM marker WHERE key IN (SELECT key FROM marker WHERE until < ? LIMIT 100)"
READ_MARKERS = "SELECT key, until FROM marker WHERE key IN ({places})"
CLEAR_MARKER = "DELETE FROM marker WHERE key = ?"
HEALTH = "SELECT 1 FROM key LIMIT 1"
