"""HTTP libraries by one small protocol, so that each test runs with all of them.

1. ``request`` blocks and may be called from many threads at once; an async library runs in one event loop behind it.
2. Redirects are followed. What the library raises when the network fails arrives as it is: it is a ``broken``.
3. A body is spelled the way each library wants it: bytes, a file or a one-shot iterator as ``content``, ``json``,
   ``form`` and ``files``.
"""

from __future__ import annotations

import json as json_module
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any, Protocol

import aiohttp
import httpx
import httpx2
import requests
from anyio.from_thread import start_blocking_portal

import unbroken.aiohttp
import unbroken.httpx
import unbroken.httpx2
import unbroken.requests
from unbroken import NotReplayable, Session

PATIENCE = 20.0  # seconds; more than any test needs


@dataclass(frozen=True)
class Answer:
    """An answer that was read to its end. ``json`` is None when the body is none."""

    status: int
    json: Any
    body: bytes
    why_not_replayed: NotReplayable | None = None


class Client(Protocol):
    """A client of one HTTP library that shares a session. ``skip``: this request goes without its token."""

    broken: type[Exception]

    def request(
        self,
        method: str,
        url: str,
        *,
        content: Any = None,
        json: Any = None,
        form: Mapping[str, str] | None = None,
        files: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        skip: bool = False,
    ) -> Answer: ...

    def lines(self, url: str) -> tuple[int, list[str]]:
        """The status of a streamed answer, and its lines, taken one by one while the answer still comes in."""
        ...


def answer(status: int, body: bytes, why: NotReplayable | None) -> Answer:
    try:
        return Answer(status, json_module.loads(body), body, why)
    except ValueError:
        return Answer(status, None, body, why)


class Httpx:
    """The blocking client of httpx or httpx2. A header of the backend's own is the transport's affair."""

    def __init__(self, library: ModuleType, ours: ModuleType, session: Session) -> None:
        self.library, self.ours, self.broken = library, ours, library.TransportError
        self._about: dict[str, Any] = {"follow_redirects": True, "timeout": PATIENCE}
        if session.dialect.header == "Authorization":
            self._about["auth"] = ours.SessionAuth(session)
        else:
            self._about["transport"] = ours.SessionTransport(session)
        self.client = self.connect()

    def connect(self) -> Any:
        return self.library.Client(**self._about)

    def close(self) -> None:
        self.client.close()

    def request(self, method: str, url: str, **about: Any) -> Answer:
        response = self.client.request(method, url, **self.spelled(**about))
        return answer(response.status_code, response.content, self.ours.why_not_replayed(response))

    def lines(self, url: str) -> tuple[int, list[str]]:
        with self.client.stream("GET", url) as response:
            assert not response.is_stream_consumed, "a streamed answer was read before its time"
            return response.status_code, list(response.iter_lines())

    def spelled(self, *, form: Any = None, skip: bool = False, **about: Any) -> dict[str, Any]:
        about |= {"data": form} if form is not None else {}
        if skip and "transport" in self._about:
            return about | {"extensions": {"unbroken.skip": True}}
        return about | {"auth": None} if skip else about


class AsyncHttpx(Httpx):
    """The async client of httpx or httpx2, in the event loop of *portal*."""

    def __init__(self, library: ModuleType, ours: ModuleType, session: Session, portal: Any) -> None:
        super().__init__(library, ours, session)
        self._portal = portal

    def connect(self) -> Any:
        return self.library.AsyncClient(**self._about)

    def close(self) -> None:
        self._portal.call(self.client.aclose)

    def request(self, method: str, url: str, **about: Any) -> Answer:
        about = self.spelled(**about) | ({"content": in_async(about["content"])} if "content" in about else {})
        response = self._portal.call(partial(self.client.request, method, url, **about))
        return answer(response.status_code, response.content, self.ours.why_not_replayed(response))

    def lines(self, url: str) -> tuple[int, list[str]]:
        async def read() -> tuple[int, list[str]]:
            async with self.client.stream("GET", url) as response:
                assert not response.is_stream_consumed, "a streamed answer was read before its time"
                return response.status_code, [line async for line in response.aiter_lines()]

        return self._portal.call(read)  # type: ignore[no-any-return]


class Requests:
    """requests; threads share one ``requests.Session``."""

    broken = requests.RequestException

    def __init__(self, session: Session) -> None:
        self.client = requests.Session()
        self.client.trust_env = False
        self.client.auth = unbroken.requests.SessionAuth(session)
        adapter = requests.adapters.HTTPAdapter(pool_connections=4, pool_maxsize=100)
        self.client.mount("http://", adapter)

    def close(self) -> None:
        self.client.close()

    def request(
        self, method: str, url: str, *, content: Any = None, form: Any = None, skip: bool = False, **about: Any
    ) -> Answer:
        about |= {"data": form if form is not None else content, "timeout": PATIENCE}
        if skip:
            about["auth"] = unbroken.requests.no_auth
        response = self.client.request(method, url, **about)
        return answer(response.status_code, response.content, unbroken.requests.why_not_replayed(response))

    def lines(self, url: str) -> tuple[int, list[str]]:
        with self.client.get(url, stream=True, timeout=PATIENCE) as response:
            assert not vars(response)["_content_consumed"], "a streamed answer was read before its time"
            return response.status_code, [line.decode() for line in response.iter_lines()]


class Aiohttp:
    """aiohttp's client, in the event loop of *portal*."""

    broken = aiohttp.ClientError

    def __init__(self, session: Session, portal: Any) -> None:
        self._portal, self._session = portal, session
        self.client: aiohttp.ClientSession = portal.call(self._connect)

    async def _connect(self) -> aiohttp.ClientSession:
        middleware = unbroken.aiohttp.SessionMiddleware(self._session)
        return aiohttp.ClientSession(middlewares=[middleware], timeout=aiohttp.ClientTimeout(PATIENCE))

    def close(self) -> None:
        self._portal.call(self.client.close)

    def request(self, method: str, url: str, **about: Any) -> Answer:
        async def send() -> Answer:
            async with self.client.request(method, url, **self._spelled(**about)) as response:
                why = unbroken.aiohttp.why_not_replayed(response)
                return answer(response.status, await response.read(), why)

        return self._portal.call(send)  # type: ignore[no-any-return]

    def lines(self, url: str) -> tuple[int, list[str]]:
        async def read() -> tuple[int, list[str]]:
            async with self.client.get(url) as response:
                assert response._body is None, "a streamed answer was read before its time"
                return response.status, [line.decode().rstrip() async for line in response.content]

        return self._portal.call(read)  # type: ignore[no-any-return]

    def _spelled(
        self, *, content: Any = None, form: Any = None, files: Any = None, skip: bool = False, **about: Any
    ) -> dict[str, Any]:
        if files is not None:
            form = aiohttp.FormData()
            for name, (filename, file) in files.items():
                form.add_field(name, file, filename=filename)
        data = form if form is not None else in_async(content)
        return about | ({} if data is None else {"data": data}) | ({"middlewares": ()} if skip else {})


def in_async(content: Any) -> Any:
    """*content*, with a one-shot iterator as an async one."""
    if not hasattr(content, "__next__") or hasattr(content, "read"):
        return content

    async def chunks() -> AsyncIterator[bytes]:
        for chunk in content:
            yield chunk

    return chunks()


@contextmanager
def _blocking(make: Callable[[Session], Any], session: Session) -> Iterator[Client]:
    made = make(session)
    try:
        yield made
    finally:
        made.close()


@contextmanager
def _in_loop(make: Callable[[Session, Any], Any], session: Session, backend: str = "asyncio") -> Iterator[Client]:
    with start_blocking_portal(backend) as portal:
        made = make(session, portal)
        try:
            yield made
        finally:
            made.close()


Connect = Callable[[Session], AbstractContextManager[Client]]
ADAPTERS: dict[str, Connect] = {
    "httpx2": partial(_blocking, partial(Httpx, httpx2, unbroken.httpx2)),
    "httpx2-async": partial(_in_loop, partial(AsyncHttpx, httpx2, unbroken.httpx2)),
    "requests": partial(_blocking, Requests),
    "aiohttp": partial(_in_loop, Aiohttp),
}
MORE_ADAPTERS: dict[str, Connect] = ADAPTERS | {
    "httpx2-trio": partial(_in_loop, partial(AsyncHttpx, httpx2, unbroken.httpx2), backend="trio"),
    "httpx": partial(_blocking, partial(Httpx, httpx, unbroken.httpx)),
    "httpx-async": partial(_in_loop, partial(AsyncHttpx, httpx, unbroken.httpx)),
}
