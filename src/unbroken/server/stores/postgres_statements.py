"""The statements of the store in PostgreSQL."""

# ruff: noqa: S608  # statements consist of constants of this file

from __future__ import annotations

from dataclasses import fields

from unbroken.server.core.rotation import SessionFacts, SessionRow
from unbroken.server.keys.keyring import ENCRYPTED_PREFIX
from unbroken.server.stores.base import COMPARED_FIELDS

CHANNEL = "unbroken_notification"
KEYS_LOCK_ID = 0x756E6273
FIELDS = tuple(column.name for column in fields(SessionRow))
COLUMNS = ", ".join(FIELDS)
FACTS = ", ".join(SessionFacts._fields[1:])  # without the key, which the caller has

# The commit does not wait for the disk (rule 1 of postgres.py). In RETURNING, it is set only if a row was changed.
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
    newest_scope = %(scope)s,
    shared_streak = CASE WHEN shared THEN shared_streak + 1
                         WHEN abs(%(now)s - rotated_at) < %(grace)s THEN shared_streak ELSE 0 END,
    used_earlier_at = CASE WHEN used_at < %(hour)s THEN used_at ELSE used_earlier_at END,
    used_at = %(now)s, idle_expires_at = least(%(now)s + %(refresh_ttl)s, expires_at)
WHERE key = %(key)s AND generation = %(generation)s
    AND CASE WHEN first_used_branch IS NULL THEN branch = %(branch)s OR NOT coordinated
             ELSE first_used_branch = %(branch)s END
    AND revoked_at IS NULL AND idle_expires_at > %(now)s AND expires_at > %(now)s
    AND (jkt IS NULL OR jkt = %(jkt)s)
"""
ROTATE = f"{R1} RETURNING {WITHOUT_FLUSH}"
ROTATE_RETURNING = f"""
{R1} AND client_id = coalesce(%(client_id)s::text, client_id) AND issuer = coalesce(%(issuer)s::text, issuer)
    AND audience = coalesce(%(audience)s::text, audience)
RETURNING {WITHOUT_FLUSH}, {FACTS}
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
ACCOUNTS = "SELECT name, shown, password_hash, created_at, subject, scope FROM unbroken_account ORDER BY name"
ACCOUNT = "SELECT name, shown, password_hash, created_at, subject, scope FROM unbroken_account WHERE name = %s"
ADD_ACCOUNT = "INSERT INTO unbroken_account VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING RETURNING name"
CHANGE_ACCOUNT = """
UPDATE unbroken_account SET password_hash = %(hash)s, scope = coalesce(%(scope)s, scope)
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
