"""What every adapter must do: one suite for all HTTP libraries, blocking and async; they are named in ``ADAPTERS``.

The scenarios are those of the best suites of the field, and those that no suite has; the rules themselves are tested
once, in ``tests/client`` and in the simulation: here it is asked whether they reach the wire.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from tests.adapters import MORE_ADAPTERS, Answer, Client
from tests.services import free_port
from unbroken import (
    Leeway,
    MemoryStore,
    RefreshWindow,
    RenewalStorm,
    Session,
    SessionOver,
    TryLater,
    When,
    unbroken_server,
)
from unbroken.client import rules
from unbroken.client.events import Event, Joined, NotReplayed, Replayed
from unbroken.testing import LoopbackServer, ManualClock, Network, running
from unbroken.testing.server import PASSWORD

PIXELS = bytes(range(256)) * 300


class Api(LoopbackServer):
    """The loopback server with endpoints that these tests need; ``opened`` holds back ``/late`` until it is set."""

    def __init__(self) -> None:
        more = [
            Route("/fail/{status:int}", self._fail, methods=["GET", "POST"]),
            Route("/open", self._open_to_all),
            Route("/late", self._late),
            Route("/says", self._says, methods=["GET", "POST"]),
            Route("/done", self._done, methods=["POST"]),
            Route("/head", self._head),
        ]
        super().__init__(more=more)
        self.opened, self.waiting, self.done = threading.Event(), threading.Event(), 0

    async def _fail(self, request: Request) -> Response:
        self.seen.append((request.url.path, request.headers.get("authorization", "")))
        return JSONResponse({"error": "no"}, request.path_params["status"])

    async def _open_to_all(self, request: Request) -> Response:
        return JSONResponse({"open": True})

    async def _late(self, request: Request) -> Response:
        """Looks at the token at once, and answers when it may."""
        good = self._is_good(request)
        self.waiting.set()
        await asyncio.to_thread(self.opened.wait, 10)
        return JSONResponse({"good": good}, 200 if good or self._is_good(request) else 401)

    async def _says(self, request: Request) -> Response:
        """Answers 401 with the challenge asked for, until the token is another one than the first it saw."""
        token = request.headers.get("authorization", "")
        self.seen.append((request.url.path, token))
        status = int(request.query_params.get("status", "401"))
        if self.seen[0][1] != token:
            return JSONResponse({"ok": True})
        said = request.query_params.getlist("challenge")
        answer = Response(status_code=status)
        for value in said:
            answer.headers.append("www-authenticate", value)
        return answer

    async def _done(self, request: Request) -> Response:
        """Does what it is asked to, and redirects to a page that needs a session."""
        self.done += 1
        return RedirectResponse("/echo", 303)

    async def _head(self, request: Request) -> Response:
        """For a dialect with a header of its own: what arrived, or the challenge of that dialect."""
        token = request.headers.get("token", "")
        self.seen.append((request.url.path, token))
        return JSONResponse({"code": 200}) if self._is_good(request, token) else JSONResponse({"code": 401}, 400)

    def _is_good(self, request: Request, token: str | None = None) -> bool:
        bearer = request.headers.get("authorization", "").removeprefix("Bearer ") if token is None else token
        try:
            return bool(self.sessions.verify(bearer))
        except Exception:  # noqa: BLE001  # whatever is wrong with it
            return False


class Door:
    """A server that runs for all tests; each test puts its own behind it."""

    def __init__(self) -> None:
        self.app: Any = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)


@pytest.fixture(scope="module")
def doors() -> Iterator[list[tuple[Door, Network]]]:
    """Two of them, for redirects from one origin to another; each behind a network that can lose answers."""
    with ExitStack() as opened:
        made = []
        for _ in range(2):
            door = Door()
            network = Network(opened.enter_context(running(door)))
            network.start()
            opened.callback(network.stop)
            made.append((door, network))
        yield made


def behind(door: tuple[Door, Network]) -> Api:
    api = Api()
    door[0].app, api.network, api.url = api.app(), door[1], f"http://127.0.0.1:{door[1].port}"
    api.network.lose = api.network.lost = api.network.exchanges = 0
    return api


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A renewal that fails tries three times as always, but no test waits a second for that."""
    monkeypatch.setattr(rules, "PAUSES", (0.01, 0.02))


@pytest.fixture
def server(doors: list[tuple[Door, Network]]) -> Api:
    return behind(doors[0])


@pytest.fixture
def elsewhere(doors: list[tuple[Door, Network]]) -> Api:
    """Another origin."""
    return behind(doors[1])


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(120) as made:
        yield made


@pytest.fixture(params=MORE_ADAPTERS)
def connect(request: pytest.FixtureRequest) -> Iterator[Callable[[Session], Client]]:
    """Connects a client of one HTTP library to a session."""
    with ExitStack() as opened:
        yield lambda session: opened.enter_context(MORE_ADAPTERS[request.param](session))


@pytest.fixture
def session(server: Api, clock: ManualClock) -> Session:
    return server.login(clock=clock, exchange_timeout=2.0, wait_timeout=10.0)


@pytest.fixture
def client(connect: Callable[[Session], Client], session: Session) -> Client:
    return connect(session)


def burst(pool: ThreadPoolExecutor, work: Callable[[], Answer], times: int) -> list[Answer | Exception]:
    """What *times* calls at once lead to."""

    def one(_: int) -> Answer | Exception:
        try:
            return work()
        except Exception as error:  # noqa: BLE001  # it is what is asked for
            return error

    return list(pool.map(one, range(times)))


def parked(pool: ThreadPoolExecutor, server: Api, work: Callable[[], Answer]) -> Future[Answer]:
    """A call that waits at the server, which has seen its token."""
    server.waiting.clear()
    waiting = pool.submit(work)
    assert server.waiting.wait(10)
    return waiting


def used(server: Api) -> list[str]:
    """The tokens that the API saw, in order."""
    return [token.removeprefix("Bearer ") for _, token in server.seen]


# ---- before a request is sent ----------------------------------------------------------------------------------------


def test_a_good_token_is_attached_once_and_nothing_else_happens(server: Api, client: Client, session: Session) -> None:
    assert client.request("GET", server.url + "/echo").json["sub"] == "ada"
    assert used(server) == [session.token()]
    assert server.exchanges == 0


def test_requests_park_while_an_expired_token_is_renewed(
    server: Api, client: Client, clock: ManualClock, pool: ThreadPoolExecutor
) -> None:
    old = client.request("GET", server.url + "/echo") and used(server).pop()
    clock.advance(1800)
    server.slow_next(0.2)
    answers = burst(pool, lambda: client.request("GET", server.url + "/echo"), 6)
    assert [answer.status for answer in answers] == [200] * 6
    assert server.exchanges == 1
    assert old not in used(server)[1:], "nothing was sent with the old token"


def test_a_renewal_that_fails_is_one_error_for_each_that_waits_and_nothing_is_sent(
    server: Api, client: Client, clock: ManualClock, pool: ThreadPoolExecutor
) -> None:
    clock.advance(1800)
    for _ in range(3):
        server.fail_next(503)
    answers = burst(pool, lambda: client.request("GET", server.url + "/echo"), 3)
    assert [type(answer) for answer in answers] == [TryLater] * 3
    assert len({id(answer) for answer in answers}) == 3, "each has its own"
    assert server.seen == []
    assert server.exchanges == 3, "one renewal, tried three times"


def test_without_a_login_nothing_is_sent(server: Api, connect: Callable[[Session], Client]) -> None:
    client = connect(Session(server.url))
    with pytest.raises(SessionOver, match="nobody is logged in"):
        client.request("GET", server.url + "/echo")
    assert (server.seen, server.exchanges) == ([], 0)


def test_after_a_logout_nothing_is_sent(server: Api, client: Client, session: Session) -> None:
    client.request("GET", server.url + "/echo")
    session.logout()
    with pytest.raises(SessionOver, match="logged out"):
        client.request("GET", server.url + "/echo")
    assert len(server.seen) == 1


def test_an_ageing_token_is_renewed_behind_the_request(
    server: Api, client: Client, session: Session, clock: ManualClock
) -> None:
    old = session.token()
    clock.advance(1700)
    server.slow_next(0.3)
    began = time.monotonic()
    assert client.request("GET", server.url + "/echo").status == 200
    assert time.monotonic() - began < 0.25, "the request did not wait"
    assert used(server) == [old]
    until(lambda: session.token() != old)
    client.request("GET", server.url + "/echo")
    assert server.exchanges == 1


def test_behind_the_request_a_failure_hurts_nobody(server: Api, client: Client, clock: ManualClock) -> None:
    clock.advance(1700)
    for _ in range(3):
        server.fail_next(500)
    for _ in range(5):
        assert client.request("GET", server.url + "/echo").status == 200
    until(lambda: server.exchanges == 3)


def test_short_lived_tokens_do_not_loop(server: Api, connect: Callable[[Session], Client]) -> None:
    session = Session(server.url)
    granted = server.sessions.login("ada", coordinated=True)
    session.adopt({**granted.to_response(), "expires_in": 1})
    client = connect(session)
    ends = time.monotonic() + 1.5
    while time.monotonic() < ends:
        assert client.request("GET", server.url + "/echo").status == 200
        time.sleep(0.02)
    assert server.exchanges <= 3


# ---- challenges ------------------------------------------------------------------------------------------------------


def test_a_challenged_request_is_served_by_one_exchange(server: Api, client: Client) -> None:
    server.expire()
    assert client.request("GET", server.url + "/echo").status == 200
    assert (server.exchanges, len(server.seen)) == (1, 2)


def test_fifty_challenges_at_once_make_one_exchange(server: Api, client: Client, pool: ThreadPoolExecutor) -> None:
    server.expire()
    with server.assert_one_exchange():
        answers = burst(pool, lambda: client.request("GET", server.url + "/echo"), 50)
    assert [answer.status for answer in answers] == [200] * 50


def test_a_late_challenge_is_answered_without_an_exchange(
    server: Api, client: Client, pool: ThreadPoolExecutor
) -> None:
    server.expire()  # so that /late rejects the first token
    late = parked(pool, server, lambda: client.request("GET", server.url + "/late"))
    assert client.request("GET", server.url + "/echo").status == 200
    server.opened.set()
    assert late.result(10).json == {"good": True}
    assert server.exchanges == 1


def test_a_challenge_that_comes_two_renewals_late_is_answered_without_an_exchange(
    server: Api, client: Client, pool: ThreadPoolExecutor
) -> None:
    server.expire()
    late = parked(pool, server, lambda: client.request("GET", server.url + "/late"))
    for _ in range(2):
        client.request("GET", server.url + "/echo")
        server.expire()
    client.request("GET", server.url + "/echo")
    exchanges = server.exchanges
    server.opened.set()
    assert late.result(10).status == 200
    assert (server.exchanges, server.alarms()) == (exchanges, 0)


def test_any_other_error_is_the_callers(server: Api, client: Client) -> None:
    for status in (400, 403, 404, 429, 500, 503):
        assert client.request("POST", f"{server.url}/fail/{status}").status == status
    assert (server.exchanges, len(server.seen)) == (0, 6)


def test_a_network_error_is_the_librarys_own(clock: ManualClock, connect: Callable[[Session], Client]) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    session = Session(url, clock=clock)
    session.adopt({"access_token": "A", "refresh_token": "R", "expires_in": 1800})
    client = connect(session)
    with pytest.raises(client.broken):
        client.request("GET", url + "/")
    assert session.status.state == "good"


def test_two_cycles_in_a_row(server: Api, client: Client) -> None:
    for _ in range(2):
        server.expire()
        assert client.request("GET", server.url + "/echo").status == 200
        assert client.request("GET", server.url + "/echo").status == 200
    assert (server.exchanges, server.alarms()) == (2, 0)


def test_a_parked_request_that_is_challenged_after_all_is_renewed_for(
    server: Api, client: Client, session: Session, clock: ManualClock
) -> None:
    clock.advance(1800)
    session.token()
    server.expire()
    assert client.request("GET", server.url + "/echo").status == 200
    assert server.exchanges == 2


@pytest.mark.parametrize(
    ("challenges", "ours"),
    [
        ([], True),
        (["Bearer"], True),
        (['Bearer realm="api", error="invalid_token"'], True),
        (['Basic realm="x"', 'Bearer error="invalid_token"'], True),
        (['Digest realm="x, y", nonce="Bearer", Bearer error="expired_token"'], True),
        (['Basic realm="x"'], False),
        (['Bearer error="insufficient_scope"'], False),
    ],
)
def test_which_challenges_are_about_our_token(server: Api, client: Client, challenges: list[str], ours: bool) -> None:
    asked = "&".join(f"challenge={challenge.replace(' ', '%20')}" for challenge in challenges)
    answer = client.request("GET", f"{server.url}/says?{asked}")
    assert (answer.status, server.exchanges) == ((200, 1) if ours else (401, 0))


def test_a_dialect_may_name_another_status(server: Api, clock: ManualClock, connect: Any) -> None:
    from dataclasses import replace

    session = Session(replace(unbroken_server(server.url), challenge=When.of(419)), clock=clock)
    session.login("ada", PASSWORD)
    client = connect(session)
    assert client.request("GET", server.url + "/says?status=419").status == 200
    assert client.request("GET", server.url + "/fail/401").status == 401
    assert server.exchanges == 1


def test_a_request_without_a_token_gets_none(server: Api, client: Client) -> None:
    assert client.request("GET", server.url + "/echo", skip=True).status == 401
    assert (used(server), server.exchanges) == ([""], 0)


def test_credentials_of_the_users_own_are_left_alone(server: Api, client: Client) -> None:
    assert client.request("GET", server.url + "/echo", headers={"Authorization": "Bearer theirs"}).status == 401
    assert (used(server), server.exchanges) == (["theirs"], 0)


# ---- when renewal does not work --------------------------------------------------------------------------------------


def test_after_a_challenge_a_failing_renewal_is_one_error_for_each(
    server: Api, client: Client, pool: ThreadPoolExecutor
) -> None:
    server.expire()
    for _ in range(3):
        server.fail_next(503, headers={"retry-after": "7"})
    answers = burst(pool, lambda: client.request("GET", server.url + "/echo"), 3)
    assert [type(answer) for answer in answers] == [TryLater] * 3
    assert [answer.retry_after for answer in answers] == [pytest.approx(7, abs=1)] * 3
    assert len(server.seen) == 3, "nothing was sent a second time"
    assert server.exchanges == 1, "a long Retry-After is the caller's to wait for"


def test_a_failure_is_not_for_ever(server: Api, client: Client, clock: ManualClock) -> None:
    server.expire()
    for _ in range(3):
        server.fail_next(500)
    with pytest.raises(TryLater):
        client.request("GET", server.url + "/echo")
    with pytest.raises(TryLater):
        client.request("GET", server.url + "/echo")
    assert server.exchanges == 3, "the second error is the remembered one"
    clock.advance(31)
    assert client.request("GET", server.url + "/echo").status == 200


def test_tokens_that_are_handed_in_after_a_failure_are_used_at_once(
    server: Api, client: Client, session: Session
) -> None:
    server.expire()
    for _ in range(3):
        server.fail_next(500)
    with pytest.raises(TryLater):
        client.request("GET", server.url + "/echo")
    session.login("ada", PASSWORD)
    assert client.request("GET", server.url + "/echo").status == 200
    assert server.exchanges == 3


def test_an_exchange_that_is_refused_with_a_401_does_not_go_in_circles(server: Api, client: Client) -> None:
    server.expire()
    for _ in range(3):
        server.fail_next(401, headers={"www-authenticate": "Bearer"})
    with pytest.raises(TryLater):
        client.request("GET", server.url + "/echo")
    assert (server.exchanges, len(server.seen)) == (3, 1)


def test_a_dead_session_is_told_to_all_who_wait_and_once_to_the_hook(
    server: Api, clock: ManualClock, connect: Any, pool: ThreadPoolExecutor
) -> None:
    over: list[str] = []
    session = server.login(clock=clock, on_session_over=over.append)
    client = connect(session)
    server.expire()
    server.sessions.revoke_all("ada")
    answers = burst(pool, lambda: client.request("GET", server.url + "/echo"), 10)
    assert [(type(answer), answer.reason) for answer in answers] == [(SessionOver, "revoked")] * 10
    assert server.exchanges == 1
    until(lambda: over == ["revoked"])
    with pytest.raises(SessionOver):
        client.request("GET", server.url + "/echo")
    assert over == ["revoked"]


def test_a_lost_answer_is_asked_for_again_and_nobody_notices(
    server: Api, client: Client, pool: ThreadPoolExecutor
) -> None:
    server.expire()
    server.lose_next(2)
    answers = burst(pool, lambda: client.request("GET", server.url + "/echo"), 20)
    assert [answer.status for answer in answers] == [200] * 20
    assert (server.network.lost, server.alarms()) == (2, 0)


def test_a_hook_that_raises_hurts_nobody(server: Api, clock: ManualClock, connect: Any) -> None:
    def raises(_: object) -> None:
        raise ValueError("a hook of the user's own")

    session = server.login(clock=clock)
    session = Session(server.url, session.store, on_tokens_changed=raises, on_event=raises)
    server.expire()
    assert connect(session).request("GET", server.url + "/echo").status == 200


def test_a_hook_may_use_the_same_client(server: Api, clock: ManualClock, connect: Any) -> None:
    heard: list[int] = []

    def calls_back(_: object) -> None:
        heard.append(client.request("GET", server.url + "/echo").status)

    store = server.login(clock=clock).store
    client = connect(Session(server.url, store, on_tokens_changed=calls_back))
    server.expire()
    assert client.request("GET", server.url + "/echo").status == 200
    until(lambda: heard == [200])


# ---- storms ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attempts", [0, 2])
def test_a_storm_ends_in_an_error_for_all(server: Api, connect: Any, pool: ThreadPoolExecutor, attempts: int) -> None:
    session = server.login(window=RefreshWindow(30.0, attempts))
    client = connect(session)
    for _ in range(attempts):
        server.expire()
        assert client.request("GET", server.url + "/echo").status == 200
    server.expire()
    answers = burst(pool, lambda: client.request("GET", server.url + "/echo"), 3)
    assert [type(answer) for answer in answers] == [RenewalStorm] * 3
    assert server.exchanges == attempts


def test_without_a_window_there_is_no_storm(server: Api, connect: Any) -> None:
    client = connect(server.login(window=None))
    for _ in range(8):
        server.expire()
        assert client.request("GET", server.url + "/echo").status == 200
    assert server.exchanges == 8


def test_a_login_does_not_reset_the_window(server: Api, connect: Any) -> None:
    session = server.login(window=RefreshWindow(30.0, 2))
    client = connect(session)
    for _ in range(2):
        server.expire()
        client.request("GET", server.url + "/echo")
    session.login("ada", PASSWORD)
    server.expire()
    with pytest.raises(RenewalStorm):
        client.request("GET", server.url + "/echo")


def test_an_endpoint_that_rejects_every_token_gets_its_way(server: Api, client: Client) -> None:
    for _ in range(20):
        assert client.request("GET", server.url + "/never").status == 401
    assert server.exchanges == 1
    assert client.request("GET", server.url + "/echo").status == 200


# ---- nobody is hostage -----------------------------------------------------------------------------------------------


def test_a_request_that_needs_no_session_is_not_held_up(server: Api, client: Client, pool: ThreadPoolExecutor) -> None:
    server.expire()
    server.slow_next(1.0)
    waiting = pool.submit(lambda: client.request("GET", server.url + "/echo"))
    until(lambda: server.exchanges == 1)
    began = time.monotonic()
    assert client.request("GET", server.url + "/open").json == {"open": True}
    assert time.monotonic() - began < 0.8
    assert waiting.result(10).status == 200


def test_a_waiter_may_give_up_before_the_renewal_does(server: Api, clock: ManualClock, connect: Any) -> None:
    session = server.login(clock=clock, wait_timeout=0.1)
    client = connect(session)
    clock.advance(1800)
    server.slow_next(0.6)
    with pytest.raises(TryLater):
        client.request("GET", server.url + "/echo")
    until(lambda: not session.status.renewing)
    assert client.request("GET", server.url + "/echo").status == 200
    assert server.exchanges == 1


def test_an_exchange_that_hangs_is_given_up(server: Api, clock: ManualClock, connect: Any) -> None:
    client = connect(server.login(clock=clock, exchange_timeout=0.2))
    clock.advance(1800)
    for _ in range(3):
        server.slow_next(3)
    began = time.monotonic()
    with pytest.raises(TryLater):
        client.request("GET", server.url + "/echo")
    assert time.monotonic() - began < 2


# ---- logging in and out meanwhile ------------------------------------------------------------------------------------


def test_a_logout_wins_over_a_renewal_under_way(server: Api, connect: Any, pool: ThreadPoolExecutor) -> None:
    store = MemoryStore()
    session = Session(server.url, store)
    session.login("ada", PASSWORD)
    client = connect(session)
    server.expire()
    server.slow_next(0.4)
    waiting = [pool.submit(lambda: client.request("GET", server.url + "/echo")) for _ in range(3)]
    until(lambda: server.exchanges == 1)
    session.logout()
    for one in waiting:
        with pytest.raises(SessionOver):
            one.result(10)
    until(lambda: not session.status.renewing)
    assert store.load().tokens is None
    assert server.sessions.list_of("ada") == []
    assert len(server.seen) <= 3, "nothing was sent again"


def test_what_waits_for_one_user_is_never_sent_for_the_next(
    server: Api, client: Client, session: Session, pool: ThreadPoolExecutor
) -> None:
    server.expire()
    server.slow_next(0.4)
    waiting = pool.submit(lambda: client.request("POST", server.url + "/echo", content=b"pay"))
    until(lambda: server.exchanges == 1)
    session.login("bob", PASSWORD)
    with pytest.raises(SessionOver, match="another login"):
        waiting.result(10)
    assert client.request("GET", server.url + "/echo").json["sub"] == "bob"
    assert server.bodies == [sha(b"")]


def test_a_challenge_that_arrives_after_a_logout_renews_nothing(
    server: Api, client: Client, session: Session, pool: ThreadPoolExecutor
) -> None:
    server.expire()
    late = parked(pool, server, lambda: client.request("GET", server.url + "/late"))
    session.logout()
    server.opened.set()
    with pytest.raises(SessionOver, match="logged out"):
        late.result(10)
    assert server.exchanges == 0


# ---- bodies ----------------------------------------------------------------------------------------------------------


BODIES: dict[str, Callable[[], dict[str, Any]]] = {
    "bytes": lambda: {"content": PIXELS},
    "JSON": lambda: {"json": {"text": "grüße", "numbers": [1, 2.5]}},
    "a form": lambda: {"form": {"name": "ä b", "x": "1"}},
}


# The async clients of httpx and httpx2 take no files as a body. httpx, unlike httpx2, announces the whole length of a
# stream that stands in its middle, so it cannot send the rest of one at all.
STREAMS = [("httpx2", 1000), ("httpx", 0), ("requests", 1000), ("aiohttp", 1000)]


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_a_body_is_sent_again_byte_for_byte(server: Api, client: Client, body: Callable[[], dict[str, Any]]) -> None:
    assert client.request("POST", server.url + "/echo", **body()).status == 200
    server.expire()
    assert client.request("POST", server.url + "/echo", **body()).status == 200
    assert len(server.bodies) == 2
    assert server.bodies[0] == server.bodies[1] != sha(b"")


@pytest.mark.parametrize(("connect", "start"), STREAMS, indirect=["connect"])
def test_a_stream_is_sent_again_from_where_it_stood(server: Api, client: Client, start: int) -> None:
    server.expire()
    stream = io.BytesIO(PIXELS)
    stream.seek(start)
    assert client.request("PUT", server.url + "/echo", content=stream).status == 200
    assert server.bodies == [sha(PIXELS[start:])]


@pytest.mark.parametrize(("connect", "start"), STREAMS, indirect=["connect"])
def test_an_open_file_is_sent_again_from_where_it_stood(
    server: Api, client: Client, tmp_path: Path, start: int
) -> None:
    (tmp_path / "pixels").write_bytes(PIXELS)
    server.expire()
    with (tmp_path / "pixels").open("rb") as file:
        file.seek(start)
        assert client.request("PUT", server.url + "/echo", content=file).status == 200
    assert server.bodies == [sha(PIXELS[start:])]


def test_an_upload_of_files_is_sent_again_whole(server: Api, client: Client) -> None:
    server.expire()
    answer = client.request("POST", server.url + "/echo", files={"file": ("pixels", io.BytesIO(PIXELS))})
    assert answer.json["length"] > len(PIXELS)
    assert len(server.bodies) == 1


class Spent:
    """Looks like a collection, and can be read once: like a wrapper that shows progress."""

    def __init__(self) -> None:
        self._rest = [b"a", b"b"]

    def __iter__(self) -> Iterator[bytes]:
        while self._rest:
            yield self._rest.pop(0)


ONCE: dict[str, Callable[[], Any]] = {
    "a generator": lambda: (chunk for chunk in [b"a", b"b"]),
    "an iterator": lambda: iter([b"a", b"b"]),
}


@pytest.mark.parametrize("body", ONCE.values(), ids=ONCE)
def test_a_body_that_can_be_sent_once_is_never_sent_twice_nor_empty(
    server: Api, client: Client, body: Callable[[], Any]
) -> None:
    server.expire()
    refused = client.request("POST", server.url + "/echo", content=body())
    assert refused.status == 401
    assert len(server.seen) == 1
    assert refused.why_not_replayed is not None
    assert "only once" in str(refused.why_not_replayed)
    assert server.exchanges == 1, "the session is renewed, so that the next request works"
    assert client.request("POST", server.url + "/echo", content=body()).json["length"] == 2


@pytest.mark.parametrize("connect", ["httpx2", "httpx", "requests"], indirect=True)  # the others take no such body
def test_what_only_looks_like_a_collection_is_sent_once(server: Api, client: Client) -> None:
    server.expire()
    assert client.request("POST", server.url + "/echo", content=Spent()).status == 401
    assert len(server.seen) == 1


def test_before_a_body_that_can_be_sent_once_an_ageing_token_is_renewed(
    server: Api, client: Client, session: Session, clock: ManualClock
) -> None:
    old = session.token()
    clock.advance(1700)
    assert client.request("POST", server.url + "/echo", content=iter([b"a"])).status == 200
    assert old not in used(server)
    assert server.exchanges == 1


def test_a_body_that_could_not_be_sent_again_while_renewal_fails(server: Api, client: Client) -> None:
    server.expire()
    for _ in range(3):
        server.fail_next(500)
    refused = client.request("POST", server.url + "/echo", content=iter([b"a"]))
    assert refused.status == 401
    assert "could not be renewed" in str(refused.why_not_replayed)


# ---- streams and redirects -------------------------------------------------------------------------------------------


def test_a_streamed_answer_stays_lazy(server: Api, client: Client) -> None:
    assert client.lines(server.url + "/stream") == (200, ["0", "1", "2"])
    server.expire()
    assert client.lines(server.url + "/stream") == (200, ["0", "1", "2"])
    assert server.exchanges == 1


def test_a_renewal_goes_on_while_an_answer_is_being_read(server: Api, client: Client, pool: ThreadPoolExecutor) -> None:
    reading = [pool.submit(client.lines, server.url + "/stream") for _ in range(5)]
    server.expire()
    assert client.request("GET", server.url + "/echo").status == 200
    assert {one.result(10)[0] for one in reading} == {200}


def test_tokens_do_not_go_to_another_origin(server: Api, elsewhere: Api, client: Client) -> None:
    assert client.request("GET", elsewhere.url + "/echo").status == 401
    assert client.request("GET", f"{server.url}/redirect?to={elsewhere.url}/echo").status == 401
    assert used(elsewhere) == ["", ""]
    assert server.exchanges == 0, "the challenge of another origin is not about our token"


def test_a_redirect_within_the_origin_is_followed_with_the_token(server: Api, client: Client) -> None:
    assert client.request("GET", f"{server.url}/redirect?to=/echo").status == 200
    server.expire()
    assert client.request("GET", f"{server.url}/redirect?to=/echo").status == 200
    assert server.exchanges == 1


def test_what_was_done_is_not_done_again_when_the_page_behind_it_is_challenged(server: Api, client: Client) -> None:
    server.expire()
    assert client.request("POST", server.url + "/done", content=b"pay").status == 200
    assert server.done == 1
    assert server.exchanges == 1


def test_a_header_of_the_backends_own_stays_at_its_origin(server: Api, elsewhere: Api, connect: Any) -> None:
    from dataclasses import replace

    dialect = unbroken_server(server.url)
    own = replace(dialect, header="token", scheme="", challenge=When.of(400, field="code", values=(401,)))
    session = Session(own)
    session.login("ada", PASSWORD)
    client = connect(session)
    assert client.request("GET", f"{server.url}/head").status == 200
    assert client.request("GET", f"{server.url}/redirect?to=/head").status == 200, "it goes on within its origin"
    client.request("GET", f"{server.url}/redirect?to={elsewhere.url}/head")
    assert used(elsewhere) == [""]
    server.expire()
    assert client.request("GET", f"{server.url}/head").status == 200
    assert server.exchanges == 1


# ---- clocks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("jump", [3600, -3600])
def test_a_clock_that_is_set_costs_one_exchange_at_most(
    server: Api, client: Client, clock: ManualClock, jump: float
) -> None:
    clock.set(jump)
    for _ in range(10):
        assert client.request("GET", server.url + "/echo").status == 200
        clock.advance(1)
    assert server.exchanges <= 1


def test_a_machine_that_slept_renews_first(server: Api, client: Client, clock: ManualClock, session: Session) -> None:
    old = session.token()
    clock.sleep(8 * 3600)
    assert client.request("GET", server.url + "/echo").status == 200
    assert (server.exchanges, old in used(server)) == (1, False)


@pytest.mark.parametrize("skew", [300, -300])
def test_a_server_with_another_time_of_day_is_no_trouble(
    server: Api, client: Client, clock: ManualClock, skew: float
) -> None:
    server.skew(skew)
    for _ in range(3):
        assert client.request("GET", server.url + "/echo").status == 200
        clock.advance(1800)
    assert server.exchanges == 2


@pytest.mark.parametrize("expires_in", [None, 0, "60", "soon"])
def test_odd_lifetimes_are_driven_by_challenges(server: Api, connect: Any, expires_in: object) -> None:
    session = Session(server.url)
    granted = server.sessions.login("ada", coordinated=True).to_response()
    session.adopt({**granted, "access_token": granted["access_token"], "expires_in": expires_in})
    client = connect(session)
    assert client.request("GET", server.url + "/echo").status == 200
    server.expire()
    assert client.request("GET", server.url + "/echo").status == 200
    assert server.exchanges == 1


# ---- what is told ----------------------------------------------------------------------------------------------------


def test_events_tell_of_waiting_and_of_replays(server: Api, connect: Any, pool: ThreadPoolExecutor) -> None:
    events: list[Event] = []
    session = Session(server.url, on_event=events.append)
    session.login("ada", PASSWORD)
    client = connect(session)
    server.expire()
    server.slow_next(0.2)
    burst(pool, lambda: client.request("GET", server.url + "/echo"), 5)
    server.expire()
    client.request("POST", server.url + "/echo", content=iter([b"a"]))
    kinds = [type(event) for event in events]
    assert kinds.count(Replayed) == 5
    assert kinds.count(Joined) >= 1
    assert kinds.count(NotReplayed) == 1


def test_no_secret_is_logged_or_shown(
    server: Api, client: Client, session: Session, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    stored = session.store.load().tokens
    assert stored is not None
    secrets = [stored.access_token, stored.refresh_token or "-"]
    with caplog.at_level(logging.DEBUG, "unbroken"):
        server.expire()
        for _ in range(3):
            server.fail_next(500)
        with pytest.raises(TryLater) as caught:
            client.request("GET", server.url + "/echo")
        clock.advance(31)
        client.request("GET", server.url + "/echo")
    shown = caplog.text + repr(session) + repr(caught.value) + repr(caught.value.__cause__)
    assert not [secret for secret in secrets if secret in shown]


def test_all_libraries_at_once_share_one_exchange(server: Api, pool: ThreadPoolExecutor) -> None:
    session = server.login(leeway=Leeway())
    with ExitStack() as opened:
        clients = [opened.enter_context(connect(session)) for connect in MORE_ADAPTERS.values()]
        server.expire()
        waiting = [pool.submit(one.request, "GET", server.url + "/echo") for one in clients for _ in range(10)]
        assert {one.result(20).status for one in waiting} == {200}
    assert (server.exchanges, server.alarms()) == (1, 0)


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def until(condition: Callable[[], bool]) -> None:
    ends = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < ends, "it did not happen"
        time.sleep(0.01)
