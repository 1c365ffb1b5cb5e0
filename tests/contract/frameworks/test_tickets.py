"""Tickets over HTTP: bought on every face of the server, used by one handshake, stream or download."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any

import httpx2
import pytest
from fastapi import Depends, FastAPI, Security, WebSocket
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route, WebSocketRoute
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

import unbroken.fastapi
from tests.support.access_log import logged
from tests.support.faces import FACES, NO_STORE, PASSWORD, Wire, authorization
from unbroken.errors import InvalidToken, StoreUnavailable
from unbroken.server import Claims, Cookies, MemorySessionStore, Sessions
from unbroken.starlette import claims_from_ticket
from unbroken.testing import running

TICKET = "/auth/ticket"
ALLOWED, FOREIGN = "https://app.example.com", "https://evil.example"
ACCESS = "unbroken-access"


def bought(wire: Wire, **more: Any) -> str:
    answer = wire.http.post(TICKET, headers=authorization(wire.login(**more)["access_token"]))
    assert answer.status_code == 200, answer.text
    return answer.json()["ticket"]


# ---- buying one ------------------------------------------------------------------------------------------------------


def test_an_access_token_buys_a_ticket_that_says_the_same(wire: Wire) -> None:
    token = wire.login("ada", scope="read write")["access_token"]
    answer = wire.http.post(TICKET, headers=authorization(token))
    assert answer.status_code == 200
    assert answer.json().keys() == {"ticket", "expires_in"}
    assert answer.json()["expires_in"] == 30
    assert NO_STORE.items() <= dict(answer.headers).items()
    assert wire.sessions.redeem(answer.json()["ticket"]) == wire.sessions.verify(token)


def test_a_ticket_is_redeemed_once(wire: Wire) -> None:
    ticket = bought(wire)
    assert wire.sessions.redeem(ticket).subject == "ada"
    with pytest.raises(InvalidToken) as caught:
        wire.sessions.redeem(ticket)
    assert caught.value.reason == "used"


def test_tickets_requested_at_once_are_all_different(wire: Wire) -> None:
    headers = authorization(wire.login()["access_token"])
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: wire.http.post(TICKET, headers=headers), range(16)))
    assert len({answer.json()["ticket"] for answer in answers}) == 16


def test_without_a_token_there_is_a_bare_challenge(wire: Wire) -> None:
    answer = wire.http.post(TICKET)
    assert (answer.status_code, answer.headers["www-authenticate"]) == (
        401,
        'Bearer realm="unbroken", DPoP algs="ES256 Ed25519 EdDSA"',
    )
    assert NO_STORE.items() <= dict(answer.headers).items()


def test_a_bad_token_is_challenged_with_its_reason(wire: Wire) -> None:
    tokens = wire.login()
    wire.http.post("/auth/logout", headers=authorization(tokens["access_token"]))
    for token, reason in (
        (tokens["access_token"], "revoked"),
        (tokens["refresh_token"], "malformed"),
        ("x", "malformed"),
    ):
        answer = wire.http.post(TICKET, headers=authorization(token))
        assert (answer.status_code, answer.json()["reason"]) == (401, reason)
        assert "ticket" not in answer.json()


def test_a_ticket_opens_no_endpoint_and_buys_no_other(wire: Wire) -> None:
    ticket = bought(wire)
    assert wire.whoami(ticket).json()["reason"] == "malformed"
    assert wire.http.post(TICKET, headers=authorization(ticket)).json()["reason"] == "malformed"
    for path in ("/auth/session", "/auth/sessions"):
        assert wire.http.get(path, params={"ticket": ticket}).status_code == 401
    assert wire.http.post(f"{TICKET}?ticket={ticket}").status_code == 401
    assert wire.refresh(ticket).json()["error"] == "invalid_grant"
    assert wire.sessions.redeem(ticket).subject == "ada", "nobody has spent it"


def test_introspection_knows_no_ticket(wire: Wire) -> None:
    caller = wire.login("operator", scope="introspect")["access_token"]
    assert wire.form("/auth/introspect", caller, token=bought(wire)).json() == {"active": False}


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_a_ticket_request_by_another_method_is_405(wire: Wire, method: str) -> None:
    answer = wire.http.request(method, TICKET, headers=authorization(wire.login()["access_token"]))
    assert answer.status_code == 405
    assert "POST" in answer.headers["allow"].split(", ")


def test_the_body_of_a_ticket_request_is_ignored_unless_it_is_too_long(wire: Wire) -> None:
    headers = authorization(wire.login()["access_token"])
    for body in (b"{}", b"\xff\x00", b"scope=admin"):
        assert wire.http.post(TICKET, content=body, headers=headers).json()["expires_in"] == 30
    assert wire.http.post(TICKET, content=b"x" * 70_000, headers=headers).status_code == 413


@pytest.fixture(params=sorted(FACES))
def face(request: pytest.FixtureRequest) -> Any:
    """Runs a server with settings of its own."""

    @contextmanager
    def run(sessions: Sessions, **settings: Any) -> Iterator[httpx2.Client]:
        with (
            FACES[request.param](sessions, **settings) as port,
            httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as http,
        ):
            yield http

    return run


def test_an_application_may_leave_tickets_out(face: Any) -> None:
    sessions = Sessions(MemorySessionStore())
    with face(sessions, tickets=False) as http:
        headers = authorization(sessions.create("ada").access_token)
        assert http.post(TICKET, headers=headers).status_code == 404
        assert http.get("/auth/session", headers=headers).status_code == 200


def test_a_ticket_by_cookie_needs_the_header_and_an_origin(face: Any) -> None:
    sessions, script = Sessions(MemorySessionStore()), {"x-unbroken": "1"}
    with face(sessions, cookies=Cookies("both", secure=False), origins=[ALLOWED]) as http:
        http.post("/auth/login", json={"username": "ada", "password": PASSWORD}, headers=script)
        assert ACCESS in http.cookies
        assert http.post(TICKET).json()["reason"] == "no_header"
        assert http.post(TICKET, headers={**script, "origin": FOREIGN}).json()["reason"] == "foreign_origin"
        assert http.post(TICKET, headers={**script, "origin": "null"}).status_code == 403
        answer = http.post(TICKET, headers={**script, "origin": ALLOWED})
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, ALLOWED)
        assert sessions.redeem(answer.json()["ticket"]).subject == "ada"
        asked = {"origin": ALLOWED, "access-control-request-method": "POST"}
        assert http.options(TICKET, headers=asked).headers["access-control-allow-methods"] == "POST"


def test_a_store_that_is_away_is_503(face: Any) -> None:
    class Away(MemorySessionStore):
        gone = False

        async def keys(self) -> Any:
            if self.gone:
                raise StoreUnavailable("db.internal does not respond")
            return await super().keys()

    store = Away()
    sessions = Sessions(store)
    headers = authorization(sessions.create("ada").access_token)
    store.gone, sessions._freshness.fresh_until = True, float("-inf")
    with face(sessions) as http:
        answer = http.post(TICKET, headers=headers)
    assert (answer.status_code, answer.json()["error"]) == (503, "temporarily_unavailable")
    assert "www-authenticate" not in answer.headers


# ---- using one: routes that take it from their URL -------------------------------------------------------------------


@dataclass
class Live:
    """An application with a WebSocket at /live, a download at /report, and one at /write for the scope ``write``."""

    url: str
    sessions: Sessions = field(repr=False)
    lines: list[str] = field(repr=False)

    def ticket(self, **more: Any) -> str:
        return self.sessions.ticket(self.sessions.create("ada", **more).access_token).text

    def get(self, path: str, ticket: str | None = None) -> httpx2.Response:
        return httpx2.get(f"http://{self.url}{path}", params={} if ticket is None else {"ticket": ticket}, timeout=30)

    def greeted(self, query: str, path: str = "/live") -> str | int:
        """What the WebSocket says first, or the status that refuses it."""
        try:
            with connect(f"ws://{self.url}{path}?{query}", open_timeout=10) as socket:
                return str(socket.recv(10))
        except InvalidStatus as refused:
            return refused.response.status_code


def starlette_app(sessions: Sessions) -> Any:
    async def live(socket: WebSocket) -> None:
        claims = await claims_from_ticket(socket, sessions)
        await socket.accept()
        await socket.send_text(f"{claims.subject} {socket.url.query}")
        await socket.close()

    async def report(request: Request) -> PlainTextResponse:
        scope = "write" if request.url.path.endswith("/write") else ""
        claims = await claims_from_ticket(request, sessions, scope=scope)
        return PlainTextResponse(f"{claims.subject} {request.scope['query_string'].decode()}")

    pages = [Route("/report", report), Route("/write", report), WebSocketRoute("/live", live)]
    return Starlette(routes=[*pages, Mount("/below", routes=pages)])


def fastapi_app(sessions: Sessions) -> Any:
    tickets, app = unbroken.fastapi.TicketAuth(sessions), FastAPI()

    async def live(socket: WebSocket, claims: Any) -> None:
        await socket.accept()
        await socket.send_text(f"{claims.subject} {socket.scope['query_string'].decode()}")
        await socket.close()

    async def report(request: Request, claims: Any) -> PlainTextResponse:
        return PlainTextResponse(f"{claims.subject} {request.scope['query_string'].decode()}")

    async def write(claims: Any) -> PlainTextResponse:
        return PlainTextResponse(claims.subject)

    # FastAPI cannot see ``tickets`` by name
    live.__annotations__ = {"socket": WebSocket, "claims": Annotated[Claims, Depends(tickets.claims)]}
    report.__annotations__ = {"request": Request, "claims": Annotated[Claims, Depends(tickets.claims)]}
    write.__annotations__ = {"claims": Annotated[Claims, Security(tickets.claims, scopes=["write"])]}
    for path in ("", "/below"):
        app.websocket(path + "/live")(live)
        app.get(path + "/report")(report)
    app.get("/write")(write)
    return app


@pytest.fixture(params=[starlette_app, fastapi_app], scope="module")
def live(request: pytest.FixtureRequest) -> Iterator[Live]:
    sessions = Sessions(MemorySessionStore())
    with running(request.param(sessions)) as port, logged() as lines:
        yield Live(f"127.0.0.1:{port}", sessions, lines)


def test_a_websocket_and_a_download_open_with_a_ticket(live: Live) -> None:
    assert live.greeted(f"ticket={live.ticket()}") == "ada "
    answer = live.get("/report", live.ticket())
    assert (answer.status_code, answer.text) == (200, "ada ")


@pytest.mark.parametrize("query", ["a=1&ticket={}&b=2", "ticket={}&a=1&b=2", "a=1&b=2&ticket={}"])
@pytest.mark.parametrize("below", ["", "/below"])
def test_the_rest_of_the_query_stays(live: Live, query: str, below: str) -> None:
    assert live.greeted(query.format(live.ticket()), below + "/live") == "ada a=1&b=2"


def test_a_ticket_is_refused_the_second_time(live: Live) -> None:
    ticket = live.ticket()
    assert live.greeted(f"ticket={ticket}") == "ada "
    assert live.greeted(f"ticket={ticket}") == 401
    answer = live.get("/report", ticket)
    assert (answer.status_code, answer.headers["cache-control"]) == (401, "no-store")
    assert 'reason="used"' in answer.headers["www-authenticate"]


def test_no_ticket_and_several_tickets_are_refused(live: Live) -> None:
    tickets = [live.ticket(), live.ticket()]
    bare = live.get("/report")
    assert (bare.status_code, bare.headers["www-authenticate"]) == (
        401,
        'Bearer realm="unbroken", DPoP algs="ES256 Ed25519 EdDSA"',
    )
    for query in ("", "ticket=", "ticket=x", "tickets=" + tickets[0], "&".join("ticket=" + one for one in tickets)):
        assert live.greeted(query) == 401
    token = live.sessions.create("ada").access_token
    assert live.greeted(f"ticket={token}") == 401, "an access token is none"
    assert httpx2.get(f"http://{live.url}/report", headers=authorization(token), timeout=30).status_code == 401
    assert [live.sessions.redeem(one).subject for one in tickets] == ["ada"] * 2


def test_of_many_handshakes_with_one_ticket_one_is_accepted(live: Live) -> None:
    ticket, gate = live.ticket(), threading.Barrier(8)

    def open_(_: int) -> str | int:
        gate.wait(10)
        return live.greeted(f"ticket={ticket}")

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(open_, range(8)))
    assert sorted(outcomes, key=str) == [401] * 7 + ["ada "]


def test_a_ticket_has_the_scope_of_its_access_token(live: Live) -> None:
    assert live.get("/write", live.ticket(scope="read write")).status_code == 200
    answer = live.get("/write", live.ticket(scope="read"))
    assert answer.status_code == 403
    assert 'error="insufficient_scope", scope="write"' in answer.headers["www-authenticate"]


def test_no_ticket_is_accepted_while_the_store_is_away(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(*_: object) -> float:
        raise StoreUnavailable("db.internal does not respond")

    ticket = live.ticket()
    with monkeypatch.context() as patch:
        patch.setattr(live.sessions.store, "advance_marker", away)
        assert live.greeted(f"ticket={ticket}") == 503
        answer = live.get("/report", ticket)
        assert (answer.status_code, "retry-after" in answer.headers) == (503, True)
    assert live.greeted(f"ticket={ticket}") == "ada "


def test_no_log_shows_a_ticket_good_or_bad(live: Live) -> None:
    tickets = [live.ticket() for _ in range(3)]
    del live.lines[:]
    for ticket in (tickets[0], tickets[0], tickets[1][:-3]):
        live.greeted(f"page=7&ticket={ticket}")
    for ticket in (tickets[2], tickets[2]):
        live.get("/report", ticket)
    live.get("/nowhere", "a-ticket-that-nobody-takes")
    text = "\n".join(live.lines)
    assert text.count("page=7") == 3, "the log has the queries"
    assert "ticket=a-ticket-that-nobody-takes" in text
    assert [ticket for ticket in tickets if ticket.split(".")[1][:40] in text] == []


def test_fastapi_describes_the_ticket_as_a_parameter() -> None:
    paths = fastapi_app(Sessions(MemorySessionStore())).openapi()["paths"]
    [parameter] = paths["/report"]["get"]["parameters"]
    assert (parameter["name"], parameter["in"], parameter["required"]) == ("ticket", "query", False)
