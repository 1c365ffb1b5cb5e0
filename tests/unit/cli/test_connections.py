"""The bounds of one connection that need time, or many connections, or another application."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import uvicorn

from unbroken.cli import connections
from unbroken.cli.connections import MAX_HEAD_BYTES, BoundedH11Protocol, http_protocol

BIG = 4 * 2**20
seen: list[list[tuple[bytes, bytes]]] = []


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Reads the body, and responds with its length, or with as much as the path says."""
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body, more = body + message["body"], message["more_body"]
    if scope["path"] == "/slow":
        await asyncio.sleep(0.8)
    seen.append(list(scope["headers"]))
    content = bytes(BIG) if scope["path"] == "/big" else b"%d" % len(body)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(content))]})
    for at in range(0, len(content), 65_536):
        more = at + 65_536 < len(content)
        await send({"type": "http.response.body", "body": content[at : at + 65_536], "more_body": more})


@contextmanager
def served(protocol: Any, **changed: Any) -> Iterator[int]:
    """The port of a server with other bounds."""
    with pytest.MonkeyPatch.context() as patch, socket.create_server(("127.0.0.1", 0)) as listening:
        for name, value in {"CHECK_SECONDS": 0.05, "LINGER_SECONDS": 0.5, **changed}.items():
            patch.setattr(connections, name, value)
        config = uvicorn.Config(
            app, http=protocol, ws="none", log_level="critical", lifespan="off", timeout_graceful_shutdown=0,
            h11_max_incomplete_event_size=MAX_HEAD_BYTES,
        )  # fmt: skip
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        while not server.started and thread.is_alive():
            thread.join(0.005)
        try:
            yield listening.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(10)


@pytest.fixture(params=[http_protocol(), BoundedH11Protocol], ids=["httptools", "h11"])
def protocol(request: pytest.FixtureRequest) -> Any:
    return request.param


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=10)


def until_closed(connection: socket.socket) -> bytes:
    response = b""
    with contextlib.suppress(ConnectionError):
        while part := connection.recv(65_536):
            response += part
    return response


def drip(connection: socket.socket, data: bytes) -> bytes:
    """Send *data* a byte at a time until the server ends the connection; return its response."""
    connection.settimeout(0.02)
    for byte in data:
        try:
            connection.sendall(bytes([byte]))
            part = connection.recv(65_536)
        except TimeoutError:
            continue
        except OSError:
            return b""
        return part
    raise AssertionError("the server takes it all")


def test_a_head_that_drips_is_ended(protocol: Any) -> None:
    with served(protocol, HEAD_SECONDS=0.4) as port, connect(port) as connection:
        started = time.monotonic()
        response = drip(connection, b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 100)
        assert response.startswith(b"HTTP/1.1 408")
        assert time.monotonic() - started < 5


def test_a_second_head_on_a_connection_that_drips_is_ended(protocol: Any) -> None:
    with served(protocol, HEAD_SECONDS=0.4) as port, connect(port) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        assert connection.recv(65_536).startswith(b"HTTP/1.1 200")
        assert drip(connection, b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 100).startswith((b"HTTP/1.1 408", b""))


def test_a_body_that_drips_is_ended_and_so_is_its_request(protocol: Any) -> None:
    with served(protocol, BODY_SECONDS=0.4) as port, connect(port) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n")
        assert drip(connection, b"x" * 1000).startswith(b"HTTP/1.1 408")


def test_a_connection_that_says_nothing_is_closed_without_a_word(protocol: Any) -> None:
    with served(protocol, HEAD_SECONDS=0.3) as port, connect(port) as connection:
        assert until_closed(connection) == b""


def test_a_response_that_is_not_read_is_given_up(protocol: Any) -> None:
    with served(protocol, RESPONSE_SECONDS=0.3) as port, connect(port) as connection:
        connection.sendall(b"GET /big HTTP/1.1\r\nhost: x\r\n\r\n" * 4)
        time.sleep(1.0)
        assert len(until_closed(connection)) < 4 * BIG


def test_a_response_that_is_read_slowly_but_steadily_arrives_whole(protocol: Any) -> None:
    with served(protocol, RESPONSE_SECONDS=0.5) as port, connect(port) as connection:
        connection.sendall(b"GET /big HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        count = 0
        while part := connection.recv(131_072):
            count += len(part)
            time.sleep(0.02)
        assert count > BIG


def test_a_request_that_takes_long_is_no_slow_client(protocol: Any) -> None:
    with served(protocol, HEAD_SECONDS=0.2, BODY_SECONDS=0.2, RESPONSE_SECONDS=0.2) as port, connect(port) as asked:
        asked.sendall(b"GET /slow HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        assert until_closed(asked).startswith(b"HTTP/1.1 200")


def test_new_connections_take_the_place_of_idle_ones(protocol: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "max_connections", lambda: 8)
    with served(protocol) as port, contextlib.ExitStack() as stack:
        busy = stack.enter_context(connect(port))
        busy.sendall(b"GET /slow HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        time.sleep(0.1)
        idle = [stack.enter_context(connect(port)) for _ in range(30)]
        asked = stack.enter_context(connect(port))
        asked.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        assert until_closed(asked).startswith(b"HTTP/1.1 200")
        assert until_closed(idle[0]) == b""
        assert until_closed(busy).startswith(b"HTTP/1.1 200"), "a request that runs is not interrupted"


def test_pipelined_requests_get_their_responses_in_order(protocol: Any) -> None:
    with served(protocol) as port, connect(port) as connection:
        for number in range(1, 13):
            close = "connection: close\r\n" if number == 12 else ""
            head = (
                f"POST /{'slow' if number == 3 else ''} HTTP/1.1\r\nhost: x\r\n{close}content-length: {number * 3000}"
            )
            connection.sendall(head.encode() + b"\r\n\r\n" + b"x" * number * 3000)
        response = until_closed(connection)
    lengths = [part.partition(b"\r\n\r\n")[2] for part in response.split(b"HTTP/1.1 200 OK")[1:]]
    assert lengths == [b"%d" % (number * 3000) for number in range(1, 13)]


def test_a_long_body_arrives_whole_where_the_application_takes_it(protocol: Any) -> None:
    with served(protocol, MAX_BODY_WIRE_BYTES=BIG) as port, connect(port) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 3000000\r\n\r\n")
        connection.sendall(bytes(3_000_000))
        assert until_closed(connection).endswith(b"\r\n\r\n3000000")


def test_a_trailer_is_no_header(protocol: Any) -> None:
    seen.clear()
    with served(protocol) as port, connect(port) as connection:
        head = b"POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n"
        connection.sendall(head + b"2\r\nok\r\n0\r\nx-admin: yes\r\n\r\n")
        assert until_closed(connection).endswith(b"\r\n\r\n2")
    [headers] = seen
    assert b"x-admin" not in dict(headers)


def test_a_long_upload_that_is_refused_is_told_so(protocol: Any) -> None:
    with served(protocol) as port, connect(port) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n" + bytes(1_000_000))
        assert until_closed(connection).startswith(b"HTTP/1.1 413")


def test_without_a_limit_of_files_there_is_one_of_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    for soft, most in ((resource.RLIM_INFINITY, 10_000), (1024, 824), (10**6, 10_000), (64, 1)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, soft=soft: (soft, soft))
        assert connections.max_connections.__wrapped__() == most
