"""Moments in which two things meet: a logout and a load, two logins, a fork and a lock, a cool-down and a sibling."""

from __future__ import annotations

import asyncio
import json
import logging
import multiprocessing
import os
import pickle
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from unbroken import (
    BadResponse,
    ConfigurationError,
    Dialect,
    FileStore,
    HttpRequest,
    HttpResponse,
    MemoryStore,
    NotReplayable,
    RefreshStorm,
    RequestTemplate,
    Session,
    SessionOver,
    StoreUnavailable,
    Tokens,
    TryLater,
    oauth2,
)
from unbroken._transport import NotSent, ResponseLost, http_sender
from unbroken.client.core.events import ClientEvent, RefreshStarted
from unbroken.client.core.record import StoredSession
from unbroken.testing import ManualClock

URL = "https://api.example"


class Answers:
    """Stands for a server: each exchange gives the next pair, unless an answer was prepared. It notes its calls."""

    def __init__(self) -> None:
        self.calls: list[HttpRequest] = []
        self.next: list[Callable[[], HttpResponse]] = []
        self.given = 0

    def __call__(self, call: HttpRequest, timeout: float) -> HttpResponse:
        self.calls.append(call)
        if "logout" in call.url or "revoke" in call.url:
            return HttpResponse(204)
        if self.next:
            return self.next.pop(0)()
        self.given += 1
        return said({"access_token": f"A{self.given}", "refresh_token": f"R{self.given}", "expires_in": 1800})

    def asked(self, word: str) -> int:
        return sum(word in call.url for call in self.calls)


def said(body: object, status: int = 200, **headers: str) -> HttpResponse:
    return HttpResponse(status, headers, json.dumps(body).encode())


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def server() -> Answers:
    return Answers()


def logged_in(server: Answers, clock: ManualClock, store: Any = None, **settings: Any) -> Session:
    session = Session(URL, store, send=server, clock=clock, **settings)
    session.login("ada", "pw")
    return session


# ---- logging in and out ----------------------------------------------------------------------------------------------


def test_a_load_in_the_middle_of_a_logout_does_not_bring_the_session_back(server: Answers, clock: ManualClock) -> None:
    class Slow(MemoryStore):
        def save(self, record: StoredSession, expected: StoredSession) -> bool:
            if record.tokens is None:
                with pytest.raises(SessionOver):
                    session.token()
            return super().save(record, expected)

    session = logged_in(server, clock, Slow())
    session.logout()
    with pytest.raises(SessionOver, match="logged out"):
        session.token()


def test_of_two_logins_that_cross_the_stored_one_is_in_use(server: Answers, clock: ManualClock) -> None:
    store = MemoryStore()
    session = Session(URL, store, send=server, clock=clock)
    install, first = session._state.install, [True]

    def late(live: Any, **more: Any) -> None:
        if first:
            first.clear()
            clock.advance(1)
            session.import_tokens({"access_token": "theirs", "expires_in": 1800})
        install(live, **more)

    session._state.install = late  # type: ignore[method-assign]
    session.import_tokens({"access_token": "mine", "expires_in": 1800})
    stored = store.load().tokens
    assert stored is not None
    assert session.token() == stored.access_token == "theirs"


def test_a_logout_is_told_to_the_server_even_if_the_store_fails(server: Answers, clock: ManualClock) -> None:
    class Full(MemoryStore):
        full = False

        def save(self, record: StoredSession, expected: StoredSession) -> bool:
            if self.full:
                raise StoreUnavailable("the disk is full")
            return super().save(record, expected)

    store = Full()
    session = logged_in(server, clock, store)
    store.full = True
    with pytest.raises(StoreUnavailable):
        session.logout()
    assert server.asked("logout") == 1
    with pytest.raises(SessionOver, match="logged out"):
        session.token()
    store.full = False
    clock.advance(1)
    assert session.login("ada", "pw"), "another login is another matter"
    assert session.token()


def test_a_client_with_a_secret_authenticates_when_it_revokes(server: Answers, clock: ManualClock) -> None:
    endpoint = "https://as.example/token"
    dialect = oauth2(endpoint, client_id="app", client_secret="s", revocation_endpoint="https://as.example/revoke")
    session = Session(dialect, send=server, clock=clock)
    session.import_tokens({"access_token": "A", "refresh_token": "R"})
    assert session.logout() is True
    headers = {name.lower(): value for name, value in server.calls[-1].headers.items()}
    assert headers["authorization"].startswith("Basic ")
    assert server.calls[-1].body == b"token=R"


def test_tokens_that_were_received_long_ago_are_not_taken_for_new(server: Answers, clock: ManualClock) -> None:
    session = Session(URL, send=server, clock=clock)
    session.import_tokens(Tokens("old", "R", expires_in=1800.0, received_at=clock.wall() - 1790))
    assert session.status.state == "ageing"


# ---- what a sibling has stored ---------------------------------------------------------------------------------------


def test_tokens_that_died_in_the_store_are_not_adopted_but_renewed(server: Answers, clock: ManualClock) -> None:
    store = MemoryStore()
    mine = logged_in(server, clock, store)
    theirs = Session(URL, store, send=server, clock=clock)
    clock.advance(1800)
    theirs.token()
    clock.advance(8 * 3600)
    assert mine.token() == "A3"


def test_a_cool_down_does_not_hide_what_a_sibling_has_renewed(server: Answers, clock: ManualClock) -> None:
    store = MemoryStore()
    mine, theirs = logged_in(server, clock, store), Session(URL, store, send=server, clock=clock)
    clock.advance(1800)
    server.next = [lambda: said({}, 503, **{"retry-after": "3600"})]
    with pytest.raises(TryLater):
        mine.token()
    clock.advance(10)
    assert theirs.token() == mine.token() == "A2"
    assert server.asked("refresh") == 2


def test_without_a_sibling_a_cool_down_asks_the_store_and_nobody_else(server: Answers, clock: ManualClock) -> None:
    session = logged_in(server, clock)
    clock.advance(1800)
    server.next = [lambda: said({}, 503, **{"retry-after": "100"})]
    for _ in range(5):
        with pytest.raises(TryLater) as caught:
            session.token()
        clock.advance(10)
    assert server.asked("refresh") == 1
    assert caught.value.retry_after == pytest.approx(60)


def test_a_late_challenge_is_not_answered_with_tokens_that_are_dead_too(server: Answers, clock: ManualClock) -> None:
    session = logged_in(server, clock)
    sent = session._authorize()
    clock.advance(1800)
    session.token()
    clock.advance(5000)
    fresh = session._handle_challenge(sent, "here")
    assert fresh is not None
    assert fresh.tokens.access_token == "A3"


def test_a_store_that_was_set_back_gets_the_newer_tokens_again(server: Answers, clock: ManualClock) -> None:
    store = MemoryStore()
    session = logged_in(server, clock, store)
    before = store.load()
    clock.advance(1800)
    session.token()
    store._record = before  # a restored backup
    clock.advance(1800)
    assert session.token() == "A3"
    assert b'"R2"' in (server.calls[-1].body or b""), "the newest refresh token is presented, not the restored one"
    stored = store.load().tokens
    assert stored is not None
    assert stored.refresh_token == "R3"


# ---- endpoints that reject everything --------------------------------------------------------------------------------


def test_two_stubborn_endpoints_do_not_make_a_storm(server: Answers, clock: ManualClock) -> None:
    session = logged_in(server, clock)
    passed = 0
    for turn in range(20):
        sent = session._authorize()
        fresh = session._handle_challenge(sent, f"/items/{turn % 7}")
        passed += fresh is None
        if fresh is not None:
            session._state.record_acceptance(f"/items/{turn % 7}", fresh, False)
        clock.advance(1)
    assert server.asked("refresh") == 2
    assert passed == 18


def test_an_endpoint_that_refused_an_old_token_is_not_called_stubborn(server: Answers, clock: ManualClock) -> None:
    session = logged_in(server, clock)
    sent = session._authorize()
    clock.advance(1800)
    session.token()
    clock.advance(900)  # the newer token is a quarter of an hour old, and the server has revoked it
    fresh = session._handle_challenge(sent, "here")
    assert fresh is not None
    session._state.record_acceptance("here", fresh, False)
    assert session._handle_challenge(fresh, "here") is not None, "the revoked token is renewed, not passed through"
    assert server.asked("refresh") == 2


def test_without_a_refresh_token_a_challenge_is_handed_over(server: Answers, clock: ManualClock) -> None:
    session = Session(URL, send=server, clock=clock)
    session.import_tokens({"access_token": "A", "expires_in": 1800})
    assert session._handle_challenge(session._authorize(), "here") is None
    assert session.token() == "A"
    clock.advance(1800)
    with pytest.raises(SessionOver, match="no refresh token"):
        session.token()


def test_a_storm_of_challenges_still_ends(server: Answers, clock: ManualClock) -> None:
    session = logged_in(server, clock)
    for turn in range(5):
        fresh = session._handle_challenge(session._authorize(), turn)
        assert fresh is not None
        session._state.record_acceptance(turn, fresh, True)
    with pytest.raises(RefreshStorm):
        session._handle_challenge(session._authorize(), "once more")
    assert server.asked("refresh") == 5


# ---- answers to the exchange -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "odd", [{"scope": 7}, {"refresh_seq": "x"}, {"refresh_expires_in": "never"}, {"token_type": 1}, {"expires_in": "x"}]
)
def test_an_odd_field_does_not_cost_the_tokens(
    server: Answers, clock: ManualClock, odd: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    session = logged_in(server, clock)
    clock.advance(1800)
    server.next = [lambda: said({"access_token": "new", "refresh_token": "R", "expires_in": 60, **odd})]
    with caplog.at_level(logging.WARNING, "unbroken"):
        assert session.token() == "new"
    assert next(iter(odd)) in caplog.text


def test_a_scope_may_come_as_a_list(server: Answers, clock: ManualClock) -> None:
    session = Session(URL, send=server, clock=clock)
    assert session.import_tokens({"access_token": "A", "scope": ["read", "write"]}).scope == "read write"


@pytest.mark.parametrize("answer", [{}, {"access_token": 7}, {"token": "A"}])
def test_a_wrong_description_is_told_at_once_and_asked_once(
    server: Answers, clock: ManualClock, answer: dict[str, object]
) -> None:
    store = MemoryStore()
    session = logged_in(server, clock, store)
    clock.advance(1800)
    server.next = [lambda: said(answer)] * 3
    with pytest.raises(BadResponse, match="'access_token'"):
        session.token()
    assert server.asked("refresh") == 1, "asking again would spend the same refresh token twice"
    stored = store.load().tokens
    assert stored is not None
    assert stored.refresh_token == "R1"


def test_a_wrong_description_does_not_stop_requests_while_the_token_lives(server: Answers, clock: ManualClock) -> None:
    session = logged_in(server, clock)
    server.next = [lambda: said({"token": "A"})] * 9
    clock.advance(1795)
    assert session.token() == "A1"


def test_tokens_that_are_not_newer_are_not_offered_for_ever(server: Answers, clock: ManualClock) -> None:
    session = Session(URL, send=server, clock=clock)
    session.import_tokens({"access_token": "A", "refresh_token": "R", "expires_in": 60, "refresh_seq": 5})
    clock.advance(60)
    server.next = [lambda: said({"access_token": "B", "refresh_token": "R", "refresh_seq": 5})]
    with pytest.raises(TryLater, match="not newer"):
        session.token()
    clock.advance(60)
    server.next = [lambda: said({"access_token": "C", "refresh_token": "R", "refresh_seq": 6})]
    assert session.token() == "C"


def test_retry_after_may_be_anything(server: Answers, clock: ManualClock) -> None:
    server.next = [lambda: said({}, 503, **{"retry-after": "²"})]
    with pytest.raises(TryLater):
        logged_in(server, clock)


# ---- event loops -----------------------------------------------------------------------------------------------------


def test_a_slow_store_does_not_stop_the_loop(server: Answers, clock: ManualClock) -> None:
    class Far(MemoryStore):
        def load(self) -> StoredSession:
            time.sleep(0.3)
            return super().load()

    store = MemoryStore()
    logged_in(server, clock, store)
    far = Far()
    far._record = store.load()
    session = Session(URL, far, send=server, clock=clock)

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


def test_the_repr_asks_no_store(server: Answers, clock: ManualClock) -> None:
    class Dead(MemoryStore):
        def load(self) -> StoredSession:
            raise StoreUnavailable("it is down")

    assert repr(Session(URL, Dead(), send=server, clock=clock)) == "<unbroken.Session not_logged_in>"


def test_an_async_hook_runs_in_the_loop_in_which_a_blocking_call_was_made(server: Answers, clock: ManualClock) -> None:
    heard: list[str] = []

    async def hook(tokens: Tokens) -> None:
        heard.append(tokens.access_token)

    async def main() -> None:
        session = Session(URL, send=server, clock=clock, on_tokens_changed=hook)
        session.import_tokens({"access_token": "A"})
        await asyncio.sleep(0.01)

    asyncio.run(main())
    assert heard == ["A"]


# ---- forks and pickles -----------------------------------------------------------------------------------------------


def in_a_fork(work: Callable[[], str]) -> str:
    """What *work* returns in a forked child."""
    context = multiprocessing.get_context("fork")
    mine, theirs = context.Pipe()
    child = context.Process(target=lambda: theirs.send(work()))
    child.start()
    try:
        assert mine.poll(20), "the child does not answer"
        answer: str = mine.recv()
        return answer
    finally:
        child.join(5)
        child.kill()


def told(session: Session) -> str:
    try:
        return session.token()
    except TryLater as error:
        return str(error)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # a fork beside threads is what is tested
def test_a_child_uses_its_parents_token_but_does_not_spend_its_refresh_token(
    server: Answers, clock: ManualClock
) -> None:
    session = logged_in(server, clock)
    assert in_a_fork(session.token) == "A1"
    clock.advance(1800)
    assert "FileStore" in in_a_fork(lambda: told(session))
    assert session.token() == "A2"
    assert in_a_fork(lambda: session.login("ada", "pw") and session.token()) == "A3"


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_fork_in_the_middle_of_a_renewal_frees_all_locks(server: Answers, clock: ManualClock, tmp_path: Path) -> None:
    store = FileStore(tmp_path / "tokens.json")
    session = logged_in(server, clock, store)
    inside, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with store.lock(5):
            inside.set()
            leave.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    inside.wait(5)
    child = os.fork()
    if child == 0:  # lives on, and holds a copy of every descriptor that it did not let go of
        time.sleep(10)
        os._exit(0)
    try:
        leave.set()
        holder.join()
        clock.advance(1800)
        began = time.monotonic()
        assert session.token() == "A2"
        assert time.monotonic() - began < 5
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


def test_a_session_over_a_file_can_be_pickled_and_one_in_memory_says_why_not(tmp_path: Path) -> None:
    session = Session("http://127.0.0.1:9", FileStore(tmp_path / "t.json"), origins=["http://127.0.0.1:10"])
    session.import_tokens({"access_token": "A", "expires_in": 60})
    again = pickle.loads(pickle.dumps(session))
    assert again.token() == "A"
    assert again.origins == session.origins
    with pytest.raises(TypeError, match="FileStore"):
        pickle.dumps(Session(URL))


# ---- secrets and places ----------------------------------------------------------------------------------------------


def test_no_description_of_a_backend_shows_its_secret() -> None:
    dialect = oauth2("https://as.example/token", client_id="app", client_secret="hush")
    shown = repr(dialect) + repr(RequestTemplate("https://x.example", extra={"client_secret": "hush"}))
    assert "hush" not in shown
    assert "YXBwOmh1c2g" not in shown


def test_a_url_with_a_password_is_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigurationError) as caught:
        Session(Dialect(refresh=RequestTemplate("https://app:hush@as.example/token")))
    assert "hush" not in str(caught.value)


def test_an_international_name_is_the_same_in_both_spellings() -> None:
    session = Session("https://bücher.example")
    assert session.allows_origin("https", "xn--bcher-kva.example", None)
    assert session.allows_origin("https", "bücher.example", None)
    assert Session("https://xn--bcher-kva.example").allows_origin("https", "bücher.example", None)


def test_a_body_that_could_not_be_sent_again_says_whether_the_session_is_renewed() -> None:
    assert "send it anew" in str(NotReplayable("spent"))
    assert "could not be refreshed" in str(NotReplayable("spent", refreshed=False))


# ---- the library's own connection ------------------------------------------------------------------------------------


def test_a_shortened_answer_is_no_answer() -> None:
    with listening(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{}") as port, pytest.raises(ResponseLost):
        http_sender()(HttpRequest("GET", f"http://127.0.0.1:{port}/"), 2.0)


def test_the_time_of_an_exchange_covers_all_addresses_of_a_host(monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 9))] * 3
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: nowhere)
    waited: list[float] = []

    def hangs(sock: socket.socket, where: object) -> None:
        waited.append(sock.gettimeout() or 0.0)
        time.sleep(min(waited[-1], 0.2))
        raise TimeoutError

    monkeypatch.setattr(socket.socket, "connect", hangs, raising=False)
    with pytest.raises(NotSent):
        http_sender()(HttpRequest("GET", "http://many.example/"), 0.3)
    assert sum(min(seconds, 0.2) for seconds in waited) < 0.5
    assert waited == sorted(waited, reverse=True)


def test_loopback_goes_through_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with listening(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}") as port:
        assert http_sender()(HttpRequest("GET", f"http://127.0.0.1:{port}/"), 2.0).status == 200


class listening:  # noqa: N801  # used like a function
    """A server for one connection, which it answers with *answer* and closes."""

    def __init__(self, answer: bytes) -> None:
        self._answer, self._socket = answer, socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def _serve(self) -> None:
        connection, _ = self._socket.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(self._answer)

    def __enter__(self) -> int:
        self._thread.start()
        port: int = self._socket.getsockname()[1]
        return port

    def __exit__(self, *_: object) -> None:
        self._thread.join(5)
        self._socket.close()


def test_a_renewal_is_told_before_what_it_led_to(server: Answers, clock: ManualClock) -> None:
    events: list[ClientEvent] = []
    session = logged_in(server, clock, on_event=events.append)
    clock.advance(1800)
    session.token()
    deadline = time.monotonic() + 5
    while len(events) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    kinds = [type(event).__name__ for event in events]
    assert kinds.index("RefreshStarted") < kinds.index("TokensRefreshed")
    assert next(event for event in events if isinstance(event, RefreshStarted)).why == "expired"
