"""``SessionAuth`` for requests; threads may share it.

http = requests.Session()
http.auth = SessionAuth(session)

1. The token is attached when requests prepares a request; a response hook sees its response before redirects are
   followed.
2. A token never follows a redirect to another origin: requests removes ``Authorization`` itself. A token header of the
   backend's own is removed here, at every redirect, and set again when one of our origins challenges the hop.
3. What was read of a response, to look for a challenge, is put back: it can be streamed like any other. A challenge is
   read to a bound (client/core/body.py).
4. ``auth=no_auth`` sends one request without a token.
5. Tokens that are bound to a key go out with a proof, signed for each try. It follows no redirect: a hop that is
   refused for want of one is sent again with its own.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from datetime import timedelta
from io import BytesIO, RawIOBase
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

try:
    from requests import PreparedRequest, Response
except ImportError as error:
    raise ImportError("unbroken.requests needs requests: pip install 'unbroken[requests]'") from error

from requests.auth import AuthBase
from requests.cookies import extract_cookies_to_jar
from urllib3 import HTTPHeaderDict, HTTPResponse

from unbroken._http import HttpResponse as ResponseValue
from unbroken.client.core.body import CODING_HEADERS, BodyBuffer, Rewind, rewinder
from unbroken.client.core.content_coding import DecodedBody, decode_body
from unbroken.client.core.proof import PROOF_HEADER, htu_of
from unbroken.client.core.request_flow import MAX_CHALLENGE_BYTES, drive, is_final
from unbroken.client.core.schedule import ActiveTokens
from unbroken.client.session import Session, require_session
from unbroken.errors import NotReplayable

__all__ = ["SessionAuth", "no_auth", "why_not_replayed"]

PIECE_BYTES = 1 << 14  # read at once, to look for a challenge
ERROR = "unbroken_error"  # attribute of a response: why the request was not sent again


def no_auth(request: PreparedRequest) -> PreparedRequest:
    """Send this one request without a token (``auth=no_auth``), whatever the ``requests.Session`` says."""
    return request


def why_not_replayed(response: Response) -> NotReplayable | None:
    """Return why the challenged request of *response* was not sent again; None if it was, or was not challenged."""
    error: NotReplayable | None = getattr(response, ERROR, None)
    return error


class SessionAuth(AuthBase):
    """Attaches a good access token to each request, and sends a challenged request again with a newer one.

    A request raises SessionOver if only a new login helps, TryLater if a refresh does not work now. A challenged
    request whose body could be sent only once returns the response of the server, and ``why_not_replayed(response)``
    says why; the session is refreshed.
    """

    def __init__(self, session: Session) -> None:
        require_session(session, "SessionAuth")
        self._session = session

    def __repr__(self) -> str:
        return f"<SessionAuth of {self._session!r}>"

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        """Attach the token. Called by requests when it prepares *request* (rule 1)."""
        session = self._session
        if session.dialect.header not in request.headers and _goes_to_session(request, session):
            rewind = rewinder(request.body)
            sent = session._authorize(fresh=rewind is None)
            request.headers[session.dialect.header] = sent.header
            _prove(request, session, sent)
            request.hooks["response"].append(_ResponseHook(session, sent, rewind))
        return request


class _ResponseHook:
    """Handles each response to one request: the first, those of the hops of a redirect, those of a second try.

    ``_sent`` are the tokens that the request carries now.
    """

    def __init__(self, session: Session, sent: ActiveTokens, rewind: Rewind | None) -> None:
        self._session, self._sent, self._rewind = session, sent, rewind

    def __call__(self, response: Response, **settings: Any) -> Response:
        """Return the response that the caller gets. *settings* are those that the request was sent with."""
        request, header = response.request, self._session.dialect.header
        response = self._final_response(response, settings)
        if response.is_redirect:  # requests goes on with a copy of this request
            if header.lower() != "authorization":
                request.headers.pop(header, None)  # rule 2
            if self._sent.ath:
                request.headers.pop(PROOF_HEADER, None)  # rule 5
        return response

    def _final_response(self, response: Response, settings: Mapping[str, Any]) -> Response:
        session = self._session
        if is_final(session.dialect, self._sent, response.status_code):
            return response
        request, header = response.request, session.dialect.header
        rewind = rewinder(None) if request.body is None else self._rewind
        if request.headers.get(header) == self._sent.header:
            return self._run_flow(_Response(response), request, rewind, settings)
        if header in request.headers or not rewind or not _goes_to_session(request, session):
            return response
        if not _is_challenge(response, session):
            return response
        _Response(response).cut(MAX_CHALLENGE_BYTES)  # this frees the connection before the request waits
        rewind()
        first = self._send_again(response, request, session._authorize(), settings)  # rule 2
        return self._run_flow(first, request, rewind, settings)

    def _run_flow(
        self, response: _Response, first_request: PreparedRequest, rewind: Rewind | None, settings: Mapping[str, Any]
    ) -> Response:
        """Run the flow of *first_request*, which was sent with our tokens and got *response*."""
        session, latest = self._session, response

        def send(tokens: ActiveTokens) -> _Response:
            nonlocal latest
            latest = self._send_again(latest.response, first_request, tokens, settings)
            return latest

        flow = session._request_flow(self._sent, response.status, rewind, _endpoint, first_request)
        return drive(session, flow, send, response).response

    def _send_again(
        self, response: Response, first_request: PreparedRequest, tokens: ActiveTokens, settings: Mapping[str, Any]
    ) -> _Response:
        second = _Response(_send_again(response, self._session, tokens, settings))
        self._sent = tokens
        first_request.headers[self._session.dialect.header] = tokens.header  # this is what a redirect copies
        return second


def _send_again(response: Response, session: Session, tokens: ActiveTokens, settings: Mapping[str, Any]) -> Response:
    """Send the request of *response* once more, over the same adapter and with the same settings."""
    response.content  # noqa: B018  # for those who look at the history; it was read, and is short
    response.close()
    request = response.request.copy()
    request.headers[session.dialect.header] = tokens.header
    _prove(request, session, tokens)
    _take_cookies(response, request)
    began = time.perf_counter()
    second: Response = response.connection.send(request, **settings)
    second.elapsed = timedelta(seconds=time.perf_counter() - began)
    second.history = [*response.history, response]
    second.request = request
    return second


def _prove(request: PreparedRequest, session: Session, tokens: ActiveTokens) -> None:
    """Attach a new proof, if *tokens* are bound to a key (rule 5)."""
    if tokens.ath:
        request.headers[PROOF_HEADER] = session._proof(tokens, request.method or "", htu_of(request.url or ""))


def _take_cookies(response: Response, request: PreparedRequest) -> None:
    """Send the cookies of the first response with the second request, as the digest auth of requests does."""
    jar = vars(request)["_cookies"]  # the only place where requests keeps them
    extract_cookies_to_jar(jar, response.request, response.raw)  # type: ignore[no-untyped-call]  # not typed there
    request.prepare_cookies(jar)


def _goes_to_session(request: PreparedRequest, session: Session) -> bool:
    parts = urlsplit(request.url or "")
    return session._attaches_to(parts.scheme, parts.hostname or "", parts.port)


def _is_challenge(response: Response, session: Session) -> bool:
    """Return whether the response to a request that carried no token wants one."""
    dialect, port = session.dialect, _Response(response)
    if not dialect.may_challenge(response.status_code):
        return False
    headers = port.headers()
    if dialect.reads_body and not dialect.may_read_body(headers):
        return False
    body = port.read(dialect.max_body_bytes) if dialect.reads_body else None
    if dialect.reads_body and body is None:
        return False
    return dialect.is_challenge(ResponseValue(response.status_code, headers, body))


def _endpoint(request: PreparedRequest) -> tuple[object, ...]:
    parts = urlsplit(request.url or "")
    return (request.method, parts.scheme, parts.hostname, parts.port, parts.path)


# ---- the response ----------------------------------------------------------------------------------------------------


class _Response:
    """The ``ResponsePort`` of a response of requests."""

    def __init__(self, response: Response) -> None:
        self.response = response

    @property
    def status(self) -> int:
        return self.response.status_code

    def headers(self) -> Mapping[str, str]:
        return {name.lower(): value for name, value in self.response.headers.items()}

    def proof_target(self) -> tuple[str, bool]:
        request = self.response.request
        return htu_of(request.url or ""), PROOF_HEADER in request.headers

    def read(self, max_bytes: int) -> bytes | None:
        response = self.response
        if self._is_read():
            return response.content if len(response.content) <= max_bytes else None
        buffer, rest = self._collect(max_bytes)
        response.raw = _with_body(response, _ReplayedBody(b"".join(buffer.pieces), rest or iter(()), response.raw))
        decoded = None if rest else self._decoded(buffer)
        return decoded.data if decoded and decoded.is_whole else None  # the caller gets the error when it reads it

    def cut(self, max_bytes: int) -> None:
        if self._is_read():
            return
        response = self.response
        buffer, rest = self._collect(max_bytes)
        decoded = self._decoded(buffer)
        if rest is None and decoded.is_whole:
            response.raw = _with_body(response, _ReplayedBody(b"".join(buffer.pieces), iter(()), response.raw))
            return
        response.raw.close()
        response.raw.release_conn()
        response.raw = _with_body(response, BytesIO(decoded.data), without=CODING_HEADERS)

    def mark(self, error: NotReplayable) -> None:
        setattr(self.response, ERROR, error)

    def _is_read(self) -> bool:
        response = self.response
        return vars(response)["_content_consumed"] or not isinstance(response.raw, HTTPResponse)

    def _collect(self, max_bytes: int) -> tuple[BodyBuffer, Iterator[bytes] | None]:
        """Return the beginning of the body as it came, and its rest; None if it has none."""
        buffer, rest = BodyBuffer(max_bytes, time.monotonic), _undecoded(self.response.raw)
        return buffer, None if all(map(buffer.add, rest)) else rest

    def _decoded(self, buffer: BodyBuffer) -> DecodedBody:
        coding = self.response.headers.get("content-encoding", "")
        return decode_body(b"".join(buffer.pieces), coding, buffer.max_bytes)


def _undecoded(raw: HTTPResponse) -> Iterator[bytes]:
    """Yield the pieces of a body as they arrive; errors are those that requests raises."""

    def pieces(size: int, **_: object) -> Iterator[bytes]:
        if not hasattr(raw, "read1"):  # urllib3 1
            yield from raw.stream(size, decode_content=False)
            return
        while piece := raw.read1(size, decode_content=False):  # stream waits until a piece is full
            yield piece

    view = Response()
    view.raw = SimpleNamespace(stream=pieces)
    return view.iter_content(PIECE_BYTES)


def _with_body(response: Response, body: Any, without: tuple[str, ...] = ()) -> HTTPResponse:
    """Return the urllib3 response of *response* with *body*, still unread (rule 3), and *without* some headers."""
    raw = response.raw
    return HTTPResponse(
        body,
        HTTPHeaderDict((name, value) for name, value in raw.headers.iteritems() if name.lower() not in without),
        raw.status,
        raw.version,
        reason=raw.reason,
        preload_content=False,
        decode_content=raw.decode_content,
        original_response=raw._original_response,  # where requests looks for cookies
        request_method=response.request.method,
    )


class _ReplayedBody(RawIOBase):
    """A body as it came: the *taken* part, then the *rest* of *raw*, which it closes."""

    def __init__(self, taken: bytes, rest: Iterator[bytes], raw: HTTPResponse) -> None:
        self._piece, self._rest, self._raw = memoryview(taken), rest, raw

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill *buffer* as far as one piece goes."""
        piece = self._piece or memoryview(next(self._rest, b""))
        size = min(len(piece), len(buffer))
        buffer[:size], self._piece = piece[:size], piece[size:]
        return size

    def read1(self, size: int | None = -1) -> bytes:
        """Return what one piece has, at most *size* bytes: urllib3 asks so when a body is looked into once more."""
        piece = self._piece or memoryview(next(self._rest, b""))
        count = len(piece) if size is None or size < 0 else min(size, len(piece))
        self._piece = piece[count:]
        return bytes(piece[:count])

    def close(self) -> None:
        """Drop the connection if the body was not read to its end."""
        if not self.closed and not self._raw.closed:
            self._raw.close()
            self._raw.release_conn()
        super().close()
