"""A server that is not ours: ``python -m bench.clients.backend`` prints its port and serves until it is killed.

1. Rotation is strict: a refresh token is used up when its request arrives. Reuse revokes its family, and the access
   tokens of it; within ``grace`` seconds, a used token gets the newest tokens instead.
2. Each cell of the matrix has a family of its own (``POST /family``), with its faults and its counters.
3. ``/api`` takes 20 ms, ``/slow`` 500 ms, ``/free`` none and needs no token; ``/token`` takes 100 ms. A token is judged
   when its request arrives.
4. A request with both a length and chunks is refused (RFC 9112 §6.1), and its connection is closed.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import secrets
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

API, SLOW = 0.02, 0.5
REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 503: "Service Unavailable"}
JSON = {"content-type": "application/json"}
HttpResponse = tuple[int, Mapping[str, str], bytes]


@dataclass
class Family:
    """One login, with its faults and its counters. Times are in seconds."""

    name: str
    grace: float = 0.0
    token_delay: float = 0.1
    says: float = 3600.0  # the ``expires_in`` of token responses
    lives: float = 1e9  # how long access tokens are good
    expired: bool = False  # the first access token is dead from the start
    lose: int = 0  # refreshes whose responses will be lost
    unavailable: int = 0  # refreshes that will get a 503, and not be carried out
    deny: bool = False
    refresh_token: str = ""
    spent: dict[str, float] = field(default_factory=dict)  # when
    access: dict[str, float] = field(default_factory=dict)  # until when
    refreshes: int = 0
    logins: int = 0
    reuses: int = 0
    revoked: bool = False
    bodies: list[int] = field(default_factory=list)

    def grant(self) -> dict[str, object]:
        """Return new tokens. The caller has marked the tokens before them as used."""
        self.refresh_token = f"R.{self.name}.{secrets.token_hex(16)}"
        return self.newest()

    def newest(self) -> dict[str, object]:
        """Return a new access token, and the newest refresh token."""
        token = f"A.{self.name}.{secrets.token_hex(16)}"
        self.access[token] = time.monotonic() + self.lives
        return {
            "access_token": token,
            "refresh_token": self.refresh_token,
            "token_type": "Bearer",
            "expires_in": int(self.says),
        }

    def refresh(self, token: str) -> dict[str, object] | None:
        """Return the tokens for a refresh token, or None if it is refused."""
        now = time.monotonic()
        if self.deny:
            return None
        if token == self.refresh_token and not self.revoked:
            self.spent[token] = now
            return self.grant()
        if not self.revoked and now - self.spent.get(token, -1e9) < self.grace:
            return self.newest()
        self.reuses += token in self.spent
        self.revoked = True
        return None


class Backend:
    """All families, and the responses to their requests."""

    def __init__(self) -> None:
        self._families: dict[str, Family] = {}
        self._names = map(str, itertools.count(1))

    async def response(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> HttpResponse | None:
        """Return the response; None: break the connection instead."""
        path, _, query = target.partition("?")
        if path == "/token":
            return await self._token(dict(parse_qsl(body.decode())))
        if path == "/family":
            return self._family(method, dict(parse_qsl(query)), body)
        if path == "/free":
            return 200, {}, b"ok"
        if path in ("/api", "/slow"):
            family = self._owner(headers)
            await asyncio.sleep(API if path == "/api" else SLOW)
            if family is None:
                return 401, {"www-authenticate": 'Bearer error="invalid_token"'}, b"expired"
            if method == "POST":
                family.bodies.append(len(body))
            return 200, {}, b"ok"
        return 404, {}, b""

    def _owner(self, headers: Mapping[str, str]) -> Family | None:
        """Return the family of the request's access token, if that is valid."""
        token = headers.get("authorization", "").removeprefix("Bearer ")
        family = self._families.get(_named_in(token))
        if family is None or family.revoked or family.access.get(token, 0.0) < time.monotonic():
            return None
        return family

    def _family(self, method: str, query: dict[str, str], body: bytes) -> HttpResponse:
        if method == "POST" and not query:
            family = Family(next(self._names), **json.loads(body))
            self._families[family.name] = family
            granted = family.grant()
            if family.expired:
                family.access.clear()
            return 200, JSON, json.dumps({"family": family.name, **granted}).encode()
        family = self._families[query["name"]]
        if method == "POST":
            family.access.clear()
        seen = ("refreshes", "logins", "reuses", "revoked", "bodies")
        return 200, JSON, json.dumps({name: getattr(family, name) for name in seen}).encode()

    async def _token(self, form: dict[str, str]) -> HttpResponse | None:
        refresh = form.get("grant_type") == "refresh_token"
        token = form.get("refresh_token", "")
        family = self._families.get(_named_in(token) if refresh else form.get("username", ""))
        if family is None:
            return 400, JSON, b'{"error": "invalid_grant"}'
        if not refresh:
            family.logins += 1
            family.revoked = False
            granted: dict[str, object] | None = family.grant()
        else:
            family.refreshes += 1
            if family.unavailable:
                family.unavailable -= 1
                await asyncio.sleep(family.token_delay)
                return 503, {}, b"busy"
            granted = family.refresh(token)
        lost = bool(family.lose and refresh)
        family.lose -= lost
        await asyncio.sleep(family.token_delay)
        if lost:
            return None
        if granted is None:
            return 400, JSON, b'{"error": "invalid_grant"}'
        return 200, JSON, json.dumps(granted).encode()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one keep-alive connection."""
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                method, target, _ = head[0].split(" ", 2)
                headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
                if "content-length" in headers and "transfer-encoding" in headers:
                    writer.write(_wire((400, {"connection": "close"}, b"two lengths")))
                    break
                response = await self.response(method, target, headers, await _body(reader, headers))
                if response is None:
                    break
                writer.write(_wire(response))
                await writer.drain()
        writer.close()


def _named_in(token: str) -> str:
    """Return the family that *token* names."""
    return token.split(".")[1] if token.count(".") == 2 else ""


async def _body(reader: asyncio.StreamReader, headers: Mapping[str, str]) -> bytes:
    if headers.get("transfer-encoding", "").lower() != "chunked":
        return await reader.readexactly(int(headers.get("content-length", "0")))
    body = b""
    while size := int((await reader.readline()).split(b";")[0], 16):
        body += await reader.readexactly(size)
        await reader.readline()
    await reader.readline()
    return body


def _wire(response: HttpResponse) -> bytes:
    status, headers, body = response
    lines = [f"HTTP/1.1 {status} {REASONS[status]}", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, f"content-length: {len(body)}", "\r\n"]).encode() + body


async def main() -> None:
    server = await asyncio.start_server(Backend().serve, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    ended: Any = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)  # until its parent ends
    await ended
    server.close()


if __name__ == "__main__":
    asyncio.run(main())
