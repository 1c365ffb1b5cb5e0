"""The current session in Starlette: the middleware, and the backend for Starlette's own. Endpoints: tests/wire."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.authentication import requires
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

from tests.support.backend import running
from unbroken.errors import StoreUnavailable
from unbroken.server import MemorySessionStore, Sessions
from unbroken.starlette import AccessTokenMiddleware, BearerBackend, current_claims, routes


async def orders(request: Request) -> JSONResponse:
    claims = current_claims(request, scope=request.query_params.get("scope", ""))
    return JSONResponse({"sub": claims.subject})


async def public(_: Request) -> JSONResponse:
    return JSONResponse({"open": True})


async def user(request: Request) -> JSONResponse:
    facts = {"name": request.user.display_name, "in": request.user.is_authenticated, "scopes": request.auth.scopes}
    return JSONResponse(facts)


@requires(["authenticated", "read"])
async def readers(request: Request) -> JSONResponse:
    return JSONResponse({"sub": request.user.identity})


PAGES = [Route("/orders", orders), Route("/public", public), Route("/user", user), Route("/readers", readers)]


@pytest.fixture(scope="module")
def sessions() -> Sessions:
    return Sessions(MemorySessionStore())


def middleware_of(sessions: Sessions) -> list[Middleware]:
    return [Middleware(AccessTokenMiddleware, sessions=sessions)]


def backend_of(sessions: Sessions) -> list[Middleware]:
    return [Middleware(AuthenticationMiddleware, backend=BearerBackend(sessions), on_error=BearerBackend.on_error)]


def served(middleware: list[Middleware]) -> Iterator[httpx2.Client]:
    app = Starlette(routes=PAGES, middleware=middleware)
    with running(app) as port, httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
        yield client


@pytest.fixture(scope="module")
def http(sessions: Sessions) -> Iterator[httpx2.Client]:
    yield from served(middleware_of(sessions))


@pytest.fixture(scope="module")
def starlettes_own(sessions: Sessions) -> Iterator[httpx2.Client]:
    yield from served(backend_of(sessions))


def bearer(sessions: Sessions, scope: str = "") -> dict[str, str]:
    return {"authorization": f"Bearer {sessions.create('ada', scope=scope).access_token}"}


def test_a_good_token_gives_its_session(http: httpx2.Client, sessions: Sessions) -> None:
    assert http.get("/orders", headers=bearer(sessions)).json() == {"sub": "ada"}


def test_a_bad_token_is_challenged_with_a_json_body(http: httpx2.Client) -> None:
    answer = http.get("/orders", headers={"authorization": "Bearer nonsense"})
    assert (answer.status_code, answer.headers["content-type"]) == (401, "application/json")
    assert (answer.json()["error"], answer.json()["reason"]) == ("invalid_token", "malformed")
    assert 'reason="malformed"' in answer.headers["www-authenticate"]
    assert answer.headers["cache-control"] == "no-store"


def test_no_token_gets_a_bare_challenge_and_only_where_one_is_needed(http: httpx2.Client) -> None:
    answer = http.get("/orders")
    assert (answer.status_code, answer.headers["www-authenticate"]) == (
        401,
        'Bearer realm="unbroken", DPoP algs="ES256 Ed25519 EdDSA"',
    )
    assert http.get("/public").json() == {"open": True}
    assert http.get("/public", headers={"authorization": "Bearer nonsense"}).status_code == 200


def test_too_little_scope_is_403_and_says_what_is_missing(http: httpx2.Client, sessions: Sessions) -> None:
    answer = http.get("/orders", params={"scope": "write"}, headers=bearer(sessions, "read"))
    assert (answer.status_code, answer.json()["error"]) == (403, "insufficient_scope")
    assert answer.headers["www-authenticate"] == 'Bearer realm="unbroken", error="insufficient_scope", scope="write"'
    assert http.get("/orders", params={"scope": "read"}, headers=bearer(sessions, "read write")).status_code == 200


def test_a_repeated_authorization_header_is_refused(http: httpx2.Client, sessions: Sessions) -> None:
    good = bearer(sessions)["authorization"]
    for both in ((good, "Bearer x"), ("Bearer x", good)):
        assert http.get("/orders", headers=[("authorization", value) for value in both]).status_code == 401


def test_a_revoked_session_is_refused_at_once(http: httpx2.Client, sessions: Sessions) -> None:
    headers = bearer(sessions)
    assert http.get("/orders", headers=headers).status_code == 200
    sessions.revoke_subject("ada")
    assert http.get("/orders", headers=headers).json()["reason"] == "revoked"


def test_a_store_that_does_not_respond_is_503_and_not_a_logout() -> None:
    sessions = Sessions(MemorySessionStore())
    headers = bearer(sessions)

    async def dead(_: str) -> Any:
        raise StoreUnavailable("the database is locked", retry_after=2)

    sessions.averify = dead  # type: ignore[method-assign]
    for client in served(middleware_of(sessions)):
        answer = client.get("/orders", headers=headers)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
        assert answer.json()["error"] == "temporarily_unavailable"


async def forgotten(request: Request) -> JSONResponse:
    with pytest.raises(RuntimeError, match="AccessTokenMiddleware"):
        current_claims(request)
    return JSONResponse({"told": True})


def test_a_forgotten_middleware_is_named() -> None:
    with running(Starlette(routes=[Route("/", forgotten)])) as port:
        assert httpx2.get(f"http://127.0.0.1:{port}/", timeout=30).json() == {"told": True}


def test_the_endpoints_work_below_a_mount() -> None:
    sessions = Sessions(MemorySessionStore())
    app = Starlette(routes=[Mount("/api", routes=routes(sessions, lambda name, _: name))])
    with running(app) as port, httpx2.Client(base_url=f"http://127.0.0.1:{port}/api", timeout=30) as client:
        token = client.post("/auth/login", json={"username": "ada", "password": "x"}).json()["access_token"]
        headers = {"authorization": f"Bearer {token}"}
        sid = client.get("/auth/session", headers=headers).json()["sid"]
        assert client.delete(f"/auth/sessions/{sid}", headers=headers).status_code == 204


# ---- Starlette's own authentication ----------------------------------------------------------------------------------


def test_the_backend_gives_user_and_scopes(starlettes_own: httpx2.Client, sessions: Sessions) -> None:
    answer = starlettes_own.get("/user", headers=bearer(sessions, "read write")).json()
    assert answer == {"name": "ada", "in": True, "scopes": ["authenticated", "read", "write"]}
    assert starlettes_own.get("/user").json() == {"name": "", "in": False, "scopes": []}


def test_requires_and_current_session_work_with_the_backend(starlettes_own: httpx2.Client, sessions: Sessions) -> None:
    assert starlettes_own.get("/readers", headers=bearer(sessions, "read")).json() == {"sub": "ada"}
    assert starlettes_own.get("/readers", headers=bearer(sessions)).status_code == 403
    assert starlettes_own.get("/orders", headers=bearer(sessions)).json() == {"sub": "ada"}
    assert starlettes_own.get("/orders").status_code == 401


def test_the_backends_error_is_a_challenge(starlettes_own: httpx2.Client) -> None:
    answer = starlettes_own.get("/public", headers={"authorization": "Bearer nonsense"})
    assert answer.status_code == 401
    assert 'error="invalid_token"' in answer.headers["www-authenticate"]
    assert json.loads(answer.content)["reason"] == "malformed"
