"""What attackers try while a person logs in: at the listener of the redirect, at the server's side, and with codes."""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from tests.support.oauth_server import Browser, OAuthServer, open_as_browser
from unbroken import BadResponse, DeviceCode, HttpResponse, LoginRefused, Session, TryLater, UnbrokenError, oauth2
from unbroken.client.core import device_flow
from unbroken.client.core.authorization_code import authorization_request, code_of_redirect
from unbroken.client.loopback_listener import MAX_CONNECTIONS, MAX_REQUEST_BYTES


@pytest.fixture
def server() -> Iterator[OAuthServer]:
    with OAuthServer().run() as server:
        yield server


def silent(_: object) -> None: ...


def session_at(server: OAuthServer) -> Session:
    return Session(oauth2.discover(server.url).dialect(client_id="app"))


class Login:
    """A login that waits in a thread for its redirect; an attacker would like to know ``uri`` and ``state``."""

    def __init__(self, server: OAuthServer, seconds: float = 20.0) -> None:
        self.session, self.error = session_at(server), None
        self.is_shown, self.url, self._seconds = threading.Event(), "", seconds
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self.is_shown.wait(10)
        asked = parse_qs(urlsplit(self.url).query)
        self.uri, self.state = asked["redirect_uri"][0], asked["state"][0]
        self.port = int(urlsplit(self.uri).port or 0)

    def _show(self, url: str) -> None:
        self.url = url
        self.is_shown.set()

    def _run(self) -> None:
        try:
            self.session.login_in_browser(timeout=self._seconds, open_url=silent, show=self._show)
        except UnbrokenError as error:
            self.error: UnbrokenError | None = error

    @property
    def waits(self) -> bool:
        return self._thread.is_alive()

    def end(self) -> UnbrokenError | None:
        self._thread.join(25)
        assert not self.waits
        return self.error

    def redirect(self, **query: str) -> tuple[int, str]:
        return open_as_browser(f"{self.uri}?{urlencode(query)}")

    def raw(self, data: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", self.port), 10) as connection:
            connection.sendall(data)
            received = b""
            while chunk := connection.recv(4096):
                received += chunk
            return received


# ---- at the listener -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["", "x", "None", "{state}x", "{state} ", "\u0441"])
def test_a_redirect_with_another_state_is_none_of_ours(server: OAuthServer, attacks: Any, state: str) -> None:
    login = Login(server)
    attacks.try_one()
    status, page = login.redirect(code="stolen", state=state.format(state=login.state))
    assert (status, "stolen" in page, "Another login" in page) == (400, False, True)
    attacks.try_one()
    assert login.redirect(error="access_denied")[0] == 400  # nobody else can end the login
    assert (login.waits, server.forms) == (True, [])
    assert open_as_browser(login.url)[0] == 200
    assert login.end() is None


def test_a_redirect_of_another_server_is_refused(server: OAuthServer, attacks: Any) -> None:
    for change in ({"iss": "https://evil.example"}, {"iss": None}, {"iss": server.url + "/"}, {"iss": ""}):
        server.change_redirect = change
        login = Login(server)
        attacks.try_one()
        assert "The login has failed" in open_as_browser(login.url)[1]
        error = login.end()
        assert isinstance(error, LoginRefused)
        assert error.reason == "wrong_issuer"
    assert server.forms == []  # no code went anywhere


def test_a_code_of_another_login_is_worth_nothing(server: OAuthServer, attacks: Any) -> None:
    theirs, ours = Login(server), Login(server)
    server.change_redirect = {"state": ours.state}
    attacks.try_one()
    code = "none"
    server.codes.clear()
    asked = {name: values[0] for name, values in parse_qs(urlsplit(theirs.url).query).items()}
    server.codes[code] = asked | {"redirect_uri": ours.uri}  # the attacker has agreed, for a login of his own
    ours.redirect(code=code, state=ours.state, iss=server.url)
    error = ours.end()
    assert isinstance(error, LoginRefused)
    assert error.reason == "invalid_grant"
    server.change_redirect = {}
    open_as_browser(theirs.url)
    assert theirs.end() is None


def test_a_second_redirect_finds_nobody(server: OAuthServer, attacks: Any) -> None:
    login = Login(server)
    open_as_browser(login.url)
    login.end()
    attacks.try_one()
    with pytest.raises(OSError, match="refused"):
        login.raw(b"GET / HTTP/1.1\r\n\r\n")
    assert len(server.forms) == 1


@pytest.mark.parametrize("again", ["code", "state", "iss", "error"])
def test_a_parameter_that_comes_twice_is_refused(server: OAuthServer, attacks: Any, again: str) -> None:
    login = Login(server)
    query = [("code", "a"), ("state", login.state), ("iss", server.url), (again, login.state)]
    query += [(again, login.state)] if again == "error" else []
    attacks.try_one()
    open_as_browser(f"{login.uri}?{urlencode(query)}")
    error = login.end()
    assert isinstance(error, LoginRefused)
    assert error.reason == "invalid_redirect"
    assert server.forms == []


HOSTS = ["evil.example", "evil.example:{port}", "127.0.0.1", "localhost:{port}", "127.0.0.1:1", "127.0.0.1:{port}.evil"]


@pytest.mark.parametrize("host", HOSTS)
def test_another_name_for_this_machine_gets_nothing(server: OAuthServer, attacks: Any, host: str) -> None:
    login = Login(server)
    query = urlencode({"code": "a", "state": login.state, "iss": server.url})
    for name in (host.format(port=login.port), f"127.0.0.1:{login.port}\r\nHost: evil.example"):
        attacks.try_one()
        said = login.raw(f"GET /callback?{query} HTTP/1.1\r\nHost: {name}\r\n\r\n".encode())
        assert said.startswith(b"HTTP/1.1 421 ")
    assert (login.waits, server.forms) == (True, [])
    open_as_browser(login.url)
    assert login.end() is None


JUNK = [
    b"\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    b"GET\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"GET /callback HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n",
    b"POST /callback?state={state} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n",
    b"GET /favicon.ico HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n",
    b"GET /../callback?state={state} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n",
    b"GET /callback?" + b"a=b&" * 200 + b" HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n",
    b"GET /callback?%ff%00&state=\xff HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n",
    b"GET /" + b"x" * (2 * MAX_REQUEST_BYTES),
]


def test_junk_ends_no_login(server: OAuthServer, attacks: Any) -> None:
    login = Login(server)
    for junk in JUNK:
        attacks.try_one()
        port, state = str(login.port).encode(), login.state.encode()
        try:
            said = login.raw(junk.replace(b"{port}", port).replace(b"{state}", state))
        except OSError:  # what is too long is cut off
            said = b""
        assert not said or said[9:12] in (b"400", b"404", b"405", b"421")
        assert login.waits
    open_as_browser(login.url)
    assert login.end() is None


def is_open(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return bool(connection.recv(1))
    except BlockingIOError:
        return True
    except OSError:
        return False


def test_connections_without_end_keep_nobody_out(server: OAuthServer, attacks: Any, size: Callable[..., int]) -> None:
    login, held = Login(server), []
    try:
        for _ in range(size(3 * MAX_CONNECTIONS, 10 * MAX_CONNECTIONS)):
            attacks.try_one()
            connection = socket.create_connection(("127.0.0.1", login.port), 5)
            connection.sendall(b"GET /callback?state=")  # and no more
            held.append(connection)
        assert login.raw(b"GET / HTTP/1.1\r\n\r\n")  # it comes after all of them
        assert sum(map(is_open, held)) <= MAX_CONNECTIONS
        began = time.monotonic()
        assert open_as_browser(login.url)[0] == 200
        assert login.end() is None
        assert time.monotonic() - began < 5
    finally:
        for connection in held:
            connection.close()


def test_the_listener_is_on_this_machine_alone(server: OAuthServer, attacks: Any) -> None:
    login = Login(server)
    for address in ("127.0.0.2", "127.1.1.1"):
        attacks.try_one()
        with pytest.raises(OSError, match=r".*"), socket.create_connection((address, login.port), 2):
            pass
    open_as_browser(login.url)
    assert login.end() is None


def test_nothing_of_a_login_is_logged(server: OAuthServer, attacks: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        login = Login(server)
        attacks.try_one()
        status, page = open_as_browser(login.url)
        login.end()
    form = server.forms[0]
    secrets = [form["code"], form["code_verifier"], *server.access_tokens, *server.refresh_tokens]
    for secret in secrets:
        assert secret not in caplog.text + page + login.url
    assert status == 200


def test_a_failure_repeats_no_secret(server: OAuthServer, attacks: Any) -> None:
    dialect = oauth2.discover(server.url).dialect(client_id="app")

    def send(request: Any, timeout: float) -> HttpResponse:  # it repeats all that it gets
        body = b'{"error": "invalid_grant", "error_description": "' + (request.body or b"") + b'"}'
        return HttpResponse(400, {}, body)

    browser = Browser()
    attacks.try_one()
    with pytest.raises(LoginRefused) as refused:
        Session(dialect, send=send).login_in_browser(open_url=browser, show=silent)
    page = browser.page()[1]
    code = next(iter(server.codes))
    assert code not in str(refused.value) + page
    assert "code_verifier=…" in str(refused.value)


def test_markup_of_a_server_is_text_on_the_page(server: OAuthServer, attacks: Any) -> None:
    script = "<script>alert(1)</script>"
    server.change_redirect = {"code": None, "error": "access_denied", "error_description": script}
    login = Login(server)
    attacks.try_one()
    page = open_as_browser(login.url)[1]
    assert "<script" not in page
    login.end()


@pytest.mark.parametrize(
    "query", ["state=%s&code=" + "a" * 9000, "state=%s&code=a%%0d%%0ab", "state=%s", "state=%s&code="]
)
def test_a_code_that_cannot_be_one(attacks: Any, query: str) -> None:
    dialect = oauth2("https://as.example.com/t", client_id="a", authorization_endpoint="https://as.example.com/a")
    request = authorization_request(
        dialect, redirect_uri="http://127.0.0.1:1/", state="of this login", code_verifier="v" * 64
    )
    attacks.try_one()
    with pytest.raises(LoginRefused, match="no code"):
        code_of_redirect(dialect, request, query % "of+this+login")


# ---- with codes on another device ------------------------------------------------------------------------------------


@pytest.fixture
def quick(server: OAuthServer, monkeypatch: pytest.MonkeyPatch) -> OAuthServer:
    """A server that may be asked ten times a second."""
    monkeypatch.setattr(device_flow, "MIN_INTERVAL_SECONDS", 0.1)
    monkeypatch.setattr(device_flow, "SLOW_DOWN_SECONDS", 0.5)
    server.interval = 0.1
    return server


def test_the_interval_of_the_server_is_kept(quick: OAuthServer, attacks: Any) -> None:
    quick.answers = ["authorization_pending", "slow_down", "authorization_pending"]
    attacks.try_one()
    session_at(quick).login_by_device(show=lambda _: quick.agree())
    pauses = [after - before for before, after in zip(quick.polled_at, quick.polled_at[1:], strict=False)]
    assert [pause >= least for pause, least in zip(pauses, (0.1, 0.6, 0.6), strict=True)] == [True] * 3


def test_what_a_server_may_say_of_its_interval(attacks: Any) -> None:
    for said, kept in (
        (0, 5.0), (-3, 5.0), (0.001, 1.0), (1e9, 60.0), ("7", 7.0), ("x", 5.0), (None, 5.0), ([], 5.0), (True, 5.0),
    ):  # fmt: skip
        attacks.try_one()
        assert device_code(interval=said).interval == kept
        attacks.try_one()
        assert 0 < device_code(expires_in=said).expires_in <= 3600
    code = device_code()
    slow = HttpResponse(200, {}, b'{"error": "slow_down", "interval": 20}')
    dialect = oauth2("https://as.example.com/t", client_id="a")
    assert device_flow.read_poll(dialect, slow, code, 5.0) == 20.0
    assert device_flow.read_poll(dialect, HttpResponse(503, {}, b"<html>"), code, 5.0) == 10.0
    assert device_flow.read_poll(dialect, HttpResponse(429, {}, b""), code, 50.0) == 60.0


def device_code(**fields: object) -> DeviceCode:
    body = {"device_code": "d", "user_code": "AB", "verification_uri": "https://as.example.com/", **fields}
    endpoint = "https://as.example.com/d"
    dialect = oauth2("https://as.example.com/t", client_id="a", device_authorization_endpoint=endpoint)
    return device_flow.read_device_code(dialect, HttpResponse(200, {}, json.dumps(body).encode()))


@pytest.mark.parametrize(
    "uri", ["http://as.example.com/", "javascript:alert(1)", "file:///etc", "", 7, "https://a:b@x/"]
)
def test_the_user_is_sent_to_no_odd_page(attacks: Any, uri: object) -> None:
    attacks.try_one()
    with pytest.raises(BadResponse, match="names no page, with https"):
        device_code(verification_uri=uri)
    attacks.try_one()
    assert device_code(verification_uri_complete=uri).verification_uri_complete == ""


def test_a_code_steers_no_terminal(attacks: Any) -> None:
    attacks.try_one()
    assert "\x1b" not in device_code(user_code="\x1b[2JAB").user_code
    for bad in ("", 7, "x" * 65, None):
        attacks.try_one()
        with pytest.raises(BadResponse, match="no code for the user"):
            device_code(user_code=bad)


@pytest.mark.parametrize("error", ["expired_token", "access_denied", "authorization_declined", "bad_verification_code"])
def test_a_code_that_is_over_is_asked_for_no_more(quick: OAuthServer, attacks: Any, error: str) -> None:
    quick.answers = [error]
    attacks.try_one()
    with pytest.raises(LoginRefused) as refused:
        session_at(quick).login_by_device(show=silent)
    assert (refused.value.reason, len(quick.polled_at)) == (error, 1)


def test_nobody_asks_for_longer_than_the_user_has(quick: OAuthServer, attacks: Any) -> None:
    attacks.try_one()
    with pytest.raises(TryLater, match="the code was not entered in time"):
        session_at(quick).login_by_device(timeout=0.15, show=silent)
    assert len(quick.polled_at) == 1
