"""A shell, one that is logged in, and servers that tell what came."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from tests.cli.client.shell import Echo, OAuth, Shell
from tests.support.backend import Backend, running
from unbroken.server import MemorySessionStore, Sessions
from unbroken.starlette import routes


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


@pytest.fixture
def api(shell: Shell, server: Backend) -> Shell:
    """A shell that is logged in at the server, under the name ``api``."""
    shell.login(server.url)
    return shell


@pytest.fixture
def oauth() -> Iterator[OAuth]:
    sessions, came = Sessions(MemorySessionStore()), []
    app = Starlette(routes=routes(sessions, lambda name, password: name, password_grant=True))

    async def listening(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"] in ("/auth/token", "/auth/revoke"):
            came.append(dict(scope["headers"]).get(b"authorization", b"").decode())
        await app(scope, receive, send)

    with running(listening) as port:
        yield OAuth(f"http://127.0.0.1:{port}", sessions, came)


@pytest.fixture
def echo() -> Iterator[Echo]:
    got: list[dict[str, Any]] = []
    paths: list[bytes] = []

    async def answer(request: Request) -> Response:
        if request.url.path == "/moved":
            return RedirectResponse(request.query_params["to"], 307)
        if request.url.path == "/missing":
            return Response("what?", 404)
        if request.url.path == "/size":
            return Response(str(len(await request.body())))
        paths.append(request.scope["raw_path"] + b"?" + request.scope["query_string"])
        body = (await request.body()).decode()
        got.append({"method": request.method, "headers": dict(request.headers), "body": body})
        return JSONResponse(got[-1], headers={"x-echo": "yes"})

    methods = ["GET", "POST", "PUT", "DELETE"]
    with running(Starlette(routes=[Route("/{path:path}", answer, methods=methods)])) as port:
        yield Echo(f"http://127.0.0.1:{port}", got, paths)


@pytest.fixture
def both(shell: Shell, server: Backend, echo: Echo) -> Shell:
    """A shell whose session ``api`` may send its token to the echo, too."""
    shell.login(server.url, "api", "--origin", echo.url)
    return shell
