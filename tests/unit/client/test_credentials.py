"""Sessions that credentials begin and refresh, where the server gives no refresh token; by real servers on loopback."""

from __future__ import annotations

import asyncio
import base64
import json
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote_plus

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from tests.support.backend import running
from unbroken import (
    BadResponse,
    ClientCredentials,
    ConfigurationError,
    FileStore,
    LoginRefused,
    PasswordCredentials,
    ProofKey,
    Session,
    SessionOver,
    TryLater,
    oauth2,
)
from unbroken.events import LoggedIn, SessionEnded
from unbroken.httpx2 import SessionAuth
from unbroken.server import MemorySessionStore, Sessions
from unbroken.starlette import routes
from unbroken.testing import LoopbackServer, ManualClock
from unbroken.testing.server import PASSWORD

SECRET = "a secret of the client"
LIFETIME = 600


@dataclass
class TokenServer:
    """Gives access tokens alone. ``answers`` are responses that come before: an error, a status, or a location."""

    secret: str = SECRET
    password: str = "correct horse"
    url: str = ""
    answers: list[Any] = field(default_factory=list)
    forms: list[dict[str, str]] = field(default_factory=list)
    good: set[str] = field(default_factory=set)
    waits: threading.Event | None = None

    def dialect(self, **more: Any) -> Any:
        return oauth2(self.url + "/token", client_id="job", client_secret=self.secret, **more)

    async def token(self, request: Request) -> Response:
        form = {name: str(value) for name, value in (await request.form()).items()}
        self.forms.append(form)
        if self.waits is not None:
            await asyncio.to_thread(self.waits.wait, 10)
        if self.answers:
            return self._answer(self.answers.pop(0))
        basic = base64.b64decode(request.headers.get("authorization", "").removeprefix("Basic ")).decode()
        if unquote_plus(basic) != f"job:{SECRET}":
            return self._answer("invalid_client")
        if form["grant_type"] == "password" and form["password"] != self.password:
            return self._answer("invalid_grant")
        token = f"token {len(self.forms)}".replace(" ", "-")
        self.good = {token}
        return JSONResponse({"access_token": token, "token_type": "Bearer", "expires_in": LIFETIME})

    def _answer(self, what: Any) -> Response:
        if isinstance(what, int):
            return Response("<html>an error page", what)
        if what.startswith("http"):
            return RedirectResponse(what, 307)
        return JSONResponse({"error": what, "error_description": f"it is {what}"}, 401 if "client" in what else 400)

    async def api(self, request: Request) -> Response:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        return Response("served" if token in self.good else "", 200 if token in self.good else 401)

    def app(self) -> Starlette:
        return Starlette(routes=[Route("/token", self.token, methods=["POST"]), Route("/api", self.api)])


@pytest.fixture
def server() -> Iterator[TokenServer]:
    found = TokenServer()
    with running(found.app()) as port:
        found.url = f"http://127.0.0.1:{port}"
        yield found


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def session(server: TokenServer, clock: ManualClock) -> Session:
    return Session(server.dialect(), credentials=ClientCredentials(scope="orders"), clock=clock)


def test_a_session_begins_and_goes_on_by_itself(server: TokenServer, clock: ManualClock, session: Session) -> None:
    assert session.status.state == "over", "nothing was sent yet"
    assert server.forms == []
    first = session.token()
    assert session.token() == first
    clock.advance(LIFETIME - 60)
    assert session.token() == first, "an ageing token is used while another one is fetched"
    clock.advance(LIFETIME)
    assert session.token() != first
    assert {(form["grant_type"], form["scope"]) for form in server.forms} == {("client_credentials", "orders")}
    assert "Idempotency-Key" not in str(server.forms)


def test_the_same_in_an_event_loop(server: TokenServer, clock: ManualClock, session: Session) -> None:
    async def main() -> None:
        tokens = await asyncio.gather(*(session.atoken() for _ in range(20)))
        assert len(set(tokens)) == 1
        clock.advance(LIFETIME)
        assert len(set(await asyncio.gather(*(session.atoken() for _ in range(20))))) == 1
        assert (await session.alogin_with_credentials()).access_token in server.good

    asyncio.run(main())
    assert len(server.forms) == 3


def test_many_threads_share_each_login(server: TokenServer, clock: ManualClock, session: Session) -> None:
    with ThreadPoolExecutor(20) as pool:
        for logins in (1, 2):
            server.waits = threading.Event()
            waiting = [pool.submit(session.token) for _ in range(20)]
            threading.Timer(0.2, server.waits.set).start()
            assert {one.result(10) for one in waiting} == server.good
            assert len(server.forms) == logins
            clock.advance(LIFETIME)


def test_a_challenge_refreshes_and_sends_the_request_again(server: TokenServer, session: Session) -> None:
    with httpx2.Client(auth=SessionAuth(session)) as http:
        assert http.get(server.url + "/api").text == "served"
        server.good.clear()
        assert http.get(server.url + "/api").text == "served"
    assert len(server.forms) == 2


PROGRAM = """
import sys
from unbroken import ClientCredentials, Session, oauth2
url, path = sys.argv[1:]
session = Session(oauth2(url + "/token", client_id="job", client_secret="a secret of the client"), path,
                  credentials=ClientCredentials())
print(session.token())
"""


def test_processes_share_one_login_and_the_next_one(server: TokenServer, tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"

    def tokens_of_programs() -> set[str]:
        command = [sys.executable, "-c", PROGRAM, server.url, str(path)]
        programs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
        return {program.communicate(timeout=60)[0].strip() for program in programs}

    assert tokens_of_programs() == server.good
    assert len(server.forms) == 1
    assert SECRET not in path.read_text()
    record = json.loads(path.read_text())
    assert "token-1" in str(record)
    later = ManualClock()
    later.advance(LIFETIME)
    session = Session(server.dialect(), path, credentials=ClientCredentials(), clock=later)
    assert session.token() in server.good
    assert tokens_of_programs() == server.good
    assert len(server.forms) == 2


# ---- the end ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["at first", "later"])
def test_refused_credentials_end_the_session_once_and_clearly(
    server: TokenServer, clock: ManualClock, tmp_path: Path, moment: str
) -> None:
    told: list[Any] = []
    session = Session(
        server.dialect(), tmp_path / "tokens.json", credentials=ClientCredentials(), clock=clock,
        on_session_over=told.append, on_event=told.append,
    )  # fmt: skip
    if moment == "later":
        session.token()
    sent = len(server.forms)
    server.answers = ["invalid_client"]
    clock.advance(LIFETIME)
    for _ in range(3):
        with pytest.raises(SessionOver) as over:
            session.token()
        assert over.value.reason == "invalid_client"
    assert len(server.forms) == sent + 1, "what was refused is not sent again"
    assert told.count("invalid_client") == 1
    assert session.status.reason == "invalid_client"
    other = Session(server.dialect(), tmp_path / "tokens.json", credentials=ClientCredentials(), clock=clock)
    with pytest.raises(SessionOver, match="does not accept this client"):
        other.token()
    assert other.login_with_credentials().access_token == other.token(), "until somebody says that they are good now"
    assert session.token() == other.token()


@pytest.mark.parametrize("trouble", [503, 404, "server_error", "temporarily_unavailable"])
def test_trouble_is_for_later(server: TokenServer, clock: ManualClock, session: Session, trouble: Any) -> None:
    server.answers = [trouble] * 3
    with pytest.raises(TryLater):
        session.token()
    sent = len(server.forms)
    with pytest.raises(TryLater):
        session.token()
    assert len(server.forms) == sent, "a pause comes first"
    server.answers.clear()
    clock.advance(60)
    assert session.token() in server.good
    server.answers = [trouble] * 3
    clock.advance(LIFETIME)
    with pytest.raises(TryLater):
        session.token()
    server.answers.clear()
    clock.advance(60)
    assert session.token() in server.good


def test_after_a_logout_nothing_logs_in_again_by_itself(server: TokenServer, session: Session) -> None:
    session.token()
    session.logout()
    for _ in range(2):
        with pytest.raises(SessionOver, match="logged out"):
            session.token()
    assert len(server.forms) == 1
    session.login_with_credentials()
    assert session.token() in server.good


def test_a_logout_wins_over_a_first_login_under_way(server: TokenServer, session: Session) -> None:
    server.waits = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(session.token)
        while not server.forms:
            threading.Event().wait(0.01)
        session.logout()
        server.waits.set()
        with pytest.raises(SessionOver):
            waiting.result(10)
    with pytest.raises(SessionOver):
        session.token()
    assert session.status.state == "over"


# ---- where credentials come from, and where they go ------------------------------------------------------------------


def by_password(server: TokenServer, password: Callable[[], Any], **more: Any) -> Session:
    return Session(server.dialect(), credentials=PasswordCredentials("ada", password), **more)


def test_a_function_is_asked_when_the_password_is_needed(server: TokenServer, clock: ManualClock) -> None:
    passwords = ["correct horse", "battery staple"]
    session = by_password(server, lambda: passwords.pop(0), clock=clock)
    assert len(passwords) == 2
    session.token()
    server.password = "battery staple"
    clock.advance(LIFETIME)
    assert session.token() in server.good
    assert [(form["username"], form["password"]) for form in server.forms] == [
        ("ada", "correct horse"),
        ("ada", "battery staple"),
    ]


def test_a_wrong_password_is_refused_and_a_missing_one_too(server: TokenServer) -> None:
    for password, reason in (("wrong", "wrong_credentials"), (None, "no_credentials")):
        session = by_password(server, lambda password=password: password)
        with pytest.raises(SessionOver) as over:
            session.token()
        assert over.value.reason == reason
        assert "wrong name" in str(over.value) or password is None
        with pytest.raises(LoginRefused) as refused:
            session.login_with_credentials()
        assert refused.value.reason == reason


def test_a_function_that_fails_is_for_later_and_one_that_errs_is_named(server: TokenServer) -> None:
    def locked() -> str:
        raise PermissionError("the keyring is locked")

    with pytest.raises(TryLater, match="PermissionError"):
        by_password(server, locked).token()
    with pytest.raises((TryLater, ConfigurationError), match="must return a text"):
        by_password(server, lambda: 1).token()
    assert server.forms == []


def test_a_password_in_the_keyring(server: TokenServer, monkeypatch: pytest.MonkeyPatch) -> None:
    import keyring

    kept = {("shop", "ada"): "correct horse"}
    monkeypatch.setattr(keyring, "get_password", lambda service, name: kept.get((service, name)))
    session = Session(server.dialect(), credentials=PasswordCredentials.from_keyring("shop", "ada"))
    assert session.token() in server.good
    missing = Session(server.dialect(), credentials=PasswordCredentials.from_keyring("shop", "bob"))
    with pytest.raises(SessionOver) as over:
        missing.token()
    assert over.value.reason == "no_credentials"


def test_a_server_that_gives_refresh_tokens_is_refreshed_by_them() -> None:
    with LoopbackServer() as server:
        password = [PASSWORD]
        session = Session(server.url, credentials=PasswordCredentials("ada", lambda: password[0], {"label": "nightly"}))
        session.token()
        password[0] = "not needed any more"
        assert session.newer_token(session.token())
        [info] = server.sessions.list_sessions()
        assert (info.label, info.subject) == ("nightly", "ada")


def test_credentials_go_to_the_token_endpoint_alone(server: TokenServer, session: Session) -> None:
    thief = TokenServer()
    with running(thief.app()) as port:
        server.answers = [f"http://127.0.0.1:{port}/token"] * 3
        with pytest.raises(TryLater):
            session.token()
        assert thief.forms == []
    with pytest.raises(ConfigurationError, match="https"):
        Session(oauth2("http://id.example.com/token", client_id="a"), credentials=ClientCredentials())


def test_no_secret_is_shown(server: TokenServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    server.answers = ["invalid_grant"]
    session = by_password(server, lambda: "correct horse")
    with pytest.raises(SessionOver) as over:
        session.token()
    shown = [repr(session), repr(PasswordCredentials("ada", lambda: "correct horse")), str(over.value), caplog.text]
    assert not any(secret in text for secret in ("correct horse", SECRET) for text in shown)


def test_events_and_hooks_are_those_of_a_login_and_of_a_refresh(server: TokenServer, clock: ManualClock) -> None:
    events: list[Any] = []
    changed: list[Any] = []
    session = Session(
        server.dialect(), credentials=ClientCredentials(), clock=clock, on_event=events.append,
        on_tokens_changed=changed.append,
    )  # fmt: skip
    session.token()
    clock.advance(LIFETIME)
    session.token()
    session.close()
    kinds = [type(event).__name__ for event in events]
    assert kinds.count("LoggedIn") == 1
    assert kinds.count("TokensRefreshed") == 1
    assert [tokens.access_token for tokens in changed] == ["token-1", "token-2"]
    assert not any(isinstance(event, SessionEnded) for event in events)
    assert isinstance(events[0], LoggedIn) or "LoggedIn" in kinds


def test_a_copy_for_another_process_has_the_credentials(server: TokenServer, tmp_path: Path) -> None:
    session = Session(server.dialect(), FileStore(tmp_path / "t.json"), credentials=ClientCredentials())
    copy = pickle.loads(pickle.dumps(session))
    assert copy.token() == session.token()
    assert len(server.forms) == 1


@pytest.mark.parametrize("wrong", [("ada", "pw"), "secret", lambda: "pw", ClientCredentials])
def test_other_things_are_no_credentials(server: TokenServer, wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="credentials must be"):
        Session(server.dialect(), credentials=wrong)
    with pytest.raises(ConfigurationError, match="credentials="):
        Session(server.dialect()).login_with_credentials()


def test_a_dialect_without_a_login_says_so(server: TokenServer) -> None:
    session = Session("https://api.example.com", credentials=ClientCredentials())
    with pytest.raises(ConfigurationError, match="OAuth"):
        session.login_with_credentials()


def test_credentials_bind_a_session_to_the_key_of_the_client() -> None:
    sessions, key = Sessions(MemorySessionStore()), ProofKey.in_memory()
    with running(Starlette(routes=routes(sessions, lambda name, _: name))) as port:
        url = f"http://127.0.0.1:{port}"
        session = Session(url, credentials=PasswordCredentials("ada", lambda: PASSWORD), proof_key=key)
        with httpx2.Client(auth=SessionAuth(session)) as http:
            assert http.get(url + "/auth/session").json()["sub"] == "ada"
        [info] = sessions.list_sessions()
        assert info.jkt == key.thumbprint
        assert session.newer_token(session.token())


def test_a_server_that_binds_nothing_is_refused_where_it_must(server: TokenServer) -> None:
    session = Session(
        server.dialect(), credentials=ClientCredentials(), proof_key=ProofKey.in_memory(), require_bound=True
    )
    with pytest.raises(BadResponse, match="does not know DPoP"):
        session.token()
    with pytest.raises(BadResponse, match="does not know DPoP"):
        session.login_with_credentials()
    assert session.status.state == "over"
