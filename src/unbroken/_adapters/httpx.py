"""What httpx and httpx2 have in common, for their blocking and their async clients: it carries, it decides nothing.

``AuthFlow`` is the auth class of both. ``TransportFlow`` is the same one floor lower, where each hop of a redirect is
seen: for backends that want their token in a header of their own, which these libraries would hand on to whatever
origin a redirect leads to. (``Authorization`` they take off themselves.)

The flows differ in their awaits alone. What was read of an answer, to look for a challenge, is put back. To send a
request without a token: ``auth=None`` on the request, or, with a ``SessionTransport``,
``extensions={"unbroken.skip": True}``.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Generator, Mapping
from functools import cache
from typing import Any

from unbroken.client.core.body import BodyBuffer, ReplayedStream, Rewind, rewinder
from unbroken.client.core.request_flow import NOT_OUR_RESPONSE
from unbroken.client.core.schedule import ActiveTokens
from unbroken.client.session import Session
from unbroken.errors import ConfigurationError, NotReplayable

__all__ = ["AuthFlow", "TransportFlow", "why_not_replayed"]

SENT = "unbroken.sent"  # in a request's extensions: the header value that was put there by us
SKIP = "unbroken.skip"  # in a request's extensions, by the user: to be sent without a token
NOTHING_TO_REWIND = rewinder(b"")
WHY_NOT = "unbroken.error"  # in a response's extensions: why the request was not sent again


def why_not_replayed(response: Any) -> NotReplayable | None:
    """Why the challenged request that *response* answers was not sent again; None when nothing of the kind happened."""
    why: NotReplayable | None = response.extensions.get(WHY_NOT)
    return why


class AuthFlow:
    """What ``unbroken.httpx.SessionAuth`` and ``unbroken.httpx2.SessionAuth`` have in common."""

    _library: Any  # httpx or httpx2, which differ in nothing that is used here

    def __init__(self, session: Session, *, override_authorization: bool = False) -> None:
        if session.dialect.header.lower() != "authorization":
            raise ConfigurationError(
                f"SessionAuth cannot keep the header {session.dialect.header!r} from following a redirect to another "
                "origin: use SessionTransport(session) as the client's transport"
            )
        self._session, self._instead = session, override_authorization

    def __repr__(self) -> str:
        return f"<SessionAuth of {self._session!r}>"

    def sync_auth_flow(self, request: Any) -> Generator[Any, Any, None]:
        """The flow for ``Client``."""
        session = self._session
        if not _is_ours(request, session, self._instead):
            yield request
            return
        way = session._request_flow(_rewinder(request.stream), _endpoint, request)
        response: Any = None
        try:
            step = next(way)
            while True:
                if type(step) is ActiveTokens:
                    response = yield _signed(request, session, step)
                    answer: object = _status(response, session, step)
                    request = response.request  # behind a redirect, only the last hop is sent again
                else:
                    answer = session._perform(step, _Response(response, self._library))
                step = way.send(answer)
        except StopIteration:
            return

    async def async_auth_flow(self, request: Any) -> AsyncGenerator[Any, Any]:
        """The flow for ``AsyncClient``."""
        session = self._session
        if not _is_ours(request, session, self._instead):
            yield request
            return
        way = session._request_flow(_rewinder(request.stream), _endpoint, request)
        response: Any = None
        try:
            step = next(way)
            while True:
                if type(step) is ActiveTokens:
                    response = yield _signed(request, session, step)
                    answer: object = _status(response, session, step)
                    request = response.request  # behind a redirect, only the last hop is sent again
                else:
                    answer = await session._aperform(step, _AsyncResponse(response, self._library))
                step = way.send(answer)
        except StopIteration:
            return


class TransportFlow:
    """What ``unbroken.httpx.SessionTransport`` and ``unbroken.httpx2.SessionTransport`` have in common."""

    def __init__(self, session: Session, transport: Any = None) -> None:
        self._session, self._transport = session, transport
        self._making = threading.Lock()

    def __repr__(self) -> str:
        return f"<SessionTransport of {self._session!r}>"

    _library: Any  # httpx or httpx2, which differ in nothing that is used here

    def handle_request(self, request: Any) -> Any:
        """Sends one request, for ``Client``."""
        if self._transport is None:
            with self._making:  # one for all threads, and none that nobody closes
                self._transport = self._transport or self._library.HTTPTransport()
        session, send = self._session, self._transport.handle_request
        if not _is_ours(_unsigned(request, session), session):
            return send(request)
        way = session._request_flow(_rewinder(request.stream), _endpoint, request)
        response: Any = None
        try:
            step = next(way)
            while True:
                if type(step) is ActiveTokens:
                    response = send(_signed(request, session, step))
                    answer: object = response.status_code
                else:
                    answer = session._perform(step, _Response(response, self._library))
                step = way.send(answer)
        except StopIteration:
            return response

    async def handle_async_request(self, request: Any) -> Any:
        """Sends one request, for ``AsyncClient``."""
        if self._transport is None:
            self._transport = self._library.AsyncHTTPTransport()
        session, send = self._session, self._transport.handle_async_request
        if not _is_ours(_unsigned(request, session), session):
            return await send(request)
        way = session._request_flow(_rewinder(request.stream), _endpoint, request)
        response: Any = None
        try:
            step = next(way)
            while True:
                if type(step) is ActiveTokens:
                    response = await send(_signed(request, session, step))
                    answer: object = response.status_code
                else:
                    answer = await session._aperform(step, _AsyncResponse(response, self._library))
                step = way.send(answer)
        except StopIteration:
            return response

    def close(self) -> None:
        """Closes the connections."""
        if self._transport is not None:
            self._transport.close()

    async def aclose(self) -> None:
        """Closes the connections."""
        if self._transport is not None:
            await self._transport.aclose()


def _is_ours(request: Any, session: Session, instead: bool = False) -> bool:
    """Whether the request goes where our tokens may go, and carries no credentials that are to stay."""
    url = request.url
    if not session.allows_origin(url.scheme, url.host, url.port) or request.extensions.get(SKIP):
        return False
    if instead:
        return True
    header, headers = session.dialect.header, request.headers
    wanted = _raw(header)
    # by the raw names: to look one up by text makes the library find out how all of them are encoded, for 1 µs
    for name, _ in headers.raw:
        if name.lower() == wanted:
            return headers[header] == request.extensions.get(SENT)  # type: ignore[no-any-return]
    return True


@cache
def _raw(name: str) -> bytes:
    return name.lower().encode()


def _signed(request: Any, session: Session, live: ActiveTokens) -> Any:
    request.headers[session.dialect.header] = request.extensions[SENT] = live.header
    return request


def _unsigned(request: Any, session: Session) -> Any:
    """The request without the token that the hop before it carried."""
    ours = request.extensions.get(SENT)
    if ours is not None and request.headers.get(session.dialect.header) == ours:
        del request.headers[session.dialect.header]
    return request


def _status(response: Any, session: Session, sent: ActiveTokens) -> int:
    """The status of an answer to the token we sent; not that of one from behind a redirect that dropped it."""
    status: int = response.status_code
    if not session.dialect.may_challenge(status):
        return status
    got = response.request.headers.get(session.dialect.header)
    return status if got == sent.header else NOT_OUR_RESPONSE


class _Response:
    """A ``Received`` over an answer of ``Client``, or of a transport below it."""

    def __init__(self, response: Any, library: Any) -> None:
        self._response, self._library = response, library

    def headers(self) -> Mapping[str, str]:
        return {name.lower(): value for name, value in self._response.headers.items()}

    def read(self, most: int | None = None) -> Any:
        if self._response.is_stream_consumed:  # a hook of the user's own was here
            return _at_most(self._response.read(), most)
        stream, pieces = self._response.stream, BodyBuffer(most)
        rest = iter(stream)
        try:
            if not all(map(pieces.take, rest)):
                return self._put_back(pieces, rest)
        except self._library.RequestError as error:
            self._name_request(error)
            raise
        stream.close()
        return self._put_back(pieces)

    def note(self, why: NotReplayable) -> None:
        self._response.extensions[WHY_NOT] = why

    def _put_back(self, pieces: BodyBuffer, rest: Any = None) -> bytes | None:
        """Makes the answer as it was; its body, decoded, unless there is a *rest*."""
        again = _stream_class(self._library)
        self._response.stream = again(pieces.taken, rest, self._response.stream)
        if rest is not None:
            return None
        probe = self._library.Response(200, headers=self._response.headers, stream=again(pieces.taken))
        decoded = BodyBuffer(pieces.most)
        try:
            return b"".join(decoded.taken) if all(map(decoded.take, probe.iter_bytes())) else None
        except self._library.DecodingError:
            return None  # whoever wants to read it will be told

    def _name_request(self, error: Any) -> None:
        """*error* names its request, as the library's own do."""
        error.request = getattr(self._response, "_request", None)


class _AsyncResponse(_Response):
    """The same over an answer of ``AsyncClient``."""

    async def read(self, most: int | None = None) -> Any:
        if self._response.is_stream_consumed:
            return _at_most(await self._response.aread(), most)
        stream, pieces = self._response.stream, BodyBuffer(most)
        rest = aiter(stream)
        try:
            async for piece in rest:
                if not pieces.take(piece):
                    return self._put_back(pieces, rest)
        except self._library.RequestError as error:
            self._name_request(error)
            raise
        await stream.aclose()
        return self._put_back(pieces)


@cache
def _stream_class(library: Any) -> Any:
    """``Again`` as a stream of *library*."""
    return type("Again", (ReplayedStream, library.SyncByteStream, library.AsyncByteStream), {})


def _at_most(body: bytes, most: int | None) -> bytes | None:
    return body if most is None or len(body) <= most else None


def _endpoint(request: Any) -> tuple[object, ...]:
    url = request.url
    return (request.method, url.scheme, url.host, url.port, url.path)


def _rewinder(stream: Any) -> Rewind | None:
    """What makes the request's body ready to be sent again; None when it can be sent only once.

    Both libraries wrap what the user gave into a stream class of theirs; what is not recognised is sent only once.
    """
    match type(stream).__name__:
        case "ByteStream":
            return NOTHING_TO_REWIND
        case "IteratorByteStream" | "AsyncIteratorByteStream":
            return rewinder(getattr(stream, "_stream", iter(())))
        case "MultipartStream":
            files = [getattr(part, "file", b"") for part in getattr(stream, "fields", (object(),))]
            return None if any(rewinder(file) is None for file in files) else rewinder(b"")
        case _:
            return None
