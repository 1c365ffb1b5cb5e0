"""What httpx and httpx2 share, for their sync and their async clients: it carries requests, and decides nothing.

1. ``AuthFlow`` is the auth class of both. ``TransportFlow`` works one floor lower, where each hop of a redirect is
   seen: for backends with a token header of their own, which these libraries would pass on to any origin that a
   redirect leads to. They remove ``Authorization`` themselves.
2. A header that the user has set stays, and the request gets no token.
3. Behind a redirect only the last hop is sent again, and only if it carried our token.
4. What was read of a response, to look for a challenge, is put back. A challenge is read to a bound (body.py).
5. ``auth=None`` on a request sends it without a token; with a ``SessionTransport``:
   ``extensions={"unbroken.skip": True}``.
6. Tokens that are bound to a key go out with a proof, signed for each try. ``AuthFlow`` does not see the hops of a
   redirect: the proof is taken from the request once it was sent, so that it follows to no other place, and a hop that
   is refused for want of one is sent again with its own.
7. A forked child drops the transport that ``TransportFlow`` has made, with the parent's connections. Those of a
   transport or a client of the user's are the user's affair.
"""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncGenerator, Generator, Mapping
from functools import cache
from typing import Any

from unbroken._arguments import checked_class
from unbroken._concurrency import register_fork_aware
from unbroken.client.core.body import CODING_HEADERS, BodyBuffer, ReplayedStream, Rewind, rewinder
from unbroken.client.core.content_coding import DecodedBody, decode_body
from unbroken.client.core.proof import PROOF_HEADER
from unbroken.client.core.request_flow import NOT_OUR_RESPONSE, SendWith, adrive, aperform, drive, is_final, perform
from unbroken.client.core.schedule import ActiveTokens
from unbroken.client.session import Session, require_session
from unbroken.errors import ConfigurationError, NotReplayable

__all__ = ["AuthFlow", "TransportFlow", "why_not_replayed"]

# Keys of a request's extensions: the header value that we have set; the user's wish for no token; the id
# of the request that was proven, which a redirect passes on to its hops.
SENT, SKIP, PROVEN = "unbroken.sent", "unbroken.skip", "unbroken.proven"
SENT_EVENT = "receive_response_headers.complete"  # of the extension "trace": by then the request was sent
ERROR = "unbroken.error"  # key of a response's extensions: why the request was not sent again
NOTHING_TO_REWIND = rewinder(b"")


def why_not_replayed(response: Any) -> NotReplayable | None:
    """Return why the challenged request of *response* was not sent again; None if it was, or was not challenged."""
    error: NotReplayable | None = response.extensions.get(ERROR)
    return error


@checked_class(own=("session",))
class AuthFlow:
    """What ``unbroken.httpx.SessionAuth`` and ``unbroken.httpx2.SessionAuth`` share."""

    _library: Any  # httpx or httpx2, which differ in nothing that is used here

    def __init__(self, session: Session, *, override_authorization: bool = False) -> None:
        require_session(session, "SessionAuth")
        if session.dialect.header.lower() != "authorization":  # rule 1
            raise ConfigurationError(
                f"SessionAuth cannot keep the header {session.dialect.header!r} from following a redirect to another "
                "origin: use SessionTransport(session) as the client's transport"
            )
        self._session, self._override = session, override_authorization
        self._raw_header = _raw_header(session)

    def __repr__(self) -> str:
        return f"<SessionAuth of {self._session!r}>"

    # After the first response, the two flows below are the loop of ``drive``, written out: the client sends what they
    # yield.

    def sync_auth_flow(self, request: Any) -> Generator[Any, Any, None]:
        """Run the flow of one request, for ``Client``."""
        session = self._session
        if not _gets_token(request, session, self._raw_header, self._override):
            yield request
            return
        rewind = _rewinder(request.stream)
        sent = session._authorize(fresh=rewind is None)
        if sent.ath:
            _prove(request, session, sent)
            _forget_once_sent(request)  # rule 6
        response = yield _attach(request, session, sent)
        if is_final(session.dialect, sent, response.status_code):
            return
        flow = session._request_flow(sent, _status(response, session, sent), rewind, _endpoint, request)
        result: object = None
        try:
            while True:
                effect = flow.send(result)
                if type(effect) is SendWith:
                    request = response.request  # rule 3
                    if effect.tokens.ath:
                        _prove(request, session, effect.tokens)
                        _forget_once_sent(request)  # rule 6
                    response = yield _attach(request, session, effect.tokens)
                    result = _status(response, session, effect.tokens)
                else:
                    result = perform(session, effect, _Response(response, self._library))
        except StopIteration:
            return

    async def async_auth_flow(self, request: Any) -> AsyncGenerator[Any, Any]:
        """Run the flow of one request, for ``AsyncClient``."""
        session = self._session
        if not _gets_token(request, session, self._raw_header, self._override):
            yield request
            return
        rewind = _rewinder(request.stream)
        sent = await session._aauthorize(fresh=rewind is None)
        if sent.ath:
            _prove(request, session, sent)
            _aforget_once_sent(request)  # rule 6
        response = yield _attach(request, session, sent)
        if is_final(session.dialect, sent, response.status_code):
            return
        flow = session._request_flow(sent, _status(response, session, sent), rewind, _endpoint, request)
        result: object = None
        try:
            while True:
                effect = flow.send(result)
                if type(effect) is SendWith:
                    request = response.request  # rule 3
                    if effect.tokens.ath:
                        _prove(request, session, effect.tokens)
                        _aforget_once_sent(request)  # rule 6
                    response = yield _attach(request, session, effect.tokens)
                    result = _status(response, session, effect.tokens)
                else:
                    result = await aperform(session, effect, _AsyncResponse(response, self._library))
        except StopIteration:
            return


class TransportFlow:
    """What ``unbroken.httpx.SessionTransport`` and ``unbroken.httpx2.SessionTransport`` share."""

    _library: Any  # httpx or httpx2, which differ in nothing that is used here

    def __init__(self, session: Session, transport: Any = None) -> None:
        require_session(session, "SessionTransport")
        self._session, self._transport, self._raw_header = session, transport, _raw_header(session)
        self._creation = threading.Lock()  # guards the creation of the library's own transport
        self._is_own = transport is None
        register_fork_aware(self)

    def reset_after_fork(self) -> None:
        """Start without connections (rule 6)."""
        self._creation = threading.Lock()
        if self._is_own:
            self._transport = None

    def __repr__(self) -> str:
        return f"<SessionTransport of {self._session!r}>"

    def handle_request(self, request: Any) -> Any:
        """Send one request, for ``Client``."""
        if self._transport is None:
            with self._creation:
                self._transport = self._transport or self._library.HTTPTransport()
        session, transport = self._session, self._transport
        if not _gets_token(_detach(request, session), session, self._raw_header):
            return transport.handle_request(request)

        def send(tokens: ActiveTokens) -> _Response:
            if tokens.ath:
                _prove(request, session, tokens)
            return _Response(transport.handle_request(_attach(request, session, tokens)), self._library, request)

        rewind = _rewinder(request.stream)
        sent = session._authorize(fresh=rewind is None)
        first = send(sent)
        if is_final(session.dialect, sent, first.status):
            return first.response
        flow = session._request_flow(sent, first.status, rewind, _endpoint, request)
        return drive(session, flow, send, first).response

    async def handle_async_request(self, request: Any) -> Any:
        """Send one request, for ``AsyncClient``."""
        if self._transport is None:
            self._transport = self._library.AsyncHTTPTransport()
        session, transport = self._session, self._transport
        if not _gets_token(_detach(request, session), session, self._raw_header):
            return await transport.handle_async_request(request)

        async def send(tokens: ActiveTokens) -> _AsyncResponse:
            if tokens.ath:
                _prove(request, session, tokens)
            response = await transport.handle_async_request(_attach(request, session, tokens))
            return _AsyncResponse(response, self._library, request)

        rewind = _rewinder(request.stream)
        sent = await session._aauthorize(fresh=rewind is None)
        first = await send(sent)
        if is_final(session.dialect, sent, first.status):
            return first.response
        flow = session._request_flow(sent, first.status, rewind, _endpoint, request)
        return (await adrive(session, flow, send, first)).response

    def close(self) -> None:
        """Close the connections."""
        if self._transport is not None:
            self._transport.close()

    async def aclose(self) -> None:
        """Close the connections."""
        if self._transport is not None:
            await self._transport.aclose()


# ---- the request -----------------------------------------------------------------------------------------------------


def _gets_token(request: Any, session: Session, raw_header: bytes, override: bool = False) -> bool:
    """Return whether the request goes to an origin of the session, and carries no credentials that are to stay.

    *raw_header* is the header of the dialect in lower case.
    """
    url = request.url
    if not session._attaches_to(url.scheme, url.host, url.port) or request.extensions.get(SKIP):  # rule 5
        return False
    if override:
        return True
    headers, length = request.headers, len(raw_header)
    # By raw names: a lookup by text makes the library find out the encoding of all headers, for 1 µs.
    for name, _ in headers.raw:
        if len(name) == length and name.lower() == raw_header:
            return headers[session.dialect.header] == request.extensions.get(SENT)  # type: ignore[no-any-return]  # rule 2
    return True


def _raw_header(session: Session) -> bytes:
    return session.dialect.header.lower().encode()


def _attach(request: Any, session: Session, tokens: ActiveTokens) -> Any:
    request.headers[session.dialect.header] = request.extensions[SENT] = tokens.header
    return request


def _detach(request: Any, session: Session) -> Any:
    """Remove the token that the hop before this one carried, and its proof."""
    sent = request.extensions.get(SENT)
    if sent is not None and request.headers.get(session.dialect.header) == sent:
        del request.headers[session.dialect.header]
    if PROVEN in request.extensions:
        request.headers.pop(PROOF_HEADER, None)
    return request


def _prove(request: Any, session: Session, tokens: ActiveTokens) -> None:
    """Attach a new proof for one try (rule 6)."""
    request.headers[PROOF_HEADER] = session._proof(tokens, request.method, _htu(request))
    request.extensions[PROVEN] = id(request)


def _htu(request: Any) -> str:
    """Return the URL of *request* as its proof names it."""
    url = request.url
    path = url.raw_path.partition(b"?")[0].decode("ascii")
    return f"{url.scheme}://{url.netloc.decode('ascii')}{path or '/'}"


def _forget_once_sent(request: Any) -> None:
    """Take the proof from *request* when it was sent: a redirect copies its headers."""
    told = request.extensions.get("trace")

    def trace(name: str, info: Any) -> Any:
        if name.endswith(SENT_EVENT):
            request.headers.pop(PROOF_HEADER, None)
        return told(name, info) if told else None

    request.extensions = {**request.extensions, "trace": trace}


def _aforget_once_sent(request: Any) -> None:
    """The same for ``AsyncClient``, whose trace is an async function."""
    told = request.extensions.get("trace")

    async def trace(name: str, info: Any) -> Any:
        if name.endswith(SENT_EVENT):
            request.headers.pop(PROOF_HEADER, None)
        return await told(name, info) if told else None

    request.extensions = {**request.extensions, "trace": trace}


def _endpoint(request: Any) -> tuple[object, ...]:
    url = request.url
    return (request.method, url.scheme, url.host, url.port, url.path)


def _rewinder(stream: Any) -> Rewind | None:
    """Return what makes the request's body ready to be sent again; None if it can be sent only once.

    Both libraries wrap what the user gave into a stream class of theirs; an unknown class is sent only once.
    """
    match type(stream).__name__:
        case "ByteStream":
            return NOTHING_TO_REWIND
        case "IteratorByteStream" | "AsyncIteratorByteStream":
            return rewinder(getattr(stream, "_stream", iter(())))
        case "MultipartStream":
            files = [getattr(part, "file", b"") for part in getattr(stream, "fields", (object(),))]
            return None if any(rewinder(file) is None for file in files) else NOTHING_TO_REWIND
        case _:
            return None


# ---- the response ----------------------------------------------------------------------------------------------------


def _status(response: Any, session: Session, sent: ActiveTokens) -> int:
    """Return the status of a response to our token; NOT_OUR_RESPONSE behind a redirect that dropped it (rule 3)."""
    status: int = response.status_code
    if not session.dialect.may_challenge(status):
        return status
    received = response.request.headers.get(session.dialect.header)
    return status if received == sent.header else NOT_OUR_RESPONSE


class _Response:
    """The ``ResponsePort`` of a response of ``Client``, or of a transport below it."""

    def __init__(self, response: Any, library: Any, request: Any = None) -> None:
        self.response, self._library, self._request = response, library, request

    @property
    def status(self) -> int:
        status: int = self.response.status_code
        return status

    def headers(self) -> Mapping[str, str]:
        return {name.lower(): value for name, value in self.response.headers.items()}

    def proof_target(self) -> tuple[str, bool]:
        request = self._request or self.response.request  # below the client a response has none yet
        return _htu(request), request.extensions.get(PROVEN) == id(request)

    def read(self, max_bytes: int) -> Any:
        if self.response.is_stream_consumed:  # a hook of the user's has read it
            return _within(self.response.read(), max_bytes)
        buffer, rest = self._collect(max_bytes)
        return self._put_back(buffer, rest)

    def cut(self, max_bytes: int) -> Any:
        if self.response.is_stream_consumed:
            return
        stream = self.response.stream
        buffer, rest = self._collect(max_bytes)
        if rest is not None:
            stream.close()
        self._put_back_beginning(buffer, is_whole=rest is None)

    def mark(self, error: NotReplayable) -> None:
        self.response.extensions[ERROR] = error

    def _collect(self, max_bytes: int) -> tuple[BodyBuffer, Any]:
        """Return the beginning of the body as it came, and its rest; None, and a free connection, if it has none."""
        stream, buffer = self.response.stream, BodyBuffer(max_bytes, time.monotonic)
        rest = iter(stream)
        try:
            if not all(map(buffer.add, rest)):
                return buffer, rest
        except self._library.RequestError as error:
            self._name_request(error)
            raise
        stream.close()
        return buffer, None

    def _put_back(self, buffer: BodyBuffer, rest: Any) -> bytes | None:
        """Restore the response (rule 4). Return its body, decoded; None if there is a *rest*."""
        self.response.stream = _stream_class(self._library)(buffer.pieces, rest, self.response.stream)
        if rest is not None:
            return None
        decoded = self._decoded(buffer)
        return decoded.data if decoded.is_whole else None  # the caller gets the error when it reads the body

    def _put_back_beginning(self, buffer: BodyBuffer, *, is_whole: bool) -> None:
        """Restore the response, or its beginning: the client reads and decodes all of it, before it sends again."""
        decoded, pieces = self._decoded(buffer), buffer.pieces
        if not (is_whole and decoded.is_whole):
            pieces = [decoded.data]
            for name in CODING_HEADERS:
                self.response.headers.pop(name, None)
        self.response.stream = _stream_class(self._library)(pieces, None, self.response.stream)

    def _decoded(self, buffer: BodyBuffer) -> DecodedBody:
        coding = self.response.headers.get("content-encoding", "")
        return decode_body(b"".join(buffer.pieces), coding, buffer.max_bytes)

    def _name_request(self, error: Any) -> None:
        """Set the request of *error*, as the library does for its own errors."""
        error.request = getattr(self.response, "_request", None)


class _AsyncResponse(_Response):
    """The same for ``AsyncClient``."""

    async def read(self, max_bytes: int) -> Any:
        if self.response.is_stream_consumed:
            return _within(await self.response.aread(), max_bytes)
        buffer, rest = await self._acollect(max_bytes)
        return self._put_back(buffer, rest)

    async def cut(self, max_bytes: int) -> Any:
        if self.response.is_stream_consumed:
            return
        stream = self.response.stream
        buffer, rest = await self._acollect(max_bytes)
        if rest is not None:
            await _close(rest, stream)
        self._put_back_beginning(buffer, is_whole=rest is None)

    async def _acollect(self, max_bytes: int) -> tuple[BodyBuffer, Any]:
        """Return what ``_collect`` returns, without blocking."""
        stream, buffer = self.response.stream, BodyBuffer(max_bytes, time.monotonic)
        rest = aiter(stream)
        try:
            async for piece in rest:
                if not buffer.add(piece):
                    return buffer, rest
        except self._library.RequestError as error:
            self._name_request(error)
            raise
        await stream.aclose()
        return buffer, None


async def _close(rest: Any, stream: Any) -> None:
    """Close *stream*, and its iterator first, which an async generator does not do by itself."""
    if hasattr(rest, "aclose"):
        await rest.aclose()
    await stream.aclose()


@cache
def _stream_class(library: Any) -> Any:
    """Return ``ReplayedStream`` as a stream class of *library*, which checks the types of its streams."""
    return type("ReplayedStream", (ReplayedStream, library.SyncByteStream, library.AsyncByteStream), {})


def _within(body: bytes, max_bytes: int) -> bytes | None:
    return body if len(body) <= max_bytes else None
