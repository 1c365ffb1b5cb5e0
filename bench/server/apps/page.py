"""One page, with and without authentication: what it costs to verify a request."""

from __future__ import annotations

from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from bench.server.apps import store
from unbroken.server import Sessions, open_store
from unbroken.starlette import AccessTokenMiddleware, current_claims


def tokens(n: int) -> list[str]:
    sessions = Sessions(open_store(store()))
    made = [sessions.create(f"user-{number}").access_token for number in range(n)]
    sessions.close()
    return made


def app() -> Starlette:
    """With authentication."""

    async def page(request: Request) -> JSONResponse:
        return JSONResponse({"orders of": current_claims(request).subject})

    middleware = [Middleware(AccessTokenMiddleware, sessions=Sessions(open_store(store())))]
    return Starlette(routes=[Route("/orders", page)], middleware=middleware)


def free() -> Starlette:
    """Without authentication."""

    async def page(_request: Request) -> JSONResponse:
        return JSONResponse({"orders of": "user-1"})

    return Starlette(routes=[Route("/orders", page)])


def fastapi() -> Any:
    """With authentication, by FastAPI's dependency."""
    from typing import Annotated

    from fastapi import Depends, FastAPI

    from unbroken.fastapi import Auth
    from unbroken.server import Claims

    auth = Auth(Sessions(open_store(store())), lambda _name, _password: None)
    made = FastAPI()

    async def page(claims: Any) -> dict[str, str]:
        return {"orders of": claims.subject}

    page.__annotations__["claims"] = Annotated[Claims, Depends(auth.claims)]
    made.get("/orders")(page)
    return made


def fastapi_free() -> Any:
    """Without authentication."""
    from fastapi import FastAPI

    made = FastAPI()

    @made.get("/orders")
    async def page() -> dict[str, str]:
        return {"orders of": "user-1"}

    return made
