"""The API of the examples for browsers: orders, an upload, a report and a WebSocket; `unbroken serve` logs users in.

It has the store of `unbroken serve`, because a ticket is redeemed where it was issued. A service that needs no tickets
has a ``Verifier`` in place of the store.
"""

import os

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from unbroken.server import Cookies, Sessions, open_store
from unbroken.starlette import AccessTokenMiddleware, claims_from_ticket, current_claims

store = open_store(os.environ.get("UNBROKEN_STORE", "sqlite:///unbroken.db"))
sessions = Sessions(store, issuer=os.environ.get("UNBROKEN_ISSUER", "http://127.0.0.1:8400"))
cookies = Cookies("both", secure=False)  # as in unbroken.toml


async def order(request: Request) -> Response:
    return JSONResponse({"id": request.path_params["id"], "owner": current_claims(request).subject})


async def upload(request: Request) -> Response:
    current_claims(request)
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
    return JSONResponse({"size": size})


async def report(request: Request) -> Response:
    claims = await claims_from_ticket(request, sessions)
    headers = {"content-disposition": 'attachment; filename="report.csv"'}
    return PlainTextResponse(f"order,owner\n1,{claims.subject}\n", headers=headers)


async def live(socket: WebSocket) -> None:
    claims = await claims_from_ticket(socket, sessions)
    await socket.accept()
    await socket.send_text(f"hello {claims.subject}")
    try:
        while True:
            await socket.send_text(await socket.receive_text())
    except WebSocketDisconnect:
        return


app = Starlette(
    routes=[
        Route("/api/orders/{id:int}", order),
        Route("/api/upload", upload, methods=["POST"]),
        Route("/api/report", report),
        WebSocketRoute("/api/live", live),
    ],
    middleware=[Middleware(AccessTokenMiddleware, sessions=sessions, cookies=cookies)],
)
