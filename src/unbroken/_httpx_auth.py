"""One auth class for httpx and httpx2, for their blocking and their async clients: it only carries, it decides nothing.

1. Tokens go to the session's origins only, never over a header that the user has set, never across a redirect to
   another origin.
2. Whether the body can be sent again is settled before it is sent. One that cannot is sent with a token in good time,
   and its answer is final.
3. A challenged answer is read to its end before anybody waits, so that a waiting request holds no connection.
   Every other answer stays as lazy as it came.

The two flows differ in their awaits alone. To send a request without a token: ``auth=None`` on the request.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Generator
from typing import Any

from unbroken.client.challenge import Reply
from unbroken.client.dialect import Dialect
from unbroken.client.events import NotReplayed
from unbroken.client.live import Live
from unbroken.client.replay import Rewind, rewinder
from unbroken.client.session import Session
from unbroken.errors import NotReplayable, TryLater

__all__ = ["AuthFlow"]

SENT = "unbroken.sent"  # in a request's extensions: the header value that was put there by us
NOT_REPLAYABLE = "unbroken.error"  # in a response's extensions: why the request was not sent again
SPENT = "its body could be sent only once"


class AuthFlow:
    """What ``unbroken.httpx.SessionAuth`` and ``unbroken.httpx2.SessionAuth`` have in common."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def __repr__(self) -> str:
        return f"<SessionAuth of {self._session!r}>"

    def sync_auth_flow(self, request: Any) -> Generator[Any, Any, None]:
        """The flow for ``Client``."""
        session, dialect = self._session, self._session.dialect
        if not _is_ours(request, session, dialect):
            yield request
            return
        rewind = _rewinder(request.stream)
        sent = session.authorize(fresh=rewind is None)
        response = yield _signed(request, dialect, sent)
        if not _may_be_challenge(response, dialect, sent):
            return
        response.read()
        if not _is_challenge(response, dialect):
            return
        if rewind is None:
            with contextlib.suppress(TryLater):
                session.challenged(sent, _endpoint(request))
            _say_why_not(response, session, sent)
            return
        fresh = session.challenged(sent, _endpoint(request))
        if fresh is None:
            return
        rewind()
        response = yield _signed(request, dialect, fresh)
        if _may_be_challenge(response, dialect, fresh):
            response.read()
            if _is_challenge(response, dialect):
                session.rejected(fresh, _endpoint(request))

    async def async_auth_flow(self, request: Any) -> AsyncGenerator[Any, Any]:
        """The flow for ``AsyncClient``."""
        session, dialect = self._session, self._session.dialect
        if not _is_ours(request, session, dialect):
            yield request
            return
        rewind = _rewinder(request.stream)
        sent = await session.aauthorize(fresh=rewind is None)
        response = yield _signed(request, dialect, sent)
        if not _may_be_challenge(response, dialect, sent):
            return
        await response.aread()
        if not _is_challenge(response, dialect):
            return
        if rewind is None:
            with contextlib.suppress(TryLater):
                await session.achallenged(sent, _endpoint(request))
            _say_why_not(response, session, sent)
            return
        fresh = await session.achallenged(sent, _endpoint(request))
        if fresh is None:
            return
        rewind()
        response = yield _signed(request, dialect, fresh)
        if _may_be_challenge(response, dialect, fresh):
            await response.aread()
            if _is_challenge(response, dialect):
                session.rejected(fresh, _endpoint(request))


def _is_ours(request: Any, session: Session, dialect: Dialect) -> bool:
    """Whether the request goes where our tokens may go, and carries no credentials of the user's own."""
    url = request.url
    if not session.covers(url.scheme, url.host, url.port):
        return False
    theirs = request.headers.get(dialect.header)
    return theirs is None or theirs == request.extensions.get(SENT)


def _signed(request: Any, dialect: Dialect, live: Live) -> Any:
    request.headers[dialect.header] = request.extensions[SENT] = live.header
    return request


def _may_be_challenge(response: Any, dialect: Dialect, sent: Live) -> bool:
    """Whether the head of the answer allows a challenge to the token we sent (not one from behind a redirect)."""
    if not dialect.may_challenge(response.status_code):
        return False
    if dialect.reads_body and "json" not in response.headers.get("content-type", "").lower():
        return False
    return bool(response.request.headers.get(dialect.header) == sent.header)


def _is_challenge(response: Any, dialect: Dialect) -> bool:
    headers = {name.lower(): value for name, value in response.headers.items()}
    return dialect.challenged(Reply(response.status_code, headers, response.content if dialect.reads_body else None))


def _endpoint(request: Any) -> tuple[object, ...]:
    url = request.url
    return (request.method, url.scheme, url.host, url.port, url.path)


def _say_why_not(response: Any, session: Session, sent: Live) -> None:
    response.extensions[NOT_REPLAYABLE] = NotReplayable(SPENT)
    session.tell(NotReplayed(sent.tokens.version, why=SPENT))


def _rewinder(stream: Any) -> Rewind | None:
    """What makes the request's body ready to be sent again; None when it can be sent only once.

    Both libraries wrap what the user gave into a stream class of theirs; what is not recognised is sent only once.
    """
    match type(stream).__name__:
        case "ByteStream":
            return rewinder(b"")
        case "IteratorByteStream" | "AsyncIteratorByteStream":
            return rewinder(getattr(stream, "_stream", iter(())))
        case "MultipartStream":
            files = [getattr(part, "file", b"") for part in getattr(stream, "fields", (object(),))]
            return None if any(rewinder(file) is None for file in files) else rewinder(b"")
        case _:
            return None
