"""Events and hooks: in which thread or loop they run, and in which order."""

from __future__ import annotations

import asyncio
import os
import threading
import time

import pytest

from tests.support.token_endpoint import URL, TokenEndpoint, logged_in_at
from tests.support.waiting import until
from unbroken import Session, Tokens
from unbroken.client.hooks import EventDispatcher
from unbroken.events import ClientEvent, RefreshFinished, RefreshStarted, RequestWaited
from unbroken.testing import ManualClock


def test_an_async_hook_runs_in_the_loop_in_which_a_blocking_call_was_made(
    endpoint: TokenEndpoint, clock: ManualClock
) -> None:
    heard: list[str] = []

    async def hook(tokens: Tokens) -> None:
        heard.append(tokens.access_token)

    async def main() -> None:
        session = Session(URL, send=endpoint, clock=clock, on_tokens_changed=hook)
        session.import_tokens({"access_token": "A"})
        await asyncio.sleep(0.01)

    asyncio.run(main())
    assert heard == ["A"]


def test_a_refresh_is_told_before_what_it_led_to(endpoint: TokenEndpoint, clock: ManualClock) -> None:
    events: list[ClientEvent] = []
    session = logged_in_at(endpoint, clock, on_event=events.append)
    clock.advance(1800)
    session.token()
    deadline = time.monotonic() + 5
    while len(events) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    kinds = [type(event).__name__ for event in events]
    assert kinds.index("RefreshStarted") < kinds.index("TokensRefreshed")
    assert next(event for event in events if isinstance(event, RefreshStarted)).why == "expired"


def test_a_request_that_tells_of_itself_does_not_run_the_hooks_of_a_refresh() -> None:
    told: list[object] = []
    hooks = EventDispatcher(told.append, None, told.append)
    hooks.tokens_changed(Tokens("A"))
    hooks.emit_now(RequestWaited(1, seconds=0.1))
    assert told == [RequestWaited(1, seconds=0.1)]
    hooks.deliver()
    assert len(told) == 2


def test_a_slow_hook_runs_in_no_request(endpoint: TokenEndpoint, clock: ManualClock) -> None:
    where: list[str] = []
    events: list[ClientEvent] = []

    def hear(event: ClientEvent) -> None:
        events.append(event)
        time.sleep(0.005)  # so that requests overtake the refresh's own thread

    session = Session(
        URL, send=endpoint, clock=clock, on_event=hear, on_tokens_changed=lambda _: where.append(_thread())
    )
    session.import_tokens({"access_token": "A", "refresh_token": "R", "expires_in": 1800})
    where.clear()
    clock.advance(1800)
    requests = [threading.Thread(target=session.token, name="request") for _ in range(10)]
    for request in requests:
        request.start()
    for request in requests:
        request.join(10)
    until(lambda: bool(where))
    assert where == ["unbroken-refresh"]
    assert any(isinstance(event, RefreshFinished) for event in events)


def _thread() -> str:
    return threading.current_thread().name


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_does_not_tell_its_parents_events() -> None:
    told: list[object] = []
    hooks = EventDispatcher(None, told.append, told.append)
    hooks.emit(RequestWaited(1, seconds=0.1))
    hooks.session_over("revoked")
    hooks._loop = "the parent's"
    child = os.fork()
    if child == 0:
        hooks.deliver()
        os._exit(len(told) + (hooks._loop is not None))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    hooks.deliver()
    assert told == [RequestWaited(1, seconds=0.1), "revoked"]
