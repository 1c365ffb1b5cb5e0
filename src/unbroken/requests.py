"""``SessionAuth`` for requests; threads may share it.

http = requests.Session()
http.auth = SessionAuth(session)

1. The token is attached when the request is made ready; its answer is looked at in a response hook, before redirects.
2. A token never follows a redirect to another origin: requests takes off ``Authorization`` itself; a token header of
   the backend's own is taken off here, at every redirect, and put on again when one of our origins asks for it.
3. What was read of an answer, to look for a challenge, is put back: it can be streamed like any other.
4. ``auth=no_auth`` sends one request without a token.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping
from datetime import timedelta
from io import BytesIO, RawIOBase
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

from requests import PreparedRequest, Response
from requests.auth import AuthBase
from requests.cookies import extract_cookies_to_jar
from urllib3 import HTTPResponse
from urllib3.exceptions import HTTPError

from unbroken._http import HttpResponse
from unbroken.client.core.body import Rewind, rewinder
from unbroken.client.core.request_flow import FlowStep
from unbroken.client.core.schedule import ActiveTokens
from unbroken.client.session import Session
from unbroken.errors import NotReplayable

__all__ = ["SessionAuth", "no_auth", "why_not_replayed"]

PIECE = 1 << 14  # bytes that are read at once, to look for a challenge
WHY_NOT = "unbroken_error"  # an attribute of a response: why the request was not sent again


def no_auth(request: PreparedRequest) -> PreparedRequest:
    """``auth=no_auth`` sends this one request without a token, whatever the ``requests.Session`` says."""
    return request


def why_not_replayed(response: Response) -> NotReplayable | None:
    """Why the challenged request that *response* answers was not sent again; None when nothing of the kind happened."""
    why: NotReplayable | None = getattr(response, WHY_NOT, None)
    return why


class SessionAuth(AuthBase):
    """Sends each request with a good access token, and again when the server says it was not.

    Requests raise SessionOver when only a new login helps, TryLater when renewal does not work now. A challenged
    request whose body could be sent only once comes back as the server's own answer; ``why_not_replayed(response)``
    tells, and the session is renewed.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    def __repr__(self) -> str:
        return f"<SessionAuth of {self._session!r}>"

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        """Called by requests when a request is made ready."""
        session = self._session
        if session.dialect.header not in request.headers and _is_covered(request, session):
            rewind = rewinder(request.body)
            sent = session._authorize(fresh=rewind is None)
            request.headers[session.dialect.header] = sent.header
            request.hooks["response"].append(_Hook(session, sent, rewind))
        return request


class _Hook:
    """What becomes of each answer to one request: the first one, those to the hops of a redirect, and those to the same
    request when it is sent once more. ``sent`` are the tokens that it carries now.
    """

    def __init__(self, session: Session, sent: ActiveTokens, rewind: Rewind | None) -> None:
        self._session, self._sent, self._rewind = session, sent, rewind

    def __call__(self, response: Response, **how: Any) -> Response:
        """Called by requests with each answer; *how* is how it was sent."""
        request, header = response.request, self._session.dialect.header
        response = self._looked_at(response, how)
        if header.lower() != "authorization" and response.is_redirect:
            request.headers.pop(header, None)  # requests goes on with a copy of this one
        return response

    def _looked_at(self, response: Response, how: Mapping[str, Any]) -> Response:
        request, header, session = response.request, self._session.dialect.header, self._session
        rewind = rewinder(None) if request.body is None else self._rewind
        if request.headers.get(header) == self._sent.header:
            return self._onwards(response, rewind, self._sent, how)
        if header in request.headers or not rewind or not _is_covered(request, session):
            return response
        if not _is_challenge(response, session):
            return response
        response.content  # noqa: B018  # frees the connection, before anybody waits
        rewind()
        return self._onwards(response, rewind, None, how)

    def _onwards(
        self, response: Response, rewind: Rewind | None, sent: ActiveTokens | None, how: Mapping[str, Any]
    ) -> Response:
        """The rest of a passage, after the request was sent with *sent*, or with no tokens at all; its last answer."""
        session, first = self._session, response.request
        way = session._request_flow(rewind, _endpoint, first, sent)
        try:
            step = next(way) if sent is None else _sent_already(way, response)
            while True:
                if type(step) is ActiveTokens:
                    response, self._sent = _send_again(response, session, step, how), step
                    first.headers[session.dialect.header] = step.header  # this is what a redirect copies
                    answer: object = response.status_code
                else:
                    answer = session._perform(step, _Response(response))
                step = way.send(answer)
        except StopIteration:
            return response


def _sent_already(way: Generator[FlowStep, Any, None], response: Response) -> FlowStep:
    next(way)
    return way.send(response.status_code)


def _send_again(response: Response, session: Session, live: ActiveTokens, how: Mapping[str, Any]) -> Response:
    """The request of *response* once more, over the same adapter and with the same settings."""
    response.content  # noqa: B018  # frees the connection
    response.close()
    request = response.request.copy()
    request.headers[session.dialect.header] = live.header
    _take_cookies(response, request)
    began = time.perf_counter()
    again: Response = response.connection.send(request, **how)
    again.elapsed = timedelta(seconds=time.perf_counter() - began)
    again.history = [*response.history, response]
    again.request = request
    return again


def _take_cookies(response: Response, request: PreparedRequest) -> None:
    """Cookies that came with the first answer go along with the second request, as with requests' own digest auth."""
    jar = vars(request)["_cookies"]  # the only place requests keeps them
    extract_cookies_to_jar(jar, response.request, response.raw)  # type: ignore[no-untyped-call]  # not typed there
    request.prepare_cookies(jar)


def _is_covered(request: PreparedRequest, session: Session) -> bool:
    parts = urlsplit(request.url or "")
    return session.allows_origin(parts.scheme, parts.hostname or "", parts.port)


def _is_challenge(response: Response, session: Session) -> bool:
    """Whether an answer to a request that carried no token asks for one."""
    dialect, received = session.dialect, _Response(response)
    if not dialect.may_challenge(response.status_code):
        return False
    headers = received.headers()
    if dialect.reads_body and not dialect.may_read_body(headers):
        return False
    body = received.read(dialect.max_body_bytes) if dialect.reads_body else None
    if dialect.reads_body and body is None:
        return False
    return dialect.is_challenge(HttpResponse(response.status_code, headers, body))


def _endpoint(request: PreparedRequest) -> tuple[object, ...]:
    parts = urlsplit(request.url or "")
    return (request.method, parts.scheme, parts.hostname, parts.port, parts.path)


def _undecoded(raw: HTTPResponse) -> Iterator[bytes]:
    """The pieces of a body as they come; what goes wrong is raised as requests raises it."""
    view = Response()
    view.raw = SimpleNamespace(stream=lambda size, **_: raw.stream(size, decode_content=False))
    return view.iter_content(PIECE)


def _again(response: Response, body: Any) -> HTTPResponse:
    """What urllib3 gave for *response*, with *body* still unread."""
    raw = response.raw
    return HTTPResponse(
        body,
        raw.headers,
        raw.status,
        raw.version,
        reason=raw.reason,
        preload_content=False,
        decode_content=raw.decode_content,
        original_response=raw._original_response,  # where requests looks for cookies
        request_method=response.request.method,
    )


class _Joined(RawIOBase):
    """A body as it came: what was *taken* of it, then the *rest* of *raw*, which it closes."""

    def __init__(self, taken: bytes, rest: Iterator[bytes], raw: HTTPResponse) -> None:
        self._piece, self._rest, self._raw = memoryview(taken), rest, raw

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Fills *buffer* as far as one piece goes."""
        piece = self._piece or memoryview(next(self._rest, b""))
        size = min(len(piece), len(buffer))
        buffer[:size], self._piece = piece[:size], piece[size:]
        return size

    def close(self) -> None:
        """Gives the connection up, if the body was not read to its end."""
        if not self.closed and not self._raw.closed:
            self._raw.close()
            self._raw.release_conn()
        super().close()


class _Response:
    """A ``Received`` over an answer of requests."""

    def __init__(self, response: Response) -> None:
        self._response = response

    def headers(self) -> Mapping[str, str]:
        return {name.lower(): value for name, value in self._response.headers.items()}

    def read(self, most: int | None = None) -> bytes | None:
        response = self._response
        if most is None or vars(response)["_content_consumed"] or not isinstance(response.raw, HTTPResponse):
            return response.content if most is None or len(response.content) <= most else None
        taken, rest = bytearray(), _undecoded(response.raw)
        for piece in rest:
            taken += piece
            if len(taken) > most:
                response.raw = _again(response, _Joined(bytes(taken), rest, response.raw))
                return None
        try:
            body = _again(response, BytesIO(taken)).read(most + 1, decode_content=True)
        except HTTPError:  # whoever wants to read it will be told
            body = None
        response.raw = _again(response, _Joined(bytes(taken), rest, response.raw))
        return None if body is None or len(body) > most else body

    def note(self, why: NotReplayable) -> None:
        setattr(self._response, WHY_NOT, why)
