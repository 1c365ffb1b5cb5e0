"""Sends the request of ``unbroken fetch`` with httpx2, and writes the response. Every error is one line.

1. A body can be sent again, after a challenge or a redirect: a pipe is first copied to an unnamed temporary file.
2. The response is written as it arrives, byte for byte, and never held in memory.
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

HTTP_ERROR_STATUS = 22  # curl's exit status for --fail
CONNECT_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class FetchRequest:
    """The request of a command line. *data*: texts, ``@FILE`` or ``-``, None without a body. *raw*: texts only."""

    method: str
    url: str
    headers: tuple[tuple[str, str], ...]
    data: tuple[str, ...] | None
    raw: tuple[str, ...]
    output: str
    include: bool
    fail: bool
    follow: bool


def transfer(session: Session, asked: FetchRequest) -> int:
    """Send the request, write the response, and return the exit status.

    Raise TryLater, SessionOver, InvalidRequest or ConfigurationError.
    """
    target = asked.url.partition("?")[0]
    timeout = httpx2.Timeout(None, connect=CONNECT_SECONDS)  # as in curl, only --max-time limits the response
    headers = [(name.encode(), value.encode()) for name, value in asked.headers]
    with ExitStack() as stack:
        client = stack.enter_context(httpx2.Client(auth=SessionAuth(session), timeout=timeout))
        client.headers.clear()
        body = None if asked.data is None else stack.enter_context(_open_body(asked.data, asked.raw))
        if body is not None:
            client.event_hooks["request"] = [_rewind(body)]
        try:
            request = client.build_request(asked.method, asked.url, headers=headers, content=body)
            response = client.send(request, stream=True, follow_redirects=asked.follow)
            stack.callback(response.close)
            _explain_missing_token(response, session)
            return _write_response(response, asked)
        except (httpx2.InvalidURL, httpx2.UnsupportedProtocol, httpx2.LocalProtocolError) as error:
            raise InvalidRequest(f"this request cannot be sent to {target}") from error
        except httpx2.TooManyRedirects as error:
            raise ConfigurationError(f"too many redirects from {target}") from error
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            cause = str(error).rpartition("] ")[2] or "no response"  # without "[Errno 111]"
            raise TryLater(f"{target} cannot be reached: {cause}") from error
        except httpx2.RemoteProtocolError as error:
            raise TryLater(f"the response of {target} broke off, or is not HTTP") from error
        except httpx2.TransportError as error:
            raise TryLater(f"the response of {target} broke off ({type(error).__name__})") from error


def _explain_missing_token(response: httpx2.Response, session: Session) -> None:
    """Print why a request that got a 401 had no token."""
    url = response.request.url
    if response.status_code == 401 and not session.allows_origin(url.scheme, url.host, url.port):
        origin = f"{url.scheme}://{url.host}{f':{url.port}' if url.port else ''}"
        print(f"unbroken: sent without a token: {origin} is not an origin of this session", file=sys.stderr)


# ---- the response ----------------------------------------------------------------------------------------------------


def _write_response(response: httpx2.Response, asked: FetchRequest) -> int:
    if asked.fail and response.status_code >= 400:
        print(f"unbroken: the server responded with status {response.status_code}", file=sys.stderr)
        return HTTP_ERROR_STATUS
    with _open_output(asked.output) as out:
        if asked.include:
            out.write(_head(response))
        # The body of a final challenge has been read already.
        for chunk in [response.content] if response.is_stream_consumed else response.iter_raw():
            out.write(chunk)
            out.flush()
    return 0


def _head(response: httpx2.Response) -> bytes:
    status = f"{response.http_version} {response.status_code} {response.reason_phrase}".rstrip().encode()
    return b"\r\n".join([status, *(name + b": " + value for name, value in response.headers.raw), b"", b""])


@contextmanager
def _open_output(output: str) -> Iterator[BinaryIO]:
    """Yield the file *output*; ``-`` is standard output. Raise ConfigurationError if it cannot be written."""
    try:
        if output == "-":
            yield sys.stdout.buffer
        else:
            with open(output, "wb") as file:
                yield file
    except BrokenPipeError:
        raise
    except OSError as error:  # of the file: errors of the network have httpx2's classes
        shown = "standard output" if output == "-" else output
        raise ConfigurationError(f"{shown} cannot be written: {error.strerror}") from error


# ---- the body (rule 1) -----------------------------------------------------------------------------------------------


@contextmanager
def _open_body(data: tuple[str, ...], raw: tuple[str, ...]) -> Iterator[BinaryIO]:
    """Yield the texts and files of *data* and the texts of *raw*, joined by ``&`` like the fields of a form."""
    with ExitStack() as stack:
        try:
            parts = [stack.enter_context(_open_file(text)) if _is_file(text) else os.fsencode(text) for text in data]
            parts += [os.fsencode(text) for text in raw]
            [first, *more] = parts
            if not more and not isinstance(first, bytes) and first.seekable():
                yield first
                return
            whole = stack.enter_context(tempfile.TemporaryFile())
            for number, part in enumerate(parts):
                whole.write(b"&" if number else b"")
                shutil.copyfileobj(io.BytesIO(part) if isinstance(part, bytes) else part, whole)
            whole.seek(0)
        except OSError as error:
            raise InvalidRequest(f"the body cannot be read: {error.filename or ''} {error.strerror}") from error
        yield whole


def _rewind(body: BinaryIO) -> Callable[[object], object]:
    """Return the hook that runs before each request, also that of a redirect: it rewinds *body*."""
    start = body.tell()
    return lambda _: body.seek(start)


def _is_file(text: str) -> bool:
    return text == "-" or text.startswith("@")


@contextmanager
def _open_file(text: str) -> Iterator[BinaryIO]:
    if text in ("-", "@-"):
        # Unbuffered: at a terminal, a buffer would need the end of the input twice.
        with open(0, "rb", buffering=0, closefd=False) as file:
            yield file
    else:
        with open(text[1:], "rb") as file:
            yield file
