"""A service that only verifies tokens, in each framework: the verifier stands where the sessions would."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import flask
import httpx2
import pytest
from fastapi import FastAPI, Security
from starlette.applications import Starlette
from starlette.authentication import requires
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

import unbroken.fastapi
import unbroken.flask
from tests.docs.pages import page, run
from tests.support.backend import PASSWORD, running
from tests.support.faces import authorization, threaded
from tests.support.identity import FEED, JWKS, Identity
from unbroken.server.keys.access_token import Claims
from unbroken.starlette import AccessTokenMiddleware, BearerBackend, current_claims
from unbroken.verifier import RevocationFeed, Verifier


def starlette_service(verifier: Verifier) -> AbstractContextManager[int]:
    async def orders(request: Request) -> JSONResponse:
        return JSONResponse({"sub": current_claims(request, scope="read").subject})

    middleware = [Middleware(AccessTokenMiddleware, sessions=verifier)]
    return running(Starlette(routes=[Route("/orders", orders)], middleware=middleware))


def starlettes_own(verifier: Verifier) -> AbstractContextManager[int]:
    @requires(["authenticated", "read"])
    async def orders(request: Request) -> JSONResponse:
        return JSONResponse({"sub": request.user.identity})

    backend = BearerBackend(verifier)
    own = Middleware(AuthenticationMiddleware, backend=backend, on_error=backend.on_error)
    return running(Starlette(routes=[Route("/orders", orders)], middleware=[own]))


def fastapi_service(verifier: Verifier) -> AbstractContextManager[int]:
    app, auth = FastAPI(), unbroken.fastapi.Bearer(verifier)

    @app.get("/orders")
    async def orders(claims: Claims = Security(auth.claims, scopes=["read"])) -> dict[str, str]:
        return {"sub": claims.subject}

    return running(app)


def flask_service(verifier: Verifier) -> AbstractContextManager[int]:
    app, auth = flask.Flask(__name__), unbroken.flask.Bearer(verifier)
    auth.init_app(app)

    @app.get("/orders")
    @auth.required(scope="read")
    def orders() -> dict[str, str]:
        return {"sub": unbroken.flask.current_claims.subject}

    return threaded(app)


SERVICES: dict[str, Callable[[Verifier], AbstractContextManager[int]]] = {
    "starlette": starlette_service,
    "starlette's own": starlettes_own,
    "fastapi": fastapi_service,
    "flask": flask_service,
}


@pytest.fixture(params=SERVICES.values(), ids=SERVICES)
def http(request: pytest.FixtureRequest, identity: Identity) -> Iterator[httpx2.Client]:
    feed = RevocationFeed(identity.url + FEED, identity.service(), on_unavailable="reject")
    verifier = identity.verifier(revocation=feed, timeout=1.0)
    with request.param(verifier) as port, httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
        yield client


def test_a_service_knows_its_callers_by_the_servers_keys(identity: Identity, http: httpx2.Client) -> None:
    good = authorization(identity.token(scope="read"))
    for _ in range(20):
        answer = http.get("/orders", headers=good)
        assert (answer.status_code, answer.json()) == (200, {"sub": "ada"})
    assert http.get("/orders", headers=authorization(identity.token())).status_code == 403
    assert identity.hits[JWKS] == 1


def test_a_service_challenges_revoked_and_forged_tokens(identity: Identity, http: httpx2.Client) -> None:
    token = identity.token(scope="read")
    identity.sessions.logout(access_token=token)
    answer = http.get("/orders", headers=authorization(token))
    assert (answer.status_code, 'reason="revoked"' in answer.headers["www-authenticate"]) == (401, True)
    answer = http.get("/orders", headers=authorization(token[:-4] + "AAAA"))
    assert (answer.status_code, 'reason="malformed"' in answer.headers["www-authenticate"]) == (401, True)


def test_a_service_that_cannot_verify_a_token_responds_503(identity: Identity, http: httpx2.Client) -> None:
    token = authorization(identity.token(scope="read"))
    identity.stop()
    answer = http.get("/orders", headers=token)
    assert (answer.status_code, "temporarily_unavailable" in answer.text) == (503, True)
    assert int(answer.headers["retry-after"]) >= 1


def test_the_examples_of_the_page_run(identity: Identity, tmp_path: Path) -> None:
    known = f"token, password = {identity.token(scope='read')!r}, {PASSWORD!r}\n"
    done = run(known + page("verifier.md").replace("https://id.example.org", identity.url), tmp_path)
    assert (done.returncode, done.stdout.split()[0]) == (0, "ada"), done.stderr
    assert identity.hits[FEED] == 1
