PRAGMA application_id = 1970168434;
PRAGMA user_version = 1;
BEGIN TRANSACTION;
CREATE TABLE account (
    name TEXT PRIMARY KEY, shown TEXT NOT NULL, password_hash TEXT NOT NULL, created_at REAL NOT NULL
) WITHOUT ROWID;
INSERT INTO "account" VALUES('bob','bob','$argon2id$v=19$m=65536,t=3,p=4$GNjdiUUEwC5Opb1q+pux8A$z5ieacYBkk0SihqnSE4R9IInmG0aLbswHzClpymW/d0',1.79525297784059834483e+09);
CREATE TABLE key (
    kid TEXT PRIMARY KEY, use TEXT NOT NULL, alg TEXT NOT NULL, secret TEXT NOT NULL,
    created_at REAL NOT NULL, signs_from REAL NOT NULL, verifies_until REAL, token_ttl REAL NOT NULL
) WITHOUT ROWID;
INSERT INTO "key" VALUES('1','mac','HS256','342v2bVLl5ygpUMQeDZ3wKcwuVQ96R1MxTc82x2i748',1760000000.0,0.0,NULL,604800.0);
INSERT INTO "key" VALUES('T37_OQRAb4QDT0f5jub8-ck2-_4EFDVMgLRTtsBaiq4','sign','EdDSA','{"crv": "Ed25519", "x": "CJb9vfmr_Ck71hUN5mAgQoEwzFwFUX5rNCelwv9iQJM", "d": "4wci6cckFLw8DlJCm70d3lKF-U_KV57gcH74ilwFlLo", "kty": "OKP"}',1760000000.0,0.0,NULL,1800.0);
CREATE TABLE revocation (seq INTEGER PRIMARY KEY AUTOINCREMENT, sid TEXT NOT NULL, until REAL NOT NULL);
INSERT INTO "revocation" VALUES(1,'eeVBMRx2XCbvjRo_cr6IqA',1760001805.0);
CREATE TABLE session (
    key BLOB PRIMARY KEY, sid TEXT NOT NULL UNIQUE, subject TEXT NOT NULL,
    created_at REAL NOT NULL, used_at REAL NOT NULL, idle_expires_at REAL NOT NULL, expires_at REAL NOT NULL,
    client_id TEXT NOT NULL, scope TEXT NOT NULL, coordinated INTEGER NOT NULL,
    generation INTEGER NOT NULL, branch INTEGER NOT NULL, rotated_at REAL, promoted_branch INTEGER, previous_rotated_at REAL, previous_promoted_branch INTEGER, idempotency_hash BLOB, first_used_branch INTEGER,
    revoked_at REAL, revoked_why TEXT, evidence TEXT,
    label TEXT NOT NULL, ip TEXT NOT NULL, user_agent TEXT NOT NULL
) WITHOUT ROWID;
INSERT INTO "session" VALUES(X'3A4B358F15C5F55E6770A259949109BC11B999AF495BF7F1FC1C6271342EB72E','i-VGL_6tqCBTqwXrzhx35g','ada',1760000000.0,1760000000.0,1760604800.0,1767776000.0,'first-party','',0,1,0,1760000000.0,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'laptop','','');
INSERT INTO "session" VALUES(X'F68A1461919D0B7A85545223D2D2FBE5C64707E526FF2E3A48099E1940532C78','eeVBMRx2XCbvjRo_cr6IqA','eve',1760000000.0,1760000000.0,1760604800.0,1767776000.0,'first-party','',0,0,0,NULL,NULL,NULL,NULL,NULL,NULL,1760000000.0,'revoked',NULL,'','','');
CREATE INDEX session_subject ON session (subject);
CREATE INDEX session_expires_at ON session (expires_at);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('revocation',1);
COMMIT;
