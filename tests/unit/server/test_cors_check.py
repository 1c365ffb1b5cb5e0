"""A CORS middleware that would break the first refresh is noticed at the login, in the log."""

from __future__ import annotations

import logging
from typing import Any

import flask
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.testclient import TestClient

import unbroken.fastapi
import unbroken.flask
from unbroken.server import MemorySessionStore, Sessions
from unbroken.server.http.cors_check import MAX_ORIGINS
from unbroken.starlette import routes

PAGE = "https://app.example.com"
LOGIN = {"username": "ada", "password": "x"}


def sessions() -> Sessions:
    return Sessions(MemorySessionStore(), issuer="https://api.example.com")


def authenticate(name: str, password: str) -> str:
    return name


def starlette(*headers: str, **more: Any) -> Any:
    cors = Middleware(CORSMiddleware, allow_origins=[PAGE], allow_methods=["POST"], allow_headers=headers, **more)
    return TestClient(Starlette(routes=routes(sessions(), authenticate, origins=[PAGE]), middleware=[cors]))


def fastapi(*headers: str, **more: Any) -> Any:
    app = FastAPI()
    app.include_router(unbroken.fastapi.Auth(sessions(), authenticate, origins=[PAGE]).router)
    app.add_middleware(CORSMiddleware, allow_origins=[PAGE], allow_methods=["POST"], allow_headers=headers, **more)
    return TestClient(app)


def with_flask(*headers: str) -> Any:
    app = flask.Flask(__name__)
    unbroken.flask.Auth(sessions(), authenticate, origins=[PAGE]).init_app(app)

    @app.after_request
    def cors(response: flask.Response) -> flask.Response:
        response.headers["access-control-allow-origin"] = PAGE
        response.headers["access-control-allow-headers"] = ", ".join(headers)
        return response

    return app.test_client()


FACES = {"starlette": starlette, "fastapi": fastapi, "flask": with_flask}


def logged_in(client: Any, origin: str | None = PAGE, **headers: str) -> int:
    sent = {**({"Origin": origin} if origin else {}), **headers}
    return int(client.post("/auth/login", json=LOGIN, headers=sent).status_code)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    found = [one.getMessage() for one in caplog.records if one.name == "unbroken" and one.levelno == logging.WARNING]
    return [text for text in found if "preflight" in text]


@pytest.mark.parametrize("face", FACES)
def test_a_header_that_is_not_allowed_is_a_warning_at_the_first_login(
    face: str, caplog: pytest.LogCaptureFixture
) -> None:
    client = FACES[face]("Authorization", "Content-Type")
    assert [logged_in(client) for _ in range(3)] == [200] * 3
    [told] = warnings(caplog)
    assert f"pages of {PAGE} can log in here" in told
    assert "lacks the header Idempotency-Key" in told


@pytest.mark.parametrize("face", FACES)
def test_what_is_allowed_is_no_warning(face: str, caplog: pytest.LogCaptureFixture) -> None:
    assert logged_in(FACES[face]("Authorization", "Content-Type", "Idempotency-Key")) == 200
    assert warnings(caplog) == []


@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize(
    "headers", [{}, {"Origin": "http://testserver", "Sec-Fetch-Site": "same-origin"}, {"Origin": "null"}]
)
def test_logins_of_no_other_page_are_not_checked(
    face: str, headers: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    assert logged_in(FACES[face]("Content-Type"), None, **headers) == 200
    assert warnings(caplog) == []


def test_endpoints_without_such_a_middleware_respond_themselves(caplog: pytest.LogCaptureFixture) -> None:
    client = TestClient(Starlette(routes=routes(sessions(), authenticate, origins=[PAGE])))
    assert logged_in(client) == 200
    assert warnings(caplog) == []


def test_all_headers_at_once_are_enough_without_cookies(caplog: pytest.LogCaptureFixture) -> None:
    assert logged_in(starlette("*")) == 200
    assert warnings(caplog) == []


def test_a_wrong_password_causes_no_check_and_strangers_fill_no_memory(caplog: pytest.LogCaptureFixture) -> None:
    client = starlette("Content-Type")
    client.post("/auth/login", json={"username": "ada"}, headers={"Origin": PAGE})
    assert warnings(caplog) == []
    for number in range(2 * MAX_ORIGINS):
        assert logged_in(client, f"https://{number}.example") == 200
    assert len(warnings(caplog)) == MAX_ORIGINS


def test_a_middleware_that_fails_breaks_no_login(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http" and scope["method"] == "OPTIONS":
                raise RuntimeError("no OPTIONS here")
            await self.app(scope, receive, send)

    app = Starlette(routes=routes(sessions(), authenticate, origins=[PAGE]), middleware=[Middleware(Broken)])
    assert logged_in(TestClient(app)) == 200
    assert warnings(caplog) == []


def test_django_says_it_at_the_check() -> None:
    from django.test import override_settings

    from tests.support import django_project

    django_project.set_up()
    from unbroken.django.apps import check_cors

    middleware = ["corsheaders.middleware.CorsMiddleware"]
    with override_settings(MIDDLEWARE=middleware):
        [warning] = check_cors()
    assert (warning.id, "idempotency-key" in warning.msg) == ("unbroken.W004", True)
    headers = ["authorization", "content-type", "DPoP", "Idempotency-Key", "X-Unbroken"]
    with override_settings(MIDDLEWARE=middleware, CORS_ALLOW_HEADERS=headers):
        assert check_cors() == []
    assert check_cors() == []
