"""The server without HTTP: rotation compared with a bare statement and signature, verification with PyJWT."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jwt

from bench.figure import Figure, in_turns, per_call
from unbroken.server import Sessions, SqliteSessionStore
from unbroken.server.stores.sqlite_statements import ROTATE

REFRESHES = 2000


def figures() -> Iterator[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        store = SqliteSessionStore(Path(folder) / "bench.db")
        sessions = Sessions(store)
        taken = in_turns({"bare": _bare(sessions, store), "ours": _ours(sessions)}, 5)
        ratio = taken["bare"] / taken["ours"]
        yield Figure("one rotation through Sessions", taken["ours"], "µs")
        yield Figure("bare UPDATE … RETURNING + one EdDSA signature", taken["bare"], "µs")
        yield Figure("ratio of the rates: ours to bare", ratio, "x", "at least 0.7", ratio >= 0.7)
        token = sessions.create("ada").access_token
        public = sessions.keyring().signing[0].jwk.get_op_key("verify")
        taken = in_turns(
            {
                "ours": per_call(lambda: sessions.verify(token), 20_000),
                "PyJWT": per_call(lambda: jwt.decode(token, public, algorithms=["EdDSA"], audience="unbroken"), 500),
            }
        )
        ratio = taken["PyJWT"] / taken["ours"]
        yield Figure("verifying a token seen before", taken["ours"], "µs")
        yield Figure("ratio: PyJWT's decode to it", ratio, "x", "at least 40", ratio >= 40)


def _ours(sessions: Sessions) -> Callable[[], float]:
    def run() -> float:
        token = sessions.create("ada", coordinated=True).refresh_token or ""
        began = time.perf_counter()
        for number in range(REFRESHES):
            token = sessions.refresh(token, idempotency_key=f"attempt {number}").refresh_token or ""
        return (time.perf_counter() - began) / REFRESHES * 1e6

    return run


def _bare(sessions: Sessions, store: SqliteSessionStore) -> Callable[[], float]:
    sign = sessions.keyring().signing[0].jwk.get_op_key("sign").sign
    payload = os.urandom(330)  # as long as an access token's signing input

    def run() -> float:
        sessions.create("bob")
        db = store._file.connection(durable=False)
        (key,) = db.execute("SELECT key FROM session WHERE subject = 'bob' AND generation = 0").fetchone()
        began = time.perf_counter()
        for g in range(REFRESHES):
            values = {"key": key, "generation": g, "branch": 0, "idempotency_hash": b"x" * 16, "party": "", "jkt": None}
            values |= {"now": (now := time.time()), "hour": now, "refresh_ttl": 600000.0, "grace": 10.0}
            db.execute(ROTATE, values).fetchall()
            sign(payload)
        return (time.perf_counter() - began) / REFRESHES * 1e6

    return run
