"""A server in Starlette. ``unbroken users add ada`` makes a user; ``uvicorn examples.server_starlette:app`` serves."""

import os

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from unbroken.server import Accounts, Sessions, open_store
from unbroken.starlette import AccessTokenMiddleware, current_claims, routes

store = open_store(os.environ.get("UNBROKEN_STORE", "sqlite:///unbroken.db"))
sessions = Sessions(store)


async def orders(request: Request) -> JSONResponse:
    return JSONResponse({"orders of": current_claims(request).subject})


app = Starlette(
    routes=[*routes(sessions, Accounts(store).authenticate), Route("/orders", orders)],
    middleware=[Middleware(AccessTokenMiddleware, sessions=sessions)],
)
