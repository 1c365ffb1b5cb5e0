"""What one connection to ``unbroken serve`` may cost: uvicorn's protocols, with bounds, for both of its parsers.

1. The parser gets at most ``SLICE_BYTES`` at once, and nothing while a request waits for the response before it, or
   while the client does not read its responses. What was read meanwhile is held, and nothing more is read.
2. A request line with its headers has at most ``MAX_HEAD_BYTES`` and ``MAX_HEADERS``: 431. They are counted before the
   parser puts them together.
3. A body has at most ``MAX_BODY_WIRE_BYTES`` with all its framing: 413. Trailers are dropped (RFC 9110 §6.5.1).
4. At most ``MAX_PIPELINED`` requests wait. Those before get their responses, then the connection is closed.
5. A head, a body and the reading of a response have a time each, from the first byte to the last: a client that drips
   gains nothing.
6. A process has at most ``MAX_CONNECTIONS``, and never more than its limit of open files allows. Then connections
   without a running request make room, the oldest first.
7. A connection that is refused gets the response and a moment to read it. What it sends meanwhile is dropped.
8. No connection changes its protocol: a request with ``Upgrade`` or ``CONNECT`` is served as HTTP, and is the last.
9. A request with two lengths is refused (RFC 9112 §6.3): a proxy may have read it as two requests.
"""

from __future__ import annotations

import asyncio
import functools
import heapq
import re
import socket
import struct
from http import HTTPStatus
from typing import Any

import h11
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.h11_impl import H11Protocol

try:
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
except ImportError:  # httptools is not installed
    HttpToolsProtocol = None  # type: ignore[assignment,misc]

__all__ = ["MAX_HEAD_BYTES", "BoundedH11Protocol", "http_protocol"]

SLICE_BYTES = 16 * 1024
MAX_HEAD_BYTES = 32 * 1024
MAX_HEADERS = 100
MAX_BODY_WIRE_BYTES = 512 * 1024  # 64 KiB, the largest body that is accepted, takes 384 KiB in chunks of one byte
MAX_PIPELINED = 16
HEAD_SECONDS = 20.0
BODY_SECONDS = 30.0
RESPONSE_SECONDS = 30.0
CHECK_SECONDS = 2.0
MAX_CONNECTIONS = 10_000
SPARE_FILES = 200  # of the limit of open files: for the store, logs and webhooks
LINGER_SECONDS = 2.0
MAX_DISCARDED_BYTES = 1024 * 1024
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: on, for no time
BOTH_LENGTHS = re.compile(rb"(?is)\n(content-length:.*\ntransfer-encoding|transfer-encoding:.*\ncontent-length):")
END_OF_HEAD = re.compile(rb"\n\r?\n")


class _Dropped(list[tuple[bytes, bytes]]):
    """A list that stays empty."""

    def append(self, _header: tuple[bytes, bytes]) -> None:
        """Drop the header."""


DROPPED_HEADERS = _Dropped()


class _BoundedFlow(FlowControl):
    """Reads from the transport only what may go to the parser at once (rule 1)."""

    def __init__(self, transport: asyncio.Transport, protocol: _BoundedConnection) -> None:
        super().__init__(transport)
        self._protocol, self._is_paused = protocol, False

    def may_parse(self) -> bool:
        """Return whether the parser may get more now."""
        return not (self.read_paused or self.write_paused)

    def pause_reading(self) -> None:
        self.read_paused = True
        self.apply()

    def resume_reading(self) -> None:
        if self.read_paused and not self._protocol.is_queueing():
            self.read_paused = False
            self.apply()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._protocol.write_paused_at = self._protocol.loop.time()
        self.apply()

    def resume_writing(self) -> None:
        super().resume_writing()
        self.apply()

    def apply(self) -> None:
        """Pause or resume the transport, and let held bytes go on when they may."""
        if self._transport.is_closing():
            return
        has_held = bool(self._protocol.held)
        if has_held and self.may_parse():
            self._protocol.parse_held_soon()
        if has_held or not self.may_parse():
            self._is_paused = True
            self._transport.pause_reading()
        elif self._is_paused:
            self._is_paused = False
            self._transport.resume_reading()


class _BoundedConnection(asyncio.Protocol):
    """The bounds, for either parser: comes before uvicorn's protocol among the bases of a class."""

    slice_bytes = SLICE_BYTES
    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport
    flow: Any
    cycle: Any  # the newest request and its response
    connections: set[Any]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = _BoundedFlow(transport, self)
        self.held = bytearray()
        self.write_paused_at = self._closing_since = 0.0
        self._is_parsing_soon = self._is_refused = self._is_lingering = False
        self._bytes, self._counted_part = 0, (None, False)
        self._began, self._timed_part = self.loop.time(), (None, False)
        self._discarded_bytes = 0
        self._check = self.loop.call_later(CHECK_SECONDS, self._check_time)
        if len(self.connections) > max_connections():
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        self._check.cancel()
        self.held.clear()
        super().connection_lost(exc)

    def is_receiving_body(self) -> bool:
        """Return whether the body of the newest request is not complete."""
        raise NotImplementedError

    def is_queueing(self) -> bool:
        """Return whether a request waits for the response before it."""
        raise NotImplementedError

    def is_idle(self) -> bool:
        """Return whether no request is running."""
        return self.cycle is None or self.cycle.response_complete

    # ---- bytes (rules 1 to 4) ----------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self._is_refused:
            self._discard(data)
        elif self.held or len(data) > self.slice_bytes or not self.flow.may_parse():
            self.held += data
            self.flow.apply()
        else:
            self._bytes += len(data)
            super().data_received(data)
            if self._bytes > MAX_HEAD_BYTES:
                self._check_bytes()

    def parse_held_soon(self) -> None:
        """Give the parser a slice of what is held, once the event loop has served the others."""
        if not self._is_parsing_soon:
            self._is_parsing_soon = True
            self.loop.call_soon(self._parse_held)

    def _parse_held(self) -> None:
        self._is_parsing_soon = False
        if self.held and self.flow.may_parse() and not self.transport.is_closing():
            held, self.held = self.held, bytearray()
            self.data_received(bytes(held[: self.slice_bytes]))
            if not self._is_refused:
                self.held = held[self.slice_bytes :]
                self.flow.apply()

    def _check_bytes(self) -> None:
        """Refuse a head or a body that is too long. A part that was not counted before is counted from now on."""
        part = self._part()
        if part != self._counted_part:
            self._counted_part, self._bytes = part, 0
        elif not part[1]:
            self.refuse(431)  # rule 2
        elif self._bytes > MAX_BODY_WIRE_BYTES:
            self.refuse(413)  # rule 3

    def _part(self) -> tuple[Any, bool]:
        """Return what tells the part of a request that is arriving from all others."""
        return self.cycle, self.is_receiving_body()

    # ---- refusals (rule 7) -------------------------------------------------------------------------------------------

    def send_400_response(self, _msg: str) -> None:
        """Refuse what the parser cannot read."""
        self.refuse(400)

    def refuse(self, status: int) -> None:
        """Accept no further byte: respond with *status* after the responses that are under way, and close."""
        if self._is_refused or self.transport.is_closing():
            return
        self._is_refused = True
        self.held.clear()
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            if not cycle.more_body:
                cycle.keep_alive = False  # it has all of its request, so it gets its response
                return
            cycle.disconnected = True
            cycle.message_event.set()
            if cycle.response_started or self.is_queueing():
                self.transport.abort()
                return
        if not (self.is_idle() and self.is_receiving_body()):  # that request got its response before it was complete
            self.transport.write(_refusal(status))
        self._linger()

    def shutdown(self) -> None:
        """Stop, as uvicorn asks at the end of the server."""
        if self._is_lingering:
            self.transport.abort()
        else:
            super().shutdown()  # type: ignore[misc]

    def _linger(self) -> None:
        self._is_lingering = True
        # A socket that is closed with bytes unread resets the connection, and the client never sees the response.
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._check.cancel()
        self._check = self.loop.call_later(LINGER_SECONDS, self.transport.abort)

    def _discard(self, data: bytes) -> None:
        self._discarded_bytes += len(data)
        if self._discarded_bytes > MAX_DISCARDED_BYTES:
            self.transport.abort()

    # ---- time and number (rules 5 and 6) -----------------------------------------------------------------------------

    def _check_time(self) -> None:
        self._check = self.loop.call_later(CHECK_SECONDS, self._check_time)
        now, part = self.loop.time(), self._part()
        if part != self._timed_part or not (self.is_idle() or part[1]):
            self._timed_part, self._began = part, now
        if self.transport.is_closing():
            self._closing_since = self._closing_since or now
        paused_since = self.write_paused_at if self.flow.write_paused else self._closing_since
        if paused_since and now - paused_since > RESPONSE_SECONDS:
            # Reset it, or the kernel keeps what the client does not read.
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            self.transport.abort()
        elif self.flow.may_parse() and now - self._began > (BODY_SECONDS if part[1] else HEAD_SECONDS):
            if self._bytes:
                self.refuse(408)
            else:  # a browser opens connections in advance, and takes a response for that of its first request
                self.transport.close()

    def _make_room(self) -> None:
        idle = [one for one in self.connections if one is not self and one.is_idle()]
        for one in heapq.nsmallest(max(1, len(idle) // 16), idle, key=lambda one: one._began):
            one.transport.abort()
        if not idle:
            self.transport.abort()


class BoundedH11Protocol(_BoundedConnection, H11Protocol):
    """uvicorn on h11, which parses no request before the one before has its response."""

    slice_bytes = SLICE_BYTES // 4  # h11 is slow: so the other connections wait no longer
    conn: Any

    def is_receiving_body(self) -> bool:
        return self.conn.their_state is h11.SEND_BODY

    def is_queueing(self) -> bool:
        return not self.is_idle() and not self.cycle.more_body

    def handle_events(self) -> None:
        if self.conn.their_state is h11.IDLE:
            head, *body = END_OF_HEAD.split(self.conn.trailing_data[0], 1)
            if len(head) > MAX_HEAD_BYTES or head.count(b"\n") > MAX_HEADERS:
                self.refuse(431)  # rule 2
                return
            if body and BOTH_LENGTHS.search(head):  # once a head, however many pieces it comes in
                self.refuse(400)  # rule 9; the other parser does so by itself
                return
        super().handle_events()


if HttpToolsProtocol is not None:

    class BoundedHttpToolsProtocol(_BoundedConnection, HttpToolsProtocol):
        """uvicorn on httptools, which bounds nothing, and parses all that it gets."""

        parser: Any
        pipeline: Any
        headers: list[tuple[bytes, bytes]]
        _is_in_body = False

        def is_receiving_body(self) -> bool:
            return self._is_in_body

        def is_queueing(self) -> bool:
            return bool(self.pipeline)

        def on_headers_complete(self) -> None:
            if len(self.headers) > MAX_HEADERS:
                self.refuse(431)  # rule 2
                raise BufferError("too many headers")  # which stops the parser
            if len(self.pipeline) >= MAX_PIPELINED:
                self.refuse(503)  # rule 4
                raise BufferError("too many requests wait")
            super().on_headers_complete()
            self.headers = DROPPED_HEADERS  # from here on there are trailers only (rule 3)
            self._is_in_body = True
            if self.parser.should_upgrade():
                self.cycle.keep_alive = False  # rule 8: the parser reads no further

        def on_message_complete(self) -> None:
            self._is_in_body = False
            super().on_message_complete()


def http_protocol() -> type[asyncio.Protocol]:
    """Return the protocol class for ``uvicorn.Config(http=…)``: on httptools where it is installed, else on h11."""
    return BoundedH11Protocol if HttpToolsProtocol is None else BoundedHttpToolsProtocol


@functools.cache
def max_connections() -> int:
    """Return how many connections one process may have (rule 6)."""
    try:
        import resource  # noqa: PLC0415  # not on Windows
    except ImportError:
        return MAX_CONNECTIONS
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_CONNECTIONS if soft == resource.RLIM_INFINITY else max(1, min(MAX_CONNECTIONS, soft - SPARE_FILES))


def _refusal(status: int) -> bytes:
    text = HTTPStatus(status).phrase
    return (
        f"HTTP/1.1 {status} {text}\r\ncontent-type: text/plain; charset=utf-8\r\n"
        f"content-length: {len(text)}\r\nconnection: close\r\n\r\n{text}"
    ).encode()
