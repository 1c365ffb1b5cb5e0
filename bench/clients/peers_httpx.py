"""Contenders on httpx and httpx2, each set up as its documentation says."""

from __future__ import annotations

import asyncio
import importlib
import sys
import warnings
from collections.abc import Generator
from dataclasses import replace
from typing import Any

from bench.clients.start import Client, Pair, Start, of_httpx, of_httpx_async

TIMEOUT = 60


def _authlib(start: Start, name: str, *, httpx2: bool) -> Any:
    """Authlib uses httpx2 if it is installed, else httpx."""
    if not httpx2:
        sys.modules["httpx2"] = None  # type: ignore[assignment]  # this is how an import is made to fail
    warnings.simplefilter("ignore")
    made = getattr(importlib.import_module("authlib.integrations.httpx_client"), name)
    token = {
        "access_token": start.access_token,
        "refresh_token": start.refresh_token,
        "token_type": "Bearer",
        "expires_at": int(start.expires_at),
    }
    return made(
        "bench", token=token, token_endpoint=start.token_url, token_endpoint_auth_method="none", timeout=TIMEOUT
    )


def authlib_httpx(start: Start) -> Client:
    return of_httpx(_authlib(start, "OAuth2Client", httpx2=False), start.url)


def authlib_httpx2(start: Start) -> Client:
    return of_httpx(_authlib(start, "OAuth2Client", httpx2=True), start.url)


def authlib_httpx_async(start: Start) -> Client:
    return of_httpx_async(_authlib(start, "AsyncOAuth2Client", httpx2=False), start.url, withhold_token=True)


def authlib_httpx2_async(start: Start) -> Client:
    return of_httpx_async(_authlib(start, "AsyncOAuth2Client", httpx2=True), start.url, withhold_token=True)


def _httpx_auth(start: Start) -> Any:
    """httpx-auth's password flow, the only one that refreshes without a browser."""
    import httpx_auth
    from httpx_auth._oauth2.common import OAuth2

    auth = httpx_auth.OAuth2ResourceOwnerPasswordCredentials(start.token_url, username=start.family, password="pw")
    if start.file:
        OAuth2.token_cache = httpx_auth.JsonTokenFileCache(start.file)
    if auth.state not in OAuth2.token_cache.tokens:
        OAuth2.token_cache._add_token(auth.state, start.access_token, start.expires_at, start.refresh_token)
    return auth


def httpx_auth_sync(start: Start) -> Client:
    import httpx

    return of_httpx(httpx.Client(auth=_httpx_auth(start), timeout=TIMEOUT), start.url)


def httpx_auth_async(start: Start) -> Client:
    import httpx

    return of_httpx_async(httpx.AsyncClient(auth=_httpx_auth(start), timeout=TIMEOUT), start.url)


def _docs_auth(start: Start) -> Any:
    """The custom authentication of httpx's documentation, with a form as the body."""
    import httpx

    class CustomAuth(httpx.Auth):
        requires_response_body = True

        def __init__(self) -> None:
            self.tokens = Pair(start)

        def auth_flow(self, request: Any) -> Generator[Any, Any, None]:
            request.headers["authorization"] = f"Bearer {self.tokens.access}"
            response = yield request
            if response.status_code == 401:
                response = yield httpx.Request("POST", start.token_url, data=start.form(self.tokens.refresh))
                self.tokens.take(response.json())
                request.headers["authorization"] = f"Bearer {self.tokens.access}"
                yield request

    return CustomAuth()


def httpx_docs(start: Start) -> Client:
    import httpx

    return of_httpx(httpx.Client(auth=_docs_auth(start), timeout=TIMEOUT), start.url)


def httpx_docs_async(start: Start) -> Client:
    import httpx

    return of_httpx_async(httpx.AsyncClient(auth=_docs_auth(start), timeout=TIMEOUT), start.url)


def singleflight_httpx(start: Start) -> Client:
    import httpx
    from singleflight_auth import SingleFlightAuth

    tokens, plain = Pair(start), httpx.Client(timeout=TIMEOUT)

    def refresh() -> str:
        response = plain.post(start.token_url, data=start.form(tokens.refresh)).raise_for_status()
        return tokens.take(response.json())

    auth = SingleFlightAuth(get_token=lambda: tokens.access, refresh=refresh)
    return of_httpx(httpx.Client(auth=auth, timeout=TIMEOUT), start.url)


def singleflight_httpx_async(start: Start) -> Client:
    import httpx
    from singleflight_auth import AsyncSingleFlightAuth

    tokens, plain = Pair(start), httpx.AsyncClient(timeout=TIMEOUT)

    async def refresh() -> str:
        response = await plain.post(start.token_url, data=start.form(tokens.refresh))
        return tokens.take(response.raise_for_status().json())

    auth = AsyncSingleFlightAuth(get_token=lambda: tokens.access, refresh=refresh)
    return of_httpx_async(httpx.AsyncClient(auth=auth, timeout=TIMEOUT), start.url)


def mcp_sdk(start: Start) -> Client:
    import httpx2
    from mcp.client.auth import OAuthClientProvider
    from mcp.shared.auth import OAuthClientInformationFull, OAuthClientMetadata, OAuthToken

    uris: Any = ["http://127.0.0.1/callback"]
    tokens = OAuthToken(access_token=start.access_token, refresh_token=start.refresh_token)

    class Storage:
        async def get_tokens(self) -> Any:
            return tokens

        async def set_tokens(self, tokens: Any) -> None:
            pass

        async def get_client_info(self) -> Any:
            return OAuthClientInformationFull(client_id="bench", redirect_uris=uris)

        async def set_client_info(self, client_info: Any) -> None:
            pass

    async def no_user(*_: object) -> Any:
        raise RuntimeError("there is no user to log in")

    auth = OAuthClientProvider(start.url, OAuthClientMetadata(redirect_uris=uris), Storage(), no_user, no_user)
    auth.context.token_expiry_time = start.expires_at  # which it does not read from its storage
    return of_httpx_async(httpx2.AsyncClient(auth=auth, timeout=TIMEOUT), start.url)


class _Naive:
    """The common part of hand-written wrappers: a client, two tokens, a refresh."""

    def __init__(self, start: Start) -> None:
        import httpx

        self.client, self.tokens, self.start = httpx.AsyncClient(timeout=TIMEOUT), Pair(start), start

    async def send(self, method: str, path: str, body: Any) -> int:
        headers = {"authorization": f"Bearer {self.tokens.access}"}
        response = await self.client.request(method, self.start.url + path, content=body, headers=headers)
        return int(response.status_code)

    async def refresh(self) -> None:
        response = await self.client.post(self.start.token_url, data=self.start.form(self.tokens.refresh))
        if response.status_code != 200:
            raise RuntimeError("the refresh was refused")
        self.tokens.take(response.json())

    def as_client(self, request: Any) -> Client:
        driven = of_httpx_async(self.client, self.start.url)
        return replace(driven, get=lambda path: request("GET", path, None), post=lambda *how: request("POST", *how))


def naive_queue(start: Start) -> Client:
    """A flag and a queue, as in countless interceptors."""
    naive, queue = _Naive(start), []
    refreshing = False

    async def request(method: str, path: str, body: Any) -> int:
        nonlocal refreshing
        status = await naive.send(method, path, body)
        if status != 401:
            return status
        if refreshing:
            queue.append(asyncio.get_running_loop().create_future())
            await queue[-1]
            return await naive.send(method, path, body)
        refreshing = True
        try:
            await naive.refresh()
            for waiting in queue:
                waiting.set_result(None)
            queue.clear()
            return await naive.send(method, path, body)
        finally:
            refreshing = False

    return naive.as_client(request)


def naive_promise(start: Start) -> Client:
    """One future of a refresh that all share; each forgets it when it is done."""
    naive = _Naive(start)
    promise: asyncio.Task[None] | None = None

    async def request(method: str, path: str, body: Any) -> int:
        nonlocal promise
        status = await naive.send(method, path, body)
        if status != 401:
            return status
        if promise is None:
            promise = asyncio.ensure_future(naive.refresh())
        try:
            await promise
        finally:
            promise = None
        return await naive.send(method, path, body)

    return naive.as_client(request)
