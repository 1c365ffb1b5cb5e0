"""The HTTP libraries alone, with a token as a fixed header: every figure is compared with these."""

from __future__ import annotations

from bench.clients.start import Client, Start, of_aiohttp, of_httpx, of_httpx_async, of_requests


def _fixed(start: Start) -> dict[str, str]:
    return {"Authorization": f"Bearer {start.access_token}"}


def httpx_sync(start: Start) -> Client:
    import httpx

    return of_httpx(httpx.Client(headers=_fixed(start), timeout=60), start.url)


def httpx2_sync(start: Start) -> Client:
    import httpx2

    return of_httpx(httpx2.Client(headers=_fixed(start), timeout=60), start.url)


def requests_sync(start: Start) -> Client:
    import requests

    session = requests.Session()
    session.headers.update(_fixed(start))
    return of_requests(session, start.url)


def httpx_async(start: Start) -> Client:
    import httpx

    return of_httpx_async(httpx.AsyncClient(headers=_fixed(start), timeout=60), start.url)


def httpx2_async(start: Start) -> Client:
    import httpx2

    return of_httpx_async(httpx2.AsyncClient(headers=_fixed(start), timeout=60), start.url)


async def aiohttp_async(start: Start) -> Client:
    import aiohttp

    return of_aiohttp(aiohttp.ClientSession(headers=_fixed(start)), start.url)
