"""Events on their way to others: to a log, to several listeners, and to another server over real HTTP."""

from __future__ import annotations

import base64
import hmac
import http.server
import json
import logging
import multiprocessing
import threading
import time
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import pytest

from unbroken.errors import ConfigurationError
from unbroken.server import EventLog, MemorySessionStore, Sessions, Webhook
from unbroken.server.events import (
    LoginRateLimited,
    ReuseDetected,
    SessionCreated,
    SessionRefreshed,
    SessionRevoked,
)
from unbroken.server.webhook import signature

KEY = bytes(range(32))
SECRET = "whsec_" + base64.b64encode(KEY).decode()
SOON = (0.01, 0.01, 0.01)


class Receiver:
    """An HTTP server that takes messages, and responds with the next of ``responses``, or with 204."""

    def __init__(self) -> None:
        self.responses: list[int] = []
        self.led_astray: list[str] = []  # where somebody has followed a redirect to
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.changed, self.gate = threading.Condition(), threading.Event()
        self.gate.set()
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                assert receiver.gate.wait(20)
                with receiver.changed:
                    status = receiver.responses.pop(0) if receiver.responses else 204
                    receiver.got.append(({name.lower(): value for name, value in self.headers.items()}, body))
                    receiver.changed.notify_all()
                self.send_response(status)
                self.send_header("location", "/elsewhere")
                self.send_header("content-length", "0")
                self.end_headers()

            def do_GET(self) -> None:
                receiver.led_astray.append(self.path)
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Quiet."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/hook"

    def messages(self, count: int) -> list[tuple[dict[str, str], dict[str, Any]]]:
        """The first *count* messages, once they have arrived."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.got) >= count, 20), self.got
            return [(headers, json.loads(body)) for headers, body in self.got[:count]]

    def close(self) -> None:
        self.gate.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


def started(sid: str = "s1") -> SessionCreated:
    return SessionCreated(sid, "ada", "app", "192.0.2.1", "curl/8", True)


# ---- what is sent ----------------------------------------------------------------------------------------------------


def test_a_message_is_signed_as_standard_webhooks_wants_it(receiver: Receiver) -> None:
    hook = Webhook(receiver.url, SECRET)
    hook(started())
    assert hook.close(10)
    [(headers, raw)] = receiver.got
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + raw
    expected = base64.b64encode(hmac.digest(KEY, signed, "sha256")).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    assert abs(time.time() - int(headers["webhook-timestamp"])) < 60
    assert headers["content-type"] == "application/json"
    body = json.loads(raw)
    assert (body["type"], body["timestamp"][-1], set(body)) == ("login.accepted", "Z", {"type", "timestamp", "data"})
    assert body["data"] == {"sid": "s1", "subject": "ada", "client_id": "app", "ip": "192.0.2.1",
                            "user_agent": "curl/8", "new_device": True}  # fmt: skip


def test_the_signature_is_that_of_the_standards_own_example() -> None:
    key = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    body = b'{"test": 2432232314}'
    signed = signature(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", body)
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_refreshes_are_sent_only_on_request(receiver: Receiver) -> None:
    plain, chosen = Webhook(receiver.url, SECRET), Webhook(receiver.url, SECRET, events=[SessionRefreshed.kind])
    for hook in (plain, chosen):
        hook(SessionRefreshed("s1", "ada"))
        assert hook.close(10)
    assert [body["type"] for _, body in receiver.messages(1)] == ["session.refreshed"]
    assert len(receiver.got) == 1


def test_messages_arrive_in_order(receiver: Receiver) -> None:
    hook = Webhook(receiver.url, SECRET)
    for number in range(20):
        hook(started(str(number)))
    assert hook.close(20)
    assert [body["data"]["sid"] for _, body in receiver.messages(20)] == [str(number) for number in range(20)]


# ---- what goes wrong -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [302, 400, 410, 500, 503])
def test_what_is_not_received_comes_again_under_the_same_id(receiver: Receiver, status: int) -> None:
    receiver.responses = [status, status]
    hook = Webhook(receiver.url, SECRET, delays=SOON)
    hook(started())
    messages = receiver.messages(3)
    assert hook.close(10)
    assert len({headers["webhook-id"] for headers, _ in messages}) == 1
    assert (len(receiver.got), receiver.led_astray) == (3, [])


def test_a_message_is_given_up_after_the_last_try(receiver: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    receiver.responses = [500] * 4
    hook = Webhook(receiver.url, SECRET, delays=SOON)
    hook(started("first"))
    receiver.messages(4)
    hook(started("second"))
    assert receiver.messages(5)[-1][1]["data"]["sid"] == "second"
    assert hook.close(10)
    assert [record.getMessage() for record in caplog.records if "dropped after 4 tries" in record.getMessage()]
    assert SECRET not in caplog.text


def test_one_message_that_waits_does_not_hold_up_the_next(receiver: Receiver) -> None:
    receiver.responses = [500]
    hook = Webhook(receiver.url, SECRET, delays=[600.0])
    hook(started("first"))
    receiver.messages(1)
    hook(started("second"))
    assert [body["data"]["sid"] for _, body in receiver.messages(2)] == ["first", "second"]
    assert hook.close(10), "what waits is sent once more when it is closed"
    assert [body["data"]["sid"] for _, body in receiver.messages(3)] == ["first", "second", "first"]


@pytest.mark.parametrize("status", [429, 503])
def test_a_receiver_that_is_down_gets_the_rest_later_and_in_order(receiver: Receiver, status: int) -> None:
    receiver.responses = [status, status]
    hook = Webhook(receiver.url, SECRET, delays=SOON)
    for number in range(3):
        hook(started(str(number)))
    messages = receiver.messages(5)
    assert [body["data"]["sid"] for _, body in messages] == ["0", "0", "0", "1", "2"]
    assert hook.close(10)


def test_the_oldest_message_makes_room_with_one_line_in_the_log(
    receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.gate.clear()
    hook = Webhook(receiver.url, SECRET, max_pending=3)
    for number in range(8):
        hook(started(str(number)))
    receiver.gate.set()
    hook.close(20)
    sids = [json.loads(body)["data"]["sid"] for _, body in receiver.got]
    assert sids[-3:] == ["5", "6", "7"]
    assert len(sids) <= 4, "one may have been on its way"
    assert caplog.text.count("the oldest are dropped") == 1


def test_a_receiver_that_does_not_respond_blocks_no_request(receiver: Receiver) -> None:
    receiver.gate.clear()
    hook = Webhook(receiver.url, SECRET)
    sessions = Sessions(MemorySessionStore(), on_event=hook)
    began = time.monotonic()
    for _ in range(10):
        sessions.create("ada")
    assert not hook.close(0.05)
    assert time.monotonic() - began < 10
    receiver.gate.set()
    hook(started("too late"))
    assert all(b"too late" not in body for _, body in receiver.got)


def test_a_receiver_that_is_not_there_loses_messages_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as gone:
        url = f"http://127.0.0.1:{gone.server_address[1]}/"
    hook = Webhook(url, SECRET)
    hook(started())
    assert not hook.close(10)
    assert "1 undelivered messages" in caplog.text


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_after_a_fork_the_child_sends_its_own(receiver: Receiver) -> None:
    hook = Webhook(receiver.url, SECRET)
    hook(started("parent"))
    receiver.messages(1)
    child = multiprocessing.get_context("fork").Process(target=_send, args=(hook,))
    child.start()
    child.join(20)
    assert child.exitcode == 0
    assert [body["data"]["sid"] for _, body in receiver.messages(2)] == ["parent", "child"]
    assert hook.close(10)


# ---- how it is set up ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    ["http://example.com/x", "ftp://127.0.0.1/", "example.com", "https://", "https://u:p@example.com/", "",
     "http://127.0.0.1.example.com/", "https://[::1", "http://localhost.example.com/", "https://127.0.0.1:1/\u00fc"],
)  # fmt: skip
def test_a_url_that_is_not_safe_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError):
        Webhook(url, SECRET)


@pytest.mark.parametrize("secret", ["", "short", "whsec_", "whsec_c2hvcnQ=", "whsec_not base64, but long enough it is"])
def test_a_malformed_secret_is_refused(secret: str) -> None:
    with pytest.raises(ConfigurationError):
        Webhook("https://example.com/", secret)


@pytest.mark.parametrize("events", [["session.began"], "session.ended", [SessionRevoked.kind, ""]])
def test_an_unknown_event_is_refused(events: Any) -> None:
    with pytest.raises(ConfigurationError, match="knows no event"):
        Webhook("https://example.com/", SECRET, events=events)


def test_a_misspelled_event_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(ConfigurationError, match=r"'login.acepted': did you mean login.accepted\?"):
        Webhook("https://example.com/", SECRET, events=["login.acepted"])


def test_a_webhook_shows_neither_secret_nor_path() -> None:
    assert repr(Webhook("https://example.com/hook?key=1", SECRET)) == "<Webhook example.com>"


# ---- logs and listeners ----------------------------------------------------------------------------------------------


def test_a_log_has_the_fields_of_an_event(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "unbroken.events")
    log = EventLog()
    for event in (started(), ReuseDetected("s1", "ada", "(1,0)", 5), SessionRefreshed("s1", "ada"), LoginRateLimited()):
        log(event)
    levels = [record.levelname for record in caplog.records]
    assert levels == ["INFO", "WARNING", "DEBUG", "WARNING"]
    record: Any = caplog.records[0]
    assert (record.event, record.sid, record.subject, record.new_device) == ("login.accepted", "s1", "ada", True)
    assert record.getMessage() == "login.accepted sid=s1"


def test_no_field_of_an_event_is_one_that_logging_keeps_for_itself() -> None:
    taken = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "event"}
    kinds = (SessionCreated, LoginRateLimited, SessionRefreshed, ReuseDetected, SessionRevoked)
    assert not taken & {field.name for kind in kinds for field in fields(kind)}


def test_there_may_be_several_listeners_and_one_that_fails_keeps_nothing_from_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fails(_: object) -> None:
        raise RuntimeError("no")

    got: list[object] = []
    sessions = Sessions(MemorySessionStore(), on_event=[fails, got.append, EventLog()])
    sessions.create("ada")
    assert [type(event) for event in got] == [SessionCreated]
    assert "an event listener failed" in caplog.text


def _send(hook: Webhook) -> None:
    hook(started("child"))
    assert hook.close(10)


@pytest.fixture
def hook(request: pytest.FixtureRequest) -> Iterator[Webhook]:
    made = Webhook(request.param, "a secret of twenty-four bytes", delays=(), timeout=5.0)
    yield made
    made.close(timeout=5)


@pytest.mark.parametrize("hook", ["https://a..b/x", "https://127.0.0.1:1/x"], indirect=True)
def test_a_url_that_cannot_be_sent_to_does_not_end_the_thread_that_sends(
    hook: Webhook, caplog: pytest.LogCaptureFixture
) -> None:
    for count in (1, 2):
        hook(SessionCreated("s1", "ada"))
        until = time.monotonic() + 10
        while caplog.text.count("was dropped") < count and time.monotonic() < until:
            time.sleep(0.01)
    assert caplog.text.count("was dropped") == 2
