"""The first tokens of an OAuth 2.0 server: a person logs in, at a server with the manners of well-known ones.

Modules: client/core/authorization_code.py, client/core/device_flow.py, client/core/known_servers.py,
client/core/login_endpoints.py, client/core/token_request.py, client/loopback_listener.py.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.support.oauth_server import GITHUB, GOOGLE, KEYCLOAK, MICROSOFT, Browser, Manners, OAuthServer
from unbroken import ConfigurationError, DeviceCode, Dialect, LoginRefused, Session, SessionOver, TryLater, oauth2
from unbroken.client.core import device_flow
from unbroken.testing import ManualClock


@pytest.fixture
def server() -> Iterator[OAuthServer]:
    with OAuthServer().run() as server:
        yield server


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers may be asked as often as they say, also several times a second."""
    monkeypatch.setattr(device_flow, "MIN_INTERVAL_SECONDS", 0.1)


def session_at(server: OAuthServer) -> Session:
    return Session(oauth2.discover(server.url).dialect(client_id="app"))


def silent(_: str) -> None: ...


# ---- with a browser --------------------------------------------------------------------------------------------------


def test_a_login_with_a_browser_begins_a_session_that_refreshes(server: OAuthServer) -> None:
    session, browser = session_at(server), Browser()
    tokens = session.login_in_browser(scope="orders", open_url=browser, show=silent, login_hint="ada")
    assert session.token() == tokens.access_token in server.access_tokens
    [asked] = server.asked
    assert (asked["response_type"], asked["client_id"], asked["scope"], asked["login_hint"]) == (
        "code",
        "app",
        "orders",
        "ada",
    )
    assert asked["code_challenge_method"] == "S256"
    assert urlsplit(asked["redirect_uri"]).hostname == "127.0.0.1"
    status, page = browser.page()
    assert (status, "You are logged in" in page) == (200, True)
    server.access_tokens.clear()
    assert session.newer_token(tokens.access_token) in server.access_tokens


def test_a_login_with_a_browser_in_an_event_loop(server: OAuthServer) -> None:
    async def log_in() -> str:
        session = session_at(server)
        await session.alogin_in_browser(open_url=Browser(), show=silent)
        return await session.atoken()

    assert asyncio.run(log_in()) in server.access_tokens


def test_a_login_that_is_cancelled_frees_its_port(server: OAuthServer) -> None:
    shown: list[str] = []

    async def give_up() -> None:
        session = session_at(server)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await session.alogin_in_browser(open_url=silent, show=shown.append)

    before = threading.active_count()
    asyncio.run(give_up())
    port = urlsplit(parse_qs(urlsplit(shown[0]).query)["redirect_uri"][0]).port
    assert port
    for _ in range(50):
        with socket.socket() as tried:
            if tried.connect_ex(("127.0.0.1", port)) and threading.active_count() <= before:
                return
        threading.Event().wait(0.1)
    pytest.fail("the listener goes on")


def test_the_url_is_shown_where_no_browser_is(
    server: OAuthServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("DISPLAY", raising=False)
    with pytest.raises(TryLater, match=r"the user has not logged in within 0.3 seconds; .* with a code"):
        session_at(server).login_in_browser(timeout=0.3)
    shown = capsys.readouterr().err
    assert f"log in with a browser on this machine: {server.url}/authorize?" in shown


def test_what_the_person_refuses_is_said(server: OAuthServer) -> None:
    server.change_redirect = {"code": None, "error": "access_denied", "error_description": "not\x1b[31m today"}
    browser = Browser()
    with pytest.raises(LoginRefused, match=r"the login was denied \(access_denied: not \[31m today\)") as refused:
        session_at(server).login_in_browser(open_url=browser, show=silent)
    assert refused.value.reason == "access_denied"
    assert "The login has failed" in browser.page()[1]
    assert server.forms == []


@pytest.mark.parametrize(
    ("error", "kind"),
    [("temporarily_unavailable", TryLater), ("invalid_scope", ConfigurationError), ("login_required", LoginRefused)],
)
def test_errors_of_the_redirect(server: OAuthServer, error: str, kind: type[Exception]) -> None:
    server.change_redirect = {"code": None, "error": error}
    with pytest.raises(kind, match=error):
        session_at(server).login_in_browser(open_url=Browser(), show=silent)


def test_a_redirect_uri_may_name_its_port(server: OAuthServer) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    session_at(server).login_in_browser(redirect_uri=f"http://localhost:{port}/back", open_url=Browser(), show=silent)
    assert server.asked[0]["redirect_uri"] == f"http://localhost:{port}/back"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"cannot listen at port {port}"):
            session_at(server).login_in_browser(redirect_uri=f"http://127.0.0.1:{port}/")


@pytest.mark.parametrize("uri", ["https://127.0.0.1/", "http://example.com/", "http://[::1]/", "http://0.0.0.0/", "x"])
def test_a_redirect_comes_to_this_machine_only(server: OAuthServer, uri: str) -> None:
    with pytest.raises(ConfigurationError):
        session_at(server).login_in_browser(redirect_uri=uri)


def test_what_a_login_with_a_browser_needs(server: OAuthServer) -> None:
    with pytest.raises(ConfigurationError, match=r"oauth2.discover\(issuer\).dialect\(client_id=…\)"):
        Session(oauth2(server.url + "/token")).login_in_browser()
    with pytest.raises(ConfigurationError, match="does not say where a person logs in"):
        Session(server.url).login_in_browser()
    with pytest.raises(ConfigurationError, match="needs the client_id"):
        Session(oauth2.discover(server.url).dialect()).login_in_browser()
    with pytest.raises(ConfigurationError, match="a login sets state by itself"):
        session_at(server).login_in_browser(state="mine")
    only_devices = oauth2(server.url + "/token", client_id="a", device_authorization_endpoint=server.url + "/device")
    with pytest.raises(ConfigurationError, match="no authorization endpoint"):
        Session(only_devices).login_in_browser()
    with pytest.raises(ConfigurationError, match="in the clear"):
        Session(oauth2(server.url, client_id="a", authorization_endpoint="http://as.example.com/"))


def test_a_client_secret_goes_to_the_token_endpoint_alone() -> None:
    with OAuthServer(Manners(secret="hush")).run() as server:
        dialect = oauth2.discover(server.url).dialect(client_id="app", client_secret="hush")
        Session(dialect).login_in_browser(open_url=Browser(), show=silent)
        assert "hush" not in str(server.asked)


# ---- with a code on another device -----------------------------------------------------------------------------------


def test_a_login_with_a_code(server: OAuthServer) -> None:
    session, shown = session_at(server), list[DeviceCode]()

    def show(code: DeviceCode) -> None:
        shown.append(code)
        server.agree()

    tokens = session.login_by_device(scope="orders", show=show)
    assert session.token() == tokens.access_token in server.access_tokens
    [code] = shown
    assert (code.verification_uri, len(code.user_code)) == (server.url + "/enter", 8)
    assert code.device_code not in repr(code)
    assert server.asked == [{"client_id": "app", "scope": "orders"}]


def test_a_login_with_a_code_in_an_event_loop(server: OAuthServer) -> None:
    async def log_in() -> str:
        session = session_at(server)
        await session.alogin_by_device(show=lambda _: server.agree())
        return await session.atoken()

    assert asyncio.run(log_in()) in server.access_tokens


def test_the_code_is_shown_on_standard_error(server: OAuthServer, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(TryLater, match="the code was not entered in time"):
        session_at(server).login_by_device(timeout=0.5)
    assert f"open {server.url}/enter on any device, and enter the code " in capsys.readouterr().err


def test_a_code_that_is_denied(server: OAuthServer) -> None:
    with pytest.raises(LoginRefused, match="the login was denied") as refused:
        session_at(server).login_by_device(show=lambda _: server.deny())
    assert refused.value.reason == "access_denied"


# ---- the manners of well-known servers -------------------------------------------------------------------------------


HOSTS = ("accounts.google.com", "oauth2.googleapis.com", "github.com", "login.microsoftonline.com", "sso.example.com")
KNOWN: dict[str, tuple[Manners, Dialect]] = {
    "google": (GOOGLE, oauth2.google("app", client_secret="hush")),
    "github": (GITHUB, oauth2.github("app", client_secret="hush")),
    "microsoft": (MICROSOFT, oauth2.microsoft("app")),
    "keycloak": (KEYCLOAK, oauth2.keycloak("https://sso.example.com", "shop", "app")),
}


@pytest.fixture(params=KNOWN)
def known(request: pytest.FixtureRequest) -> Iterator[tuple[str, OAuthServer, Session]]:
    manners, dialect = KNOWN[request.param]
    with OAuthServer(manners).run() as server:
        server.names_itself = "https://sso.example.com/realms/shop"
        yield request.param, server, Session(dialect, send=server.send(*HOSTS))


def test_a_login_with_a_browser_at_a_known_server(known: tuple[str, OAuthServer, Session]) -> None:
    name, server, session = known
    browser = Browser(lambda url: server.local(url, *HOSTS))
    session.login_in_browser(scope="orders", open_url=browser, show=silent)
    assert session.token() in server.access_tokens
    host = {"microsoft": "localhost"}.get(name, "127.0.0.1")
    assert urlsplit(server.asked[0]["redirect_uri"]).hostname == host
    for _ in range(2):  # a refresh token is there, and stays
        assert session.newer_token(session.token()) in server.access_tokens
    assert len({form["refresh_token"] for form in server.forms[1:]}) == (2 if server.manners.new_refresh_token else 1)
    server.refresh_tokens.clear()
    with pytest.raises(SessionOver):
        session.newer_token(session.token())


def test_a_login_with_a_code_at_a_known_server(known: tuple[str, OAuthServer, Session]) -> None:
    _, server, session = known
    session.login_by_device(scope="orders", show=lambda _: server.agree())
    assert session.newer_token(session.token()) in server.access_tokens
    with pytest.raises(LoginRefused, match="the login was denied"):
        session.login_by_device(show=lambda _: server.deny())


def test_known_servers_are_asked_to_slow_down(
    known: tuple[str, OAuthServer, Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_flow, "SLOW_DOWN_SECONDS", 0.1)
    _, server, session = known
    server.answers = ["slow_down"]
    server.slow_interval = 0.8
    session.login_by_device(show=lambda _: server.agree())
    assert server.polled_at[1] - server.polled_at[0] >= (0.8 if server.manners.tells_interval else 0.3)


def test_a_client_secret_in_the_form_stays_out_of_the_url(known: tuple[str, OAuthServer, Session]) -> None:
    _, server, session = known
    session.login_in_browser(open_url=Browser(lambda url: server.local(url, *HOSTS)), show=silent)
    assert "hush" not in str(server.asked)


# ---- as a client -----------------------------------------------------------------------------------------------------


def test_a_program_logs_in_as_itself(server: OAuthServer) -> None:
    clock = ManualClock()
    session = Session(oauth2(server.url + "/token", client_id="job", client_secret="hush"), clock=clock)
    tokens = session.login_as_client(scope="orders", audience="api")
    assert session.token() == tokens.access_token in server.access_tokens
    assert tokens.refresh_token is None
    assert {"grant_type": "client_credentials", "scope": "orders", "audience": "api"}.items() <= server.forms[0].items()
    clock.advance(3600)
    with pytest.raises(SessionOver) as over:
        session.token()
    assert over.value.reason == "no_refresh_token"
    session.login_as_client()
    assert session.token() in server.access_tokens
    assert asyncio.run(session.alogin_as_client()).access_token in server.access_tokens


def test_a_client_that_the_server_does_not_know() -> None:
    with OAuthServer(Manners(secret="hush")).run() as server, pytest.raises(ConfigurationError, match="invalid_client"):
        Session(oauth2(server.url + "/token", client_id="job")).login_as_client()
    with pytest.raises(ConfigurationError, match=r"not one of OAuth 2\.0"):
        Session("http://127.0.0.1:1").login_as_client()
