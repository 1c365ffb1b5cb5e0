"""What a page may ask for: each option, each event and each word of the status, as ``docs/browser.md`` has them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.interop.backends.shapes import BearerJson, OwnHeader

# ---- what is asked for, and how it is carried ------------------------------------------------------------------------


@dataclass
class Recorder:
    """A backend that says yes to everything, and keeps what it was asked. *answer* is added to its tokens."""

    answer: dict[str, Any] = field(default_factory=dict)
    url: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)

    async def _note(self, request: Request) -> Response:
        body = (await request.body()).decode()
        self.asked.append(
            {
                "what": f"{request.method} {request.url.path}",
                "query": dict(request.query_params),
                "type": request.headers.get("content-type", ""),
                "body": body,
                "headers": dict(request.headers),
            }
        )
        if request.url.path == "/api" and request.headers.get("authorization", "").endswith("old"):
            return Response(status_code=401)
        number = len(self.asked)
        return JSONResponse({"access_token": f"a{number}", "refresh_token": f"r{number}"} | self.answer)

    def app(self) -> Starlette:
        methods = ["GET", "POST", "PUT", "DELETE"]
        return Starlette(routes=[Route(path, self._note, methods=methods) for path in ("/api", "/x", "/out")])

    def to(self, path: str) -> list[dict[str, Any]]:
        return [one for one in self.asked if one["what"].endswith(path)]


ADOPT = "(access_token) => session.import_tokens({ access_token, refresh_token: 'r0' })"
FORM = "application/x-www-form-urlencoded"
ASKS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "json": ({}, {"what": "POST /x", "query": {}, "body": {"refresh_token": "r0"}, "type": "application/json"}),
    "form": ({"carry": "form"}, {"what": "POST /x", "query": {}, "body": {"refresh_token": "r0"}, "type": FORM}),
    "query": (
        {"carry": "query", "method": "GET"},
        {"what": "GET /x", "query": {"refresh_token": "r0"}, "body": {}, "type": ""},
    ),
    "method": ({"method": "PUT"}, {"what": "PUT /x"}),
    "names": ({"names": {"refresh_token": "refresh"}}, {"body": {"refresh": "r0"}}),
    "extra": (
        {"carry": "form", "extra": {"grant_type": "refresh_token", "client_id": "web"}},
        {"body": {"grant_type": "refresh_token", "client_id": "web", "refresh_token": "r0"}},
    ),
    "extra in a query": (
        {"carry": "query", "extra": {"client": "a b"}},
        {"query": {"client": "a b", "refresh_token": "r0"}, "what": "POST /x"},
    ),
}


def read(asked: dict[str, Any]) -> dict[str, Any]:
    """*asked*, its body read by its type."""
    text, kind = asked["body"], asked["type"].partition(";")[0]
    if kind == FORM:
        return asked | {"type": kind, "body": {name: value for name, [value] in parse_qs(text).items()}}
    return asked | {"body": json.loads(text) if text else {}}


@pytest.fixture
def recorded(run, tab, client):
    """A page of a recorder that is logged in with the token ``old``: ``recorded(**options)``."""

    def build(answer: dict[str, Any] | None = None, **options: Any):
        backend = run(Recorder(answer or {}))
        page = tab(backend, client)
        page.start(**{"refresh": {"url": "/x"}, **options})
        page.run(ADOPT, "old")
        return backend, page

    return build


@pytest.mark.parametrize(("ask", "wanted"), ASKS.values(), ids=ASKS)
def test_an_exchange_is_asked_for_as_the_dialect_says(recorded, ask, wanted) -> None:
    backend, page = recorded(refresh={"url": "/x", **ask})
    assert page.ask("/api")["status"] == 200
    [exchange] = backend.to("/x")
    assert {name: read(exchange)[name] for name in wanted} == wanted
    assert "authorization" not in exchange["headers"]


def test_headers_of_an_ask_go_along_and_an_attempt_id_if_a_header_is_named_for_it(recorded) -> None:
    backend, page = recorded(refresh={"url": "/x", "headers": {"X-Client": "web"}}, attempt="X-Attempt")
    assert page.ask("/api")["status"] == 200
    [exchange] = backend.to("/x")
    assert exchange["headers"]["x-client"] == "web"
    assert len(exchange["headers"]["x-attempt"]) > 10
    assert "idempotency-key" not in exchange["headers"]


@pytest.mark.parametrize(("attempt", "sent"), [(None, True), ("", False)])
def test_unbrokens_own_server_is_sent_an_attempt_id_unless_it_is_switched_off(shop, at_shop, attempt, sent) -> None:
    server = shop()
    [tab] = at_shop(server, **({} if attempt is None else {"attempt": attempt}))
    server.expire()
    assert tab.ask("/echo")["status"] == 200
    assert [bool(one) for one in server.attempts] == [sent]


def test_a_logout_of_another_backend_is_asked_for_as_its_dialect_says(recorded) -> None:
    logout = {"url": "/out", "method": "DELETE", "carry": "form", "names": {"refresh_token": "token"}}
    backend, page = recorded(logout=logout)
    assert page.run("() => session.logout()") is True
    [out] = backend.to("/out")
    assert (out["what"], read(out)["body"]) == ("DELETE /out", {"token": "r0"})
    assert page.ask("/api")["reason"] == "logged_out"


def test_a_backend_without_a_logout_confirms_none(recorded) -> None:
    backend, page = recorded()
    assert page.run("() => session.logout()") is False
    assert (page.status["state"], backend.asked) == ("over", [])


# ---- how a request carries the token ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "answer", "value"),
    [
        ({}, {}, "Bearer a2"),
        ({"scheme": "Token"}, {}, "Token a2"),
        ({"scheme": ""}, {}, "a2"),
        ({"scheme": None}, {"token_type": "MAC"}, "MAC a2"),
        ({"scheme": None}, {}, "Bearer a2"),
        ({"tokens": {"prefix": "head"}}, {"head": "JWT:"}, "JWT:a2"),
        ({"tokens": {"prefix": "head"}}, {"head": ""}, "a2"),
    ],
)
def test_the_scheme_is_the_dialects_or_the_answers(recorded, options, answer, value) -> None:
    backend, page = recorded(answer)
    page.start(refresh={"url": "/x"}, **options)
    page.run("(answer) => session.import_tokens({ access_token: 'old', refresh_token: 'r0', ...answer })", answer)
    assert page.ask("/api")["status"] == 200
    first, _, again = backend.asked
    assert (first["headers"]["authorization"], again["headers"]["authorization"]) == (
        value.replace("a2", "old"),
        value,
    )


def test_tokens_go_to_the_origins_that_are_named_and_to_no_others(stage, run) -> None:
    scene, api = stage(BearerJson()), run(BearerJson())
    scene.tab.start(**scene.options, origins=[api.url])
    [pair] = scene.backend.issued
    assert scene.get(api.url + "/api/echo")["status"] == 401
    assert {seen.value for seen in api.seen} >= {f"Bearer {pair.access}"}
    assert scene.get()["status"] == 401
    assert [seen.value for seen in scene.backend.seen] == [""]


def test_a_condition_can_be_turned_round(stage) -> None:
    negated = {"status": [400], "field": "code", "values": [400, 500], "negate": True}
    scene = stage(OwnHeader(), challenge=negated)
    assert scene.get("/api/error/400")["status"] == 400
    assert scene.backend.exchanges == 0
    scene.backend.expire()
    assert scene.get()["status"] == 200, "401 is none of those"
    assert scene.backend.exchanges == 1


# ---- what is told ----------------------------------------------------------------------------------------------------


def test_new_tokens_are_told_in_all_tabs_and_here_in_one(stage) -> None:
    scene = stage(BearerJson(), tabs=2)
    for tab in scene.tabs:
        tab.until(lambda tab=tab: tab.heard("tokens"))
        tab.run("() => void heard.splice(0)")
    scene.backend.expire()
    assert scene.get()["status"] == 200
    scene.tabs[1].until(lambda: scene.tabs[1].heard("tokens"))
    assert [tab.heard("tokens")[-1] for tab in scene.tabs] == [{"here": True}, {"here": False}]


def test_a_listener_that_was_taken_back_hears_nothing(stage) -> None:
    scene = stage(BearerJson())
    scene.tab.run("() => { window.told = []; session.on('tokens', (one) => told.push(one))(); }")
    scene.log_in()
    assert scene.tab.heard("tokens")
    assert scene.tab.run("() => told") == []


def test_the_status_goes_from_good_to_ageing_to_expired_to_over(stage) -> None:
    scene = stage(BearerJson(lifetime=1800))
    states = [scene.tab.status["state"]]
    for seconds in (1750, 45, 6):
        scene.tab.pass_(seconds)
        states.append(scene.tab.status["state"])
    scene.tab.run("() => session.logout()")
    states.append(scene.tab.status["state"])
    assert states == ["good", "ageing", "ageing", "expired", "over"]


def test_a_fresh_token_is_one_in_good_time_and_any_other_may_age(stage) -> None:
    scene = stage(BearerJson(lifetime=1800))
    [first] = scene.backend.issued
    token = "(about) => session.token(about)"
    assert scene.tab.run(token, {"fresh": True}) == first.access
    scene.tab.pass_(1750)
    assert scene.tab.run(token, {}) == first.access, "it ages; a renewal has begun behind it"
    scene.tab.until(lambda: len(scene.backend.issued) == 2)
    scene.tab.until(lambda: not scene.tab.status["renewing"])
    scene.tab.pass_(1750)
    assert scene.tab.run(token, {"fresh": True}) == scene.backend.issued[-1].access
    assert len(scene.backend.issued) == 3


# ---- a header that is set by hand ------------------------------------------------------------------------------------

BY_HAND = "(token) => void (axios.defaults.headers.common.Authorization = `Bearer ${token}`)"


@pytest.fixture
def by_hand(client):
    """Sends a request with a token that the page has put into the header itself."""

    def ask(tab: Any, token: str) -> dict[str, Any]:
        if client == "fetch":
            return tab.ask("/api/echo", headers={"Authorization": f"Bearer {token}"})
        tab.run(BY_HAND, token)  # instances made from now on have it
        tab.run("() => { window.instance = axios.create(); session.attach(instance); }")
        return tab.run("() => instance.get('/api/echo').then(({ status }) => ({ status }), ({ response }) => response)")

    return ask


@pytest.mark.parametrize("source", ["adopted", "asked for", "after a reload", "of another tab", "renewed since"])
def test_a_header_set_by_hand_with_the_sessions_token_is_the_sessions(stage, by_hand, source) -> None:
    scene = stage(BearerJson(), tabs=2)
    tab, other = scene.tabs
    if source == "after a reload":
        tab.page.reload()
        tab.page.wait_for_function("window.ready")
        tab.start(**scene.options)
    if source == "of another tab":
        scene.backend.expire()
        assert other.ask("/api/echo")["status"] == 200
        tab.until(lambda: tab.status["version"] == other.status["version"])
    token = tab.run("() => session.token()") if source == "asked for" else scene.backend.issued[-1].access
    if source == "renewed since":
        scene.backend.expire()
        assert other.ask("/api/echo")["status"] == 200
    before = scene.backend.exchanges
    scene.backend.expire()
    assert by_hand(tab, token)["status"] == 200
    assert scene.backend.exchanges == before + 1


# ---- letting go ------------------------------------------------------------------------------------------------------


def test_who_has_let_go_of_the_page_can_still_log_out(shop, at_shop) -> None:
    server = shop()
    [tab] = at_shop(server)
    assert tab.run("() => { session.dispose(); return session.logout(); }") is True
    assert [info.revoked_why for info in server.sessions.list_sessions(include_revoked=True)] == ["logged_out"]


def test_a_renewal_outlives_the_page_that_let_go_of_it(stage) -> None:
    scene = stage(BearerJson())
    scene.tab.run("() => session.dispose()")
    scene.backend.expire()
    assert scene.get()["status"] == 200
    assert scene.backend.exchanges == 1
