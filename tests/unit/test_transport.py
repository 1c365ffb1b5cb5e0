"""The HTTP sender of the library, against real sockets: what its errors say, and what they mean."""

from __future__ import annotations

import contextlib
import http.server
import socket
import ssl
import threading
from collections.abc import Iterator

import pytest

from unbroken._http import HttpRequest
from unbroken._transport import NotSent, ResponseLost, http_sender

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
            http_sender()(get(url), 0.2)
    assert str(caught.value) == f"no response from {url} (timeout)"


def test_a_response_that_breaks_off_is_lost() -> None:
    with serving(Announcer) as address, pytest.raises(ResponseLost, match="no response from"):
        http_sender()(get(f"http://{address}/"), SECONDS)


def test_a_response_that_is_too_long_is_lost() -> None:
    with serving(Responder) as address:
        with pytest.raises(ResponseLost, match="longer than 63 bytes"):
            http_sender(max_body_bytes=63)(get(f"http://{address}/"), SECONDS)
        assert http_sender(max_body_bytes=64)(get(f"http://{address}/"), SECONDS).body == b"." * 64


def test_a_body_that_nobody_wants_stays_unread() -> None:
    with serving(Responder) as address:
        response = http_sender(max_body_bytes=1, read_body=False)(get(f"http://{address}/"), SECONDS)
    assert (response.status, response.body) == (200, None)
