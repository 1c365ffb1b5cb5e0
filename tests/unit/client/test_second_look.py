"""A second look at a session: its decisions, hooks, errors and connection. Each test was once a defect."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

import pytest

from unbroken import (
    ConfigurationError,
    Dialect,
    HttpRequest,
    HttpResponse,
    MemoryStore,
    RequestTemplate,
    Session,
    TryLater,
)
from unbroken._sync import run_sync
from unbroken.client.core import refresh_rules as rules
from unbroken.client.core.events import ClientEvent, RefreshFinished, RequestWaited
from unbroken.client.core.record import StoredSession
from unbroken.client.core.refresh_rules import Indeterminate
from unbroken.client.core.schedule import cooldown_seconds
from unbroken.client.hooks import EventDispatcher
from unbroken.client.port import BlockingPort
from unbroken.client.stores.postgres import PostgresStore
from unbroken.client.stores.redis import RedisStore
from unbroken.testing import ManualClock
from unbroken.tokens import Tokens

URL = "https://api.example"


class Answers:
    """Stands for a server: each exchange gives the next pair; ``down`` answers 503."""

    def __init__(self) -> None:
        self.calls: list[HttpRequest] = []
        self.down = False
        self.given = 0

    def __call__(self, call: HttpRequest, timeout: float) -> HttpResponse:
        self.calls.append(call)
        if "logout" in call.url or self.down:
            return HttpResponse(503 if self.down else 204)
        self.given += 1
        pair = {"access_token": f"A{self.given}", "refresh_token": f"R{self.given}", "expires_in": 1800}
        return HttpResponse(200, {}, json.dumps(pair).encode())


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def server() -> Answers:
    return Answers()


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "RETRY_PAUSES_SECONDS", (0.01, 0.02))


def logged_in(server: Answers, clock: ManualClock, store: Any = None, **settings: Any) -> Session:
    session = Session(URL, store, send=server, clock=clock, **settings)
    session.login("ada", "pw")
    return session


# ---- decisions -------------------------------------------------------------------------------------------------------


def test_a_server_that_is_down_for_days_is_still_cooled_down_from() -> None:
    assert cooldown_seconds(5000, 0.0, 0.5) == 22.5


def test_an_endpoint_that_rejects_one_renewal_for_many_requests_does_not_speak_for_the_others(
    server: Answers, clock: ManualClock
) -> None:
    session = logged_in(server, clock)
    fresh = session._handle_challenge(session._authorize(), "/never")
    assert fresh is not None
    for _ in range(10):  # as many requests as were challenged at once
        session._state.record_acceptance("/never", fresh, False)
    assert session._handle_challenge(fresh, "/never") is None
    assert session._handle_challenge(fresh, "/other") is not None, "one renewal helped nobody, not ten"


def test_a_late_challenge_is_answered_with_tokens_that_are_still_good_while_the_server_is_down(
    server: Answers, clock: ManualClock
) -> None:
    session = logged_in(server, clock)
    sent = session._authorize()
    clock.advance(1800)
    session.token()
    clock.advance(1795)  # five seconds are left
    server.down = True
    fresh = session._handle_challenge(sent, "/items")
    assert fresh is not None
    assert fresh.tokens.access_token == "A2"
    clock.advance(5)
    with pytest.raises(TryLater):
        session._handle_challenge(sent, "/items")


def test_a_renewal_that_was_given_up_does_not_send_under_the_lock_of_the_next(
    server: Answers, clock: ManualClock
) -> None:
    class Lost:
        def is_held(self, seconds: float) -> bool:
            return False

    leases: list[Any] = [Lost(), None]

    class Lends(MemoryStore):
        def lock(self, timeout: float) -> Any:
            return _Lends(leases.pop(0))

    port = BlockingPort(
        Lends(),
        Dialect(refresh=RequestTemplate(URL)),
        server,
        clock,
        lambda _: None,
        refresh_timeout=1,
        lock_timeout=1,
    )
    first, second = port.for_one_refresh(), port.for_one_refresh()
    run_sync(first.lock().__aenter__())
    run_sync(second.lock().__aenter__())
    answer = run_sync(first.send_refresh(Tokens("A", "R"), "x"))
    assert isinstance(answer, Indeterminate)
    assert server.calls == []
    run_sync(second.send_refresh(Tokens("A", "R"), "x"))
    assert (first.granted, second.granted) == (False, True)


class _Lends:
    def __init__(self, lease: Any) -> None:
        self._lease = lease

    def __enter__(self) -> Any:
        return self._lease

    def __exit__(self, *_: object) -> None: ...


def test_a_logout_reaches_the_server_also_when_the_store_doubts_that_it_wrote(
    server: Answers, clock: ManualClock
) -> None:
    class Doubts(MemoryStore):
        """Writes, loses the answer, asks again and says no: as a driver does that repeats a statement."""

        answers = iter([True, False, True])  # to the login, to the logout, to its second look

        def save(self, record: StoredSession, expected: StoredSession) -> bool:
            return super().save(record, expected) and next(self.answers)

    store = Doubts()
    session = logged_in(server, clock, store)
    assert session.logout()
    assert [call.url for call in server.calls if "logout" in call.url] == [URL + "/auth/logout"]
    assert store.load().tokens is None


# ---- hooks -----------------------------------------------------------------------------------------------------------


def test_a_request_that_tells_of_itself_does_not_run_the_hooks_of_a_renewal() -> None:
    told: list[object] = []
    hooks = EventDispatcher(told.append, None, told.append)
    hooks.tokens_changed(Tokens("A"))
    hooks.emit_now(RequestWaited(1, seconds=0.1))
    assert told == [RequestWaited(1, seconds=0.1)]
    hooks.deliver()
    assert len(told) == 2


def test_a_slow_hook_runs_in_no_request(server: Answers, clock: ManualClock) -> None:
    where: list[str] = []
    events: list[ClientEvent] = []

    def hear(event: ClientEvent) -> None:
        events.append(event)
        time.sleep(0.005)  # so that requests overtake the renewal's own thread

    session = Session(URL, send=server, clock=clock, on_event=hear, on_tokens_changed=lambda _: where.append(_thread()))
    session.import_tokens({"access_token": "A", "refresh_token": "R", "expires_in": 1800})
    where.clear()
    clock.advance(1800)
    requests = [threading.Thread(target=session.token, name="request") for _ in range(10)]
    for request in requests:
        request.start()
    for request in requests:
        request.join(10)
    _until(lambda: bool(where))
    assert where == ["unbroken-refresh"]
    assert any(isinstance(event, RefreshFinished) for event in events)


def _thread() -> str:
    return threading.current_thread().name


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_does_not_tell_its_parents_news() -> None:
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


def _until(condition: Callable[[], bool]) -> None:
    ends = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < ends, "it does not happen"
        time.sleep(0.01)


# ---- no secret in an error -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda: Session("https://ada:hush@api.example:99999"),
        lambda: RedisStore("redis://:hush/hush@host/0"),
        lambda: PostgresStore("postgres:/ada:hush@host/db"),
        lambda: PostgresStore("host=h password=hush hush"),
    ],
    ids=["dialect", "redis", "postgres", "postgres words"],
)
def test_a_wrong_url_is_refused_and_its_password_is_nowhere(make: Callable[[], object]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        make()
    told = str(caught.value) + str(caught.value.__cause__)
    assert "hush" not in told


@pytest.mark.parametrize("path", ["/a b", "/a\tb", "/caf\u00e9", "?q=\u00e9"])
def test_a_url_that_cannot_be_sent_as_it_stands_is_refused_at_once(path: str) -> None:
    with pytest.raises(ConfigurationError, match="percent-encoded"):
        Session(Dialect(refresh=RequestTemplate(URL + path, "GET", "query")))


# ---- the library's own connection ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("length", "body"),
    [
        (b"Content-Length: junk", b'{"access_token": "A"}'),
        (b"Content-Length: 900\r\nTransfer-Encoding: chunked", b'15\r\n{"access_token": "A"}\r\n0\r\n\r\n'),
    ],
    ids=["junk", "two lengths"],
)
def test_an_odd_length_costs_no_tokens(length: bytes, body: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n" + length + b"\r\n\r\n" + body)

        thread = threading.Thread(target=serve)
        thread.start()
        session = Session(f"http://127.0.0.1:{listening.getsockname()[1]}", refresh_timeout=5.0)
        assert session.login("ada", "pw").access_token == "A"
        thread.join(5)


def test_a_login_that_cannot_be_written_is_no_error_of_another_tree() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        session = Session(
            Dialect(refresh=RequestTemplate(url), login=RequestTemplate(url, encoding="header")), refresh_timeout=5.0
        )
        password = "hush \u2713"
        with pytest.raises(TryLater) as caught:
            session.login("ada", password)
    assert "hush" not in "".join(traceback.format_exception(caught.value))
