"""An MCP client that calls a tool until its time is over: ``python mcp_visitor.py session|provider NAME URL SECONDS``.

It prints how many calls got which result, and how often it had to log in, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections import Counter
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
from mcp import Client
from mcp.client.auth import AuthorizationCodeResult
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import OAuthClientMetadata

from unbroken import Session
from unbroken.mcp import OAuthProvider, SessionAuth, http_client

METADATA = OAuthClientMetadata(client_name="sums", redirect_uris=["http://127.0.0.1/landed"])  # type: ignore[list-item]


class Person:
    """Somebody at a browser, who agrees at once."""

    def __init__(self) -> None:
        self.logins = 0
        self._landed = ""

    async def open(self, url: str) -> None:
        self.logins += 1
        async with httpx2.AsyncClient(timeout=30) as browser:
            self._landed = (await browser.get(url)).headers["location"]

    async def result(self) -> AuthorizationCodeResult:
        answer = {name: values[0] for name, values in parse_qs(urlsplit(self._landed).query).items()}
        return AuthorizationCodeResult(**answer)


async def visit(auth: httpx2.Auth, url: str, ends: float) -> Counter[str]:
    seen: Counter[str] = Counter()
    async with http_client(auth) as http, Client(streamable_http_client(url, http_client=http)) as client:
        while not seen or time.time() < ends:
            result: Any = await client.call_tool("add", {"a": 20, "b": 22})
            seen[result.content[0].text] += 1
            await asyncio.sleep(random.uniform(0.0, 0.1))
    return seen


if __name__ == "__main__":
    kind, name, url, seconds = sys.argv[1:]
    person = Person()
    if kind == "session":
        auth: httpx2.Auth = SessionAuth(Session.open(name))
    else:
        auth = OAuthProvider(name, url, METADATA, person.open, person.result)
    counted = asyncio.run(visit(auth, url, time.time() + float(seconds)))
    sys.stdout.write(json.dumps({**counted, "logins": person.logins}))
