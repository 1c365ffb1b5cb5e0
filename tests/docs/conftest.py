"""The server that the pages speak with."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from unbroken.starlette import current_claims
from unbroken.testing import LoopbackServer


@pytest.fixture
def api() -> Iterator[LoopbackServer]:
    """What the pages call https://api.example.com."""
    uploads: list[bytes] = []

    async def orders(request: Request) -> Response:
        return JSONResponse({"of": current_claims(request).subject})

    async def upload(request: Request) -> Response:
        """Takes what was sent, but not at the first time."""
        uploads.append(await request.body())
        challenge = {"www-authenticate": 'Bearer error="invalid_token"'}
        return Response(status_code=200) if len(uploads) > 1 else Response(status_code=401, headers=challenge)

    async def invoices(request: Request) -> Response:
        server.sessions.verify(request.headers["token"])
        return JSONResponse([])

    more = [
        Route("/orders", orders, methods=["GET", "POST"]),
        Route("/upload", upload, methods=["POST"]),
        Route("/invoices", invoices),
    ]
    with LoopbackServer(more=more) as server:
        yield server
