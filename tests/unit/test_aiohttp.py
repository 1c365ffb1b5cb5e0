"""The middleware of aiohttp: responses that were read stay readable."""

from __future__ import annotations

import json

import aiohttp
import anyio
import pytest

import unbroken.aiohttp
from tests.support.small_api import SmallApi, session_at
from unbroken import ResponseMatch, Session


@pytest.mark.parametrize("size", [0, 20, 300_000])
def test_a_response_that_was_looked_into_can_still_be_streamed(size: int) -> None:
    text = json.dumps({"code": 200, "pad": "x" * size}).encode()

    async def stream(session: Session, url: str) -> tuple[bytes, bytes, bytes]:
        async with aiohttp.ClientSession(middlewares=[unbroken.aiohttp.SessionMiddleware(session)]) as http:
            async with http.get(url) as response:
                in_chunks = b"".join([chunk async for chunk in response.content.iter_chunked(1000)])
                whole = await response.read()
            async with http.get(url) as response:
                return in_chunks, whole, await response.content.read()

    with SmallApi(lambda _: (200, [("content-type", "application/json")], text)) as backend:
        session = session_at(backend, challenge=ResponseMatch.of(200, field="code", values=(401,)))
        assert anyio.run(stream, session, backend.url + "/items") == (text, text, text)


def test_a_refusal_that_is_handed_over_can_still_be_streamed() -> None:
    async def stream(session: Session, url: str) -> tuple[int, bytes]:
        middlewares = [unbroken.aiohttp.SessionMiddleware(session)]
        async with aiohttp.ClientSession(middlewares=middlewares) as http, http.get(url) as response:
            return response.status, await response.content.read()

    with SmallApi() as backend:
        session = session_at(backend)
        session.import_tokens({"access_token": "old"})  # with nothing to refresh it by
        assert anyio.run(stream, session, backend.url + "/items") == (401, b"{}")
