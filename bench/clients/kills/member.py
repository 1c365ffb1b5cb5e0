"""One process of the fleet: ``python -m bench.clients.kills.member JSON``. It may be killed at any moment.

1. It writes a line for each request, at once: what (``ours``, ``fixed``, ``cli``), when it ended, seconds, outcome.
2. Every fifth request has a fixed token, that of another login: so both are measured under the same load.
3. ``warm`` is the first request of a process, in which connections are made and modules imported; it is not measured.
4. Tokens live three seconds in place of sixty, but members do not make twenty times as many requests. So the advisory
   window is wider than by default: in a fifth of three seconds there are too few requests that could start a background
   refresh, in a fifth of sixty there are plenty.
5. A command that starts a program gives it a token of which a fifth is left, 0.6 seconds here; on a busy machine
   Python takes longer to start. ``late`` is such a program, which was refused; it counts as no failure.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

TIMEOUT = 30.0
FIXED_OF = 5  # requests
ADVISORY = 0.5  # of the lifetime
LATE_STATUS = 3


def record(what: str, began: float, outcome: str) -> None:
    line = f"{what} {time.time():.4f} {time.perf_counter() - began:.5f} {outcome}\n"
    os.write(1, line.encode())


def timed(what: str, send: Callable[[], int]) -> None:
    """Record the request that *send* makes."""
    began = time.perf_counter()
    try:
        outcome = str(send())
    except Exception as error:
        outcome = name_of(error)
    record(what, began, outcome)


def name_of(error: BaseException) -> str:
    reason = getattr(error, "reason", "")
    return f"{type(error).__name__}:{reason}" if isinstance(reason, str) and reason else type(error).__name__


def pause(about: dict[str, Any]) -> float:
    seconds: float = about["pause"] * random.uniform(0.5, 1.5)
    return seconds


def session_of(about: dict[str, Any]) -> Any:
    from unbroken import Leeway, Session, oauth2
    from unbroken.client.stores import open_token_store

    store = open_token_store(about["store"], about["name"])
    return Session(oauth2(about["url"] + "/token"), store, leeway=Leeway(ADVISORY))  # rule 4


# ---- kinds -----------------------------------------------------------------------------------------------------------


def python_sync(about: dict[str, Any]) -> None:
    import httpx2

    from unbroken.httpx2 import SessionAuth

    auth, fixed = SessionAuth(session_of(about)), {"authorization": f"Bearer {about['fixed']}"}
    with httpx2.Client(timeout=TIMEOUT) as client:
        timed("warm", lambda: client.get(about["url"] + "/api", auth=auth).status_code)
        for number in itertools.count():
            time.sleep(pause(about))
            if number % FIXED_OF:
                timed("ours", lambda: client.get(about["url"] + "/api", auth=auth).status_code)
            else:
                timed("fixed", lambda: client.get(about["url"] + "/api", headers=fixed).status_code)


async def in_loop(about: dict[str, Any], send: Callable[..., Awaitable[Any]], auth: Any) -> None:
    fixed = {"authorization": f"Bearer {about['fixed']}"}

    async def once(what: str, **how: Any) -> None:
        began = time.perf_counter()
        try:
            outcome = str((await send(about["url"] + "/api", **how)).status_code)
        except Exception as error:
            outcome = name_of(error)
        record(what, began, outcome)

    await once("warm", auth=auth)
    for number in itertools.count():
        await asyncio.sleep(pause(about))
        if number % FIXED_OF:
            await once("ours", auth=auth)
        else:
            await once("fixed", headers=fixed)


async def python_async(about: dict[str, Any]) -> None:
    import httpx2

    from unbroken.httpx2 import SessionAuth

    async with httpx2.AsyncClient(timeout=TIMEOUT) as client:
        await in_loop(about, client.get, SessionAuth(session_of(about)))


async def mcp(about: dict[str, Any]) -> None:
    """A client of MCP over HTTP, which posts messages of JSON-RPC: that of the SDK where there is a profile."""
    client, auth = _mcp_sdk(about) if about["has_profile"] else _mcp_alone(about)
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    async with client:

        async def post(url: str, **how: Any) -> Any:
            return await client.post(url, json=message, **how)

        await in_loop(about, post, auth)


def _mcp_sdk(about: dict[str, Any]) -> tuple[Any, Any]:
    from unbroken import Leeway, Session, SessionOver
    from unbroken.mcp import SessionAuth, http_client

    while True:
        with contextlib.suppress(SessionOver):  # a lost login is replaced at once
            auth = SessionAuth(Session.open(about["name"], leeway=Leeway(ADVISORY)))
            return http_client(auth), auth
        time.sleep(0.1)


def _mcp_alone(about: dict[str, Any]) -> tuple[Any, Any]:
    import httpx

    from unbroken.httpx import SessionAuth

    return httpx.AsyncClient(timeout=TIMEOUT), SessionAuth(session_of(about))


REQUEST = """
import http.client, os, sys
connection = http.client.HTTPConnection(sys.argv[1], timeout=30)
connection.request("GET", "/api", headers={"authorization": "Bearer " + os.environ["UNBROKEN_TOKEN"]})
sys.exit({200: 0, 401: 3}.get(connection.getresponse().status, 1))
"""


def cli(about: dict[str, Any]) -> None:
    """A script: a command that gets the token in its environment, then one that prints it."""
    unbroken, address = [sys.executable, "-m", "unbroken.cli"], about["url"].removeprefix("http://")
    commands = (
        [*unbroken, "exec", about["name"], "--", sys.executable, "-S", "-c", REQUEST, address],
        [*unbroken, "token", about["name"]],
    )
    what = "warm"
    while True:
        for command in commands:
            began = time.perf_counter()
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            said = {0: "200", LATE_STATUS: "late"}.get(
                done.returncode, "_".join(done.stderr.split())[-150:] or "refused"
            )
            record(what, began, said)
            what = "cli"
            time.sleep(8 * pause(about))


def main() -> None:
    about = json.loads(sys.argv[1])
    match about["kind"]:
        case "sync":
            python_sync(about)
        case "async":
            asyncio.run(python_async(about))
        case "mcp":
            asyncio.run(mcp(about))
        case "cli":
            cli(about)
        case "authlib":
            peers().authlib(about)
        case "mcp-sdk":
            asyncio.run(peers().mcp_sdk(about))


def peers() -> Any:
    from bench.clients.kills import peers

    return peers


if __name__ == "__main__":
    main()
