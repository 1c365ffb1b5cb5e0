"""The module's own requests: what a refresh and a logout send, and that nothing interferes with them."""

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

from tests.interop.backends.base import Fault
from tests.interop.backends.shapes import BearerJson


@dataclass
class Recorder:
    """A backend that accepts everything, and keeps what it was asked. *fields* is added to its tokens."""

    fields: dict[str, Any] = field(default_factory=dict)
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
        return JSONResponse({"access_token": f"a{number}", "refresh_token": f"r{number}"} | self.fields)

    def app(self) -> Starlette:
        methods = ["GET", "POST", "PUT", "DELETE"]
        return Starlette(routes=[Route(path, self._note, methods=methods) for path in ("/api", "/x", "/out")])

    def to(self, path: str) -> list[dict[str, Any]]:
        return [one for one in self.asked if one["what"].endswith(path)]


ADOPT = "(access_token) => session.importTokens({ access_token, refresh_token: 'r0' })"


FORM = "application/x-www-form-urlencoded"


ASKS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "json": ({}, {"what": "POST /x", "query": {}, "body": {"refresh_token": "r0"}, "type": "application/json"}),
    "form": ({"encoding": "form"}, {"what": "POST /x", "query": {}, "body": {"refresh_token": "r0"}, "type": FORM}),
    "query": (
        {"encoding": "query", "method": "GET"},
        {"what": "GET /x", "query": {"refresh_token": "r0"}, "body": {}, "type": ""},
    ),
    "method": ({"method": "PUT"}, {"what": "PUT /x"}),
    "rename": ({"rename": {"refresh_token": "refresh"}}, {"body": {"refresh": "r0"}}),
    "extra": (
        {"encoding": "form", "extra": {"grant_type": "refresh_token", "client_id": "web"}},
        {"body": {"grant_type": "refresh_token", "client_id": "web", "refresh_token": "r0"}},
    ),
    "extra in a query": (
        {"encoding": "query", "extra": {"client": "a b"}},
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

    def build(fields: dict[str, Any] | None = None, **options: Any):
        backend = run(Recorder(fields or {}))
        page = tab(backend, client)
        page.start(**{"refresh": {"url": "/x"}, **options})
        page.run(ADOPT, "old")
        return backend, page

    return build


@pytest.mark.parametrize(("ask", "wanted"), ASKS.values(), ids=ASKS)
def test_a_refresh_request_is_made_as_the_options_say(recorded, ask, wanted) -> None:
    backend, page = recorded(refresh={"url": "/x", **ask})
    assert page.ask("/api")["status"] == 200
    [refresh] = backend.to("/x")
    assert {name: read(refresh)[name] for name in wanted} == wanted
    assert "authorization" not in refresh["headers"]


def test_own_headers_and_a_named_idempotency_header_are_sent_with_a_refresh(recorded) -> None:
    backend, page = recorded(refresh={"url": "/x", "headers": {"X-Client": "web"}}, idempotencyHeader="X-Attempt")
    assert page.ask("/api")["status"] == 200
    [refresh] = backend.to("/x")
    assert refresh["headers"]["x-client"] == "web"
    assert len(refresh["headers"]["x-attempt"]) > 10
    assert "idempotency-key" not in refresh["headers"]


@pytest.mark.parametrize(("attempt", "sent"), [(None, True), ("", False)])
def test_unbrokens_own_server_gets_an_idempotency_key_unless_its_header_is_empty(shop, at_shop, attempt, sent) -> None:
    server = shop()
    [tab] = at_shop(server, **({} if attempt is None else {"idempotencyHeader": attempt}))
    server.expire()
    assert tab.ask("/echo")["status"] == 200
    assert [bool(one) for one in server.idempotency_keys] == [sent]


def test_a_logout_request_is_made_as_the_options_say(recorded) -> None:
    logout = {"url": "/out", "method": "DELETE", "encoding": "form", "rename": {"refresh_token": "token"}}
    backend, page = recorded(logout=logout)
    assert page.run("() => session.logout()") is True
    [out] = backend.to("/out")
    assert (out["what"], read(out)["body"]) == ("DELETE /out", {"token": "r0"})
    assert page.ask("/api")["reason"] == "logged_out"


def test_a_logout_without_an_endpoint_is_not_confirmed(recorded) -> None:
    backend, page = recorded()
    assert page.run("() => session.logout()") is False
    assert (page.status["state"], backend.asked) == ("over", [])


@pytest.mark.parametrize(
    ("options", "fields", "value"),
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
def test_the_word_before_the_token_comes_from_the_options_or_the_response(recorded, options, fields, value) -> None:
    backend, page = recorded(fields)
    page.start(refresh={"url": "/x"}, **options)
    page.run("(fields) => session.importTokens({ access_token: 'old', refresh_token: 'r0', ...fields })", fields)
    assert page.ask("/api")["status"] == 200
    first, _, again = backend.asked
    assert (first["headers"]["authorization"], again["headers"]["authorization"]) == (
        value.replace("a2", "old"),
        value,
    )


@pytest.mark.defect("I7", "P6")
def test_a_refresh_runs_through_no_interceptor_and_outlives_the_request_that_began_it(stage) -> None:
    scene = stage(BearerJson())
    scene.tab.run(
        """() => {
            window.caught = 0;
            const platform = window.fetch;
            window.fetch = (...about) => (caught++, session.fetch(...about));
            instance.interceptors.request.use((config) => (caught++, config));
        }"""
    )
    scene.backend.expire()
    scene.backend.spoil(Fault(seconds=1.0))
    first = scene.tab.begin("/api/echo")
    second = scene.tab.begin("/api/echo")
    scene.tab.until(lambda: scene.backend.refreshes)
    scene.tab.run("(number) => begun[number].leave.abort()", first[0])
    assert "error" in scene.tab.outcome(first)
    assert scene.tab.outcome(second)["status"] == 200
    [beside] = scene.backend.beside
    assert "authorization" not in beside
    assert scene.tab.run("() => caught") == (2 if scene.tab.client == "axios" else 0), "once a request, not once a try"
