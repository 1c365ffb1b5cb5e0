"""The minimum of a refresh in Starlette: the bare statement of each store, and one EdDSA token by joserfc.

No check, no MAC, no error. Its "refresh token" is the row's key and generation. The statement and its durability are
the ones our stores use; so is the driver, with a pool as its documentation shows it.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Awaitable, Callable
from typing import Any

from joserfc import jwt
from joserfc.jwk import OKPKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from bench.server.apps import ours, store
from unbroken.server.core.refresh_token import row_key

Rotate = Callable[[bytes, int], Awaitable[Any]]
IDLE = 7 * 86400.0


def tokens(n: int) -> list[str]:
    keyring_less = [_f_of(text) for text in ours.tokens(n)]
    return [f"{row_key(f).hex()}.0" for f in keyring_less]


def _f_of(text: str) -> bytes:
    """Return the random part of a refresh token, ours or bare."""
    import base64

    raw = base64.urlsafe_b64decode(text.removeprefix("rt_") + "=" * (-len(text.removeprefix("rt_")) % 4))
    return raw[2:18]


def app() -> Starlette:
    url, key, made = store(), OKPKey.generate_key("Ed25519"), {"rotate": None}
    kinds = {"sqlite": _sqlite, "postgresql": _postgres, "redis": _redis}

    async def refresh(request: Request) -> JSONResponse:
        rotate: Any = made["rotate"] or await _made()
        token = (await request.json())["refresh_token"]
        name, _, g = token.partition(".")
        if not await rotate(bytes.fromhex(name), int(g)):
            raise RuntimeError("the bare statement has changed nothing")
        now = int(time.time())
        claims = {
            "iss": "http://127.0.0.1:8400",
            "sub": "user-1",
            "aud": "unbroken",
            "iat": now,
            "exp": now + 1800,
            "sid": name[:22],
        }
        access = jwt.encode({"alg": "EdDSA"}, claims, key, algorithms=["EdDSA"])
        return JSONResponse({"access_token": access, "refresh_token": f"{name}.{int(g) + 1}", "expires_in": 1800})

    async def _made() -> Any:
        made["rotate"] = await kinds[url.partition(":")[0]](url)
        return made["rotate"]

    return Starlette(routes=[Route("/refresh", refresh, methods=["POST"])])


def _values(key: bytes, generation: int) -> dict[str, Any]:
    now = time.time()
    return {
        "key": key,
        "generation": generation,
        "branch": 0,
        "idempotency_hash": None,
        "party": "",
        "jkt": None,
        "now": now,
        "hour": now,
        "refresh_ttl": IDLE,
        "grace": 10.0,
    }


async def _sqlite(url: str) -> Rotate:
    from unbroken.server.stores.sqlite_statements import ROTATE

    db = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = NORMAL")

    async def rotate(key: bytes, g: int) -> Any:
        return db.execute(ROTATE, _values(key, g)).rowcount

    return rotate


async def _postgres(url: str) -> Rotate:
    from psycopg_pool import AsyncConnectionPool

    from unbroken.server.stores.postgres_statements import ROTATE

    pool = AsyncConnectionPool(url, min_size=4, max_size=10, kwargs={"autocommit": True}, open=False)
    await pool.open(wait=True)

    async def rotate(key: bytes, g: int) -> Any:
        async with pool.connection() as connection:
            return await (await connection.execute(ROTATE, _values(key, g))).fetchone()

    return rotate


async def _redis(url: str) -> Rotate:
    import redis.asyncio

    from unbroken._drivers.redis import _scripts
    from unbroken.server.stores.redis_rows import RedisKeys
    from unbroken.server.stores.redis_scripts import ROTATE

    client, names = redis.asyncio.Redis.from_url(url), RedisKeys("unbroken")
    await client.script_load(_scripts[ROTATE])
    epoch = names.subject("user-1")[1]

    async def rotate(key: bytes, g: int) -> Any:
        now = time.time()
        return await client.evalsha(
            ROTATE, 2, names.session(key)[0], epoch,
            g, 0, repr(now), repr(now + IDLE), b"", g + 1, "", "10.0", repr(now), 0, b"",
        )  # fmt: skip

    return rotate
