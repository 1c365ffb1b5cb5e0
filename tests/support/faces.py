"""The server as its clients meet it, by each framework that has endpoints: an HTTP address."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import flask
import httpx2
from fastapi import FastAPI
from starlette.applications import Starlette
from werkzeug.serving import WSGIRequestHandler, make_server

import unbroken.fastapi
import unbroken.flask
from tests.support import django_project
from tests.support.backend import running
from unbroken.server import Sessions
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
        response = self.http.post("/auth/login", json={"username": name, "password": PASSWORD, **more})
        assert response.status_code == 200, response.text
        return response.json()

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
    return ("read", "write", "introspect", "sessions") if subject == "operator" else ("read", "write")


class _Quiet(WSGIRequestHandler):
    def log(self, *_: Any) -> None:
        pass


@contextmanager
def threaded(app: Any) -> Iterator[int]:
    """A WSGI *app* by a real server in threads; its port."""
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=_Quiet)
    thread = threading.Thread(target=partial(server.serve_forever, poll_interval=0.02), daemon=True)
    thread.start()
    try:
        yield server.port
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()


def starlette_face(sessions: Sessions, **settings: Any) -> AbstractContextManager[int]:
    return running(Starlette(routes=routes(sessions, authenticate, **settings)))


def fastapi_face(sessions: Sessions, **settings: Any) -> AbstractContextManager[int]:
    app = FastAPI()
    app.include_router(unbroken.fastapi.Auth(sessions, authenticate, **settings).router)
    return running(app)


def flask_face(sessions: Sessions, **settings: Any) -> AbstractContextManager[int]:
    app = flask.Flask(__name__)
    unbroken.flask.Auth(sessions, authenticate, **settings).init_app(app)
    return threaded(app)


@contextmanager
def django_face(kind: str, sessions: Sessions, **settings: Any) -> Iterator[int]:
    own = {name.upper(): value for name, value in settings.items()}
    with django_project.chosen(SESSIONS=sessions, AUTHENTICATE=authenticate, **own):
        serve = running if kind == "asgi" else threaded
        with serve(django_project.application(kind)) as port:
            yield port


# Each runs a server for as long as it is held, and gives its port. Settings are those of the endpoints.
FACES: dict[str, Callable[..., AbstractContextManager[int]]] = {
    "starlette": starlette_face,
    "fastapi": fastapi_face,
    "flask": flask_face,
    "django-asgi": partial(django_face, "asgi"),
    "django-wsgi": partial(django_face, "wsgi"),
}


@contextmanager
def wired(face: str, store: Any) -> Iterator[Wire]:
    """One face over *store*, and how it is asked."""
    with (
        closing(Sessions(store, issuer="https://id.example.org", audience="shop")) as sessions,
        FACES[face](sessions, password_grant=True, scopes_of=scopes_of) as port,
    ):
        url = f"http://127.0.0.1:{port}"
        with httpx2.Client(base_url=url, timeout=30) as http:
            yield Wire(url, http, sessions)
