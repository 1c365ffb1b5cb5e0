"""The server process of the demo: ``python -m unbroken.cli.demo.server DATABASE PORT ACCESS_TTL ISSUER``."""

from __future__ import annotations

import logging
import sys

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from unbroken.cli.serve import listen
from unbroken.server import Accounts, Policy, Sessions, SqliteSessionStore
from unbroken.starlette import AccessTokenMiddleware, current_claims, routes


async def echo(request: Request) -> JSONResponse:
    """The API of the demo: return the user and the text of the request."""
    claims = current_claims(request)
    return JSONResponse({"sub": claims.subject, "echo": (await request.json())["echo"]})


def app(database: str, access_ttl: float, issuer: str) -> Starlette:
    """Return the endpoints and the API."""
    store = SqliteSessionStore(database)
    sessions = Sessions(store, policy=Policy(access_ttl=access_ttl), issuer=issuer)
    auth = routes(sessions, Accounts(sessions).authenticate)
    middleware = [Middleware(AccessTokenMiddleware, sessions=sessions)]
    return Starlette(routes=[*auth, Route("/api/echo", echo, methods=["POST"])], middleware=middleware)


if __name__ == "__main__":
    logging.getLogger("unbroken").setLevel(logging.CRITICAL)  # the demo tells of the reuse itself
    file, port, ttl, issuer = sys.argv[1:]
    config = uvicorn.Config(app(file, float(ttl), issuer), log_level="error", access_log=False)
    uvicorn.Server(config).run(sockets=[listen("127.0.0.1", int(port))])
