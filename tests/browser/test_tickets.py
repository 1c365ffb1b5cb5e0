"""Tickets: what a page can set no header for. The examples of docs/browser.md, in a real page against a real server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from tests.browser.conftest import PageServer
from tests.browser.shop import Shop
from tests.browser.tabs import Tab
from tests.docs.pages import ROOT, examples
from tests.support.access_log import logged
from unbroken.server import Cookies
from unbroken.starlette import claims_from_ticket
from unbroken.testing import running

BOTH = Cookies("both", secure=False)
EXAMPLES = [one for one in examples(ROOT / "docs" / "browser.md", "js") if "session.ticket()" in one]
# Keeps all tickets that the page buys, and all that it hears.
WITNESS = """
    const buy = session.ticket;
    session.ticket = async () => {
        tickets.push(await buy());
        return tickets.at(-1);
    };
    Object.assign(window, { tickets: [], said: [], hear: (data) => said.push(data) });
"""
# What a WebSocket with this ticket comes to: its first word, or the code with which it is closed.
OPEN = """(ticket) => new Promise((resolve) => {
    const socket = new WebSocket(`ws://${location.host}/live?ticket=${ticket}`);
    socket.onmessage = ({ data }) => (resolve(data), socket.close());
    socket.onclose = ({ code }) => resolve(code);
})"""


class Live(Shop):
    """A shop with a WebSocket, an EventSource and a download. Connections are held until they are ``ended``. *lines* is
    what it logs.
    """

    def __init__(self, folder: Path, lines: list[str], **about: Any) -> None:
        super().__init__(folder, **about)
        self.lines = lines
        self.opened = self.ended = 0
        self.after: list[str] = []  # where EventSources went on

    def end(self) -> None:
        """Closes all connections that are open."""
        self.ended = self.opened

    def app(self) -> Any:
        shop = super().app()
        live = Starlette(
            routes=[
                WebSocketRoute("/live", self._live),
                Route("/events", self._events),
                Route("/report", self._report),
            ]
        )
        paths = {"/live", "/events", "/report"}

        async def either(scope: Any, receive: Any, send: Any) -> None:
            await (live if scope["path"] in paths else shop)(scope, receive, send)

        return either

    async def _live(self, socket: WebSocket) -> None:
        claims = await claims_from_ticket(socket, self.sessions)
        await socket.accept()
        self.opened = number = self.opened + 1
        await socket.send_text(f"{claims.subject} {number}")
        while self.ended < number:
            try:
                await asyncio.wait_for(socket.receive_text(), 0.02)
            except TimeoutError:
                continue
            except WebSocketDisconnect:
                return
        await socket.close()

    async def _events(self, request: Request) -> Response:
        claims = await claims_from_ticket(request, self.sessions)
        self.after.append(request.query_params["after"])
        self.opened = number = self.opened + 1

        async def events() -> AsyncIterator[str]:
            yield f"id: {number} &\ndata: {claims.subject} {number}\n\n"
            while self.ended < number and not await request.is_disconnected():  # noqa: ASYNC110  # a test ends it
                await asyncio.sleep(0.02)

        return StreamingResponse(events(), media_type="text/event-stream")

    async def _report(self, request: Request) -> Response:
        claims = await claims_from_ticket(request, self.sessions)
        return Response(f"report of {claims.subject}", headers={"content-disposition": "attachment; filename=report"})


@pytest.fixture
def client() -> str:
    return "fetch"


@pytest.fixture
def open_live(modules: dict[str, bytes], tmp_path: Path) -> Iterator[Callable[..., Live]]:
    """Runs the server: ``open_live(cookies=…)``."""
    pages, made = PageServer(modules), []

    def build(**about: Any) -> Live:
        server = Live(tmp_path, lines, **about)
        made.append(server)
        pages.app, server.url = server.app(), f"http://127.0.0.1:{port}"
        return server

    with running(pages) as port, logged() as lines:
        yield build
        for server in made:
            server.ended = 10**9
    for server in made:
        server.close()


@pytest.fixture(params=["localStorage", "cookie"])
def at_live(request: pytest.FixtureRequest, open_live: Callable[..., Live], at_shop: Any) -> tuple[Live, Tab]:
    """A server, and a page that is logged in there, with the functions of docs/browser.md."""
    server = open_live(cookies=BOTH) if request.param == "cookie" else open_live()
    [tab] = at_shop(server, storage=request.param)
    tab.page.evaluate(WITNESS)
    code = "\n".join(EXAMPLES).replace("wss://shop.example.com", server.url.replace("http", "ws"))
    assert code.count(server.url.replace("http", "ws")) == 1
    tab.page.add_script_tag(content=code)
    return server, tab


def said(tab: Tab) -> list[Any]:
    return tab.run("() => said")


def assert_no_log_shows(tickets: list[str], server: Live, *, paths: dict[str, int]) -> None:
    """What is logged: so many connections to each of *paths*, and none of *tickets*, nor the whole of any part."""
    text = "\n".join(server.lines)
    assert {path: text.count(path) for path in paths} == paths, text
    assert tickets
    assert [part for ticket in tickets for part in ticket.split(".")[1:] if part in text] == []
    assert "ticket=" not in text


def test_a_websocket_reconnects_with_a_new_ticket_after_its_token_expired(at_live: Any) -> None:
    server, tab = at_live
    tab.run("() => void listen(hear)")
    tab.until(lambda: said(tab) == ["ada 1"])
    server.expire()
    server.end()
    tab.until(lambda: said(tab) == ["ada 1", "ada 2"])
    server.end()
    tab.until(lambda: said(tab) == ["ada 1", "ada 2", "ada 3"])
    assert (server.refreshes, server.alarms()) == (1, 0)
    tickets = tab.run("() => tickets")
    assert len(set(tickets)) == 3
    assert_no_log_shows(tickets, server, paths={"/live": 3})


def test_an_event_source_reconnects_with_a_new_ticket_after_its_token_expired(at_live: Any) -> None:
    server, tab = at_live
    tab.run("() => void follow(hear)")
    tab.until(lambda: said(tab) == ["ada 1"])
    server.expire()
    server.end()
    tab.until(lambda: said(tab) == ["ada 1", "ada 2"])
    server.end()
    tab.until(lambda: len(said(tab)) == 3)
    assert server.after == ["", "1 &", "2 &"]
    assert (server.refreshes, server.alarms()) == (1, 0)
    tickets = tab.run("() => tickets")
    assert len(set(tickets)) == 3
    assert_no_log_shows(tickets, server, paths={"/events?after=": 3})


def test_a_download_starts_with_an_expired_token(at_live: Any) -> None:
    server, tab = at_live
    server.expire()
    with tab.page.expect_download() as begun:
        tab.run("() => void download('/report')")
    assert Path(begun.value.path()).read_text() == "report of ada"
    assert (server.refreshes, server.alarms()) == (1, 0)
    assert_no_log_shows(tab.run("() => tickets"), server, paths={'GET /report HTTP/1.1" 200': 1})


def test_a_ticket_opens_one_connection_only(at_live: Any) -> None:
    server, tab = at_live
    ticket = tab.run("() => session.ticket()")
    assert tab.run(OPEN, ticket) == "ada 1"
    assert tab.run(OPEN, ticket) == 1006, "refused before it was open"
    assert tab.run("async (ticket) => (await platform.fetch(`/report?ticket=${ticket}`)).status", ticket) == 401
    closed = """(ticket) => new Promise((resolve) => {
        const source = new EventSource(`/events?after=&ticket=${ticket}`);
        source.onerror = () => resolve(source.readyState);
    })"""
    assert tab.run(closed, ticket) == 2, "CLOSED: it does not try again"
    assert server.opened == 1
    assert_no_log_shows([ticket], server, paths={"/live": 2, "/report": 1, "/events": 1})


def test_many_tickets_with_an_expired_token_share_one_refresh(at_live: Any) -> None:
    server, tab = at_live
    server.expire()
    tickets = tab.run("() => Promise.all(Array.from({ length: 40 }, () => session.ticket()))")
    assert len(set(tickets)) == 40
    assert {server.sessions.redeem(ticket).subject for ticket in tickets} == {"ada"}
    assert (server.refreshes, server.alarms()) == (1, 0)


def test_no_connection_is_opened_again_after_a_logout(at_live: Any) -> None:
    server, tab = at_live
    kept = tab.run("() => session.ticket()")
    tab.run("() => session.logout()")
    assert tab.attempt("() => session.ticket()")["error"] == "session_over"
    tab.until(lambda: tab.run(OPEN, kept) == 1006)
    tab.run("() => { window.setTimeout = () => said.push('again'); }")
    for begin in ("listen", "follow"):
        tab.run(f"() => {begin}(hear)")
    assert (said(tab), server.opened) == ([], 0)


def test_the_examples_try_again_when_the_server_gives_no_ticket(at_live: Any) -> None:
    server, tab = at_live
    headers = {"retry-after": "7", "content-type": "application/json"}
    refused = {"status": 503, "headers": headers, "body": json.dumps({"error": "temporarily_unavailable"})}
    tab.page.route("**/auth/ticket", lambda route: route.fulfill(**refused))
    came = tab.attempt("() => session.ticket()")
    assert (came["error"], came["retryAfter"]) == ("try_later", 7)
    tab.run("() => { window.setTimeout = (work, wait) => said.push(wait); }")
    tab.run("() => listen(hear)")
    tab.run("() => follow(hear)")
    assert said(tab) == [5000, 5000], "the page tries again"
    tab.page.unroute("**/auth/ticket")
    assert tab.run(OPEN, tab.run("() => session.ticket()")) == "ada 1"
    assert server.alarms() == 0


def test_a_ticket_from_a_server_without_tickets_is_try_later(open_live: Callable[..., Live], at_shop: Any) -> None:
    [tab] = at_shop(open_live(tickets=False))
    came = tab.attempt("() => session.ticket()")
    assert (came["error"], "404" in came["message"]) == ("try_later", True)
