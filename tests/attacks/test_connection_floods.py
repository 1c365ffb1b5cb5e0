"""What one connection can cost ``unbroken serve``: memory, and the time that other clients wait. On both parsers."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import httpx2
import pytest

from tests.support.attacks import Attacks
from tests.support.commands import PASSWORD, Server, serving, unbroken
from tests.support.services import free_port

MIB = 2**20
MAX_GROWTH_MIB = 2.0  # of the whole process
MAX_WAIT_SECONDS = 1.0  # for tests on a busy machine
GIVE_UP_SECONDS = 5.0

GET = b"GET /auth/health HTTP/1.1\r\nHost: x\r\n"
POST = b"POST /auth/login HTTP/1.1\r\nHost: x\r\ncontent-type: application/json\r\n"
CHUNKED = POST + b"transfer-encoding: chunked\r\n\r\n"
SMALL = b"a:b\r\n" * 13_000
LONG = b"x" * 65_536
LOGIN = POST + b"content-length: 60000\r\n\r\n" + b"x" * 60_000

# What is sent once, and what is sent after it without end.
FLOODS = {
    "small headers": (GET, SMALL),
    "one header": (GET + b"a: ", LONG),
    "the name of a header": (GET, LONG),
    "folded header": (GET + b"a: b\r\n", b" x\r\n" * 16_000),
    "request line": (b"GET /", LONG),
    "query": (b"GET /auth/health?", LONG),
    "method": (b"", b"G" * 65_536),
    "blank lines": (b"", b"\r\n" * 32_000),
    "nulls": (b"", b"\0" * 65_536),
    "requests that are never read": (b"", (GET + b"\r\n") * 1_000),
    "large responses that are never read": (b"", b"GET /auth/unbroken.js HTTP/1.1\r\nHost: x\r\n\r\n" * 1_000),
    "requests with many headers": (b"", (GET + b"a:b\r\n" * 90 + b"\r\n") * 100),
    "requests with bodies": (b"", LOGIN),
    "requests of HTTP/1.0": (b"", b"GET /auth/health HTTP/1.0\r\nconnection: keep-alive\r\n\r\n" * 1_000),
    "requests that expect 100": (b"", (POST + b"expect: 100-continue\r\ncontent-length: 2\r\n\r\n{}") * 500),
    "extension of a chunk": (CHUNKED + b"1;", LONG),
    "extension with a value": (CHUNKED + b'1;a="', LONG),
    "size of a chunk": (CHUNKED, b"0" * 65_536),
    "trailers": (CHUNKED + b"0\r\n", SMALL),
    "one trailer": (CHUNKED + b"0\r\na: ", LONG),
    "tiny chunks": (CHUNKED, b"1\r\nx\r\n" * 10_000),
    "tiny chunks with extensions": (CHUNKED, b"1;a=b\r\nx\r\n" * 6_000),
    "endless body": (POST + b"content-length: 99999999999\r\n\r\n", LONG),
    "endless body that nobody reads": (
        b"POST /nothing HTTP/1.1\r\nHost: x\r\ncontent-length: 99999999999\r\n\r\n",
        LONG,
    ),
    "endless body of a GET": (GET + b"content-length: 99999999999\r\n\r\n", LONG),
    "upgrade": (GET + b"connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\r\n", LONG),
    "upgrade to HTTP/2": (GET + b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\n\r\n", LONG),
    "HTTP/2 by prior knowledge": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", LONG),
    "tunnel": (b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n", LONG),
}
# What two servers could read as two different requests.
ODD = (
    POST + b"content-length: 2\r\ncontent-length: 3\r\n\r\n{}",
    POST + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    POST + b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
    POST + b"transfer-encoding : chunked\r\n\r\n0\r\n\r\n",
    POST + b"content-length: +2\r\n\r\n{}",
    POST + b"content-length: 0x2\r\n\r\n{}",
    POST + b"transfer-encoding: chunked\r\n\r\n-1\r\n{}\r\n0\r\n\r\n",
    GET + b"a b: c\r\n\r\n",
    GET + b"a: b\0c\r\n\r\n",
)


class Watch:
    """How much memory a server takes at most, and how long another client waits at most, within the block."""

    def __init__(self, server: Server) -> None:
        self._server, self._stopped = server, threading.Event()
        self._before = self._peak = self._resident()
        self.waits: list[float] = []  # in seconds, of the other client
        self._threads = [threading.Thread(target=work) for work in (self._measure, self._ask)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    @property
    def growth(self) -> float:
        """In MiB."""
        return (self._peak - self._before) / MIB

    def _resident(self) -> int:
        pages = Path(f"/proc/{self._server.process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def _measure(self) -> None:
        while not self._stopped.wait(0.005):
            self._peak = max(self._peak, self._resident())

    @property
    def waited(self) -> float:
        """The longest of the waits; at least one request was sent, and answered."""
        assert self.waits
        return max(self.waits)

    def _ask(self) -> None:
        while True:
            started = time.monotonic()
            if self._server.http.get("/auth/health").status_code == 200:
                self.waits.append(time.monotonic() - started)
            if self._stopped.wait(0.005):
                return


@pytest.fixture(scope="module", params=["httptools", "h11"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder, environment = tmp_path_factory.mktemp("served"), {}
    if request.param == "h11":  # as on a machine for which there is no build of httptools
        (folder / "httptools.py").write_text("raise ImportError")
        environment["PYTHONPATH"] = str(folder)
    unbroken(folder, "users", "add", "ada", "--password-stdin", given=PASSWORD + "\n")
    with serving(folder, **environment) as running:
        for _ in range(50):
            running.http.get("/auth/health")  # so that memory for ordinary requests is there before it is measured
        yield running


def connect(server: Server) -> socket.socket:
    host, port = server.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=0.2)


def flood(connection: socket.socket, once: bytes, again: bytes, total: int) -> int:
    """Send until the server closes, reads no more, or has *total* bytes; return how many it took."""
    sent, ends = 0, time.monotonic() + GIVE_UP_SECONDS
    with contextlib.suppress(OSError):
        connection.sendall(once)
        while sent < total and time.monotonic() < ends:
            sent += connection.send(again[sent % len(again) :])
    return sent


def received(connection: socket.socket) -> bytes:
    response = b""
    with contextlib.suppress(OSError):
        while part := connection.recv(65_536):
            response += part
    return response


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_costs_little_and_delays_nobody(
    name: str, server: Server, attacks: Attacks, size: Callable[[int, int], int]
) -> None:
    once, again = FLOODS[name]
    with Watch(server) as watch, connect(server) as connection:
        attacks.try_one()
        flood(connection, once, again, size(8, 200) * MIB)
    assert watch.growth < MAX_GROWTH_MIB, f"{watch.growth:.1f} MiB"
    assert watch.waited < MAX_WAIT_SECONDS, f"{watch.waited:.3f} s"


def test_many_connections_that_hold_all_they_may_cost_a_bounded_sum(
    server: Server, attacks: Attacks, size: Callable[[int, int], int]
) -> None:
    many = size(16, 100)
    with contextlib.ExitStack() as stack, Watch(server) as watch:
        for connection in [stack.enter_context(connect(server)) for _ in range(many)]:
            attacks.try_one()
            connection.settimeout(0.02)
            flood(connection, b"", (GET + b"a:b\r\n" * 90 + b"\r\n") * 100, 8 * MIB)
    assert watch.growth < 2.0 * many, f"{watch.growth:.1f} MiB for {many} connections"


def test_one_packet_of_a_thousand_requests_gets_responses_in_order_or_an_end(server: Server, attacks: Attacks) -> None:
    with connect(server) as connection:
        attacks.try_one()
        connection.settimeout(5)
        connection.sendall((GET + b"\r\n") * 999 + GET + b"connection: close\r\n\r\n")
        response = received(connection)
    assert 10 <= response.count(b"HTTP/1.1 200 OK") <= 1_000
    assert response.count(b"HTTP/1.1 ") == response.count(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize("request_", ODD)
def test_an_odd_request_is_refused_and_nothing_after_it_is_read(
    request_: bytes, server: Server, attacks: Attacks
) -> None:
    with connect(server) as connection:
        attacks.try_one()
        connection.sendall(request_ + GET + b"connection: close\r\n\r\n")
        connection.settimeout(5)
        response = received(connection)
    assert b"HTTP/1.1 200" not in response
    assert b"HTTP/1.1 500" not in response


def test_a_request_that_is_too_large_gets_its_status_before_the_end(server: Server, attacks: Attacks) -> None:
    for request_, status in (
        (GET + b"a: " + b"x" * 100_000 + b"\r\n\r\n", b"431"),
        (GET + b"a: b\r\n" * 101 + b"\r\n", b"431"),
        (POST + b"content-length: 1000000\r\n\r\n" + b" " * 1_000_000, b"413"),
        (CHUNKED + b"1;" + b"x" * 1_000_000, b"4"),
    ):
        with connect(server) as connection:
            attacks.try_one()
            connection.settimeout(5)
            connection.sendall(request_)
            assert received(connection).startswith(b"HTTP/1.1 " + status)


def test_an_ordinary_client_notices_nothing(server: Server, attacks: Attacks) -> None:
    attacks.try_one()  # the largest that is allowed
    headers = {f"x-{number}": "a" * 200 for number in range(80)}
    tokens = server.http.post("/auth/login", json={"username": "ada", "password": PASSWORD}, headers=headers).json()
    for _ in range(3):
        tokens = server.refresh(tokens["refresh_token"]).json()
    chunks = iter([b"%c" % byte for byte in b'{"username": "ada", "password": "' + PASSWORD.encode() + b'"}'])
    response = server.http.post("/auth/login", content=chunks, headers={"content-type": "application/json"})
    assert response.status_code == 200


# ---- the port of the metrics -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def metered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, int]]:
    """A server, and the port of its metrics."""
    port = free_port()
    with serving(tmp_path_factory.mktemp("metered"), "--metrics-port", str(port)) as running:
        running.until(lambda: httpx2.get(f"http://127.0.0.1:{port}/metrics", timeout=30).status_code == 200)
        yield running, port


@pytest.mark.parametrize("name", ["small headers", "request line", "requests that are never read", "endless body"])
def test_a_flood_of_the_metrics_costs_little(
    name: str, metered: tuple[Server, int], attacks: Attacks, size: Callable[[int, int], int]
) -> None:
    (server, port), (once, again) = metered, FLOODS[name]
    with Watch(server) as watch, socket.create_connection(("127.0.0.1", port), timeout=0.2) as connection:
        attacks.try_one()
        flood(connection, once.replace(b"/auth/health", b"/metrics"), again, size(8, 200) * MIB)
    assert watch.growth < MAX_GROWTH_MIB, f"{watch.growth:.1f} MiB"
    assert watch.waited < MAX_WAIT_SECONDS, f"{watch.waited:.3f} s"
    assert b"unbroken_server" in httpx2.get(f"http://127.0.0.1:{port}/metrics", timeout=30).content


def test_unfinished_requests_for_the_metrics_take_no_thread_each(
    metered: tuple[Server, int], attacks: Attacks, size: Callable[[int, int], int]
) -> None:
    server, port = metered

    def threads() -> int:
        status = Path(f"/proc/{server.process.pid}/status").read_text()
        return int(status.partition("Threads:")[2].split()[0])

    before = threads()
    with contextlib.ExitStack() as stack:
        for _ in range(size(100, 1000)):
            attacks.try_one()
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=1))
            connection.sendall(b"GET /metrics HT")
        assert httpx2.get(f"http://127.0.0.1:{port}/metrics", timeout=30).status_code == 200
        assert threads() <= before + 10
