CREATE TABLE unbroken_session (
    created_at float8 NOT NULL, used_at float8 NOT NULL, idle_expires_at float8 NOT NULL, expires_at float8 NOT NULL,
    rotated_at float8, previous_rotated_at float8, revoked_at float8,
    generation int8 NOT NULL, branch int4 NOT NULL, promoted_branch int4, previous_promoted_branch int4, first_used_branch int4, coordinated bool NOT NULL,
    key bytea NOT NULL, idempotency_hash bytea,
    sid text COLLATE "C" NOT NULL, subject text COLLATE "C" NOT NULL,
    client_id text NOT NULL, scope text NOT NULL, revoked_why text, evidence text,
    label text NOT NULL, ip text NOT NULL, user_agent text NOT NULL
) WITH (fillfactor = 78);
CREATE INDEX unbroken_session_key ON unbroken_session USING hash (key) WITH (fillfactor = 100);
CREATE INDEX unbroken_session_sid ON unbroken_session USING hash (sid) WITH (fillfactor = 100);
CREATE INDEX unbroken_session_subject ON unbroken_session (hashtext(subject));
CREATE INDEX unbroken_session_expires_at ON unbroken_session (expires_at);
CREATE TABLE unbroken_revocation (
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(), sid text COLLATE "C" NOT NULL, until float8 NOT NULL
);
CREATE INDEX unbroken_revocation_xid ON unbroken_revocation (xid);
CREATE INDEX unbroken_revocation_until ON unbroken_revocation (until);
CREATE TABLE unbroken_key (
    kid text COLLATE "C" PRIMARY KEY, use text NOT NULL, alg text NOT NULL, secret text NOT NULL,
    created_at float8 NOT NULL, signs_from float8 NOT NULL, verifies_until float8, token_ttl float8 NOT NULL
);
CREATE TABLE unbroken_account (
    name text COLLATE "C" PRIMARY KEY, shown text NOT NULL, password_hash text NOT NULL, created_at float8 NOT NULL
);
