"""``unbroken broker``: access tokens of this user's sessions, over a Unix socket, for programs that link no library.

    GET  /NAME/token     the access token; with ``Accept: application/json`` a JSON object that says when it expires
    GET  /NAME/header    the line ``Authorization: Bearer …``, for ``curl -H @-``
                         ?method=GET&url=URL: for this one request, with the proof of a session that is bound to a key;
                         &nonce=TEXT: what the server has asked for in ``DPoP-Nonce``
    POST /NAME/token     the body is a token that a server rejected: a newer one

    404  no such session      401  the session is over: the text says which command logs in
    503  not now; Retry-After says when

1. Only processes of the same user get a response (``local_socket.py``). No response holds a refresh token.
2. All requests share one ``Session`` for each name, so that many programs cost one refresh.
3. A connection carries one request. Connections, bytes and seconds are bounded; a connection too many gets 503.
4. A session that is over is opened anew by the next request, because the user may have logged in meanwhile.
5. At the end, requests under way have two seconds; the process waits for a refresh under way (``cli/ending.py``).
"""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import click
import h11

from unbroken.cli.client.local_socket import MAX_UNACCEPTED_CONNECTIONS, default_socket, is_own_connection, listening
from unbroken.cli.client.profiles import complete_name
from unbroken.cli.options import option
from unbroken.cli.terminal import say
from unbroken.client.core.schedule import ActiveTokens
from unbroken.client.profile_session import ProfileSession
from unbroken.client.profiles import find_profile
from unbroken.errors import ConfigurationError, InvalidRequest, Refused, SessionOver, TryLater, UnbrokenError

__all__ = ["broker", "serve_sessions"]

_log = logging.getLogger("unbroken")

MAX_CONNECTIONS = 64
MAX_HEAD_BYTES = 8 * 1024
MAX_BODY_BYTES = 16 * 1024  # of a rejected token
REQUEST_SECONDS = 5.0  # for a request to arrive, and for its response to be read
SHORT_SECONDS = 0.2
CLOSE_SECONDS = 2.0
TEXT, JSON = "text/plain; charset=utf-8", "application/json"


class RequestError(Exception):
    """A request that gets an error: status and text."""

    def __init__(self, status: int, text: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(text)
        self.status, self.headers = status, headers or {}


@click.command()
@click.argument("names", metavar="[NAME]...", nargs=-1, shell_complete=complete_name)
@option("--socket", "path", envvar="UNBROKEN_BROKER", default="", metavar="PATH", help="Where to listen.")
def broker(names: tuple[str, ...], path: str) -> None:
    """Give access tokens to this user's other programs, over a Unix socket.

    With NAMES: of these sessions only. It runs until SIGTERM or Ctrl-C.
    """
    for name in names:
        find_profile(name)
    serve_sessions(Path(path) if path else default_socket(), names)


def serve_sessions(
    path: Path,
    names: tuple[str, ...] = (),
    *,
    ready: Callable[[], None] | None = None,
    ended: Callable[[Callable[[], None]], None] | None = None,
) -> None:
    """Serve the tokens of the sessions *names*, or of all, at *path*, until a signal ends it.

    *ready* is called when it listens, in place of a line on standard output; *ended* gets a function that ends it.
    """
    with listening(path) as sock:
        asyncio.run(_serve(sock, names, ready or (lambda: _say_where(path)), ended))


def _say_where(path: Path) -> None:
    with suppress(BrokenPipeError):
        say(f"listening at {path}")
        sys.stdout.flush()


async def _serve(
    sock: socket.socket,
    names: tuple[str, ...],
    ready: Callable[[], None],
    ended: Callable[[Callable[[], None]], None] | None,
) -> None:
    loop, end = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end.set)
    if ended:
        ended(end.set)
    connections = Connections(SessionTokens(names))
    server = await asyncio.start_unix_server(connections.respond, sock=sock, backlog=MAX_UNACCEPTED_CONNECTIONS)
    ready()
    await end.wait()
    server.close()
    await connections.finish()


class SessionTokens:
    """The access tokens of sessions by name (rule 2). *names*: the only ones that are given; without any, all."""

    def __init__(self, names: tuple[str, ...] = ()) -> None:
        self._names, self._sessions = names, dict[str, ProfileSession]()

    async def current(self, name: str) -> tuple[ProfileSession, ActiveTokens]:
        """Return the session, and tokens that do not expire soon."""
        session = await self._session(name)
        return session, await self._noticing_end(name, session.afresh_tokens())

    async def newer(self, name: str, rejected: str) -> tuple[ProfileSession, ActiveTokens]:
        """Return the session, and tokens newer than *rejected*."""
        session = await self._session(name)
        await self._noticing_end(name, session.anewer_token(rejected))
        return session, await session._aauthorize()

    async def _session(self, name: str) -> ProfileSession:
        if self._names and name not in self._names:
            raise RequestError(404, "this broker does not serve a session of that name")
        if name not in self._sessions:
            opened = await asyncio.to_thread(ProfileSession.of_name, name, {})
            self._sessions.setdefault(name, opened)
        return self._sessions[name]

    async def _noticing_end(self, name: str, work: Awaitable[Any]) -> Any:
        try:
            return await work
        except SessionOver:
            self._sessions.pop(name, None)  # rule 4
            raise


class Connections:
    """Responds to connections, one request each (rule 3)."""

    def __init__(self, tokens: SessionTokens) -> None:
        self._tokens, self._open = tokens, set[asyncio.Task[Any]]()

    async def respond(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Respond to one connection, whatever it sends."""
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            if is_own_connection(writer.get_extra_info("socket")):  # rule 1
                await self._respond(h11.Connection(h11.SERVER, MAX_HEAD_BYTES), reader, writer)
        except (OSError, TimeoutError, asyncio.CancelledError, h11.ProtocolError):
            pass  # the program has gone, or reads too slowly
        finally:
            self._open.discard(task)
            if writer.transport.get_write_buffer_size():
                writer.transport.abort()
            writer.close()

    async def finish(self) -> None:
        """Wait until the connections that are open have their responses; who waits for a token is sent away."""
        if self._open:
            _, waiting = await asyncio.wait(self._open, timeout=CLOSE_SECONDS)  # rule 5
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    async def _respond(
        self, protocol: h11.Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            await self._limit(reader)
            async with asyncio.timeout(REQUEST_SECONDS):
                request, body = await _read(protocol, reader)
            status, headers, text = await self._response(request, body)
        except RequestError as error:
            status, headers, text = error.status, {"content-type": TEXT, **error.headers}, f"{error}\n"
        except asyncio.CancelledError:  # by finish()
            status, headers, text = 503, {"content-type": TEXT, "retry-after": "1"}, "the broker is ending\n"
        except h11.RemoteProtocolError as error:
            status, headers, text = error.error_status_hint, {"content-type": TEXT}, "this is no HTTP request\n"
        async with asyncio.timeout(REQUEST_SECONDS):
            writer.write(_encoded(protocol, status, headers, text.encode()))
            await writer.drain()

    async def _limit(self, reader: asyncio.StreamReader) -> None:
        if len(self._open) > MAX_CONNECTIONS:
            with suppress(TimeoutError):
                async with asyncio.timeout(SHORT_SECONDS):  # what is unread at the close would reset the connection
                    await reader.read(MAX_HEAD_BYTES)
            raise RequestError(503, "too many connections", {"retry-after": "1"})

    async def _response(self, request: h11.Request, body: bytes) -> tuple[int, dict[str, str], str]:
        name, kind = _target(request)
        try:
            return 200, *await self._found(name, kind, request, body)
        except SessionOver as error:
            raise RequestError(401, str(error)) from error
        except TryLater as error:
            raise RequestError(503, str(error), {"retry-after": str(int(error.retry_after) + 1)}) from error
        except InvalidRequest as error:
            raise RequestError(404, str(error)) from error
        except (ConfigurationError, Refused, UnbrokenError) as error:
            raise RequestError(500, str(error)) from error

    async def _found(self, name: str, kind: str, request: h11.Request, body: bytes) -> tuple[dict[str, str], str]:
        if request.method == b"POST":
            session, active = await self._tokens.newer(name, _rejected_token(body))
        else:
            session, active = await self._tokens.current(name)
        if kind == "header":
            return {"content-type": TEXT}, await _header_lines(session, active, request)
        if any(field == b"accept" and b"json" in value for field, value in request.headers):
            return {"content-type": JSON}, json.dumps(_as_json(session, active)) + "\n"
        return {"content-type": TEXT}, active.tokens.access_token + "\n"


async def _header_lines(session: ProfileSession, active: ActiveTokens, request: h11.Request) -> str:
    """Return the header lines of a request. Raise RequestError for a bound session without the request to prove."""
    asked = dict(parse_qsl(request.target.decode("ascii", "replace").partition("?")[2]))
    if "url" not in asked:
        if active.ath:
            raise RequestError(400, "this session is bound to a key: ask for /NAME/header?method=METHOD&url=URL")
        return f"{session.dialect.header}: {active.header}\n"
    headers = await session.arequest_headers(asked.get("method", "GET"), asked["url"], nonce=asked.get("nonce", ""))
    return "".join(f"{name}: {value}\n" for name, value in headers.items())


def _as_json(session: ProfileSession, active: ActiveTokens) -> dict[str, object]:
    tokens = active.tokens
    left = session.status.expires_in
    found = {
        "access_token": tokens.access_token,
        "token_type": tokens.token_type,
        "expires_in": None if left is None else int(left),
        "scope": tokens.scope or None,
    }
    return {name: value for name, value in found.items() if value is not None}


def _target(request: h11.Request) -> tuple[str, str]:
    """Return the name and the last word of the path. Raise RequestError."""
    parts = request.target.decode("ascii", "replace").partition("?")[0].split("/")
    if len(parts) != 3 or parts[0] or parts[2] not in ("token", "header"):
        raise RequestError(404, "the paths are /NAME/token and /NAME/header")
    allowed = (b"GET", b"POST") if parts[2] == "token" else (b"GET",)
    if request.method not in allowed:
        raise RequestError(405, "the method is GET, or POST /NAME/token", {"allow": b", ".join(allowed).decode()})
    return parts[1], parts[2]


def _rejected_token(body: bytes) -> str:
    token = body.decode("latin-1").strip()
    if not token or not token.isascii() or not token.isprintable():
        raise RequestError(400, "the body is the token that was rejected")
    return token


async def _read(protocol: h11.Connection, reader: asyncio.StreamReader) -> tuple[h11.Request, bytes]:
    """Return one request and its body, bounded (rule 3)."""
    request, body = None, b""
    while True:
        match protocol.next_event():
            case h11.NEED_DATA:
                protocol.receive_data(await reader.read(MAX_HEAD_BYTES))
            case h11.Request() as found:
                request = found
            case h11.Data(data=data):
                body += data
                if len(body) > MAX_BODY_BYTES:
                    raise RequestError(413, "the body is too long")
            case h11.EndOfMessage() if request is not None:
                return request, body
            case _:
                raise ConnectionResetError


def _encoded(protocol: h11.Connection, status: int, headers: dict[str, str], body: bytes) -> bytes:
    fields = {**headers, "content-length": str(len(body)), "cache-control": "no-store", "connection": "close"}
    events: list[Callable[[], bytes | None]] = [
        lambda: protocol.send(h11.Response(status_code=status, headers=list(fields.items()))),
        lambda: protocol.send(h11.Data(data=body)),
        lambda: protocol.send(h11.EndOfMessage()),
    ]
    return b"".join(event() or b"" for event in events)
