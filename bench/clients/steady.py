"""What a session adds to a request with a valid token, compared with a fixed header; ours, and peers that also refresh
on a challenge. No network: httpx and httpx2 over a mock transport, requests over an adapter that responds at once;
aiohttp has nothing like that, so its middlewares are called by hand, with a request that was built once.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import random
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import aiohttp
import httpx
import httpx2
import requests
import singleflight_auth
from google.auth.aio.transport.sessions import AsyncAuthorizedSession
from google.auth.transport.requests import AuthorizedSession
from google.oauth2.credentials import Credentials
from requests.adapters import BaseAdapter

import unbroken.aiohttp
import unbroken.httpx
import unbroken.httpx2
import unbroken.requests
from bench.clients import peers_aiohttp
from bench.clients.start import Start
from bench.figure import Figure
from unbroken import Session, TokenResponse

URL = "http://127.0.0.1:9/x"
TOKEN = "a" * 300
FIXED = {"Authorization": f"Bearer {TOKEN}"}
CALLS, TURNS = 250, 41
LIMIT = 5.0
Works = dict[str, Callable[[], float]]  # each gives microseconds of one call


def figures() -> Iterator[Figure]:
    session = Session("http://127.0.0.1:9")
    session.import_tokens(TokenResponse(TOKEN, "r" * 50, 1e6))
    yield from _compared("httpx2", _httpx(httpx2, unbroken.httpx2.SessionAuth(session)))
    yield from _compared("httpx", _httpx(httpx, unbroken.httpx.SessionAuth(session)) | _singleflight())
    yield from _compared("requests", _requests(session))
    for name, auth, peers in (
        ("httpx2, async", unbroken.httpx2.SessionAuth(session), {}),
        ("httpx, async", unbroken.httpx.SessionAuth(session), _singleflight_async()),
    ):
        library: Any = httpx2 if "2" in name else httpx
        yield from _compared(name, _httpx_async(library, auth) | peers)
    yield from _compared("aiohttp's middleware", _aiohttp(session))
    yield from _compared("google-auth's async transport", _google_async(), ours="")


def _compared(stack: str, works: Works, ours: str = "unbroken") -> Iterator[Figure]:
    taken: dict[str, list[float]] = {name: [] for name in works}
    order = list(works)
    for turn in range(TURNS + 1):
        random.shuffle(order)
        for name in order:
            value = works[name]()
            if turn:  # the first warms up
                taken[name].append(value)
    for name in [name for name in works if name != "fixed"]:
        cost = statistics.median(a - b for a, b in zip(taken[name], taken["fixed"], strict=True))
        limit = f"at most {LIMIT:g} µs" if name == ours else ""
        yield Figure(f"{name} on {stack}, over a fixed header", cost, "µs", limit, cost <= LIMIT if limit else None)


def _timed(work: Callable[[], object]) -> Callable[[], float]:
    def run() -> float:
        began = time.thread_time()
        for _ in range(CALLS):
            work()
        return (time.thread_time() - began) / CALLS * 1e6

    return run


# ---- httpx and httpx2 -----------------------------------------------------------------------------------------------


def _transport(library: Any) -> Any:
    return library.MockTransport(lambda request: library.Response(200, content=b""))


def _httpx(library: Any, auth: Any) -> Works:
    def of(**settings: Any) -> Callable[[], float]:
        client = library.Client(transport=_transport(library), **settings)
        return _timed(lambda: client.get(URL))

    return {"fixed": of(headers=FIXED), "fixed again": of(headers=FIXED), "unbroken": of(auth=auth)}


def _singleflight() -> Works:
    auth = singleflight_auth.SingleFlightAuth(get_token=lambda: TOKEN, refresh=lambda: TOKEN)
    client = httpx.Client(transport=_transport(httpx), auth=auth)
    return {"singleflight-auth": _timed(lambda: client.get(URL))}


def _httpx_async(library: Any, auth: Any) -> Works:
    return {
        "fixed": _of_client(library, headers=FIXED),
        "fixed again": _of_client(library, headers=FIXED),
        "unbroken": _of_client(library, auth=auth),
    }


def _singleflight_async() -> Works:
    async def refresh() -> str:
        return TOKEN

    return {
        "singleflight-auth": _of_client(
            httpx, auth=singleflight_auth.AsyncSingleFlightAuth(get_token=lambda: TOKEN, refresh=refresh)
        )
    }


def _of_client(library: Any, **settings: Any) -> Callable[[], float]:
    async def run() -> float:
        async with library.AsyncClient(transport=_transport(library), **settings) as client:
            return await _per_call(lambda: client.get(URL))

    return lambda: asyncio.run(run())


async def _per_call(work: Callable[[], Awaitable[object]]) -> float:
    began = time.thread_time()
    for _ in range(CALLS):
        await work()
    return (time.thread_time() - began) / CALLS * 1e6


# ---- requests -------------------------------------------------------------------------------------------------------


class _EmptyResponses(BaseAdapter):
    """Responds to every request at once, with an empty body."""

    def send(self, request: requests.PreparedRequest, *_how: Any, **_more: Any) -> requests.Response:
        response = requests.Response()
        response.status_code, response.request, response.url = 200, request, request.url or ""
        return response

    def close(self) -> None:
        pass


def _requests(session: Session) -> Works:
    flight = singleflight_auth.RequestsSingleFlightAuth(get_token=lambda: TOKEN, refresh=lambda: TOKEN)
    clients = {
        "fixed": _session(headers=FIXED),
        "fixed again": _session(headers=FIXED),
        "unbroken": _session(auth=unbroken.requests.SessionAuth(session)),
        "singleflight-auth": _session(auth=flight),
        "google-auth": _mounted(AuthorizedSession(_credentials())),
    }
    return {name: _timed(partial(client.get, URL)) for name, client in clients.items()}


def _session(headers: dict[str, str] | None = None, auth: Any = None) -> requests.Session:
    made = requests.Session()
    made.headers.update(headers or {})
    made.auth = auth
    return _mounted(made)


def _mounted(session: requests.Session) -> requests.Session:
    session.trust_env = False  # else it looks for a .netrc, at a multiple of all other costs
    session.mount("http://", _EmptyResponses())
    return session


def _credentials() -> Any:
    expiry = dt.datetime.now(dt.UTC).replace(tzinfo=None) + dt.timedelta(days=9)
    return Credentials(TOKEN, refresh_token="r", token_uri=URL, client_id="b", client_secret="b", expiry=expiry)


# ---- aiohttp --------------------------------------------------------------------------------------------------------


def _aiohttp(session: Session) -> Works:
    async def fixed(request: Any, handler: Any) -> Any:
        request.headers["Authorization"] = FIXED["Authorization"]
        return await handler(request)

    async def cookbook() -> Any:
        client = await peers_aiohttp.cookbook(Start("http://127.0.0.1:9", "", TOKEN, "r", 1e6))
        made = client.close.__self__  # type: ignore[attr-defined]  # the session whose method this is
        await made.close()
        return made._middlewares[0]

    async def given(middleware: Any) -> Any:
        return middleware

    return {
        "fixed": _of_middleware(lambda: given(fixed)),
        "fixed again": _of_middleware(lambda: given(fixed)),
        "unbroken": _of_middleware(lambda: given(unbroken.aiohttp.SessionMiddleware(session))),
        "aiohttp cookbook": _of_middleware(cookbook),
    }


def _of_middleware(make: Callable[[], Awaitable[Any]]) -> Callable[[], float]:
    response = SimpleNamespace(status=200)

    async def handler(request: Any) -> Any:
        del request.headers["Authorization"]  # so that the next call finds it as this one did
        return response

    async def run() -> float:
        middleware, request = await make(), await _request()
        return await _per_call(lambda: middleware(request, handler))

    return lambda: asyncio.run(run())


async def _request() -> Any:
    """Return a request as aiohttp passes it to its middlewares."""
    found: list[Any] = []

    async def keep(request: Any, handler: Any) -> Any:
        found.append(request)
        raise aiohttp.ClientError("it was never to be sent")

    async with aiohttp.ClientSession(middlewares=[keep]) as session:
        try:
            await session.get(URL)
        except aiohttp.ClientError:
            return found[0]


def _google_async() -> Works:
    async def transport(*_request: Any, **_how: Any) -> Any:
        return SimpleNamespace(status_code=200)

    def of(google: bool) -> Callable[[], float]:
        async def run() -> float:
            if not google:
                return await _per_call(lambda: transport(URL, "GET", None, dict(FIXED), 60.0))
            session = AsyncAuthorizedSession(_credentials(), transport)  # type: ignore[arg-type]  # it is only called
            return await _per_call(lambda: session.request("GET", URL))

        return lambda: asyncio.run(run())

    return {"fixed": of(google=False), "google-auth": of(google=True)}
