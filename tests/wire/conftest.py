"""The server as its clients meet it: an HTTP address. Each face of the server runs the same tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette

from tests.backend import running
from unbroken.fastapi import Auth
from unbroken.server import MemoryStore, Sessions
from unbroken.starlette import routes

PASSWORD = "correct horse"
NO_STORE = {"cache-control": "no-store", "pragma": "no-cache"}


@dataclass
class Wire:
    """A running server and a plain HTTP client of it. What tests may do without HTTP is in ``sessions``."""

    url: str
    http: httpx2.Client
    sessions: Sessions = field(repr=False)

    def login(self, name: str = "ada", **more: Any) -> dict[str, Any]:
        answer = self.http.post("/auth/login", json={"username": name, "password": PASSWORD, **more})
        assert answer.status_code == 200, answer.text
        return answer.json()

    def form(self, path: str, bearer: str = "", **fields: str) -> httpx2.Response:
        return self.http.post(path, data=fields, headers=authorization(bearer))

    def refresh(self, refresh_token: str, **headers: str) -> httpx2.Response:
        return self.http.post("/auth/refresh", json={"refresh_token": refresh_token}, headers=headers)

    def whoami(self, access_token: str) -> httpx2.Response:
        return self.http.get("/auth/session", headers=authorization(access_token))


def authorization(bearer: str) -> dict[str, str]:
    return {"authorization": f"Bearer {bearer}"} if bearer else {}


def authenticate(name: str, password: str) -> str | None:
    return name if password == PASSWORD else None


def scopes_of(subject: str) -> tuple[str, ...]:
    return ("read", "write", "introspect") if subject == "operator" else ("read", "write")


def starlette_face(sessions: Sessions) -> Any:
    return Starlette(routes=routes(sessions, authenticate, password_grant=True, scopes_of=scopes_of))


def fastapi_face(sessions: Sessions) -> Any:
    app = FastAPI()
    app.include_router(Auth(sessions, authenticate, password_grant=True, scopes_of=scopes_of).router)
    return app


FACES: dict[str, Callable[[Sessions], Any]] = {"starlette": starlette_face, "fastapi": fastapi_face}


@pytest.fixture(params=sorted(FACES), scope="module")
def wire(request: pytest.FixtureRequest) -> Iterator[Wire]:
    sessions = Sessions(MemoryStore(), issuer="https://id.example.org", audience="shop")
    with running(FACES[request.param](sessions)) as port:
        url = f"http://127.0.0.1:{port}"
        with httpx2.Client(base_url=url) as http:
            yield Wire(url, http, sessions)
