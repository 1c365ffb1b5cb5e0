"""``SessionMiddleware`` for aiohttp's client; it needs aiohttp 3.14 or newer.

http = aiohttp.ClientSession(middlewares=[SessionMiddleware(session)])

1. aiohttp calls its middlewares for each hop of a redirect, and carries none of their headers to the next: each hop is
   judged by its own origin.
2. A body is sent again where aiohttp can send it again: bytes, text, forms, and files that can be wound back.
3. What was read of a response, to look for a challenge, is put back: it can be streamed like any other. A challenge is
   read to a bound (client/core/body.py); aiohttp decodes no more of it than is read.
4. ``middlewares=()`` sends one request without a token.
5. Tokens that are bound to a key go out with a proof, signed for each try and for each hop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

try:
    from aiohttp import ClientHandlerType, ClientRequest, ClientResponse, MultipartWriter, StreamReader, payload
except ImportError as error:
    raise ImportError("unbroken.aiohttp needs aiohttp 3.14 or newer: pip install 'unbroken[aiohttp]'") from error

from aiohttp.base_protocol import BaseProtocol

from unbroken.client.core.body import BodyBuffer, Rewind, rewinder
from unbroken.client.core.proof import PROOF_HEADER, htu_of
from unbroken.client.core.request_flow import adrive, is_final
from unbroken.client.core.schedule import ActiveTokens
from unbroken.client.session import Session, require_session
from unbroken.errors import NotReplayable

__all__ = ["SessionMiddleware", "why_not_replayed"]

ERROR = "unbroken_error"  # attribute of a response: why the request was not sent again
MIN_STREAM_LIMIT_BYTES = 1 << 16  # aiohttp's own


def why_not_replayed(response: ClientResponse) -> NotReplayable | None:
    """Return why the challenged request of *response* was not sent again; None if it was, or was not challenged."""
    error: NotReplayable | None = getattr(response, ERROR, None)
    return error


class SessionMiddleware:
    """Attaches a good access token to each request, and sends a challenged request again with a newer one.

    A request raises SessionOver if only a new login helps, TryLater if a refresh does not work now. A challenged
    request whose body could be sent only once returns the response of the server, and ``why_not_replayed(response)``
    says why; the session is refreshed.
    """

    def __init__(self, session: Session) -> None:
        require_session(session, "SessionMiddleware")
        self._session = session

    def __repr__(self) -> str:
        return f"<SessionMiddleware of {self._session!r}>"

    async def __call__(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        """Send one request. Called by aiohttp, also for each hop of a redirect (rule 1)."""
        session, header, url = self._session, self._session.dialect.header, request.url
        if header in request.headers or not session._attaches_to(url.scheme, url.host or "", url.port):
            return await handler(request)

        async def send(tokens: ActiveTokens) -> _Response:
            await request.close()  # the first try may still be sending its body
            request.headers[header] = tokens.header
            if tokens.ath:
                request.headers[PROOF_HEADER] = session._proof(tokens, request.method, _htu(request))
            return _Response(await handler(request))

        rewind = _rewinder(request.body)
        sent = await session._aauthorize(fresh=rewind is None)
        first = await send(sent)
        if is_final(session.dialect, sent, first.status):
            return first.response
        flow = session._request_flow(sent, first.status, rewind, _endpoint, request)
        return (await adrive(session, flow, send, first)).response


def _htu(request: ClientRequest | ClientResponse) -> str:
    """Return the URL of *request*, or that of a response, as its proof names it."""
    url = request.url
    return htu_of(f"{url.scheme}://{url.raw_authority}{url.raw_path}")


def _endpoint(request: ClientRequest) -> tuple[object, ...]:
    url = request.url
    return (request.method, url.scheme, url.host, url.port, url.path)


def _rewinder(body: Any) -> Rewind | None:
    """Return what makes *body* ready to be sent again; None if it can be sent only once.

    aiohttp winds files back itself, to where they stood; this checks that it can.
    """
    if not body:
        return rewinder(None)
    if isinstance(body, MultipartWriter):
        return rewinder(None if all(_rewinder(part) for part, _, _ in body) else iter(()))
    if isinstance(body, (payload.BytesPayload, payload.StringPayload)):
        return rewinder(None)
    if isinstance(body, payload.IOBasePayload):
        return rewinder(None) if rewinder(body._value) else None  # rule 2
    return None


class _Response:
    """The ``ResponsePort`` of a response of aiohttp."""

    def __init__(self, response: ClientResponse) -> None:
        self.response = response

    @property
    def status(self) -> int:
        return self.response.status

    def headers(self) -> Mapping[str, str]:
        headers = self.response.headers  # several challenges may come in several lines
        return {name.lower(): ", ".join(headers.getall(name)) for name in headers}

    def proof_target(self) -> tuple[str, bool]:
        return _htu(self.response), True

    async def read(self, max_bytes: int) -> bytes | None:
        content = self.response.content
        buffer, is_whole = await self._collect(max_bytes)
        taken = b"".join(buffer.pieces)
        if not is_whole:
            self.response.content = _ReplayedStream(taken, content)  # rule 3
            return None
        self.response.content = _stream_of(taken)
        body = await self.response.read()
        self.response.content = _stream_of(body)
        return body

    async def cut(self, max_bytes: int) -> None:
        buffer, is_whole = await self._collect(max_bytes)
        if not is_whole:
            self.response.close()
        self.response.content = _stream_of(b"".join(buffer.pieces)[:max_bytes])

    def mark(self, error: NotReplayable) -> None:
        setattr(self.response, ERROR, error)

    async def _collect(self, max_bytes: int) -> tuple[BodyBuffer, bool]:
        """Return the beginning of the body, decoded, and whether it is the whole."""
        content, buffer = self.response.content, BodyBuffer(max_bytes, time.monotonic)
        try:
            while piece := await content.readany():
                if not buffer.add(piece):
                    return buffer, False
        except BaseException:
            self.response.close()
            raise
        return buffer, True


def _stream_of(body: bytes) -> StreamReader:
    """Return *body* as the stream that aiohttp gives to a caller."""
    loop = asyncio.get_running_loop()
    stream = StreamReader(BaseProtocol(loop), limit=max(len(body), MIN_STREAM_LIMIT_BYTES), loop=loop)
    stream.feed_data(body)
    stream.feed_eof()
    return stream


class _ReplayedStream(StreamReader):
    """A body as it came: the *taken* part, then the *rest*."""

    __slots__ = ("_rest",)

    def __init__(self, taken: bytes, rest: StreamReader) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(BaseProtocol(loop), limit=max(len(taken), MIN_STREAM_LIMIT_BYTES), loop=loop)
        self._rest = rest
        self.feed_data(taken)

    async def _wait(self, func_name: str) -> None:  # noqa: ARG002  # the base's names; all its reading waits here
        if piece := await self._rest.readany():
            self.feed_data(piece)
        else:
            self.feed_eof()
