"""Streams outlive their tokens: a WebSocket, and server-sent events."""

from __future__ import annotations

import asyncio
from itertools import islice
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
import websockets

from examples import event_stream, websocket_feed
from tests.docs.examples.shop import LIFETIME, TOKENS, Shop
from unbroken import Session, SessionOver
from unbroken.httpx2 import SessionAuth
from unbroken.testing import ManualClock


async def collect(session: Session, shop: Shop) -> list[dict[str, Any]]:
    url = shop.url.replace("http", "ws", 1) + "/feed"
    async with asyncio.timeout(10):
        return [message async for message in websocket_feed.feed(session, url)]


@pytest.mark.parametrize("code", [3000, 4401])
def test_a_websocket_outlives_three_tokens_and_no_message_is_lost_or_doubled(
    shop: Shop, login: Session, code: int
) -> None:
    shop.closes_with = code
    messages = asyncio.run(collect(login, shop))
    assert len(shop.used["feed"]) == TOKENS
    assert messages == [{"id": n, "text": "x" * n} for n in range(1, shop.last["feed"] + 1)]
    assert len(messages) == 5 * TOKENS


def test_a_websocket_that_is_closed_for_another_reason_does_not_come_back(shop: Shop, login: Session) -> None:
    shop.closes_with = 4000
    with pytest.raises(websockets.ConnectionClosedError) as raised:
        asyncio.run(collect(login, shop))
    assert raised.value.rcvd is not None
    assert raised.value.rcvd.code == 4000
    assert len(shop.used["feed"]) == 1


def test_a_websocket_whose_good_looking_token_is_refused_does_not_come_back_forever(shop: Shop, login: Session) -> None:
    shop.sessions.revoke_subject("ada")
    with pytest.raises(websockets.ConnectionClosedError):
        asyncio.run(collect(login, shop))
    assert "feed" not in shop.used


def test_a_websocket_of_a_session_that_is_over_says_so(shop: Shop, login: Session, clock: ManualClock) -> None:
    shop.sessions.revoke_subject("ada")
    clock.advance(LIFETIME)
    with pytest.raises(SessionOver, match="revoked"):
        asyncio.run(collect(login, shop))


# ---- server-sent events ----------------------------------------------------------------------------------------------


def test_an_event_stream_outlives_three_tokens_without_a_gap(
    shop: Shop, login: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(event_stream, "time", SimpleNamespace(sleep=pauses.append))
    with httpx2.Client(auth=SessionAuth(login), timeout=10) as client:
        stream = event_stream.events(client, shop.url + "/events")
        events = [(event.id, event.data) for event in islice(stream, 100)]
    assert len(shop.used["events"]) == TOKENS
    assert events == [(str(n), "x" * n) for n in range(1, shop.last["events"] + 1)]
    assert len(events) == 5 * TOKENS
    assert shop.cuts == ["broken off", "ended", "broken off"]
    assert set(pauses) == {0.01}, "it waits as long as the server asked for, not three seconds each time"


def test_an_event_stream_of_a_session_that_is_over_says_so(shop: Shop, login: Session) -> None:
    with httpx2.Client(auth=SessionAuth(login), timeout=10) as client:
        events = event_stream.events(client, shop.url + "/events")
        assert next(events).id == "1"
        shop.sessions.revoke_subject("ada")
        with pytest.raises(SessionOver, match="revoked"):
            list(islice(events, 100))
