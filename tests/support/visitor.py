"""A program that uses one session by name until its time is over.

``python visitor.py sync|async|cli NAME URL SECONDS`` prints how many of its requests got which status, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import time
from collections import Counter

from unbroken import Session

TASKS = 8  # of the async kind


def visit(name: str, url: str, seconds: float) -> Counter[str]:
    import httpx2

    from unbroken.httpx2 import SessionAuth

    seen, ends = Counter[str](), time.time() + seconds
    with Session.open(name) as session, httpx2.Client(auth=SessionAuth(session), timeout=60) as client:
        while not seen or time.time() < ends:
            seen[str(client.get(url).status_code)] += 1
            time.sleep(random.uniform(0.0, 0.05))
    return seen


async def avisit(name: str, url: str, seconds: float) -> Counter[str]:
    import httpx2

    from unbroken.httpx2 import SessionAuth

    seen, ends = Counter[str](), time.time() + seconds

    async def task(client: httpx2.AsyncClient) -> None:
        while not seen or time.time() < ends:
            seen[str((await client.get(url)).status_code)] += 1
            await asyncio.sleep(random.uniform(0.0, 0.2))

    async with Session.open(name) as session, httpx2.AsyncClient(auth=SessionAuth(session), timeout=60) as client:
        await asyncio.gather(*(task(client) for _ in range(TASKS)))
    return seen


def visit_by_commands(name: str, url: str, seconds: float) -> Counter[str]:
    seen, ends = Counter[str](), time.time() + seconds
    command = [sys.executable, "-m", "unbroken.cli", "fetch", name, url, "-f"]
    while not seen or time.time() < ends:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        seen["200" if done.returncode == 0 else done.stderr.strip() or str(done.returncode)] += 1
    return seen


if __name__ == "__main__":
    kind, name, url, seconds = sys.argv[1:]
    each = float(seconds)
    match kind:
        case "sync":
            counted = visit(name, url, each)
        case "async":
            counted = asyncio.run(avisit(name, url, each))
        case _:
            counted = visit_by_commands(name, url, each)
    sys.stdout.write(json.dumps(counted))
