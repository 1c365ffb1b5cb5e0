"""The access token in a cookie, on the application's own routes: each way in which these ask who sends a request."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flask
import httpx2
import pytest
from fastapi import Depends, FastAPI
from openapi_spec_validator import validate
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse
from starlette.routing import Route

import unbroken.fastapi
import unbroken.flask
from tests.docs.pages import ROOT, examples, run
from tests.support.backend import running
from tests.support.faces import authenticate, authorization, threaded
from unbroken.server import Claims, MemorySessionStore, Sessions
from unbroken.server.http.cookies import Cookies
from unbroken.starlette import AccessTokenMiddleware, BearerBackend, current_claims

ALLOWED, FOREIGN = "https://app.example.com", "https://evil.example"
SETTINGS: Any = {"cookies": Cookies("both"), "origins": [ALLOWED]}
COOKIE = "__Host-unbroken-access"
SCRIPT = {"x-unbroken": "1"}


async def orders(request: Request) -> JSONResponse:
    return JSONResponse({"sub": current_claims(request).subject})


async def public(_: Request) -> JSONResponse:
    return JSONResponse({"open": True})


PAGES = [Route("/orders", orders, methods=["GET", "POST"]), Route("/public", public, methods=["GET", "POST"])]


def by_middleware(sessions: Sessions) -> Any:
    return running(
        Starlette(routes=PAGES, middleware=[Middleware(AccessTokenMiddleware, sessions=sessions, **SETTINGS)])
    )


def by_backend(sessions: Sessions) -> Any:
    backend = BearerBackend(sessions, **SETTINGS)
    asks = Middleware(AuthenticationMiddleware, backend=backend, on_error=BearerBackend.on_error)
    return running(Starlette(routes=PAGES, middleware=[asks]))


def by_dependency(sessions: Sessions) -> Any:
    auth, app = unbroken.fastapi.Auth(sessions, authenticate, **SETTINGS), FastAPI()

    @app.api_route("/orders", methods=["GET", "POST"])
    async def orders(claims: Claims = Depends(auth.claims)) -> dict[str, str]:
        return {"sub": claims.subject}

    return running(app)


def by_decorator(sessions: Sessions) -> Any:
    auth, app = unbroken.flask.Auth(sessions, authenticate, **SETTINGS), flask.Flask(__name__)

    @app.route("/orders", methods=["GET", "POST"])
    @auth.required
    def orders() -> dict[str, str]:
        return {"sub": auth.claims.subject}

    return threaded(app)


@pytest.fixture(scope="module")
def sessions() -> Sessions:
    return Sessions(MemorySessionStore())


@pytest.fixture(params=[by_middleware, by_backend, by_dependency, by_decorator], scope="module")
def http(request: pytest.FixtureRequest, sessions: Sessions) -> Iterator[httpx2.Client]:
    with request.param(sessions) as port, httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
        yield client


def cookie(sessions: Sessions, subject: str = "ada", **more: str) -> dict[str, str]:
    return {"cookie": f"theme=dark; {COOKIE}={sessions.create(subject).access_token}", **more}


def said(answer: httpx2.Response) -> dict[str, str]:
    """The error object, which FastAPI puts below ``detail``."""
    body = answer.json()
    return body.get("detail", body)


def test_a_cookie_is_enough_to_read(http: httpx2.Client, sessions: Sessions) -> None:
    assert http.get("/orders", headers=cookie(sessions)).json() == {"sub": "ada"}
    assert http.get("/orders", headers={"cookie": "theme=dark"}).status_code == 401


def test_a_write_with_a_cookie_needs_the_csrf_header(http: httpx2.Client, sessions: Sessions) -> None:
    answer = http.post("/orders", headers=cookie(sessions))
    assert (answer.status_code, answer.headers["content-type"]) == (403, "application/json")
    assert (said(answer)["error"], said(answer)["reason"]) == ("forbidden", "no_header")
    for headers in (SCRIPT, {**SCRIPT, "origin": ALLOWED}, {**SCRIPT, "sec-fetch-site": "same-origin"}):
        assert http.post("/orders", headers=cookie(sessions, **headers)).json() == {"sub": "ada"}


def test_a_cookie_request_from_another_site_is_refused(http: httpx2.Client, sessions: Sessions) -> None:
    for headers in ({"origin": FOREIGN}, {"sec-fetch-site": "cross-site"}, {"origin": "null"}):
        answer = http.post("/orders", headers=cookie(sessions, **SCRIPT, **headers))
        assert (answer.status_code, said(answer)["reason"]) == (403, "foreign_origin")


def test_a_bearer_token_needs_no_header_and_goes_before_the_cookie(http: httpx2.Client, sessions: Sessions) -> None:
    bob = authorization(sessions.create("bob").access_token)
    assert http.post("/orders", headers={**cookie(sessions), **bob}).json() == {"sub": "bob"}


def test_a_bad_cookie_is_challenged(http: httpx2.Client) -> None:
    answer = http.get("/orders", headers={"cookie": f"{COOKIE}=nonsense"})
    assert (answer.status_code, said(answer)["reason"]) == (401, "malformed")
    assert "set-cookie" not in answer.headers


def test_a_route_that_needs_no_session_is_open_whatever_the_cookie(sessions: Sessions) -> None:
    with by_middleware(sessions) as port:
        for headers in ({}, cookie(sessions), {"cookie": f"{COOKIE}=nonsense"}):
            assert httpx2.post(f"http://127.0.0.1:{port}/public", headers=headers, timeout=30).json() == {"open": True}


# ---- WebSockets ------------------------------------------------------------------------------------------------------


def greeted(sessions: Sessions, *headers: tuple[str, str]) -> str | int:
    """Who a WebSocket's handshake with these headers belongs to; the status that refuses it if nobody."""
    token = sessions.create("ada").access_token
    fields = [("host", "api.example.com"), ("cookie", f"{COOKIE}={token}"), *headers]
    scope: dict[str, Any] = {"type": "websocket", "path": "/feed", "query_string": b"", "scheme": "wss"}
    scope["headers"] = [(name.encode(), value.encode()) for name, value in fields]
    heard: list[str | int] = []

    async def app(scope: Any, _receive: Any, _send: Any) -> None:
        try:
            heard.append(current_claims(HTTPConnection(scope)).subject)
        except Exception as error:  # noqa: BLE001  # whatever it is, its status is what is asked for
            heard.append(getattr(error, "status_code", 0))

    middleware: Any = AccessTokenMiddleware(app, sessions, **SETTINGS)
    asyncio.run(middleware(scope, None, None))
    return heard[0]


def test_a_page_of_another_site_cannot_open_a_websocket_with_the_cookie(sessions: Sessions) -> None:
    assert greeted(sessions, ("origin", FOREIGN)) == 403
    assert greeted(sessions, ("origin", "null")) == 403
    assert greeted(sessions, ("origin", ALLOWED)) == "ada"
    assert greeted(sessions, ("origin", "https://api.example.com")) == "ada"


# ---- OpenAPI ---------------------------------------------------------------------------------------------------------


def schema(**settings: Any) -> dict[str, Any]:
    auth, app = unbroken.fastapi.Auth(Sessions(MemorySessionStore()), authenticate, **settings), FastAPI()
    app.include_router(auth.router)

    @app.get("/orders")
    async def orders(claims: Claims = Depends(auth.claims)) -> dict[str, str]:
        return {"sub": claims.subject}

    found = app.openapi()
    validate(found)
    return found


def headers_of(operation: dict[str, Any]) -> list[str]:
    return [parameter["name"] for parameter in operation.get("parameters", []) if parameter["in"] == "header"]


def test_openapi_says_what_cookies_change() -> None:
    paths = schema(cookies=Cookies(), origins=[ALLOWED])["paths"]
    for name in ("login", "refresh", "logout"):
        operation = paths[f"/auth/{name}"]["post"]
        assert headers_of(operation) == ["DPoP", "X-Unbroken"]
        assert "403" in operation["responses"]
    assert paths["/auth/refresh"]["post"]["requestBody"]["required"] is False
    answers = paths["/auth/login"]["post"]["responses"]["200"]["content"]["application/json"]["schema"]["anyOf"]
    assert [one["$ref"].rpartition("/")[2] for one in answers] == ["TokenBody", "CookieTokenBody"]
    assert headers_of(paths["/auth/sessions/revoke-others"]["post"]) == ["DPoP"], "there it is the Authorization header"
    assert not any("options" in operations for operations in paths.values())


def test_openapi_names_the_cookie_with_the_access_token() -> None:
    found = schema(**SETTINGS)
    assert found["components"]["securitySchemes"]["SessionCookie"] == {"type": "apiKey", "in": "cookie", "name": COOKIE}
    for operation in (found["paths"]["/orders"]["get"], found["paths"]["/auth/session"]["get"]):
        assert operation["security"] == [{"HTTPBearer": []}, {"DPoP": []}, {"SessionCookie": []}]
    assert headers_of(found["paths"]["/auth/sessions/revoke-others"]["post"]) == ["DPoP", "X-Unbroken"]


def test_openapi_without_cookies_does_not_mention_cookies() -> None:
    text = json.dumps(schema())
    assert not [word for word in ("X-Unbroken", "CookieTokenBody", "SessionCookie") if word in text]


# ---- the page in docs ------------------------------------------------------------------------------------------------


def test_the_examples_of_the_page_about_cookies_run(tmp_path: Path) -> None:
    asked = """
from starlette.testclient import TestClient
with TestClient(app, base_url="https://shop.example.com") as page:
    login = {"username": "ada", "password": "correct horse"}
    assert "sid" in page.post("/auth/login", json=login, headers={"x-unbroken": "1"}).json()
    assert page.get("/orders").json() == {"orders of": "ada"}
    assert page.post("/orders").status_code == 403
    assert page.post("/auth/refresh", headers={"x-unbroken": "1"}).json()["refresh_seq"] == 1
"""
    done = run("\n\n".join([*examples(ROOT / "docs" / "cookies.md"), asked]), tmp_path)
    assert done.returncode == 0, done.stderr
