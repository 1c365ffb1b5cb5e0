"""Contenders on aiohttp: google-auth's session, and the middlewares of aiohttp's documentation and examples.

The latter are written anew here, with a form as the body, and store a rotated refresh token.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import aiohttp

from bench.clients.peers_requests import google_credentials
from bench.clients.start import Client, Pair, Start, of_aiohttp


def _google(credentials: Any, url: str) -> Client:
    from google.auth.aio.transport.sessions import AsyncAuthorizedSession

    session = AsyncAuthorizedSession(credentials)

    async def send(method: str, path: str, body: Any = None) -> int:
        response = await session.request(method, url + path, data=body)
        await response.read()
        return int(response.status_code)

    return Client(lambda path: send("GET", path), lambda *how: send("POST", *how), session.close)


async def google_stock(start: Start) -> Client:
    """google-auth's blocking credentials, which it adapts to aiohttp."""
    return _google(google_credentials(start), start.url)


async def google_custom(start: Start) -> Client:
    """Async credentials of our own: google-auth's cannot refresh."""
    from google.auth.aio.credentials import Credentials

    class Refreshing(Credentials):
        def __init__(self) -> None:
            super().__init__()
            self.tokens, self.lock, self.until = Pair(start), asyncio.Lock(), start.expires_at
            self.token = self.tokens.access

        async def refresh(self, request: Any) -> None:
            response = await request(
                start.token_url,
                "POST",
                "&".join(f"{name}={value}" for name, value in start.form(self.tokens.refresh).items()).encode(),
                {"content-type": "application/x-www-form-urlencoded"},
            )
            import json

            from google.auth.exceptions import RefreshError

            body = json.loads(await response.read() or b"{}") if response.status_code == 200 else {}
            if "access_token" not in body:
                raise RefreshError("the refresh was refused")
            self.token = self.tokens.take(body)
            self.until = time.time() + body["expires_in"]

        async def before_request(self, request: Any, method: str, url: str, headers: Any) -> None:
            async with self.lock:
                if time.time() >= self.until:
                    await self.refresh(request)
            await self.apply(headers)

    return _google(Refreshing(), start.url)


async def _refresh(session: Any, start: Start, tokens: Pair) -> dict[str, Any]:
    async with session.post(start.token_url, data=start.form(tokens.refresh), middlewares=()) as response:
        body: dict[str, Any] = await response.json(content_type=None)
        tokens.take(body)
        return body


async def cookbook(start: Start) -> Client:
    """On a challenge: take a lock, and refresh if the token is still the one that was sent."""
    tokens, lock = Pair(start), asyncio.Lock()

    async def middleware(request: Any, handler: Any) -> Any:
        for _ in range(2):
            sent = tokens.access
            request.headers["Authorization"] = f"Bearer {sent}"
            response = await handler(request)
            if response.status != 401:
                break
            async with lock:
                if sent == tokens.access:
                    await _refresh(request.session, start, tokens)
        return response

    return of_aiohttp(aiohttp.ClientSession(middlewares=[middleware]), start.url)


async def example(start: Start) -> Client:
    """Refresh by the local clock; on a challenge too, if that clock says so."""
    tokens, lock = Pair(start), asyncio.Lock()
    until = start.expires_at

    async def token(session: Any) -> str:
        nonlocal until
        async with lock:
            if time.time() >= until:
                body = await _refresh(session, start, tokens)
                until = time.time() + body["expires_in"] - 30
        return tokens.access

    async def middleware(request: Any, handler: Any) -> Any:
        sent = await token(request.session)
        request.headers["Authorization"] = f"Bearer {sent}"
        response = await handler(request)
        if response.status == 401 and (newer := await token(request.session)) != sent:
            request.headers["Authorization"] = f"Bearer {newer}"
            response = await handler(request)
        return response

    return of_aiohttp(aiohttp.ClientSession(middlewares=[middleware]), start.url)


async def no_lock(start: Start) -> Client:
    """By hand: after a 401 refresh, and send again."""
    tokens, session = Pair(start), aiohttp.ClientSession()

    async def once(method: str, path: str, body: Any) -> int:
        headers = {"Authorization": f"Bearer {tokens.access}"}
        async with session.request(method, start.url + path, data=body, headers=headers) as response:
            await response.read()
            return int(response.status)

    async def send(method: str, path: str, body: Any = None) -> int:
        status = await once(method, path, body)
        if status == 401:
            async with session.post(start.token_url, data=start.form(tokens.refresh)) as response:
                response.raise_for_status()
                tokens.take(await response.json())
            status = await once(method, path, body)
        return status

    return Client(lambda path: send("GET", path), lambda *how: send("POST", *how), session.close)
