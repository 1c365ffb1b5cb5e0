"""One request and its answer, by httpx2. What goes wrong is one clear line.

1. A body can always be sent again, so that no challenge and no redirect ever costs it: what cannot be wound back
   (a pipe) is first copied into a temporary file that has no name.
2. The answer is written as it comes, byte for byte, and is never held in memory.

What a request is to be, as a value between the command line and whoever sends it.
"""

from __future__ import annotations

import io
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import BinaryIO

import httpx2

from unbroken.client.session import Session
from unbroken.errors import ConfigurationError, InvalidRequest, TryLater
from unbroken.httpx2 import SessionAuth

__all__ = ["FetchRequest", "transfer"]


@dataclass(frozen=True, slots=True)
class FetchRequest:
    """What the command line asked for. ``data``: texts, ``@FILE``, ``@-``; None without a body. ``raw``: only texts."""

    method: str
    url: str
    headers: tuple[tuple[str, str], ...]
    data: tuple[str, ...] | None
    raw: tuple[str, ...]
    output: str
    include: bool
    fail: bool
    follow: bool


FAILED = 22  # curl's exit status for --fail


def transfer(session: Session, asked: FetchRequest) -> int:
    """Sends what was *asked* and writes the answer; the exit status. Raises TryLater, SessionOver, InvalidRequest."""
    where = asked.url.partition("?")[0]
    # As long as the server likes, as with curl; --max-time is for those who like it shorter.
    patience = httpx2.Timeout(None, connect=30.0)
    headers = [(name.encode(), value.encode()) for name, value in asked.headers]
    with ExitStack() as stack:
        client = stack.enter_context(httpx2.Client(auth=SessionAuth(session), timeout=patience))
        client.headers.clear()
        body = None if asked.data is None else stack.enter_context(_body(asked.data, asked.raw))
        if body is not None:
            client.event_hooks["request"] = [_winding_back(body)]
        try:
            request = client.build_request(asked.method, asked.url, headers=headers, content=body)
            answer = client.send(request, stream=True, follow_redirects=asked.follow)
            stack.callback(answer.close)
            _tell_if_foreign(answer, session)
            return _show(answer, asked)
        except (httpx2.InvalidURL, httpx2.UnsupportedProtocol, httpx2.LocalProtocolError) as error:
            raise InvalidRequest(f"this cannot be sent to {where}") from error
        except httpx2.TooManyRedirects as error:
            raise ConfigurationError(f"{where} redirects without end") from error
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            why = str(error).rpartition("] ")[2] or "it does not answer"  # without "[Errno 111]"
            raise TryLater(f"{where} cannot be reached: {why}") from error
        except httpx2.RemoteProtocolError as error:
            raise TryLater(f"the answer of {where} broke off, or is none of HTTP") from error
        except httpx2.TransportError as error:
            raise TryLater(f"the answer of {where} broke off ({type(error).__name__})") from error


def _tell_if_foreign(answer: httpx2.Response, session: Session) -> None:
    """Explains a 401 to who wonders where the token was."""
    url = answer.request.url
    if answer.status_code == 401 and not session.allows_origin(url.scheme, url.host, url.port):
        there = f"{url.scheme}://{url.host}{f':{url.port}' if url.port else ''}"
        print(f"unbroken: sent without a token: {there} is no origin of this session", file=sys.stderr)


def _show(answer: httpx2.Response, asked: FetchRequest) -> int:
    if asked.fail and answer.status_code >= 400:
        print(f"unbroken: the server answered with status {answer.status_code}", file=sys.stderr)
        return FAILED
    with _opened(asked.output) as out:
        if asked.include:
            out.write(_head(answer))
        # A challenge that was final has been read already.
        for piece in [answer.content] if answer.is_stream_consumed else answer.iter_raw():
            out.write(piece)
            out.flush()
    return 0


def _head(answer: httpx2.Response) -> bytes:
    first = f"{answer.http_version} {answer.status_code} {answer.reason_phrase}".rstrip().encode()
    return b"\r\n".join([first, *(name + b": " + value for name, value in answer.headers.raw), b"", b""])


@contextmanager
def _opened(output: str) -> Iterator[BinaryIO]:
    """The file called *output*, ``-`` being standard output. Raises ConfigurationError if it cannot be written."""
    try:
        if output == "-":
            yield sys.stdout.buffer
        else:
            with open(output, "wb") as file:
                yield file
    except BrokenPipeError:
        raise
    except OSError as error:  # of the file: what goes wrong on the network has classes of its own
        shown = "standard output" if output == "-" else output
        raise ConfigurationError(f"{shown} cannot be written: {error.strerror}") from error


@contextmanager
def _body(data: tuple[str, ...], raw: tuple[str, ...]) -> Iterator[BinaryIO]:
    """The texts and files of *data*, and the texts *raw*, joined by ``&`` like the fields of a form."""
    with ExitStack() as stack:
        try:
            files = [stack.enter_context(_part(text)) if _is_file(text) else os.fsencode(text) for text in data]
            files += [os.fsencode(text) for text in raw]
            [first, *more] = files
            if not more and not isinstance(first, bytes) and first.seekable():
                yield first
                return
            whole = stack.enter_context(tempfile.TemporaryFile())
            for number, part in enumerate(files):
                whole.write(b"&" if number else b"")
                shutil.copyfileobj(io.BytesIO(part) if isinstance(part, bytes) else part, whole)
            whole.seek(0)
        except OSError as error:
            raise InvalidRequest(f"the body cannot be read: {error.filename or ''} {error.strerror}") from error
        yield whole


def _winding_back(body: BinaryIO) -> Callable[[object], object]:
    """What has to be done before each request that carries *body*: also one to where a redirect leads."""
    start = body.tell()
    return lambda _: body.seek(start)


def _is_file(text: str) -> bool:
    return text == "-" or text.startswith("@")


@contextmanager
def _part(text: str) -> Iterator[BinaryIO]:
    if text in ("-", "@-"):
        # Unbuffered: at a terminal, a buffer would have the end of the input typed twice.
        with open(0, "rb", buffering=0, closefd=False) as file:
            yield file
    else:
        with open(text[1:], "rb") as file:
            yield file
