"""The library's own HTTP client: one deadline, no proxy on loopback, and responses that no good server sends."""

from __future__ import annotations

import socket
import time
import traceback

import pytest

from tests.support.sockets import responding
from unbroken import Dialect, HttpRequest, RequestTemplate, Session, TryLater
from unbroken._transport import NotSent, ResponseLost, http_sender


def test_a_shortened_answer_is_no_answer() -> None:
    with responding(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{}") as port, pytest.raises(ResponseLost):
        http_sender()(HttpRequest("GET", f"http://127.0.0.1:{port}/"), 2.0)


def test_the_time_of_an_exchange_covers_all_addresses_of_a_host(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_loopback_goes_through_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with responding(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}") as port:
        assert http_sender()(HttpRequest("GET", f"http://127.0.0.1:{port}/"), 2.0).status == 200


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
