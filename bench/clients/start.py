"""What every contender starts with: tokens, and what it believes about them; and how all of them are driven.

A contender is a function from a ``Start`` to a ``Client``: two functions that send, each returning the status.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Start:
    """Tokens of ``family`` at ``url``. ``expires_in``: what the client believes, in seconds, negative if expired.

    ``lifetime``: the lifetime that the server states. ``file``, if not empty, is shared between processes.
    """

    url: str
    family: str
    access_token: str
    refresh_token: str
    expires_in: float
    lifetime: float = 3600.0
    file: str = ""
    ours: bool = False  # the server is unbroken's own

    @property
    def token_url(self) -> str:
        return self.url + "/token"

    @property
    def expires_at(self) -> float:
        return time.time() + self.expires_in

    def form(self, refresh_token: str) -> dict[str, str]:
        """Return the form that refreshes *refresh_token*, for contenders that send it themselves."""
        return {"grant_type": "refresh_token", "refresh_token": refresh_token, "client_id": "bench"}


@dataclass(frozen=True)
class Client:
    """How a contender is driven: ``get(path)`` and ``post(path, body)`` return a status; ``close()``.

    All three block, or all three are awaited. ``warm()``, which is awaited, makes one request without a token: a client
    of httpx that has made none takes 20 seconds longer for its first 1,000 at once, with any authentication.
    """

    get: Callable[[str], Any]
    post: Callable[[str, Any], Any]
    close: Callable[[], Any]
    warm: Callable[[], Any] | None = None


class Pair:
    """Two tokens in memory, or in a file that processes share: the store of hand-written contenders."""

    def __init__(self, start: Start) -> None:
        self._file = Path(start.file) if start.file else None
        self._tokens = {"access_token": start.access_token, "refresh_token": start.refresh_token}
        if self._file and not self._file.exists():
            self.take(self._tokens)

    @property
    def access(self) -> str:
        return str(self._now()["access_token"])

    @property
    def refresh(self) -> str:
        return str(self._now()["refresh_token"])

    def take(self, response: Any) -> str:
        """Store the tokens of a token response; raise KeyError if it has none."""
        self._tokens = {name: response[name] for name in ("access_token", "refresh_token")}
        if self._file:
            beside = self._file.with_suffix(f".{time.monotonic_ns()}")
            beside.write_text(json.dumps(self._tokens))
            beside.replace(self._file)
        return str(response["access_token"])

    def _now(self) -> dict[str, Any]:
        if self._file:
            self._tokens = json.loads(self._file.read_text())
        return self._tokens


def of_httpx(client: Any, url: str) -> Client:
    """Return a blocking client of httpx or httpx2."""
    return Client(
        lambda path: client.get(url + path).status_code,
        lambda path, body: client.post(url + path, content=body).status_code,
        client.close,
    )


def of_httpx_async(client: Any, url: str, **no_token: Any) -> Client:
    """Return an async client of httpx or httpx2. *no_token*: how it sends a request without a token."""

    async def get(path: str) -> int:
        return int((await client.get(url + path)).status_code)

    async def post(path: str, body: Any) -> int:
        return int((await client.post(url + path, content=body)).status_code)

    return Client(
        get, post, client.aclose, lambda: client.request("GET", url + "/free", **(no_token or {"auth": None}))
    )


def of_requests(session: Any, url: str) -> Client:
    """Return a ``requests.Session``, with a connection for each of 100 threads."""
    from requests.adapters import HTTPAdapter

    session.mount("http://", HTTPAdapter(pool_maxsize=100))
    return Client(
        lambda path: session.get(url + path).status_code,
        lambda path, body: session.post(url + path, data=body).status_code,
        session.close,
    )


def of_aiohttp(session: Any, url: str) -> Client:
    """Return an ``aiohttp.ClientSession``."""

    async def get(path: str) -> int:
        async with session.get(url + path) as response:
            await response.read()
            return int(response.status)

    async def post(path: str, body: Any) -> int:
        async with session.post(url + path, data=body) as response:
            await response.read()
            return int(response.status)

    return Client(get, post, session.close)
