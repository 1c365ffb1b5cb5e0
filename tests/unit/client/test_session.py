"""The session in real threads and event loops, against a real server: one refresh, nobody hostage, nothing lost."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
import pytest
import trio

from tests.support.backend import PASSWORD, Backend, as_json
from tests.support.requests_of_adapters import tokens_after_challenge, tokens_for_request
from tests.support.token_endpoint import URL, TokenEndpoint, logged_in_at
from tests.support.waiting import until
from unbroken import (
    BadResponse,
    ConfigurationError,
    FileStore,
    LoginRefused,
    MemoryStore,
    RefreshStorm,
    RefreshWindow,
    Session,
    SessionOver,
    StoreUnavailable,
    TryLater,
)
from unbroken.client.core.token_store import StoredSession
from unbroken.testing import ManualClock


def logged_in(server: Backend, **about: Any) -> Session:
    made = Session(server.url, refresh_timeout=10.0, wait_timeout=20.0, **about)
    made.login("ada", PASSWORD)
    return made


# ---- one flight ------------------------------------------------------------------------------------------------------


def test_fifty_threads_on_an_expired_token_make_one_refresh(server: Backend) -> None:
    clock = ManualClock()
    session = logged_in(server, clock=clock)
    clock.advance(1800)
    with ThreadPoolExecutor(50) as pool:
        tokens = set(pool.map(lambda _: session.token(), range(50)))
    assert len(tokens) == 1
    assert server.refreshes == 1


@pytest.mark.anyio
async def test_a_thousand_tasks_on_an_expired_token_make_one_refresh(server: Backend) -> None:
    clock = ManualClock()
    session = logged_in(server, clock=clock)
    clock.advance(1800)
    tokens = set()

    async def one() -> None:
        tokens.add(await session.atoken())

    async with anyio.create_task_group() as group:
        for _ in range(1000):
            group.start_soon(one)
    assert len(tokens) == 1
    assert server.refreshes == 1


def test_threads_two_loops_and_trio_share_one_refresh(server: Backend) -> None:
    clock = ManualClock()
    session = logged_in(server, clock=clock)
    clock.advance(1800)
    server.slow_next(0.3)
    start, tokens = threading.Barrier(4), []

    async def ten() -> None:
        async def one() -> None:
            tokens.append(await session.atoken())

        async with anyio.create_task_group() as group:
            for _ in range(10):
                group.start_soon(one)

    def run(what: Any) -> None:
        start.wait()
        what()

    works = [
        lambda: asyncio.run(ten()),
        lambda: asyncio.run(ten()),
        lambda: trio.run(ten),
        lambda: tokens.append(session.token()),
    ]
    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(tokens) == 31
    assert len(set(tokens)) == 1
    assert server.refreshes == 1


@pytest.mark.anyio
async def test_a_cancelled_leader_leaves_at_once_and_its_refresh_goes_on(server: Backend) -> None:
    clock = ManualClock()
    session = logged_in(server, clock=clock)
    clock.advance(1800)
    go_on, tokens = server.hold_next(), []
    with anyio.move_on_after(0.05):
        await session.atoken()

    async def follow() -> None:
        tokens.append(await session.atoken())

    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(follow)
        go_on()
    assert len(set(tokens)) == 1
    assert server.refreshes == 1
    assert server.alarms() == 0


def test_an_event_loop_that_ends_in_mid_refresh_loses_nothing(server: Backend) -> None:
    clock = ManualClock()
    session = logged_in(server, clock=clock)
    clock.advance(1800)
    go_on = server.hold_next()

    async def give_up() -> None:
        with anyio.move_on_after(0.05):
            await session.atoken()

    asyncio.run(give_up())
    before = session.status.version
    go_on()
    assert session.token()
    assert session.status.version == before + 1
    assert server.refreshes == 1


def test_an_ageing_token_is_refreshed_in_the_background(server: Backend) -> None:
    clock = ManualClock()
    changed = threading.Event()
    session = logged_in(server, clock=clock, on_tokens_changed=lambda tokens: tokens.refresh_seq and changed.set())
    old = session.token()
    clock.advance(1700)
    go_on = server.hold_next()
    assert session.token() == old, "nobody waits in the advisory window"
    go_on()
    assert changed.wait(20)
    assert session.token() != old
    assert server.refreshes == 1


@pytest.mark.parametrize("jump", [3600.0, -3600.0])
def test_a_clock_that_jumps_an_hour_costs_at_most_one_refresh(server: Backend, jump: float) -> None:
    clock = ManualClock()
    session = logged_in(server, clock=clock)
    clock.set(jump)
    for _ in range(5):
        assert session.token()
    assert server.refreshes <= 1


def test_a_sleeping_machine_wakes_with_an_expired_token_and_notices(server: Backend) -> None:
    clock = ManualClock()
    session = logged_in(server, clock=clock)
    old = session.token()
    clock.sleep(8 * 3600)  # the monotonic clock has stood still
    assert session.token() != old
    assert server.refreshes == 1


# ---- failure ---------------------------------------------------------------------------------------------------------


def test_a_lost_response_is_asked_for_again_with_the_same_result(server: Backend) -> None:
    clock = ManualClock()
    session = logged_in(server, clock=clock)
    clock.advance(1800)
    server.network.lose = 2
    assert session.token()
    assert (server.network.lost, server.alarms()) == (2, 0)
    assert server.sessions.verify(session.token()).generation == 1, "three requests, one generation"


def test_a_refresh_that_gets_one_503_is_retried(server: Backend) -> None:
    clock = ManualClock()
    session = logged_in(server, clock=clock)
    clock.advance(1800)
    server.fail_next(503)
    assert session.token()
    assert server.refreshes == 2


@pytest.mark.parametrize(
    ("status", "body"),
    [(500, b"oops"), (200, b"not json"), (200, b"[]"), (302, b""), (404, b"")],
)
def test_whatever_else_the_server_says_the_tokens_are_kept(server: Backend, status: int, body: bytes) -> None:
    clock = ManualClock()
    over: list[str] = []
    session = logged_in(server, clock=clock, on_session_over=over.append)
    clock.advance(1800)
    for _ in range(3):
        server.fail_next(status, body=body, headers={"location": "http://127.0.0.1:1/"})
    with pytest.raises(TryLater):
        session.token()
    clock.advance(60)
    assert session.token(), "and the next refresh works"
    assert over == []


def test_a_wrong_response_names_its_field(server: Backend) -> None:
    clock = ManualClock()
    session = logged_in(server, clock=clock)
    clock.advance(1800)
    server.fail_next(200, body=as_json({"access_token": 7}))
    with pytest.raises(BadResponse, match="'access_token'"):
        session.token()
    clock.advance(60)
    assert session.token(), "and the next refresh works"


def test_waiters_of_a_failed_refresh_get_one_error_each_and_make_no_further_refresh(server: Backend) -> None:
    clock = ManualClock()
    session = logged_in(server, clock=clock)
    clock.advance(1800)
    for _ in range(3):
        server.fail_next(500)
    errors: list[TryLater] = []

    def one() -> None:
        try:
            session.token()
        except TryLater as error:
            errors.append(error)

    threads = [threading.Thread(target=one) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(errors) == 20
    assert len({id(error) for error in errors}) == 20
    assert server.refreshes == 3
    assert all(error.retry_after > 0 for error in errors)


def test_a_retry_after_is_handed_on_and_kept(server: Backend) -> None:
    clock = ManualClock()
    session = logged_in(server, clock=clock)
    clock.advance(1800)
    server.fail_next(429, headers={"retry-after": "30"})
    with pytest.raises(TryLater) as caught:
        session.token()
    assert caught.value.retry_after == pytest.approx(30, abs=1)
    with pytest.raises(TryLater):
        session.token()
    assert server.refreshes == 1
    clock.advance(31)
    assert session.token()


def test_a_token_that_is_still_good_is_used_while_the_server_is_down(server: Backend) -> None:
    clock = ManualClock()
    session = logged_in(server, clock=clock)
    old = session.token()
    clock.advance(1795)  # the mandatory window
    for _ in range(3):
        server.fail_next(503)
    assert session.token() == old


def test_a_server_that_never_responds_does_not_hold_anybody(server: Backend) -> None:
    clock = ManualClock()
    session = Session(server.url, logged_in(server, clock=clock).store, refresh_timeout=0.3, clock=clock)
    clock.advance(1800)
    held = [server.hold_next() for _ in range(3)]
    with pytest.raises(TryLater):
        session.token()
    for go_on in held:
        go_on()


def test_a_follower_may_time_out_by_itself(server: Backend) -> None:
    clock = ManualClock()
    session = Session(server.url, wait_timeout=0.1, clock=clock)
    session.login("ada", PASSWORD)
    clock.advance(1800)
    go_on = server.hold_next()
    with pytest.raises(TryLater):
        session.token()
    go_on()
    until(lambda: not session.status.refreshing)
    assert session.token()
    assert server.refreshes == 1


def test_a_dead_session_ends_once_for_all_waiters(server: Backend) -> None:
    clock = ManualClock()
    over: list[str] = []
    session = logged_in(server, clock=clock, on_session_over=over.append)
    server.sessions.revoke_subject("ada")
    clock.advance(1800)

    def one(_: int) -> str:
        with pytest.raises(SessionOver) as caught:
            session.token()
        return caught.value.reason

    with ThreadPoolExecutor(20) as pool:
        assert set(pool.map(one, range(20))) == {"revoked"}
    assert server.refreshes == 1
    assert over == ["revoked"]
    assert session.status.reason == "revoked"


def test_a_storm_is_stopped(server: Backend) -> None:
    session = logged_in(server, window=RefreshWindow(interval=30.0, attempts=2))
    live = tokens_for_request(session)
    for _ in range(2):
        fresh = tokens_after_challenge(session, live, "somewhere")
        assert fresh is not None
        live = fresh
    with pytest.raises(RefreshStorm):
        tokens_after_challenge(session, live, "somewhere")
    assert server.refreshes == 2


def test_refreshes_that_are_due_by_age_are_no_storm(server: Backend) -> None:
    clock = ManualClock()
    session = logged_in(server, clock=clock)
    for _ in range(12):
        clock.advance(1)
        clock.sleep(1799)  # a second of the monotonic clock a cycle
        session.token()
    assert server.refreshes == 12


# ---- logging in and out ----------------------------------------------------------------------------------------------


def test_a_new_session_is_not_logged_in(server: Backend) -> None:
    with pytest.raises(SessionOver) as caught:
        Session(server.url).token()
    assert caught.value.reason == "not_logged_in"


def test_a_wrong_password_is_refused_and_hurts_no_session(server: Backend, session: Session) -> None:
    with pytest.raises(LoginRefused):
        session.login("ada", "wrong")
    assert session.token()


def test_logout_wins_over_a_refresh_under_way(server: Backend) -> None:
    clock = ManualClock()
    store = MemoryStore()
    session = logged_in(server, store=store, clock=clock)
    clock.advance(1800)
    go_on = server.hold_next()
    caught: list[str] = []

    def wait() -> None:
        try:
            session.token()
        except SessionOver as over:
            caught.append(over.reason)

    thread = threading.Thread(target=wait)
    thread.start()
    until(lambda: server.refreshes)
    session.logout()
    go_on()
    thread.join()
    assert caught == ["logged_out"]
    assert store.load().tokens is None
    assert server.sessions.list_sessions("ada") == []


def test_what_waits_for_one_user_is_not_sent_for_the_next(server: Backend) -> None:
    clock = ManualClock()
    session = logged_in(server, clock=clock)
    sent = tokens_for_request(session)
    clock.advance(1800)
    go_on = server.hold_next()
    caught: list[str] = []

    def wait() -> None:
        try:
            tokens_after_challenge(session, sent, "somewhere")
        except SessionOver as over:
            caught.append(over.reason)

    thread = threading.Thread(target=wait)
    thread.start()
    until(lambda: server.refreshes)
    session.login("bob", PASSWORD)
    go_on()
    thread.join()
    assert caught == ["other_login"]
    assert server.sessions.verify(session.token()).subject == "bob"


@pytest.mark.anyio
async def test_the_async_spellings_do_the_same(server: Backend) -> None:
    changed: list[int] = []

    async def on_tokens_changed(tokens: Any) -> None:
        changed.append(tokens.version)

    session = Session(server.url, on_tokens_changed=on_tokens_changed)
    await session.alogin("ada", PASSWORD)
    assert server.sessions.verify(await session.atoken()).subject == "ada"
    assert await session.alogout() is True
    with pytest.raises(SessionOver):
        await session.atoken()
    for _ in range(100):
        if changed:
            break
        await anyio.sleep(0.01)
    assert len(changed) == 1


def test_tokens_from_elsewhere_are_adopted(server: Backend) -> None:
    granted = server.sessions.create("eve")
    session = Session(server.url)
    session.import_tokens(granted.to_response())
    assert server.sessions.verify(session.token()).subject == "eve"


# ---- two processes' worth of sessions on one store -------------------------------------------------------------------


def test_two_sessions_on_one_file_make_one_refresh(server: Backend, tmp_path: Any) -> None:
    clock = ManualClock()
    one = logged_in(server, store=FileStore(tmp_path / "tokens.json"), clock=clock)
    two = Session(server.url, FileStore(tmp_path / "tokens.json"), clock=clock)
    assert two.token() == one.token()
    clock.advance(1800)
    with ThreadPoolExecutor(2) as pool:
        assert len(set(pool.map(lambda session: session.token(), (one, two)))) == 1
    assert server.refreshes == 1
    one.logout()
    clock.advance(1800)
    with pytest.raises(SessionOver) as caught:
        two.token()
    assert caught.value.reason == "logged_out"


def test_tokens_that_cannot_be_saved_are_not_lost(server: Backend) -> None:
    class FullDisk(MemoryStore):
        full = False

        def save(self, record: StoredSession, expected: StoredSession) -> bool:
            if self.full and record.idempotency_key is None:
                raise StoreUnavailable("the disk is full")
            return super().save(record, expected)

    clock, store = ManualClock(), FullDisk()
    session = logged_in(server, store=store, clock=clock)
    clock.advance(1800)
    store.full = True
    with pytest.raises(StoreUnavailable):
        session.token()
    store.full = False
    clock.advance(60)
    assert session.token()
    assert server.refreshes == 1, "the tokens that were granted were saved later, not asked for again"


def test_a_child_process_does_not_wait_for_its_parents_refresh(server: Backend) -> None:
    clock = ManualClock()
    session = logged_in(server, clock=clock)
    clock.advance(1800)
    go_on = server.hold_next()
    thread = threading.Thread(target=session.token)
    thread.start()
    until(lambda: server.refreshes)
    child = os.fork()
    if child == 0:
        os._exit(0 if not session.status.refreshing else 1)
    _, status = os.waitpid(child, 0)
    go_on()
    thread.join()
    assert os.waitstatus_to_exitcode(status) == 0


# ---- secrets, scope, hooks -------------------------------------------------------------------------------------------


def test_no_secret_is_shown_anywhere(server: Backend, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    clock, events = ManualClock(), []
    session = logged_in(server, clock=clock, on_event=events.append)
    secrets = {session.token()}
    clock.advance(1800)
    server.network.lose = 1
    secrets.add(session.token())
    record = session.store.load()
    assert record.tokens is not None
    secrets.add(record.tokens.refresh_token or "")
    shown = [repr(session), repr(session.status), repr(record), repr(session.dialect), str(events), caplog.text]
    for secret in secrets:
        assert secret
        assert not any(secret in text for text in shown)


def test_plain_http_is_refused_except_on_loopback() -> None:
    with pytest.raises(ConfigurationError, match="https"):
        Session("http://example.org")
    assert Session("http://example.org", allow_plain_http=True)
    assert Session("http://localhost:8400")
    assert Session("http://[::1]:8400")
    with pytest.raises(ConfigurationError, match="absolute"):
        Session("example.org")


def test_a_hook_that_raises_does_no_harm(server: Backend, caplog: pytest.LogCaptureFixture) -> None:
    def broken(_: object) -> None:
        raise ValueError("the hook's own fault")

    session = logged_in(server, on_event=broken, on_tokens_changed=broken)
    assert session.token()
    assert "failed" in caplog.text


def test_a_slow_store_does_not_stop_the_loop(endpoint: TokenEndpoint, clock: ManualClock) -> None:
    class Far(MemoryStore):
        def load(self) -> StoredSession:
            time.sleep(0.3)
            return super().load()

    store = MemoryStore()
    logged_in_at(endpoint, clock, store)
    far = Far()
    far._record = store.load()
    session = Session(URL, far, send=endpoint, clock=clock)

    async def main() -> tuple[set[str], int]:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.01)
                ticks += 1

        ticking = asyncio.create_task(tick())
        tokens = set(await asyncio.gather(*(session.atoken() for _ in range(20))))
        ticking.cancel()
        return tokens, ticks

    tokens, ticks = asyncio.run(main())
    assert tokens == {"A1"}
    assert ticks > 10


def test_the_repr_asks_no_store(endpoint: TokenEndpoint, clock: ManualClock) -> None:
    class Dead(MemoryStore):
        def load(self) -> StoredSession:
            raise StoreUnavailable("it is down")

    assert repr(Session(URL, Dead(), send=endpoint, clock=clock)) == "<unbroken.Session not_logged_in>"
