"""What the session adds to a request with a valid token, compared with a fixed header; over a mock transport."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import httpx2
from authlib.integrations.httpx_client import OAuth2Client

import unbroken.httpx
import unbroken.httpx2
from bench.figure import Figure, in_turns, per_call
from unbroken import Session, TokenResponse

URL = "http://127.0.0.1:9/x"
CALLS = 3000
LIMIT = 5.0


def figures() -> Iterator[Figure]:
    session = Session("http://127.0.0.1:9")
    session.import_tokens(TokenResponse("a" * 300, "r" * 50, 1e6))
    fixed = {"authorization": "Bearer " + session.token()}
    for library, auth in ((httpx2, unbroken.httpx2.SessionAuth(session)), (httpx, unbroken.httpx.SessionAuth(session))):
        name: Any = library
        transport = name.MockTransport(lambda request, response=name.Response: response(200, content=b""))
        bare = name.Client(transport=transport, headers=fixed)
        ours = name.Client(transport=transport, auth=auth)
        works = {"bare": per_call(lambda c=bare: c.get(URL), CALLS), "ours": per_call(lambda c=ours: c.get(URL), CALLS)}
        if library is httpx2:  # Authlib prefers httpx2
            token = {"access_token": "a" * 300, "expires_at": time.time() + 1e6, "token_type": "Bearer"}
            peer = OAuth2Client(token=token, transport=transport)
            works["Authlib"] = per_call(lambda c=peer: c.get(URL), CALLS)
        taken = in_turns(works)
        yield _figure(f"SessionAuth on {library.__name__}.Client, over a fixed header", taken["ours"] - taken["bare"])
        if "Authlib" in taken:
            yield Figure("the same for Authlib's OAuth2Client", taken["Authlib"] - taken["bare"], "µs")
        taken = _async(name, transport, auth, fixed)
        yield _figure(f"SessionAuth on {library.__name__}.AsyncClient", taken["ours"] - taken["bare"])


def _async(library: Any, transport: Any, auth: Any, fixed: dict[str, str]) -> dict[str, float]:
    def timed(client: Any) -> Callable[[], float]:
        async def run() -> float:
            async with client() as opened:
                began = time.perf_counter()
                for _ in range(CALLS):
                    await opened.get(URL)
                return (time.perf_counter() - began) / CALLS * 1e6

        return lambda: asyncio.run(run())

    return in_turns(
        {
            "bare": timed(lambda: library.AsyncClient(transport=transport, headers=fixed)),
            "ours": timed(lambda: library.AsyncClient(transport=transport, auth=auth)),
        }
    )


def _figure(what: str, cost: float) -> Figure:
    return Figure(what, cost, "µs a request", f"at most {LIMIT:g} µs", cost <= LIMIT)
