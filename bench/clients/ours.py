"""Our own adapters as contenders."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import unbroken
from bench.clients.start import Client, Start, of_aiohttp, of_httpx, of_httpx_async, of_requests


def session(start: Start) -> unbroken.Session:
    """Return a session that starts with these tokens, in the shared file if there is one.

    At our own server it logs in, with the password instead of the refresh token: the server must know the mode.
    """
    store = unbroken.FileStore(start.file) if start.file else None
    dialect = unbroken.unbroken_server(start.url) if start.ours else unbroken.oauth2(start.token_url, client_id="bench")
    made = unbroken.Session(dialect, store)
    if start.ours:
        tokens = made.login("ada", start.refresh_token)
        made.import_tokens(replace(tokens, received_at=time.time() - (tokens.expires_in or 0.0) + start.expires_in))
    elif store is None or store.load().tokens is None:
        received_at = time.time() - start.lifetime + start.expires_in
        pair = (start.access_token, start.refresh_token)
        made.import_tokens(unbroken.TokenResponse(*pair, start.lifetime, received_at=received_at))
    return made


def httpx_sync(start: Start) -> Client:
    import httpx

    from unbroken.httpx import SessionAuth

    return of_httpx(httpx.Client(auth=SessionAuth(session(start)), timeout=60), start.url)


def httpx_async(start: Start) -> Client:
    import httpx

    from unbroken.httpx import SessionAuth

    return of_httpx_async(httpx.AsyncClient(auth=SessionAuth(session(start)), timeout=60), start.url)


def httpx2_sync(start: Start) -> Client:
    import httpx2

    from unbroken.httpx2 import SessionAuth

    return of_httpx(httpx2.Client(auth=SessionAuth(session(start)), timeout=60), start.url)


def httpx2_async(start: Start) -> Client:
    import httpx2

    from unbroken.httpx2 import SessionAuth

    return of_httpx_async(httpx2.AsyncClient(auth=SessionAuth(session(start)), timeout=60), start.url)


def requests_sync(start: Start) -> Client:
    import requests

    from unbroken.requests import SessionAuth

    http: Any = requests.Session()
    http.auth = SessionAuth(session(start))
    return of_requests(http, start.url)


async def aiohttp_async(start: Start) -> Client:
    import aiohttp

    from unbroken.aiohttp import SessionMiddleware

    return of_aiohttp(aiohttp.ClientSession(middlewares=[SessionMiddleware(session(start))]), start.url)
