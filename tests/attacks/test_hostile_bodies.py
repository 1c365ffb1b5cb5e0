"""Responses that flood the client: what it reads of them, holds in memory, and how long it takes."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.attacks import floods
from tests.attacks.floods import MIB, Flood, FloodingServer, measured
from tests.contract.adapters.api import streaming
from tests.support.adapters import MORE_ADAPTERS, Aiohttp, AsyncHttpx
from tests.support.attacks import Attacks
from tests.support.token_endpoint import json_response
from unbroken import ResponseMatch, Session, oauth2
from unbroken._http import HttpRequest, HttpResponse

MEMORY_MIB = 24.0  # what a request may take at most; a bomb is far above
SENT_MIB = 16.0  # what the server may get rid of; the buffers of the system hold some of it
BOMB_MIB = 64
SECONDS = 12.0

ENDLESS: dict[str, Flood] = {
    "endless": floods.endless,
    "endless chunks": floods.endless_chunks,
    "announced": floods.announced,
}
DRIPS: dict[str, Flood] = {"drip": floods.drip, "drip of chunks": floods.drip_of_chunks}
PACKERS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", floods.gzipped(BOMB_MIB)),
    "deflate": ("deflate", floods.deflated(BOMB_MIB)),
    "raw deflate": ("deflate", floods.deflated(BOMB_MIB, -15)),
    "br": ("br", floods.brotlied(BOMB_MIB)),
    "zstd": ("zstd", floods.zstandarded(BOMB_MIB)),
    "gzip twice": ("gzip, gzip", floods.gzipped_twice(BOMB_MIB)),
}


ORDINARY_ADAPTERS = ("httpx2", "httpx", "httpx-async", "requests", "aiohttp")
ORDINARY = {"flood": ("endless", "drip of chunks"), "name": ("endless", "gzip", "br", "zstd")}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Try every adapter with every flood in a full run, and some of each in an ordinary one."""
    full = metafunc.config.getoption("--attacks-full")
    if "adapter" in metafunc.fixturenames:
        chosen = MORE_ADAPTERS if full else ORDINARY_ADAPTERS
        in_loop = metafunc.definition.get_closest_marker("in_loop") is not None
        metafunc.parametrize("adapter", [name for name in chosen if not in_loop or "aio" in name or "async" in name])
    for kind in ("flood", "name"):
        if kind in metafunc.fixturenames:
            all_of_them = next(mark.args[0] for mark in metafunc.definition.iter_markers("tried_with"))
            chosen = [one for one in all_of_them if full or one in ORDINARY[kind]]
            metafunc.parametrize(kind, chosen)


@pytest.fixture
def connect(adapter: str) -> Any:
    return MORE_ADAPTERS[adapter]


@pytest.fixture(scope="module")
def bombs() -> dict[str, Flood]:
    return {name: floods.bomb(coding, pack) for name, (coding, pack) in PACKERS.items()}


@pytest.fixture(scope="module")
def json_bombs() -> dict[str, Flood]:
    head = b"HTTP/1.1 200 OK\r\n"
    return {
        name: floods.bomb(coding, pack, kind="application/json", head=head) for name, (coding, pack) in PACKERS.items()
    }


def session_of(server: FloodingServer, **changes: Any) -> Session:
    """A session whose refreshes succeed, and whose API floods."""
    numbers = itertools.count(1)

    def send(_: HttpRequest, __: float) -> HttpResponse:
        return json_response({"access_token": f"a{next(numbers)}", "refresh_token": "r", "expires_in": 1800})

    session = Session(replace(oauth2(server.url + "/token"), **changes), send=send)
    session.import_tokens({"access_token": "a0", "refresh_token": "r0", "expires_in": 1800})
    return session


def check(server: FloodingServer, peak: floods.Peak, seconds: float = SECONDS) -> None:
    assert peak.mib < MEMORY_MIB
    assert server.sent < SENT_MIB * MIB
    assert peak.seconds < seconds


@pytest.mark.tried_with(ENDLESS)
def test_an_endless_challenge_is_left_after_a_mebibyte(connect: Any, flood: str, attacks: Attacks) -> None:
    with FloodingServer() as server, connect(session_of(server)) as client:
        server.flood = ENDLESS[flood]
        attacks.try_one()
        with measured() as peak:
            answer = client.request("GET", server.url + "/")
        assert (answer.status, answer.body) == (200, b"fine")
        assert server.closed_by_client.wait(5), "the connection is closed, not kept for later"
        check(server, peak)


@pytest.mark.tried_with(DRIPS)
def test_a_dripping_challenge_is_left_after_some_seconds(
    connect: Any, flood: str, attacks: Attacks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unbroken.client.core.body.MAX_READ_SECONDS", 0.5)
    with FloodingServer() as server, connect(session_of(server)) as client:
        server.flood = DRIPS[flood]
        attacks.try_one()
        with measured() as peak:
            answer = client.request("GET", server.url + "/")
        assert (answer.status, answer.body) == (200, b"fine")
        check(server, peak, 5.0)


@pytest.mark.tried_with(PACKERS)
def test_a_bomb_in_a_challenge_stays_packed(connect: Any, name: str, bombs: dict[str, Flood], attacks: Attacks) -> None:
    with FloodingServer() as server, connect(session_of(server)) as client:
        server.flood = bombs[name]
        attacks.try_one()
        with measured() as peak:
            answer = client.request("GET", server.url + "/")
        assert (answer.status, answer.body) == (200, b"fine")
        check(server, peak)


@pytest.mark.tried_with(["endless", "endless chunks", "announced", *PACKERS])
def test_a_challenge_that_comes_again_is_cut_for_the_caller(
    connect: Any, name: str, bombs: dict[str, Flood], attacks: Attacks
) -> None:
    """The second challenge is the caller's, who reads it with a client that knows no bounds."""
    with FloodingServer(always=True) as server, connect(session_of(server)) as client:
        server.flood = (ENDLESS | bombs)[name]
        attacks.try_one()
        with measured() as peak:
            answer = client.request("GET", server.url + "/")
        assert answer.status == 401
        assert len(answer.body) <= MIB
        check(server, peak)


@pytest.mark.tried_with(ENDLESS)
def test_a_request_that_cannot_be_sent_again_gets_the_beginning(connect: Any, flood: str, attacks: Attacks) -> None:
    with FloodingServer() as server, connect(session_of(server)) as client:
        server.flood = ENDLESS[flood]
        attacks.try_one()
        with measured() as peak:
            answer = client.request("POST", server.url + "/", content=iter([b"once"]))
        assert answer.status == 401
        assert 0 < len(answer.body) <= MIB
        check(server, peak)


@pytest.mark.tried_with(ENDLESS)
def test_a_stream_that_is_challenged_is_not_read_without_end(connect: Any, flood: str, attacks: Attacks) -> None:
    with FloodingServer() as server, connect(session_of(server)) as client:
        server.flood = ENDLESS[flood]
        attacks.try_one()
        with measured() as peak, streaming(client, server.url + "/") as (status, rest):
            assert (status, rest()) == (200, b"fine")
        check(server, peak)


def test_nothing_of_a_stream_without_a_challenge_is_read_ahead(connect: Any, attacks: Attacks) -> None:
    """An endless response of 200 is the caller's, from its first byte; nothing of it is read ahead."""

    def stream(server: FloodingServer, connection: Any) -> None:
        server.send(connection, b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n[1,")
        while server.pause(0):
            server.send(connection, b"1," * 32768)

    with FloodingServer(always=True) as server, connect(session_of(server)) as client:
        server.flood = stream
        attacks.try_one()
        with measured() as peak, streaming(client, server.url + "/") as (status, _):
            assert status == 200
        check(server, peak)


@pytest.mark.tried_with(PACKERS)
def test_a_dialect_that_looks_into_every_body_unfolds_no_bomb(
    connect: Any, name: str, json_bombs: dict[str, Flood], attacks: Attacks
) -> None:
    """The bomb says 401 in its first bytes, and nobody reads so far that it would count."""
    challenge = ResponseMatch.of(200, field="code", values=(401,))
    with FloodingServer() as server, connect(session_of(server, challenge=challenge)) as client:
        server.flood = json_bombs[name]
        attacks.try_one()
        with measured() as peak, streaming(client, server.url + "/") as (status, _):
            assert status == 200
        assert server.requests == 1
        check(server, peak)


def test_a_dialect_that_looks_into_every_body_does_not_wait_for_a_drip(
    connect: Any, attacks: Attacks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unbroken.client.core.body.MAX_READ_SECONDS", 0.5)

    def stream(server: FloodingServer, connection: Any) -> None:
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
        server.send(connection, head)
        while server.pause(0.1):
            server.send(connection, b"1\r\n \r\n")

    challenge = ResponseMatch.of(200, field="code", values=(401,))
    with FloodingServer() as server, connect(session_of(server, challenge=challenge)) as client:
        server.flood = stream
        attacks.try_one()
        with measured() as peak, streaming(client, server.url + "/") as (status, _):
            assert status == 200
        check(server, peak, 4.0)


@pytest.mark.in_loop
@pytest.mark.tried_with(["endless", "gzip", "br", "zstd"])
def test_a_hostile_body_does_not_block_the_event_loop(
    adapter: str, name: str, bombs: dict[str, Flood], attacks: Attacks
) -> None:
    with FloodingServer(always=True) as server, MORE_ADAPTERS[adapter](session_of(server)) as client:
        server.flood = (ENDLESS | bombs)[name]
        attacks.try_one()
        assert longest_gap(client, server.url + "/") < 0.5


def longest_gap(client: AsyncHttpx | Aiohttp, url: str) -> float:
    """The longest time for which the event loop did nothing else than the request, in seconds."""

    async def beat(gaps: list[float]) -> None:
        loop = asyncio.get_running_loop()
        while True:
            before = loop.time()
            await asyncio.sleep(0.005)
            gaps.append(loop.time() - before)

    async def send() -> float:
        gaps: list[float] = []
        beating = asyncio.create_task(beat(gaps))
        if isinstance(client, Aiohttp):
            async with client.client.get(url) as response:
                await response.read()
        else:
            await client.client.get(url)
        beating.cancel()
        return max(gaps, default=0.0)

    return client._portal.call(send)  # type: ignore[no-any-return]
