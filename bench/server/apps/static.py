"""The fastest possible response, to find the limit of the load generator: a few bytes for every request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

Scope = dict[str, Any]


def tokens(n: int) -> list[str]:
    return ["x" * 300] * n


def app() -> Callable[[Scope, Any, Any], Awaitable[None]]:
    async def response(scope: Scope, _receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body = b'{"refresh_token":"' + b"x" * 60 + b'"}'
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return response
