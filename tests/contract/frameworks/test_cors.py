"""Which other sites' pages may call the endpoints, and read the answers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from tests.support.backend import running
from tests.support.faces import FACES, PASSWORD, authenticate, authorization
from unbroken.errors import ConfigurationError
from unbroken.server import Endpoints, MemorySessionStore, Sessions
from unbroken.server.http.cookies import Cookies
from unbroken.server.http.origins import AllowedOrigins
from unbroken.starlette import AccessTokenMiddleware, current_claims, routes

APP, DEV = "https://app.example.com", "http://localhost:5173"
FOREIGN = [
    "https://evil.example",
    "null",
    "*",
    "",
    "https://app.example.com.evil.example",
    "https://evilapp.example.com",
    "https://app.example.com:444",
    "http://app.example.com",
    "https://APP.example.com",
    "https://app.example.com/",
    "https://app.example.com, https://evil.example",
]
LOGIN = {"username": "ada", "password": PASSWORD}


def served(face: str, **settings: Any) -> Iterator[httpx2.Client]:
    with (
        FACES[face](Sessions(MemorySessionStore()), **settings) as port,
        httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client,
    ):
        yield client


@pytest.fixture(params=sorted(FACES), scope="module")
def http(request: pytest.FixtureRequest) -> Iterator[httpx2.Client]:
    yield from served(request.param, cookies=Cookies(), origins=[APP, DEV])


def preflight(http: httpx2.Client, origin: str, path: str = "/auth/refresh") -> httpx2.Response:
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "content-type,x-unbroken"}
    return http.options(path, headers={"origin": origin, **asked})


def access(answer: httpx2.Response) -> dict[str, str]:
    """The CORS headers, without their common beginning."""
    start = "access-control-"
    return {name.removeprefix(start): value for name, value in answer.headers.items() if name.startswith(start)}


@pytest.mark.parametrize("origin", [APP, DEV])
def test_a_preflight_of_an_allowed_origin_is_granted(http: httpx2.Client, origin: str) -> None:
    answer = preflight(http, origin)
    assert (answer.status_code, answer.content, answer.headers["vary"]) == (204, b"", "Origin")
    granted = access(answer)
    assert (granted["allow-origin"], granted["allow-credentials"]) == (origin, "true")
    assert granted["allow-methods"] == "POST"
    wanted = {"authorization", "content-type", "dpop", "idempotency-key", "x-unbroken"}
    assert set(granted["allow-headers"].lower().split(", ")) == wanted
    assert 0 < int(granted["max-age"]) <= 7200


def test_every_endpoint_answers_preflights_with_its_own_methods(http: httpx2.Client) -> None:
    for path, method in (
        ("/auth/login", "POST"),
        ("/auth/session", "GET"),
        ("/auth/sessions/revoke-others", "POST"),
        ("/auth/sessions/some-sid", "DELETE"),
        ("/.well-known/jwks.json", "GET"),
    ):
        answer = preflight(http, APP, path)
        assert (answer.status_code, method in access(answer)["allow-methods"].split(", ")) == (204, True)


@pytest.mark.parametrize("origin", FOREIGN)
def test_no_other_origin_is_granted_or_repeated(http: httpx2.Client, origin: str) -> None:
    refused, read = preflight(http, origin), http.get("/.well-known/jwks.json", headers={"origin": origin})
    assert (refused.status_code, refused.json()["error"]) == (403, "forbidden")
    for answer in (refused, read):
        assert access(answer) == {}
        assert answer.headers["vary"] == "Origin"
        assert not origin or origin not in [*answer.headers.values(), answer.text]


def test_responses_good_and_bad_can_be_read_by_an_allowed_page(http: httpx2.Client) -> None:
    answers = [
        http.post("/auth/login", json=LOGIN, headers={"origin": APP}),
        http.post("/auth/login", json=LOGIN | {"password": "wrong"}, headers={"origin": APP}),
        http.post("/auth/login", content=b"x" * 70_000, headers={"origin": APP}),
        http.get("/auth/session", headers={"origin": APP}),
        http.post("/auth/refresh", headers={"origin": APP, "cookie": "__Secure-unbroken-refresh=x"}),
    ]
    assert [answer.status_code for answer in answers] == [200, 401, 413, 401, 403]
    for answer in answers:
        told = access(answer)
        assert (told["allow-origin"], told["allow-credentials"]) == (APP, "true")
        assert told["expose-headers"] == "WWW-Authenticate, Retry-After, DPoP-Nonce"
        assert answer.headers["vary"] == "Origin"


def test_requests_without_an_origin_get_no_cors_header_but_vary(http: httpx2.Client) -> None:
    answer = http.post("/auth/login", json=LOGIN)
    assert (answer.status_code, access(answer)) == (200, {})
    assert answer.headers["vary"] == "Origin", "or a cache would give this answer to a page"


@pytest.mark.parametrize("face", sorted(FACES))
def test_without_origins_there_is_no_cors(face: str) -> None:
    for http in served(face):
        answer = http.post("/auth/login", json=LOGIN, headers={"origin": APP})
        assert (answer.status_code, access(answer)) == (200, {})
        assert "vary" not in answer.headers
        assert access(preflight(http, APP)) == {}
        assert preflight(http, APP).status_code >= 400


@pytest.mark.parametrize("face", sorted(FACES))
def test_without_cookies_no_credentials_are_allowed(face: str) -> None:
    for http in served(face, origins=[APP]):
        assert "allow-credentials" not in access(preflight(http, APP))
        answer = http.post("/auth/login", json=LOGIN, headers={"origin": APP})
        assert access(answer).keys() == {"allow-origin", "expose-headers"}


# ---- beside the framework's own --------------------------------------------------------------------------------------


async def orders(request: Request) -> JSONResponse:
    return JSONResponse({"sub": current_claims(request).subject})


def test_the_frameworks_own_middleware_may_stand_before_all_routes() -> None:
    sessions, shared = Sessions(MemorySessionStore()), {"cookies": Cookies("both"), "origins": [APP]}
    frameworks_own = Middleware(
        CORSMiddleware,
        allow_origins=[APP],
        allow_credentials=True,
        allow_methods=["GET", "POST"],
        allow_headers=["X-Unbroken"],
        expose_headers=["WWW-Authenticate", "Retry-After"],
    )
    pages: Any = [*routes(sessions, authenticate, **shared), Route("/orders", orders)]  # type: ignore[arg-type]
    app = Starlette(
        routes=pages, middleware=[frameworks_own, Middleware(AccessTokenMiddleware, sessions=sessions, **shared)]
    )
    bearer = authorization(sessions.create("ada").access_token)
    with running(app) as port, httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as http:
        assert http.get("/orders", headers={"origin": APP, **bearer}).headers["access-control-allow-origin"] == APP
        answer = http.post("/auth/login", json=LOGIN, headers={"origin": APP, "x-unbroken": "1"})
        assert answer.status_code == 200
        assert answer.headers.get_list("access-control-allow-origin") == [APP]
        assert len(answer.headers.get_list("set-cookie")) == 3, "two tokens, and the device"
        assert http.get("/orders", headers={"origin": APP}).headers["access-control-allow-origin"] == APP


# ---- set up wrongly --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "origin",
    ["*", "null", "", "app.example.com", "https://app.example.com/", "https://*.example.com", "https://app.example.com:443",
     "https://App.example.com", "http://app.example.com", "https://user@app.example.com", "https://a b", "https://ä.example",
     "https://[::1", "https://app.example.com:port", "https://app.example.com?x"],
)  # fmt: skip
def test_what_is_no_safe_origin_is_refused_when_the_server_starts(origin: str) -> None:
    with pytest.raises(ConfigurationError, match=r"is not an origin|is not safe"):
        Endpoints(Sessions(MemorySessionStore()), authenticate, origins=[origin])


def test_origins_given_as_one_text_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="list"):
        Endpoints(Sessions(MemorySessionStore()), authenticate, origins=APP)


@pytest.mark.parametrize(
    "origin",
    [APP, DEV, "http://127.0.0.1:8000", "http://[::1]:3000", "https://x.example:8443", "capacitor://localhost"],
)
def test_origins_as_browsers_spell_them_are_taken(origin: str) -> None:
    assert AllowedOrigins([origin]).allowed == {origin}
