"""The server that every adapter is tried with, and calls that wait, many at once."""

from __future__ import annotations

import asyncio
import functools
import gzip
import hashlib
import io
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route
from werkzeug.formparser import parse_form_data

from tests.support.adapters import Aiohttp, Answer, AsyncHttpx, Client, Httpx, Requests
from tests.support.backend import RunningApp
from unbroken.testing import LoopbackServer, Network

PIXELS = bytes(range(256)) * 300


class Api(LoopbackServer):
    """The loopback server with endpoints that these tests need.

    ``/late``, ``/held``, ``/told?hold=…`` and refreshes that are held wait until ``opened`` is set. ``kept`` tells of
    each answer that was held in its midst whether that came about; else it went on by itself, after ten seconds.
    """

    def __init__(self) -> None:
        more = [
            Route("/fail/{status:int}", self._fail, methods=["GET", "POST"]),
            Route("/open", self._open_to_all),
            Route("/late", self._late),
            Route("/says", self._says, methods=["GET", "POST"]),
            Route("/done", self._done, methods=["POST"]),
            Route("/head", self._head),
            Route("/upload", self._upload, methods=["POST"]),
            Route("/held", self._held),
            Route("/told", self._told),
        ]
        super().__init__(more=more)
        self.opened, self.waiting, self.done = threading.Event(), threading.Event(), 0
        self.kept: list[bool] = []
        self.uploads: list[dict[str, object]] = []
        self.rotated, self._late_answers = threading.Event(), 0

    def app(self) -> Any:
        app = super().app()

        async def with_late_answers(scope: Any, receive: Any, send: Any) -> None:
            late = scope["type"] == "http" and scope["path"] == "/auth/refresh" and self._late_answers > 0
            self._late_answers -= late
            await app(scope, receive, self._when_opened(send) if late else send)

        return with_late_answers

    def hold_next_answer(self) -> None:
        """The next refresh happens, as ``rotated`` tells; its answer comes when ``opened`` is set."""
        self._late_answers += 1

    def _when_opened(self, send: Any) -> Any:
        async def later(message: Any) -> None:
            self.rotated.set()
            await asyncio.to_thread(self.opened.wait, 10)
            await send(message)

        return later

    def hold_next(self, refreshes: int = 1) -> None:
        """The next refreshes happen when ``opened`` is set."""

        async def fault() -> None:
            await asyncio.to_thread(self.opened.wait, 10)

        self._faults += [fault] * refreshes

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

    async def _upload(self, request: Request) -> Response:
        """Takes an upload apart as a server does, and keeps what it found: of every request, refused or not."""
        self.seen.append((request.url.path, request.headers.get("authorization", "")))
        body = await request.body()
        about = {"REQUEST_METHOD": "POST", "CONTENT_TYPE": request.headers["content-type"]}
        about |= {"CONTENT_LENGTH": str(len(body)), "wsgi.input": io.BytesIO(body)}
        _, fields, files = parse_form_data(about)
        found = {name: (file.filename, sha(file.read())) for name, file in files.items()}
        self.uploads.append({**fields.to_dict(), **found})
        good = self._is_good(request)
        return JSONResponse({"good": good}, 200 if good else 401)

    async def _held(self, request: Request) -> Response:
        """Two lines; the second when it may."""
        return self._streamed([b"0\n", b"1\n"], {}, hold=True) if self._is_good(request) else Response(status_code=401)

    async def _told(self, request: Request) -> Response:
        """A code in a body of ``size`` bytes: 401 until the token is another one than the first it saw.

        ``hold``: what is behind so many bytes comes when it may.
        """
        asked, token = request.query_params, request.headers.get("authorization") or request.headers.get("token", "")
        self.seen.append((request.url.path, token))
        body = coded(401 if token == self.seen[0][1] else 200, int(asked["size"]))
        headers = {"content-type": asked.get("type", "application/json"), "set-cookie": "seen=yes"}
        if "gzip" in asked:
            body, headers["content-encoding"] = gzipped(body), "gzip"
        if "announced" in asked:
            headers["content-length"] = str(len(body))
        kept = int(asked.get("hold", len(body) * 3 // 4))
        pieces = [body[at : min(at + 1000, kept)] for at in range(0, kept, 1000)]
        return self._streamed([*pieces, body[kept:]], headers, hold="hold" in asked, broken="broken" in asked)

    def _streamed(self, pieces: list[bytes], headers: dict[str, str], hold: bool, broken: bool = False) -> Response:
        async def body() -> AsyncIterator[bytes]:
            for piece in pieces[:-1]:
                yield piece
            if broken:
                raise ConnectionError("the answer breaks off")
            if hold:
                self.kept.append(await asyncio.to_thread(self.opened.wait, 10))
            yield pieces[-1]

        return StreamingResponse(body(), headers=headers)

    def _is_good(self, request: Request, token: str | None = None) -> bool:
        bearer = request.headers.get("authorization", "").removeprefix("Bearer ") if token is None else token
        try:
            return bool(self.sessions.verify(bearer))
        except Exception:  # noqa: BLE001  # whatever is wrong with it
            return False


def behind(running_app: tuple[RunningApp, Network]) -> Api:
    api = Api()
    running_app[0].app, api.network, api.url = api.app(), running_app[1], f"http://127.0.0.1:{running_app[1].port}"
    api.network.lose = api.network.lost = api.network.refreshes = 0
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


@contextmanager
def streaming(client: Client, url: str) -> Iterator[tuple[int, Callable[[], bytes]]]:
    """The status of an answer that has begun, and what reads its body, in the manner of each library."""
    match client:
        case AsyncHttpx():
            with client._portal.wrap_async_context_manager(client.client.stream("GET", url)) as response:
                yield response.status_code, lambda: client._portal.call(response.aread)
        case Httpx():
            with client.client.stream("GET", url) as response:
                yield response.status_code, response.read
        case Requests():
            with client.client.get(url, stream=True, timeout=20) as response:
                yield response.status_code, lambda: response.content
        case Aiohttp():
            with client._portal.wrap_async_context_manager(client.client.get(url)) as response:
                yield response.status, lambda: client._portal.call(response.read)
        case _:
            raise TypeError(client)


def begun(client: Client, url: str) -> Future[Any]:
    """A request of an async client in a task of its own, which is cancelled with the future."""
    assert isinstance(client, (AsyncHttpx, Aiohttp))
    http, portal = client.client, client._portal

    async def send() -> int:
        if isinstance(client, Aiohttp):
            async with http.get(url) as response:
                return int(response.status)
        return int((await http.get(url)).status_code)

    future: Future[Any] = portal.start_task_soon(send)
    return future


@functools.cache
def coded(code: int, size: int) -> bytes:
    """A JSON object with a code, of *size* bytes or a few more."""
    return json.dumps({"code": code, "numbers": "".join(map("{:08}".format, range(size // 8)))}).encode()


gzipped = functools.cache(gzip.compress)  # of the few bodies that ``coded`` makes


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
