"""A server whose streams and calls end with their tokens.

Most tests live by a clock that obeys: thirty minutes pass when the server says so. Those that run the examples as
a reader would, as programs, have tokens of one second.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from unbroken import InvalidToken
from unbroken.server import MemorySessionStore, Policy, Sessions
from unbroken.starlette import AccessTokenMiddleware, current_claims, routes
from unbroken.testing import ManualClock, running
from unbroken.testing.server import PASSWORD

LIFETIME = 1800
TOKENS = 4  # who has used so many has outlived three


class Shop:
    """A server whose streams end with their tokens. ``used`` are the access tokens that came, by what they were for.

    With *clock*, half an hour passes after every fifth message, and before every fifth call is looked at. Without it,
    tokens live for a second, and messages come every 50 ms.
    """

    def __init__(self, clock: ManualClock | None = None) -> None:
        self.clock = clock
        policy = Policy(access_ttl=LIFETIME if clock else 1)
        self.sessions = Sessions(MemorySessionStore(), policy=policy, **({"clock": clock.wall} if clock else {}))
        self.used: dict[str, list[str]] = {}
        self.closes_with = 3000
        self.cuts: list[str] = []
        self.last: dict[str, int] = {}  # the number of the last message of a stream
        self.dies_on_the_way = False
        self.url = ""

    def good(self, token: str, what: str) -> bool:
        """Whether *token* is good now; it is noted once for each connection or call that it comes with."""
        try:
            self.sessions.verify(token)
        except InvalidToken:
            return False
        if token not in self.used.setdefault(what, []):
            self.used[what].append(token)
        return True

    def time_passes(self) -> None:
        if self.clock:
            self.clock.advance(LIFETIME + 60)

    async def messages(self, what: str, token: str, after: int) -> AsyncIterator[int]:
        """Numbers from *after* on, until the token dies, or until three have died and the fourth brought some."""
        number = after
        while self.good(token, what):
            if len(self.used[what]) == TOKENS and number % 5 == 0 and number > after:
                self.last[what] = number
                return
            number += 1
            yield number
            await asyncio.sleep(0 if self.clock else 0.05)
            if number % 5 == 0 and len(self.used[what]) < TOKENS:
                self.time_passes()

    async def feed(self, socket: WebSocket) -> None:
        token = bearer(socket.headers)
        await socket.accept()
        async for number in self.messages("feed", token, int(socket.query_params["after"])):
            await socket.send_json({"id": number, "text": "x" * number})
        await socket.close(1000 if "feed" in self.last else self.closes_with)

    async def events(self, request: Request) -> Response:
        current_claims(request)
        after = int(request.headers.get("last-event-id", "0"))
        if after == self.last.get("events"):
            return Response(status_code=204)

        async def lines() -> AsyncIterator[str]:
            yield "retry: 10\n\n: hello\n\n"
            async for number in self.messages("events", bearer(request.headers), after):
                yield f"id: {number}\ndata: {'x' * number}\n\n"
                after_this = number + 1
            if "events" in self.last:
                return
            yield f"id: {after_this}\ndata: this is cut off he"
            self.cuts.append("ended" if len(self.cuts) % 2 else "broken off")
            if self.cuts[-1] == "broken off":
                raise ConnectionAbortedError

        return StreamingResponse(lines(), media_type="text/event-stream")

    async def completions(self, request: Request) -> Response:
        self.maybe_dies()
        token = bearer(request.headers)
        if not self.good(token, "completions"):
            return Response(status_code=401, headers={"www-authenticate": 'Bearer error="invalid_token"'})
        message = {"role": "assistant", "content": self.sessions.verify(token).subject}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        asked = await request.json()
        answer = {"id": "1", "object": "chat.completion", "created": 0, "model": asked["model"], "choices": [choice]}
        return JSONResponse(answer)

    async def orders(self, request: Request) -> Response:
        self.used.setdefault("orders", []).append(bearer(request.headers))
        return JSONResponse({"orders of": current_claims(request).subject})

    async def redirect(self, request: Request) -> Response:
        return RedirectResponse(request.query_params["to"])

    def call(self, _request: bytes, context: grpc.ServicerContext) -> bytes:
        self.maybe_dies()
        token = dict(context.invocation_metadata()).get("authorization", "").removeprefix("Bearer ")
        if not self.good(token, "calls"):
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "the access token is no good")
        return f"the orders of {self.sessions.verify(token).subject}".encode()

    def end_all_tokens(self) -> None:
        """All access tokens die now, whatever their clients' clocks say."""
        self.clock.advance(1)
        [*_, old] = self.sessions.keyring().signing
        self.sessions.rotate_keys(publish_ahead=0.0)
        self.sessions.retire_key(old.kid)

    def maybe_dies(self) -> None:
        """The token of the request at hand was good when it was sent, and is dead when it arrives."""
        if self.dies_on_the_way:
            self.dies_on_the_way = False
            self.time_passes()

    def app(self) -> Starlette:
        auth = routes(self.sessions, lambda name, password: name if password == PASSWORD else None)
        api = [
            WebSocketRoute("/feed", self.feed),
            Route("/events", self.events),
            Route("/v1/chat/completions", self.completions, methods=["POST"]),
            Route("/orders", self.orders),
            Route("/redirect", self.redirect),
        ]
        return Starlette(routes=[*auth, *api], middleware=[Middleware(AccessTokenMiddleware, sessions=self.sessions)])


def bearer(headers: Any) -> str:
    return headers.get("authorization", "").removeprefix("Bearer ")


@contextmanager
def opened(shop: Shop) -> Iterator[Shop]:
    with running(shop.app()) as port:
        shop.url = f"http://127.0.0.1:{port}"
        yield shop


@contextmanager
def calls(shop: Shop, credentials: grpc.ServerCredentials) -> Iterator[int]:
    """The shop's gRPC end; its port."""
    handler = grpc.unary_unary_rpc_method_handler(shop.call)
    with ThreadPoolExecutor(2) as threads:
        server = grpc.server(threads)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("shop.Orders", {"List": handler}),))
        port = server.add_secure_port("127.0.0.1:0", credentials)
        server.start()
        try:
            yield port
        finally:
            server.stop(None).wait(5)
