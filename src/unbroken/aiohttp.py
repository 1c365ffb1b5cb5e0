"""``SessionMiddleware`` for aiohttp's client; it needs aiohttp 3.14 or newer.

http = aiohttp.ClientSession(middlewares=[SessionMiddleware(session)])

1. aiohttp asks its middlewares anew for each hop of a redirect, and carries none of their headers to the next one: so
   each hop is judged by its own origin.
2. A body is sent again where aiohttp can send it again: bytes, texts, forms, and files that can be wound back.
3. What was read of an answer, to look for a challenge, is put back: it can be streamed like any other.
4. ``middlewares=()`` sends one request without a token.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from aiohttp import ClientHandlerType, ClientRequest, ClientResponse, MultipartWriter, StreamReader, payload
from aiohttp.base_protocol import BaseProtocol

from unbroken.client.core.body import Rewind, rewinder
from unbroken.client.core.schedule import ActiveTokens
from unbroken.client.session import Session
from unbroken.errors import NotReplayable

__all__ = ["SessionMiddleware", "why_not_replayed"]

WHY_NOT = "unbroken_error"  # an attribute of a response: why the request was not sent again


def why_not_replayed(response: ClientResponse) -> NotReplayable | None:
    """Why the challenged request that *response* answers was not sent again; None when nothing of the kind happened."""
    why: NotReplayable | None = getattr(response, WHY_NOT, None)
    return why


class SessionMiddleware:
    """Sends each request with a good access token, and again when the server says it was not.

    Requests raise SessionOver when only a new login helps, TryLater when renewal does not work now. A challenged
    request whose body could be sent only once comes back as the server's own answer; ``why_not_replayed(response)``
    tells, and the session is renewed.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    def __repr__(self) -> str:
        return f"<SessionMiddleware of {self._session!r}>"

    async def __call__(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        """Called by aiohttp for each request, and for each hop of a redirect."""
        session, header = self._session, self._session.dialect.header
        url = request.url
        if header in request.headers or not session.allows_origin(url.scheme, url.host or "", url.port):
            return await handler(request)
        way = session._request_flow(_rewinder(request.body), _endpoint, request)
        response: Any = None
        try:
            step = next(way)
            while True:
                if type(step) is ActiveTokens:
                    await request.close()  # whatever is still being sent of the first try
                    request.headers[header] = step.header
                    response = await handler(request)
                    answer: object = response.status
                else:
                    answer = await session._aperform(step, _Response(response))
                step = way.send(answer)
        except StopIteration:
            pass
        return response  # type: ignore[no-any-return]  # a passage sends at least once


def _endpoint(request: ClientRequest) -> tuple[object, ...]:
    url = request.url
    return (request.method, url.scheme, url.host, url.port, url.path)


def _rewinder(body: Any) -> Rewind | None:
    """What makes *body* ready to be sent again; None when it can be sent only once.

    aiohttp winds files back itself, to where they stood; here is only asked whether it will be able to.
    """
    if not body:
        return rewinder(None)
    if isinstance(body, MultipartWriter):
        return rewinder(None if all(_rewinder(part) for part, _, _ in body) else iter(()))
    if isinstance(body, (payload.BytesPayload, payload.StringPayload)):
        return rewinder(None)
    if isinstance(body, payload.IOBasePayload):
        return _nothing if rewinder(body._value) else None
    return None


def _nothing() -> None:
    """Nothing is left to do."""


def _stream_of(body: bytes) -> StreamReader:
    """*body* as aiohttp gives it to whoever streams an answer."""
    loop = asyncio.get_running_loop()
    stream = StreamReader(BaseProtocol(loop), limit=max(len(body), 1 << 16), loop=loop)
    stream.feed_data(body)
    stream.feed_eof()
    return stream


class _ReplayedStream(StreamReader):
    """A body as it came: what was *taken* of it, and then the *rest*."""

    __slots__ = ("_rest",)

    def __init__(self, taken: bytes, rest: StreamReader) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(BaseProtocol(loop), limit=max(len(taken), 1 << 16), loop=loop)
        self._rest = rest
        self.feed_data(taken)

    async def _wait(self, func_name: str) -> None:  # noqa: ARG002  # the base's names; all its reading waits here
        if piece := await self._rest.readany():
            self.feed_data(piece)
        else:
            self.feed_eof()


class _Response:
    """A ``Received`` over an answer of aiohttp."""

    def __init__(self, response: ClientResponse) -> None:
        self._response = response

    def headers(self) -> Mapping[str, str]:
        headers = self._response.headers  # several challenges may come in several lines
        return {name.lower(): ", ".join(headers.getall(name)) for name in headers}

    async def read(self, most: int | None = None) -> bytes | None:
        if most is not None and not await self._fits(most):
            return None
        body = await self._response.read()
        self._response.content = _stream_of(body)
        return body

    async def _fits(self, most: int) -> bool:
        """Whether the body is not longer than *most* bytes; it can still be read from its beginning."""
        content, taken = self._response.content, bytearray()
        try:
            while piece := await content.readany():
                taken += piece
                if len(taken) > most:
                    self._response.content = _ReplayedStream(bytes(taken), content)
                    return False
        except BaseException:
            self._response.close()
            raise
        self._response.content = _stream_of(bytes(taken))
        return True

    def note(self, why: NotReplayable) -> None:
        setattr(self._response, WHY_NOT, why)
