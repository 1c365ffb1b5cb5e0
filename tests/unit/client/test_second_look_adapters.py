"""A second look at the adapters, over real connections. Each test was once a defect."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any, Self

import aiohttp
import anyio
import httpx
import pytest
import requests

import unbroken.aiohttp
import unbroken.httpx
import unbroken.requests
from tests.support.adapters import MORE_ADAPTERS, Client
from unbroken import Dialect, HttpRequest, HttpResponse, RequestTemplate, ResponseMatch, Session
from unbroken.testing import ManualClock

BEARER = 'Bearer error="invalid_token"'
Said = tuple[int, list[tuple[str, str]], bytes]


class Backend:
    """A small real server: it takes the newest token only, and *page* says what else it does."""

    def __init__(self, page: Callable[[str], Said | None] | None = None, *, header: str = "authorization") -> None:
        self.good, self.refused, self.header = "A1", (401, [("www-authenticate", BEARER)], b"{}"), header
        self.seen: list[tuple[str, str | None]] = []
        self.bodies: list[bytes] = []
        self._page = page
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def renew(self, call: HttpRequest, timeout: float) -> HttpResponse:
        """The exchange, for ``Session(send=…)``."""
        self.good = f"A{int(self.good[1:]) + 1}"
        return HttpResponse(200, {}, json.dumps({"access_token": self.good, "refresh_token": "R"}).encode())

    def answer(self, path: str, token: str | None, body: bytes) -> Said:
        self.seen.append((path, token))
        self.bodies.append(body)
        if path != "/open" and (token or "").removeprefix("Bearer ") != self.good:
            return self.refused
        return (self._page(path) if self._page else None) or (200, [("content-type", "application/json")], b'{"a": 1}')


def _handler(backend: Backend) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            sent = self.rfile.read(int(self.headers.get("content-length") or 0))
            status, headers, body = backend.answer(self.path, self.headers.get(backend.header), sent)
            self.send_response(status)
            for name, value in [*headers, ("content-length", str(len(body)))]:
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815  # the base asks for this name

        def log_message(self, *_: Any) -> None: ...

    return Handler


def session_for(backend: Backend, token: str = "A1", *, clock: ManualClock | None = None, **about: Any) -> Session:
    dialect = Dialect(refresh=RequestTemplate(backend.url + "/refresh"), **about)
    session = Session(dialect, send=backend.renew, **({"clock": clock} if clock else {}))
    session.import_tokens({"access_token": token, "refresh_token": "R", "expires_in": 1800})
    return session


@pytest.fixture(params=MORE_ADAPTERS)
def connect(request: pytest.FixtureRequest) -> Iterator[Callable[[Session], Client]]:
    with ExitStack() as opened:
        yield lambda session: opened.enter_context(MORE_ADAPTERS[request.param](session))


@pytest.fixture
def plain() -> Iterator[requests.Session]:
    with requests.Session() as made:
        made.trust_env = False
        yield made


# ---- every adapter ---------------------------------------------------------------------------------------------------


def test_a_header_of_the_backends_own_follows_no_redirect_that_comes_after_a_challenge(
    connect: Callable[[Session], Client],
) -> None:
    with (
        Backend(header="token") as elsewhere,
        Backend(lambda path: (302, [("location", f"{elsewhere.url}/open")], b""), header="token") as here,
    ):
        here.refused = (400, [("content-type", "application/json")], b'{"code": 401}')
        own = ResponseMatch.of(400, field="code", values=(401,))
        client = connect(session_for(here, "old", header="token", scheme="", challenge=own))
        assert client.request("GET", here.url + "/go").status == 200
        assert here.seen == [("/go", "old"), ("/go", "A2")]
        assert elsewhere.seen == [("/open", None)]


def test_each_of_several_lines_of_challenges_is_read(connect: Callable[[Session], Client]) -> None:
    with Backend() as backend:
        backend.refused = (401, [("www-authenticate", BEARER), ("www-authenticate", 'Basic realm="x"')], b"")
        client = connect(session_for(backend, "old"))
        assert client.request("GET", backend.url + "/items").status == 200


# ---- aiohttp ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 20, 300_000])
def test_an_answer_that_was_looked_into_can_still_be_streamed(size: int) -> None:
    text = json.dumps({"code": 200, "pad": "x" * size}).encode()

    async def stream(session: Session, url: str) -> tuple[bytes, bytes, bytes]:
        async with aiohttp.ClientSession(middlewares=[unbroken.aiohttp.SessionMiddleware(session)]) as http:
            async with http.get(url) as response:
                in_chunks = b"".join([chunk async for chunk in response.content.iter_chunked(1000)])
                whole = await response.read()
            async with http.get(url) as response:
                return in_chunks, whole, await response.content.read()

    with Backend(lambda _: (200, [("content-type", "application/json")], text)) as backend:
        session = session_for(backend, challenge=ResponseMatch.of(200, field="code", values=(401,)))
        assert anyio.run(stream, session, backend.url + "/items") == (text, text, text)


def test_a_refusal_that_is_handed_over_can_still_be_streamed() -> None:
    async def stream(session: Session, url: str) -> tuple[int, bytes]:
        middlewares = [unbroken.aiohttp.SessionMiddleware(session)]
        async with aiohttp.ClientSession(middlewares=middlewares) as http, http.get(url) as response:
            return response.status, await response.content.read()

    with Backend() as backend:
        session = session_for(backend)
        session.import_tokens({"access_token": "old"})  # with nothing to renew it by
        assert anyio.run(stream, session, backend.url + "/items") == (401, b"{}")


# ---- requests --------------------------------------------------------------------------------------------------------


def test_a_prepared_request_is_renewed_for_each_time_it_is_sent(plain: requests.Session) -> None:
    with Backend() as backend:
        plain.auth = unbroken.requests.SessionAuth(session_for(backend, "old"))
        prepared = plain.prepare_request(requests.Request("POST", backend.url + "/items", data=b"pay"))
        for turn in range(3):
            assert plain.send(prepared).status_code == 200, turn
            backend.good = f"A{10 * (turn + 1)}"  # the token that was just used dies
        assert set(backend.bodies) == {b"pay"}


def test_a_hop_behind_a_redirect_is_renewed_for_after_the_first_one_was(plain: requests.Session) -> None:
    def page(path: str) -> Said | None:
        if path != "/go":
            return None
        backend.good = "A7"  # the token that /go took is dead for what comes next
        return 307, [("location", "/items")], b""

    with Backend(page) as backend:
        plain.auth = unbroken.requests.SessionAuth(session_for(backend, "old"))
        answer = plain.post(backend.url + "/go", data=io.BytesIO(b"pay"))
        assert answer.status_code == 200
        assert [path for path, _ in backend.seen] == ["/go", "/go", "/items", "/items"]
        assert set(backend.bodies) == {b"pay"}


def test_a_redirect_to_a_login_page_may_be_a_challenge(plain: requests.Session) -> None:
    with Backend() as backend:
        backend.refused = (302, [("location", "/login")], b"")
        plain.auth = unbroken.requests.SessionAuth(session_for(backend, "old", challenge=ResponseMatch.of(302)))
        assert plain.get(backend.url + "/items").status_code == 200
        assert [path for path, _ in backend.seen] == ["/items", "/items"]


def test_a_hop_that_lost_its_token_on_the_way_waits_without_a_connection(plain: requests.Session) -> None:
    clock, free = ManualClock(), []

    def page(path: str) -> Said | None:
        clock.advance(1800)  # the tokens die while the request is away
        return 302, [("location", backend.url + "/items")], b""

    with Backend(page) as elsewhere, Backend() as backend:
        elsewhere.answer = lambda path, token, body: page(path)  # type: ignore[method-assign,assignment,return-value]
        backend._page = lambda path: (302, [("location", elsewhere.url)], b"") if path == "/go" else None
        session = session_for(backend, clock=clock)
        adapter = requests.adapters.HTTPAdapter(pool_maxsize=1, pool_block=True)
        plain.mount(backend.url, adapter)
        plain.auth = unbroken.requests.SessionAuth(session)
        renew = session._port._send

        def look(call: HttpRequest, timeout: float) -> HttpResponse:
            pools = adapter.poolmanager.pools
            free.extend(pools[key].pool.qsize() for key in pools.keys())  # noqa: SIM118  # it is no dict
            return renew(call, timeout)

        session._port._send = look
        assert plain.get(backend.url + "/go").status_code == 200
        assert free == [1], "the only connection was free during the exchange"


# ---- httpx -----------------------------------------------------------------------------------------------------------


def test_threads_that_begin_at_once_share_one_transport() -> None:
    made: list[httpx.HTTPTransport] = []
    began = threading.Barrier(8)

    def make() -> httpx.HTTPTransport:
        made.append(httpx.HTTPTransport())
        threading.Event().wait(0.05)
        return made[-1]

    class Slow(unbroken.httpx.SessionTransport):
        _library = SimpleNamespace(**{**vars(httpx), "HTTPTransport": make})

    with Backend() as backend, httpx.Client(transport=Slow(session_for(backend))) as client:

        def get() -> None:
            began.wait(10)
            client.get(backend.url + "/items")

        threads = [threading.Thread(target=get) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert len(backend.seen) == 8
    assert len(made) == 1


def test_an_extension_that_says_not_to_skip_skips_nothing() -> None:
    with Backend() as backend, httpx.Client(auth=unbroken.httpx.SessionAuth(session_for(backend))) as client:
        assert client.get(backend.url + "/items", extensions={"unbroken.skip": False}).status_code == 200
        assert client.get(backend.url + "/items", extensions={"unbroken.skip": True}).status_code == 401
