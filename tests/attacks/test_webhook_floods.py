"""Strangers, and receivers that are slow, try to keep a message about a theft from arriving."""

from __future__ import annotations

import http.server
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

import unbroken.prometheus
from tests.support.attacks import Attacks
from unbroken.server import MemorySessionStore, Sessions, Webhook
from unbroken.server.events import (
    LoginFailed,
    LoginRateLimited,
    RefreshRejected,
    ReuseDetected,
    ServerEvent,
    SessionCreated,
    SessionRevoked,
)

SECRET = "a secret of twenty-four bytes"
EVERY_KIND = ["login.refused", "login.throttled", "session.refresh_refused", "login.accepted",
              "session.reuse_detected", "session.ended"]  # fmt: skip
THEFT = ReuseDetected("stolen", "ada", "presented (1,0)", 10)
NOISE: dict[str, Callable[[int], ServerEvent]] = {
    "throttled logins": lambda n: LoginRateLimited(account=str(n), ip=f"192.0.2.{n % 256}"),
    "wrong passwords": lambda n: LoginFailed(account=str(n)),
    "refresh tokens that were made up": lambda _: RefreshRejected(reason="malformed"),
    "logins of one user": lambda n: SessionCreated(str(n), "mallory"),
}


class Receiver:
    """Takes messages; *respond* writes the response to each, by its number."""

    def __init__(self, respond: Callable[[http.server.BaseHTTPRequestHandler, int], None]) -> None:
        self.kinds: list[str] = []
        self.sids: list[str] = []
        self._changed = threading.Condition()
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                with receiver._changed:
                    receiver.kinds.append(body["type"])
                    receiver.sids.append(body["data"]["sid"])
                    number = len(receiver.kinds)
                    receiver._changed.notify_all()
                try:
                    respond(self, number)
                except OSError:
                    self.close_connection = True

            def log_message(self, *_: object) -> None:
                """Quiet."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/"

    def until(self, condition: Callable[[], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(condition, 10), self.kinds


@contextmanager
def receiving(respond: Callable[[Any, int], None]) -> Iterator[Receiver]:
    receiver = Receiver(respond)
    thread = threading.Thread(target=receiver.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield receiver
    finally:
        receiver.server.shutdown()
        thread.join(10)
        receiver.server.socket.close()


def status(handler: Any, number: int) -> None:
    handler.send_response(number)
    handler.send_header("content-length", "0")
    handler.end_headers()


def drip(handler: Any, _number: int) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        handler.wfile.write(b"a: b\r\n")
        time.sleep(0.02)


def drip_100(handler: Any, _number: int) -> None:
    while True:
        handler.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        time.sleep(0.02)


def silent(_handler: Any, _number: int) -> None:
    time.sleep(2.0)


@pytest.mark.parametrize("noise", NOISE)
def test_no_noise_pushes_a_theft_out_of_the_queue(
    noise: str, attacks: Attacks, size: Callable[[int, int], int]
) -> None:
    opened = threading.Event()
    with receiving(lambda handler, number: (opened.wait(10), status(handler, 204))[1]) as receiver:
        hook = Webhook(receiver.url, SECRET, events=EVERY_KIND, max_pending=50)
        hook(LoginFailed())  # the receiver is busy with this one
        receiver.until(lambda: len(receiver.kinds) == 1)
        hook(THEFT)
        hook(SessionRevoked("stolen", "ada", "reuse"))
        hook(SessionCreated("new", "ada", new_device=True))
        for number in range(size(1_500, 50_000)):
            attacks.try_one()
            hook(NOISE[noise](number))
        opened.set()
        assert hook.close(10)
    assert {"stolen", "new"} <= set(receiver.sids)
    if noise != "logins of one user":
        assert receiver.kinds[1:4] == ["session.reuse_detected", "session.ended", "login.accepted"], "and goes first"


@pytest.mark.parametrize("code", [429, 502, 503, 504])
def test_after_a_failure_the_theft_still_arrives_and_in_order(code: int, attacks: Attacks) -> None:
    with receiving(lambda handler, number: status(handler, code if number <= 2 else 204)) as receiver:
        hook = Webhook(receiver.url, SECRET, delays=(0.05, 0.05, 0.05))
        hook(SessionCreated("first", "ada", new_device=True))
        hook(THEFT)
        hook(SessionRevoked("last", "ada"))
        for number in range(1_500):
            attacks.try_one()
            hook(LoginRateLimited(account=str(number)))
        receiver.until(lambda: "last" in receiver.sids)
        hook.close(0.1)
    assert receiver.sids[:5] == ["first", "first", "first", "stolen", "last"]


@pytest.mark.parametrize("respond", [drip, drip_100, silent])
def test_a_slow_receiver_delays_neither_another_nor_a_request(respond: Any, attacks: Attacks) -> None:
    with receiving(respond) as slow, receiving(lambda handler, _: status(handler, 204)) as good:
        hooks = [Webhook(one.url, SECRET, timeout=0.3, delays=()) for one in (slow, good)]
        sessions = Sessions(MemorySessionStore(), on_event=hooks)
        attacks.try_one()
        began = time.monotonic()
        for number in range(20):
            sessions.create(f"user {number}")
        assert time.monotonic() - began < 1.0
        good.until(lambda: len(good.kinds) == 20)
        slow.until(lambda: len(slow.kinds) >= 3)
        assert time.monotonic() - began < 5.0, "each delivery ends, whatever the receiver does"
        for hook in hooks:
            hook.close(0.1)


def test_what_is_dropped_is_counted_by_kind_and_told_at_the_end(
    attacks: Attacks, caplog: pytest.LogCaptureFixture
) -> None:
    with receiving(silent) as receiver:
        hook = Webhook(receiver.url, SECRET, max_pending=10, timeout=5.0)
        registry = CollectorRegistry()
        sessions = Sessions(MemorySessionStore(), on_event=hook)
        unbroken.prometheus.observe_sessions(sessions, registry=registry)
        sessions.notify(THEFT)
        for number in range(100):
            attacks.try_one()
            sessions.notify(LoginRateLimited(account=str(number)))
        name = "unbroken_server_webhook_messages_dropped_total"
        assert registry.get_sample_value(name, {"kind": "login.throttled"}) == 91
        with caplog.at_level(logging.WARNING, "unbroken"):
            assert not hook.close(0.1)
        assert "closed with 10 undelivered messages: 9 login.throttled, 1 session.reuse_detected" in caplog.text
        assert registry.get_sample_value(name, {"kind": "session.reuse_detected"}) == 1
