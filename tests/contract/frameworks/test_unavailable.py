"""A server in trouble, as an application's own endpoints show it: 503, never 500, and never a challenge."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import httpx2
import pytest
from fastapi import Depends, FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from tests.support.backend import running
from unbroken.errors import ConfigurationError
from unbroken.fastapi import Auth
from unbroken.server import Claims, MemorySessionStore, Sessions
from unbroken.starlette import AccessTokenMiddleware, current_claims


class Unready(MemorySessionStore):
    """A store that is set up wrongly, and says so when it is asked."""

    async def keys(self) -> Any:
        raise ConfigurationError("this store holds no keys")


def starlette_app(sessions: Sessions) -> Any:
    async def orders(request: Request) -> PlainTextResponse:
        return PlainTextResponse(current_claims(request).subject)

    return Starlette(
        routes=[Route("/orders", orders)], middleware=[Middleware(AccessTokenMiddleware, sessions=sessions)]
    )


def fastapi_app(sessions: Sessions) -> Any:
    auth, app = Auth(sessions, lambda name, _: name), FastAPI()

    async def orders(claims: Annotated[Claims, Depends(auth.claims)]) -> str:
        return claims.subject

    orders.__annotations__["claims"] = Annotated[Claims, Depends(auth.claims)]  # FastAPI cannot see ``auth`` by name
    app.get("/orders")(orders)
    return app


@pytest.mark.parametrize("app", [starlette_app, fastapi_app])
def test_a_server_that_is_set_up_wrongly_refuses_no_token(app: Callable[[Sessions], Any]) -> None:
    token = Sessions(MemorySessionStore()).create("ada").access_token
    with running(app(Sessions(Unready()))) as port:
        answer = httpx2.get(f"http://127.0.0.1:{port}/orders", headers={"authorization": f"Bearer {token}"}, timeout=30)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert "www-authenticate" not in answer.headers
