"""The HTTP sender of the library, against real sockets: what its errors say, and what they mean."""

from __future__ import annotations

import contextlib
import http.server
import socket
import ssl
import threading
import time
import traceback
from collections.abc import Iterator

import pytest

from tests.support.sockets import responding
from unbroken import Dialect, HttpRequest, RequestTemplate, Session, TryLater
from unbroken._http import NotSent, ResponseLost
from unbroken._transport import http_sender

SECONDS = 5.0


def get(url: str) -> HttpRequest:
    return HttpRequest("GET", url)


@contextlib.contextmanager
def serving(handler: type[http.server.BaseHTTPRequestHandler]) -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


class Responder(http.server.BaseHTTPRequestHandler):
    """Responds with 64 bytes to GET, and refuses to be a proxy."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-length", "64")
        self.end_headers()
        self.wfile.write(b"." * 64)

    def do_CONNECT(self) -> None:
        self.send_error(403, "Forbidden")

    def log_message(self, *_: object) -> None:
        """Quiet."""


class Announcer(Responder):
    """Announces more bytes than it sends."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-length", "64")
        self.end_headers()
        self.wfile.write(b"short")


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


# ---- the server was not reached --------------------------------------------------------------------------------------


def test_a_refused_connection_is_named() -> None:
    url = f"http://127.0.0.1:{closed_port()}/token"
    with pytest.raises(NotSent) as caught:
        http_sender()(get(f"{url}?secret=1"), SECONDS)
    assert str(caught.value) == f"{url} cannot be reached (connection refused)"
    assert caught.value.reason == "connection refused"
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)


def test_an_unknown_name_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def lookup(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    with pytest.raises(NotSent, match=r"cannot be reached \(DNS: name or service not known\)"):
        http_sender()(get("https://nowhere.invalid/"), SECONDS)


def test_a_server_without_tls_is_named() -> None:
    with serving(Responder) as address, pytest.raises(NotSent, match=r"cannot be reached \(TLS: .+\)"):
        http_sender(ssl.create_default_context())(get(f"https://{address}/"), SECONDS)


def test_a_proxy_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    port = closed_port()
    monkeypatch.setenv("https_proxy", f"http://user:s3cret@127.0.0.1:{port}")
    with pytest.raises(NotSent) as caught:
        http_sender()(get("https://api.example/"), SECONDS)
    assert caught.value.reason == f"by the proxy 127.0.0.1:{port}: connection refused"


def test_a_proxy_that_refuses_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(Responder) as address:
        monkeypatch.setenv("https_proxy", f"http://{address}")
        with pytest.raises(NotSent, match=r"by the proxy .+403 Forbidden"):
            http_sender()(get("https://api.example/"), SECONDS)


def test_loopback_is_reached_without_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{closed_port()}")
    with serving(Responder) as address:
        assert http_sender()(get(f"http://{address}/"), SECONDS).status == 200


# ---- the response was lost -------------------------------------------------------------------------------------------


def test_a_response_that_does_not_come_in_time_is_lost() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        with pytest.raises(ResponseLost) as caught:
            http_sender()(get(url), 1.0)
    assert str(caught.value) == f"no response from {url} (timeout)"


def test_a_response_that_breaks_off_is_lost() -> None:
    with serving(Announcer) as address, pytest.raises(ResponseLost, match="no response from"):
        http_sender()(get(f"http://{address}/"), SECONDS)


def test_a_response_that_is_too_long_is_lost() -> None:
    with serving(Responder) as address:
        with pytest.raises(ResponseLost, match="longer than 63 bytes"):
            http_sender(max_body_bytes=63)(get(f"http://{address}/"), SECONDS)
        assert http_sender(max_body_bytes=64)(get(f"http://{address}/"), SECONDS).body == b"." * 64


def test_an_unwanted_body_stays_unread() -> None:
    with serving(Responder) as address:
        response = http_sender(max_body_bytes=1, read_body=False)(get(f"http://{address}/"), SECONDS)
    assert (response.status, response.body) == (200, None)


def test_the_time_of_a_refresh_covers_all_addresses_of_a_host(monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 9))] * 3
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: nowhere)
    waited: list[float] = []

    def hangs(sock: socket.socket, where: object) -> None:
        waited.append(sock.gettimeout() or 0.0)
        time.sleep(min(waited[-1], 0.2))
        raise TimeoutError

    monkeypatch.setattr(socket.socket, "connect", hangs, raising=False)
    with pytest.raises(NotSent):
        http_sender()(HttpRequest("GET", "http://many.example/"), 0.3)
    assert sum(min(seconds, 0.2) for seconds in waited) < 0.5
    assert waited == sorted(waited, reverse=True)


@pytest.mark.parametrize(
    ("length", "body"),
    [
        (b"Content-Length: junk", b'{"access_token": "A"}'),
        (b"Content-Length: 900\r\nTransfer-Encoding: chunked", b'15\r\n{"access_token": "A"}\r\n0\r\n\r\n'),
    ],
    ids=["junk", "two lengths"],
)
def test_an_odd_length_costs_no_tokens(length: bytes, body: bytes) -> None:
    response = b"HTTP/1.1 200 OK\r\nConnection: close\r\n" + length + b"\r\n\r\n" + body
    with responding(response) as port:
        session = Session(f"http://127.0.0.1:{port}", refresh_timeout=5.0)
        assert session.login("ada", "pw").access_token == "A"


def test_a_login_that_cannot_be_written_is_no_error_of_another_tree() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        session = Session(
            Dialect(refresh=RequestTemplate(url), login=RequestTemplate(url, encoding="header")), refresh_timeout=5.0
        )
        password = "hush \u2713"
        with pytest.raises(TryLater) as caught:
            session.login("ada", password)
    assert "hush" not in "".join(traceback.format_exception(caught.value))


def test_connecting_has_a_limit_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def hangs(sock: socket.socket, where: object) -> None:
        time.sleep(sock.gettimeout() or SECONDS)
        raise TimeoutError

    monkeypatch.setattr(socket.socket, "connect", hangs, raising=False)
    began = time.monotonic()
    with pytest.raises(NotSent):
        http_sender()(HttpRequest("GET", "http://127.0.0.1:9/", connect_timeout=0.1), 60.0)
    assert time.monotonic() - began < SECONDS


def test_a_response_may_take_longer_than_connecting() -> None:
    class Slow(Responder):
        def do_GET(self) -> None:
            time.sleep(0.4)
            with contextlib.suppress(OSError):  # the client has given up
                super().do_GET()

    with serving(Slow) as host:
        request = HttpRequest("GET", f"http://{host}/", connect_timeout=0.1)
        assert http_sender()(request, SECONDS).status == 200
        with pytest.raises(ResponseLost, match="timeout"):
            http_sender()(request, 0.2)
