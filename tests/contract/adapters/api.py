"""The server that every adapter is tried with, and calls that wait, many at once."""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from tests.adapters import Answer
from unbroken.testing import LoopbackServer, Network

PIXELS = bytes(range(256)) * 300


class Api(LoopbackServer):
    """The loopback server with endpoints that these tests need.

    ``/late`` and exchanges that are held wait until ``opened`` is set.
    """

    def __init__(self) -> None:
        more = [
            Route("/fail/{status:int}", self._fail, methods=["GET", "POST"]),
            Route("/open", self._open_to_all),
            Route("/late", self._late),
            Route("/says", self._says, methods=["GET", "POST"]),
            Route("/done", self._done, methods=["POST"]),
            Route("/head", self._head),
        ]
        super().__init__(more=more)
        self.opened, self.waiting, self.done = threading.Event(), threading.Event(), 0

    def hold_next(self, exchanges: int = 1) -> None:
        """The next exchanges happen when ``opened`` is set."""

        async def fault() -> None:
            await asyncio.to_thread(self.opened.wait, 10)

        self._faults += [fault] * exchanges

    async def _fail(self, request: Request) -> Response:
        self.seen.append((request.url.path, request.headers.get("authorization", "")))
        return JSONResponse({"error": "no"}, request.path_params["status"])

    async def _open_to_all(self, request: Request) -> Response:
        return JSONResponse({"open": True})

    async def _late(self, request: Request) -> Response:
        """Looks at the token at once, and answers when it may."""
        good = self._is_good(request)
        self.waiting.set()
        await asyncio.to_thread(self.opened.wait, 10)
        return JSONResponse({"good": good}, 200 if good or self._is_good(request) else 401)

    async def _says(self, request: Request) -> Response:
        """Answers 401 with the challenge asked for, until the token is another one than the first it saw."""
        token = request.headers.get("authorization", "")
        self.seen.append((request.url.path, token))
        status = int(request.query_params.get("status", "401"))
        if self.seen[0][1] != token:
            return JSONResponse({"ok": True})
        said = request.query_params.getlist("challenge")
        answer = Response(status_code=status)
        for value in said:
            answer.headers.append("www-authenticate", value)
        return answer

    async def _done(self, request: Request) -> Response:
        """Does what it is asked to, and redirects to a page that needs a session."""
        self.done += 1
        return RedirectResponse("/echo", 303)

    async def _head(self, request: Request) -> Response:
        """For a dialect with a header of its own: what arrived, or the challenge of that dialect."""
        token = request.headers.get("token", "")
        self.seen.append((request.url.path, token))
        return JSONResponse({"code": 200}) if self._is_good(request, token) else JSONResponse({"code": 401}, 400)

    def _is_good(self, request: Request, token: str | None = None) -> bool:
        bearer = request.headers.get("authorization", "").removeprefix("Bearer ") if token is None else token
        try:
            return bool(self.sessions.verify(bearer))
        except Exception:  # noqa: BLE001  # whatever is wrong with it
            return False


class Door:
    """A server that runs for all tests; each test puts its own behind it."""

    def __init__(self) -> None:
        self.app: Any = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)


def behind(door: tuple[Door, Network]) -> Api:
    api = Api()
    door[0].app, api.network, api.url = api.app(), door[1], f"http://127.0.0.1:{door[1].port}"
    api.network.lose = api.network.lost = api.network.exchanges = 0
    return api


def burst(pool: ThreadPoolExecutor, work: Callable[[], Answer], times: int) -> list[Answer | Exception]:
    """What *times* calls at once lead to."""

    def one(_: int) -> Answer | Exception:
        try:
            return work()
        except Exception as error:  # noqa: BLE001  # it is what is asked for
            return error

    return list(pool.map(one, range(times)))


def parked(pool: ThreadPoolExecutor, server: Api, work: Callable[[], Answer]) -> Future[Answer]:
    """A call that waits at the server, which has seen its token."""
    server.waiting.clear()
    waiting = pool.submit(work)
    assert server.waiting.wait(10)
    return waiting


def used(server: Api) -> list[str]:
    """The tokens that the API saw, in order."""
    return [token.removeprefix("Bearer ") for _, token in server.seen]


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def until(condition: Callable[[], bool]) -> None:
    ends = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < ends, "it did not happen"
        time.sleep(0.01)
