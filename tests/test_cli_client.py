"""The client's command line: real processes, a real server, and the real git, docker and kubectl where present."""

from __future__ import annotations

import base64
import datetime as dt
import ipaddress
import json
import os
import shutil
import signal
import ssl
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from tests.backend import PASSWORD, Backend, running
from unbroken import FileStore
from unbroken.server import MemoryStore, Sessions
from unbroken.starlette import routes

COMMAND = [sys.executable, "-m", "unbroken.cli"]
Done = subprocess.CompletedProcess[str]


@dataclass
class Shell:
    """Runs commands in a home of their own."""

    home: Path

    @property
    def folder(self) -> Path:
        return self.home / ".config" / "unbroken"

    def environment(self, **more: str) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("UNBROKEN_", "XDG_"))}
        return {**kept, "HOME": str(self.home), "COLUMNS": "200", **more}

    def __call__(self, *arguments: str, given: str | bytes = "", **environment: str) -> Done:
        data = given.encode() if isinstance(given, str) else given
        done = self.raw([*COMMAND, *arguments], data, **environment)
        return Done(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())

    def raw(self, command: list[str], data: bytes = b"", **environment: str) -> subprocess.CompletedProcess[bytes]:
        env = self.environment(**environment)
        return subprocess.run(command, input=data, capture_output=True, cwd=self.home, env=env, timeout=60, check=False)

    def login(self, url: str, name: str = "api", *more: str) -> None:
        done = self("login", url, "--as", name, "--user", "ada", "--password-stdin", *more, given=PASSWORD + "\n")
        assert done.returncode == 0, done.stderr

    def age(self, seconds: float, name: str = "api") -> None:
        """The tokens were received *seconds* earlier than they were."""
        store = FileStore(self.folder / f"{name}.tokens.json")
        before = store.load()
        assert before.tokens is not None
        older = replace(before.tokens, received_at=before.tokens.received_at - seconds)
        assert store.save(replace(before, tokens=older), before)

    def secrets(self, name: str = "api") -> list[str]:
        tokens = FileStore(self.folder / f"{name}.tokens.json").load().tokens
        assert tokens is not None
        return [tokens.access_token, str(tokens.refresh_token)]


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


@pytest.fixture
def api(shell: Shell, server: Backend) -> Shell:
    """A shell that is logged in at the server, under the name ``api``."""
    shell.login(server.url)
    return shell


def one_line(done: Done) -> str:
    """The error of a command that could not do its work."""
    assert done.returncode == 2, done
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith("unbroken: ")
    return done.stderr


# ---- logging in and out ----------------------------------------------------------------------------------------------


def test_a_session_from_login_to_logout(shell: Shell, server: Backend) -> None:
    shell.login(server.url, "api", "--label", "laptop")
    assert [info.label for info in server.sessions.list_of("ada")] == ["laptop"]
    token = shell("token", "api").stdout.strip()
    assert server.sessions.verify(token).subject == "ada"
    done = shell("logout", "api")
    assert (done.returncode, done.stdout) == (0, "api: logged out; the server confirmed it\n")
    assert server.sessions.list_of("ada") == []
    assert "make one with `unbroken login URL --as NAME`" in one_line(shell("token", "api"))
    assert [path.name for path in shell.folder.glob("*.json")] == []


def test_a_password_is_asked_for_and_not_shown(shell: Shell, server: Backend) -> None:
    ours, theirs = os.openpty()
    # The terminal has to be the process's own: the password is asked for there, wherever standard input comes from.
    own = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
    command = [sys.executable, "-c", own, *COMMAND, "login", server.url, "--as", "api", "--user", "ada"]
    process = subprocess.Popen(
        command,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=shell.environment(),
        cwd=shell.home,
        start_new_session=True,
    )
    os.close(theirs)
    try:
        seen = read_until(ours, b"Password: ")
        os.write(ours, PASSWORD.encode() + b"\n")
        seen += read_until(ours, b"is called api")
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    assert PASSWORD.encode() not in seen
    assert shell("token", "api").returncode == 0


def read_until(terminal: int, words: bytes) -> bytes:
    seen, ends = b"", time.monotonic() + 20
    while words not in seen and time.monotonic() < ends:
        seen += os.read(terminal, 1000)
    assert words in seen
    return seen


def test_a_refresh_token_is_taken_over(shell: Shell, server: Backend) -> None:
    granted = server.sessions.login("eve")
    done = shell("login", server.url, "--as", "api", "--paste", given=f"{granted.refresh_token}\n")
    assert done.returncode == 0, done.stderr
    assert server.exchanges == 1
    assert server.sessions.verify(shell("token", "api").stdout.strip()).subject == "eve"
    assert server.exchanges == 1
    shell.age(3600)
    assert shell("token", "api").returncode == 0
    assert (server.exchanges, server.alarms()) == (2, 0)


def test_a_refused_login_changes_nothing(api: Shell, server: Backend) -> None:
    before = api.secrets()
    refused = api("login", server.url, "--as", "api", "--user", "ada", "--password-stdin", given="wrong\n")
    assert "the login was refused" in one_line(refused)
    pasted = api("login", server.url, "--as", "api", "--paste", given="nonsense\n")
    assert "the server did not take the refresh token" in one_line(pasted)
    assert "nonsense" not in pasted.stderr
    assert api.secrets() == before
    assert api("token", "api").stdout.strip() == before[0]


def test_a_login_by_password_ends_the_session_it_replaces(api: Shell, server: Backend) -> None:
    [before] = server.sessions.list_of("ada")
    api.login(server.url)
    [after] = server.sessions.list_of("ada")
    assert before.sid != after.sid


def test_a_name_stays_with_its_server(api: Shell, server: Backend) -> None:
    done = api("login", "https://other.example.org", "--as", "api", "--user", "ada", "--password-stdin", given="x\n")
    assert f"api is a session at {server.url}: log it out first" in one_line(done)


def test_logout_says_that_the_server_did_not_confirm(api: Shell, server: Backend) -> None:
    profile = api.folder / "api.json"
    profile.write_text(profile.read_text().replace(server.url, "http://127.0.0.1:1"))
    done = api("logout", "api")
    assert done.returncode == 1
    assert "logged out here; the server did not confirm it" in done.stdout
    assert api("status", "--json").stdout == "[]\n"


def test_logout_of_a_session_that_is_over_forgets_it(api: Shell, server: Backend) -> None:
    server.sessions.revoke_all("ada")
    api.age(3600)
    assert api("token", "api").returncode == 2
    done = api("logout", "api")
    assert (done.returncode, done.stdout) == (0, "api: forgotten; the session was over already\n")


@dataclass
class OAuth:
    """A server of RFC 6749 for clients with a secret, and who came to its token endpoint as whom."""

    url: str
    sessions: Sessions
    came: list[str]


@pytest.fixture
def oauth() -> Iterator[OAuth]:
    sessions, came = Sessions(MemoryStore()), []
    app = Starlette(routes=routes(sessions, lambda name, password: name, password_grant=True))

    async def listening(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"] in ("/auth/token", "/auth/revoke"):
            came.append(dict(scope["headers"]).get(b"authorization", b"").decode())
        await app(scope, receive, send)

    with running(listening) as port:
        yield OAuth(f"http://127.0.0.1:{port}", sessions, came)


def test_any_oauth_server_will_do(shell: Shell, oauth: OAuth) -> None:
    endpoint = ["--token-endpoint", oauth.url + "/auth/token", "--revocation-endpoint", oauth.url + "/auth/revoke"]
    client = ["--client-id", "shop", "--client-secret-stdin", "--user", "ada", "--password-stdin"]
    where = ["login", "https://api.example.org", "--as", "shop", "--origin", oauth.url]
    done = shell(*where, *endpoint, *client, given="hush-hush\npw\n")
    assert done.returncode == 0, done.stderr
    shell.age(3600, "shop")
    token = shell("token", "shop").stdout.strip()
    assert oauth.sessions.verify(token).client_id == "shop"
    assert shell("fetch", "shop", oauth.url + "/auth/session", "-f").returncode == 0
    assert "hush-hush" not in shell("status").stdout
    assert shell("logout", "shop").stdout == "shop: logged out; the server confirmed it\n"
    assert oauth.came == ["Basic " + base64.b64encode(b"shop:hush-hush").decode()] * 3


def test_a_refresh_token_of_any_oauth_server_is_taken_over(shell: Shell, oauth: OAuth) -> None:
    granted = oauth.sessions.login("ada", client_id="shop")
    where = ["login", oauth.url, "--as", "shop", "--token-endpoint", oauth.url + "/auth/token", "--client-id", "shop"]
    assert shell(*where, "--paste", given=f"{granted.refresh_token}\n").returncode == 0
    assert oauth.sessions.verify(shell("token", "shop").stdout.strip()).subject == "ada"
    done = shell("logout", "shop")
    assert done.returncode == 1
    assert "it has no --revocation-endpoint" in done.stdout


# ---- the folder ------------------------------------------------------------------------------------------------------


def test_nobody_else_can_read_the_folder_or_what_is_in_it(shell: Shell, oauth: OAuth) -> None:
    command = ["login", oauth.url, "--as", "x", "--token-endpoint", oauth.url + "/auth/token", "--client-id", "x"]
    umasked = ["sh", "-c", 'umask 0; exec "$@"', "sh", *COMMAND, *command, "--client-secret-stdin", "--user", "ada"]
    done = shell.raw([*umasked, "--password-stdin"], b"hush-hush\npw\n")
    assert done.returncode == 0, done.stderr
    assert stat.S_IMODE(shell.folder.stat().st_mode) == 0o700
    files = {path.name: stat.S_IMODE(path.stat().st_mode) for path in shell.folder.iterdir()}
    assert set(files.values()) == {0o600}
    assert {"x.json", "x.tokens.json"} <= set(files)
    assert "hush-hush" in (shell.folder / "x.json").read_text()


@pytest.mark.parametrize(("variable", "below"), [("UNBROKEN_HOME", "a"), ("XDG_CONFIG_HOME", "a/unbroken")])
def test_the_folder_can_be_elsewhere(shell: Shell, server: Backend, variable: str, below: str) -> None:
    elsewhere = {variable: str(shell.home / "a")}
    login = ["login", server.url, "--as", "api", "--user", "ada", "--password-stdin"]
    assert shell(*login, given=PASSWORD, **elsewhere).returncode == 0
    assert (shell.home / below / "api.json").exists()
    assert not shell.folder.exists()
    assert shell("token", "api", **elsewhere).returncode == 0
    assert shell("token", "api").returncode == 2


def test_a_folder_that_others_may_write_to_is_refused(api: Shell) -> None:
    api.folder.chmod(0o770)
    assert "others may write to" in one_line(api("token", "api"))


def test_a_damaged_profile_is_said_so_and_hides_no_other(api: Shell, server: Backend) -> None:
    (api.folder / "bad.json").write_text('{"unbroken": 1, "url": 5}')
    (api.folder / "new.json").write_text('{"unbroken": 2, "url": "https://example.org"}')
    assert "is damaged" in one_line(api("token", "bad"))
    assert "upgrade this one" in one_line(api("token", "new"))
    states = {line["name"]: line["state"] for line in json.loads(api("status", "--json").stdout)}
    assert states == {"api": "good", "bad": "unreadable", "new": "unreadable"}


NAMES = {"a path": "../x", "hidden": ".x", "nothing": "", "too long": "x" * 65, "a space": "a b", "tokens": "x.tokens"}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_a_name_that_cannot_be_one_is_refused(shell: Shell, name: str) -> None:
    done = shell("login", "https://example.org", "--as", name, "--user", "ada", "--password-stdin", given="x\n")
    assert "a session's name has" in one_line(done)
    assert "a session's name has" in one_line(shell("token", name))


# ---- token -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("age", [3600, 1700], ids=["expired", "ageing"])
def test_shells_that_ask_at_once_cost_one_exchange(api: Shell, server: Backend, age: float) -> None:
    api.age(age)
    [old, _] = api.secrets()
    server.slow_next(0.5)
    twice = ["sh", "-c", '"$@" && "$@"', "sh", *COMMAND, "token", "api"]
    with ThreadPoolExecutor(12) as pool:
        done = list(pool.map(lambda _: api.raw(twice), range(12)))
    assert [one.returncode for one in done] == [0] * 12, done[0].stderr
    tokens = {line for one in done for line in one.stdout.decode().split()}
    assert tokens == {api.secrets()[0]}
    assert tokens != {old}
    assert (server.exchanges, server.alarms()) == (1, 0)


def test_an_ageing_token_is_still_given_while_the_server_is_ill(api: Shell, server: Backend) -> None:
    api.age(1700)
    for _ in range(3):
        server.fail_next(500)
    done = api("token", "api")
    assert (done.returncode, done.stdout.strip()) == (0, api.secrets()[0])
    assert server.exchanges == 3


def test_a_dead_token_and_an_ill_server_are_one_line_and_lose_nothing(api: Shell, server: Backend) -> None:
    api.age(3600)
    for _ in range(3):
        server.fail_next(500)
    assert "status 500" in one_line(api("token", "api"))
    assert api("token", "api").returncode == 0
    assert server.exchanges == 4


COMMANDS: dict[str, list[str]] = {
    "token": ["token", "api"],
    "fetch": ["fetch", "api", "URL/echo"],
    "exec": ["exec", "api", "--", "echo", "never"],
    "git": ["credential", "git", "api", "get"],
    "kubectl": ["credential", "kubectl", "api"],
}


@pytest.mark.parametrize("arguments", COMMANDS.values(), ids=COMMANDS)
def test_a_session_that_is_over_says_what_to_type(api: Shell, server: Backend, arguments: list[str]) -> None:
    server.sessions.revoke_all("ada")
    api.age(3600)
    given = f"protocol=http\nhost={server.url.removeprefix('http://')}\n"
    done = api(*(word.replace("URL", server.url) for word in arguments), given=given)
    assert f"the session was revoked: run `unbroken login {server.url} --as api` again" in one_line(done)
    assert done.stdout == ""


@pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])
def test_a_reader_that_has_gone_is_no_traceback(api: Shell, unbuffered: str) -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    env = api.environment(PYTHONUNBUFFERED=unbuffered)
    process = subprocess.Popen([*COMMAND, "token", "api"], stdout=theirs, stderr=subprocess.PIPE, env=env, cwd=api.home)
    os.close(theirs)
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (1, b"")


def test_the_token_command_does_not_load_the_server() -> None:
    code = (
        "import sys; from unbroken.cli.app import run; run(['token', 'x']);"
        "print(sorted({n.partition('.')[0] for n in sys.modules} & {'joserfc', 'starlette', 'uvicorn', 'httpx2'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=30)
    assert done.stdout == "[]\n", done.stderr


# ---- status ----------------------------------------------------------------------------------------------------------


def test_status_shows_all_sessions_and_no_secret(api: Shell, server: Backend) -> None:
    api.login(server.url, "old")
    api.login(server.url, "gone")
    api.age(3600, "old")
    server.sessions.revoke_all("ada")
    api.age(3600, "gone")
    api("token", "gone")
    head, *rows = api("status").stdout.splitlines()
    assert head.split() == ["NAME", "SERVER", "STATE", "EXPIRES", "IN", "SCOPE"]
    assert [row.split()[:3] for row in rows] == [
        ["api", server.url, "good"],
        ["gone", server.url, "over"],
        ["old", server.url, "expired"],
    ]
    assert rows[0].split()[3] in ("29m", "30m")
    told = json.loads(api("status", "gone", "--json").stdout)
    assert (told["state"], told["reason"], told["expires_in"]) == ("over", "revoked", None)
    everything = api("status").stdout + api("status", "--json").stdout
    assert not any(secret in everything for secret in api.secrets())
    assert [api("status", name).returncode for name in ("api", "old", "gone")] == [0, 0, 1]


# ---- fetch -----------------------------------------------------------------------------------------------------------


def test_fetch_sends_the_token_and_writes_the_answer(api: Shell, server: Backend) -> None:
    done = api("fetch", "api", server.url + "/echo")
    assert json.loads(done.stdout)["sub"] == "ada"
    assert done.stderr == ""


def test_fetch_renews_and_sends_a_piped_body_again(api: Shell, server: Backend) -> None:
    server.expire()
    body = os.urandom(200_000)
    done = api("fetch", "api", server.url + "/echo", "-d", "-", given=body)
    assert json.loads(done.stdout)["length"] == len(body)
    assert (server.exchanges, len(server.seen)) == (1, 2)


@dataclass
class Echo:
    """A server that answers with what it got."""

    url: str
    got: list[dict[str, Any]]


@pytest.fixture
def echo() -> Iterator[Echo]:
    got: list[dict[str, Any]] = []

    async def answer(request: Request) -> Response:
        if request.url.path == "/moved":
            return RedirectResponse(request.query_params["to"], 307)
        if request.url.path == "/missing":
            return Response("what?", 404)
        body = (await request.body()).decode()
        got.append({"method": request.method, "headers": dict(request.headers), "body": body})
        return JSONResponse(got[-1], headers={"x-answer": "yes"})

    methods = ["GET", "POST", "PUT", "DELETE"]
    with running(Starlette(routes=[Route("/{path:path}", answer, methods=methods)])) as port:
        yield Echo(f"http://127.0.0.1:{port}", got)


@pytest.fixture
def both(shell: Shell, server: Backend, echo: Echo) -> Shell:
    """A shell whose session ``api`` may send its token to the echo, too."""
    shell.login(server.url, "api", "--origin", echo.url)
    return shell


FORM = "application/x-www-form-urlencoded"
REQUESTS: dict[str, tuple[list[str], tuple[str, str, str | None]]] = {
    "nothing": ([], ("GET", "", None)),
    "a method": (["-X", "DELETE"], ("DELETE", "", None)),
    "a text": (["-d", "a=1"], ("POST", "a=1", FORM)),
    "fields": (["-d", "a=1", "-d", "@file"], ("POST", "a=1&from a file\n", FORM)),
    "a file": (["-d", "@file", "-X", "PUT"], ("PUT", "from a file\n", FORM)),
    "an empty text": (["-d", ""], ("POST", "", FORM)),
    "standard input": (["-d", "-"], ("POST", "piped", FORM)),
    "standard input as a file": (["-d", "@-"], ("POST", "piped", FORM)),
    "JSON": (["--json", '{"a": 1}'], ("POST", '{"a": 1}', "application/json")),
    "JSON of a file": (["--json", "@file"], ("POST", "from a file\n", "application/json")),
    "a type": (["-d", "x", "-H", "content-type: text/plain"], ("POST", "x", "text/plain")),
}


@pytest.mark.parametrize(("options", "sent"), REQUESTS.values(), ids=REQUESTS)
def test_fetch_sends_what_curl_would_send(
    both: Shell, echo: Echo, options: list[str], sent: tuple[str, str, str | None]
) -> None:
    (both.home / "file").write_text("from a file\n")
    done = both("fetch", "api", echo.url + "/x", *options, given="piped")
    assert done.returncode == 0, done.stderr
    [got] = echo.got
    assert (got["method"], got["body"], got["headers"].get("content-type")) == sent
    assert got["headers"]["authorization"] == f"Bearer {both.secrets()[0]}"
    assert json.loads(done.stdout) == got


def test_fetch_takes_headers_from_options_and_from_the_environment(both: Shell, echo: Echo) -> None:
    both("fetch", "api", echo.url + "/x", "-H", "X-A: one two", "-H", "X-B:three", "-H", "User-Agent: mine")
    both("fetch", "api", echo.url + "/x", UNBROKEN_HEADER="X-A: one two\nX-B: three", UNBROKEN_DATA="b")
    for got in echo.got:
        assert (got["headers"]["x-a"], got["headers"]["x-b"]) == ("one two", "three")
    assert [got["headers"]["user-agent"] for got in echo.got] == ["mine", "unbroken"]
    assert [got["body"] for got in echo.got] == ["", "b"]


def test_fetch_writes_to_a_file_with_the_head(both: Shell, echo: Echo) -> None:
    done = both("fetch", "api", echo.url + "/x", "-i", "-o", "answer")
    assert (done.returncode, done.stdout) == (0, "")
    head, _, body = (both.home / "answer").read_bytes().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"x-answer: yes" in head
    assert json.loads(body)["method"] == "GET"


def test_fetch_fails_if_told_to(both: Shell, echo: Echo) -> None:
    kind = both("fetch", "api", echo.url + "/missing")
    assert (kind.returncode, kind.stdout) == (0, "what?")
    done = both("fetch", "api", echo.url + "/missing", "--fail", "-o", "answer")
    assert (done.returncode, done.stdout) == (22, "")
    assert done.stderr == "unbroken: the server answered with status 404\n"
    assert not (both.home / "answer").exists()


def test_fetch_follows_redirects_if_told_to_and_sends_the_body_again(both: Shell, echo: Echo) -> None:
    (both.home / "file").write_text("from a file\n")
    url = f"{echo.url}/moved?to=/x"
    assert both("fetch", "api", url, "-d", "@file").stdout == ""
    assert echo.got == []
    assert both("fetch", "api", url, "-d", "@file", "-L").returncode == 0
    assert [(got["body"], "authorization" in got["headers"]) for got in echo.got] == [("from a file\n", True)]


def test_fetch_hands_a_final_challenge_over(api: Shell, server: Backend) -> None:
    done = api("fetch", "api", server.url + "/never", "-i")
    assert done.returncode == 0
    assert done.stdout.startswith("HTTP/1.1 401 ")
    assert (server.exchanges, len(server.seen)) == (1, 2)


def test_fetch_sends_no_token_to_another_origin(api: Shell, server: Backend, echo: Echo) -> None:
    assert api("fetch", "api", echo.url + "/x").returncode == 0
    assert api("fetch", "api", f"{server.url}/redirect?to={echo.url}/x", "-L").returncode == 0
    assert ["authorization" in got["headers"] for got in echo.got] == [False, False]
    other = server.url.replace("127.0.0.1", "localhost") + "/echo"
    done = api("fetch", "api", other)
    assert "sent without a token" in done.stderr
    assert server.seen[-1] == ("/echo", "")


def test_fetch_streams(api: Shell) -> None:
    """The first half of the answer is out while the server still waits to send the second."""
    go_on = threading.Event()

    class Slow(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-length", "8")
            self.end_headers()
            self.wfile.write(b"half")
            go_on.wait(20)
            self.wfile.write(b"half")

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with serving(Slow) as port:
        command = [*COMMAND, "fetch", "api", f"http://127.0.0.1:{port}/"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, env=api.environment(), cwd=api.home)
        try:
            assert process.stdout is not None
            assert os.read(process.stdout.fileno(), 100) == b"half"
            go_on.set()
            assert process.stdout.read() == b"half"
            assert process.wait(20) == 0
        finally:
            go_on.set()
            process.kill()
            process.communicate()


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler], tls: ssl.SSLContext | None = None) -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        if tls:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join(10)


def test_fetch_ends_when_its_time_is_over(api: Shell) -> None:
    class Dripping(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            for _ in range(100):
                try:
                    self.wfile.write(b".")
                except OSError:
                    return
                time.sleep(0.1)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with serving(Dripping) as port:
        done = api("fetch", "api", f"http://127.0.0.1:{port}/", "--max-time", "2s")
    assert "it took longer than 2 seconds" in one_line(done)
    assert set(done.stdout) == {"."}


def test_fetch_does_not_take_a_broken_answer_for_a_whole_one(api: Shell) -> None:
    class Short(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-length", "100")
            self.end_headers()
            self.wfile.write(b"half")

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with serving(Short) as port:
        done = api("fetch", "api", f"http://127.0.0.1:{port}/")
    assert "broke off" in one_line(done)
    assert done.stdout == "half"


# ---- exec ------------------------------------------------------------------------------------------------------------


def test_exec_gives_the_token_and_passes_the_exit_status_through(api: Shell) -> None:
    done = api("exec", "api", "--", "sh", "-c", 'echo "$UNBROKEN_TOKEN $0"; cat; exit 7', "x y", given="in")
    assert (done.returncode, done.stdout) == (7, f"{api.secrets()[0]} x y\nin")
    renamed = api("exec", "api", "--env", "TOKEN", "--", "sh", "-c", 'echo "$TOKEN$UNBROKEN_TOKEN"')
    assert renamed.stdout.strip() == api.secrets()[0]
    assert api("exec", "api", "--", "sh", "-c", "kill -TERM $$").returncode == -signal.SIGTERM


def test_exec_leaves_signals_as_a_shell_would(api: Shell) -> None:
    done = api("exec", "api", "--", "sh", "-c", "kill -PIPE $$; echo 'SIGPIPE is ignored'")
    assert (done.returncode, done.stdout) == (-signal.SIGPIPE, "")


def test_exec_of_what_cannot_be_run(api: Shell) -> None:
    (api.home / "text").write_text("no program")
    for command, status in (("no-such-command", 127), ("./text", 126)):
        done = api("exec", "api", "--", command)
        assert done.returncode == status
        assert done.stderr.startswith(f"unbroken: {command} cannot be run: ")
        assert len(done.stderr.splitlines()) == 1


# ---- credential helpers ----------------------------------------------------------------------------------------------


def host_of(url: str) -> str:
    return url.partition("://")[2]


def test_git_gets_a_token_for_the_sessions_host_only(api: Shell, server: Backend) -> None:
    ask = "protocol={}\nhost={}\npath=a/b.git\n\n"
    done = api("credential", "git", "api", "get", given=ask.format("http", host_of(server.url)))
    answer = dict(line.split("=", 1) for line in done.stdout.splitlines())
    assert (answer["username"], answer["password"]) == ("oauth2", api.secrets()[0])
    assert 1700 < int(answer["password_expiry_utc"]) - time.time() <= 1800
    for protocol, host in (("https", host_of(server.url)), ("http", "127.0.0.1"), ("http", "x.org"), ("", "[")):
        done = api("credential", "git", "api", "get", given=ask.format(protocol, host))
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    for action in ("store", "erase", "something-new"):
        done = api("credential", "git", "api", action, given=ask.format("http", host_of(server.url)) + "password=x\n")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def git(shell: Shell, *arguments: str, given: str) -> Done:
    helper = f"!'{sys.executable}' -m unbroken.cli credential git api"
    command = ["git", "-c", "credential.helper=", "-c", f"credential.helper={helper}", *arguments]
    quiet = {"GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": "", "SSH_ASKPASS": "", "GIT_CONFIG_NOSYSTEM": "1"}
    done = shell.raw(command, given.encode(), **quiet)
    return Done(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


@pytest.mark.skipif(not shutil.which("git"), reason="there is no git here")
def test_the_real_git_asks_us(api: Shell, server: Backend) -> None:
    api.age(3600)
    filled = git(api, "credential", "fill", given=f"protocol=http\nhost={host_of(server.url)}\nusername=ada\n\n")
    assert f"password={api.secrets()[0]}\n" in filled.stdout, filled.stderr
    assert "username=ada\n" in filled.stdout
    assert server.exchanges == 1
    for action in ("approve", "reject"):
        assert git(api, "credential", action, given=filled.stdout).returncode == 0
    assert api("token", "api").stdout.strip() == api.secrets()[0]
    other = git(api, "credential", "fill", given="protocol=https\nhost=example.org\n\n")
    assert other.returncode != 0
    assert "password" not in other.stdout


def test_docker_gets_a_token_for_the_sessions_host_only(api: Shell, server: Backend) -> None:
    for address in (server.url, host_of(server.url), server.url + "/v1/"):
        done = api("credential", "docker", "api", "get", "--username", "<token>", given=address + "\n")
        assert json.loads(done.stdout) == {
            "ServerURL": address,
            "Username": "<token>",
            "Secret": api.secrets()[0],
        }
    for address in ("registry.example.org", "https://index.docker.io/v1/", "127.0.0.1", "["):
        done = api("credential", "docker", "api", "get", given=address)
        assert (done.returncode, done.stdout) == (1, "credentials not found in native keychain\n")
    done = api("credential", "docker", "api", "get")
    assert (done.returncode, done.stdout) == (1, "no credentials server URL\n")
    assert json.loads(api("credential", "docker", "api", "list").stdout) == {server.url: "oauth2"}
    secret = json.dumps({"ServerURL": server.url, "Username": "ada", "Secret": "x"})
    assert api("credential", "docker", "api", "store", given=secret).returncode == 0
    assert api("credential", "docker", "api", "erase", given=server.url).returncode == 0


def test_docker_reads_our_error_where_it_looks_for_it(api: Shell, server: Backend) -> None:
    server.sessions.revoke_all("ada")
    api.age(3600)
    done = api("credential", "docker", "api", "get", given=server.url)
    assert "--as api` again" in one_line(done)
    assert "--as api` again" in done.stdout


@pytest.mark.skipif(not shutil.which("docker"), reason="there is no docker here")
def test_the_real_docker_asks_us(shell: Shell, server: Backend) -> None:
    came: list[str] = []

    async def registry(request: Request) -> Response:
        came.append(request.headers.get("authorization", ""))
        if came[-1]:
            return Response(status_code=404)
        return Response(status_code=401, headers={"www-authenticate": 'Basic realm="registry"'})

    with running(Starlette(routes=[Route("/{path:path}", registry)])) as port:
        shell.login(server.url, "api", "--origin", f"http://127.0.0.1:{port}")
        helper = shell.home / "docker-credential-unbroken"
        helper.write_text(f"#!/bin/sh\nexec '{sys.executable}' -m unbroken.cli credential docker api \"$@\"\n")
        helper.chmod(0o700)
        (shell.home / "config.json").write_text(json.dumps({"credHelpers": {f"127.0.0.1:{port}": "unbroken"}}))
        image = f"127.0.0.1:{port}/some/image:latest"
        command = ["docker", "--config", str(shell.home), "manifest", "inspect", "--insecure", image]
        done = shell.raw(command, PATH=f"{shell.home}:{os.environ['PATH']}")
    basic = base64.b64encode(f"oauth2:{shell.secrets()[0]}".encode()).decode()
    assert f"Basic {basic}" in came, done.stderr


def test_kubectl_gets_an_exec_credential(api: Shell, server: Backend) -> None:
    told = json.loads(api("credential", "kubectl", "api").stdout)
    assert (told["apiVersion"], told["kind"]) == ("client.authentication.k8s.io/v1", "ExecCredential")
    assert told["status"]["token"] == api.secrets()[0]
    ends = dt.datetime.strptime(told["status"]["expirationTimestamp"], "%Y-%m-%dT%H:%M:%S%z")
    assert 1700 < ends.timestamp() - time.time() <= 1800
    for cluster, status in ((server.url, 0), ("https://other.example.org", 2)):
        asked = {"apiVersion": "client.authentication.k8s.io/v1beta1", "spec": {"cluster": {"server": cluster}}}
        done = api("credential", "kubectl", "api", KUBERNETES_EXEC_INFO=json.dumps(asked))
        assert done.returncode == status
        assert ('"apiVersion": "client.authentication.k8s.io/v1beta1"' in done.stdout) is (status == 0)


@pytest.mark.skipif(not shutil.which("kubectl"), reason="there is no kubectl here")
def test_the_real_kubectl_asks_us(shell: Shell, server: Backend) -> None:
    came: list[str] = []

    class Cluster(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            came.append(self.headers.get("authorization", ""))
            self.send_response(200)
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    tls, authority = certified(shell.home)
    with serving(Cluster, tls) as port:
        cluster = {"server": f"https://127.0.0.1:{port}", "certificate-authority": str(authority)}
        shell.login(server.url, "api", "--origin", cluster["server"])
        plugin = {
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": sys.executable,
            "args": ["-m", "unbroken.cli", "credential", "kubectl", "api"],
            "interactiveMode": "Never",
            "provideClusterInfo": True,
        }
        config = {
            "clusters": [{"name": "here", "cluster": cluster}],
            "users": [{"name": "ada", "user": {"exec": plugin}}],
            "contexts": [{"name": "it", "context": {"cluster": "here", "user": "ada"}}],
            "current-context": "it",
        }
        (shell.home / "config.json").write_text(json.dumps(config))
        done = shell.raw(["kubectl", "--kubeconfig", str(shell.home / "config.json"), "get", "--raw", "/version"])
    assert done.stdout == b"ok", done.stderr
    assert set(came) == {f"Bearer {shell.secrets()[0]}"}


def certified(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """TLS for 127.0.0.1, and the file of the certificate that vouches for it."""
    key, now = ec.generate_private_key(ec.SECP256R1()), dt.datetime.now(dt.UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    both, authority = folder / "tls.pem", folder / "authority.pem"
    authority.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    both.write_bytes(authority.read_bytes() + secret)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(both)
    return tls, authority


# ---- mistakes --------------------------------------------------------------------------------------------------------


LOGIN = ["login", "https://example.org", "--as", "x"]
MISTAKES: dict[str, tuple[list[str], str]] = {
    "an unknown name": (["token", "hunter2"], "there is no session of that name; known are: api"),
    "an unknown name to fetch with": (["fetch", "hunter2", "https://example.org"], "known are: api"),
    "an unknown name to look at": (["status", "hunter2"], "known are: api"),
    "an unknown name to log out": (["logout", "hunter2"], "known are: api"),
    "an unknown name to ask for": (["credential", "kubectl", "hunter2"], "known are: api"),
    "a password as an argument": ([*LOGIN, "hunter2"], "login takes one URL and no secrets"),
    "a password as an option": ([*LOGIN, "--password=hunter2"], "--password-stdin"),
    "a client secret as an option": ([*LOGIN, "--client-secret=hunter2"], "--client-secret-stdin"),
    "a token as an argument": (["token", "api", "hunter2"], "an argument too many"),
    "a password in the URL": (["login", "https://ada:hunter2@example.org", "--as", "x"], "must not have a user"),
    "a password in the URL to fetch": (["fetch", "api", "https://ada:hunter2@example.org"], "must not have a user"),
    "a password for a URL": (["login", "hunter2", "--as", "x"], "an address is wrong"),
    "half an address": (["login", "http://[hunter2", "--as", "x"], "an address is wrong"),
    "no name": (["login", "https://example.org"], "--as"),
    "in the clear": (["login", "http://example.org", "--as", "x", "--user", "a", "--password-stdin"], "use https"),
    "nobody to ask": ([*LOGIN, "--user", "a"], "--password-stdin"),
    "nobody to ask for a name": (LOGIN, "--user"),
    "an empty password": ([*LOGIN, "--user", "a", "--password-stdin"], "the password is empty"),
    "an empty token": ([*LOGIN, "--paste"], "the refresh token is empty"),
    "a client without an endpoint": ([*LOGIN, "--client-id", "x"], "--token-endpoint"),
    "a header that is none": (["fetch", "api", "https://example.org", "-H", "hunter2"], "'Name: value'"),
    "a header of two lines": (["fetch", "api", "https://example.org", "-H", "A: hunter2\nB: c"], "control characters"),
    "two bodies": (["fetch", "api", "https://example.org", "-d", "a", "--json", "b"], "one body"),
    "a body of no file": (["fetch", "api", "https://example.org", "-d", "@no/file"], "no/file"),
    "a file in no folder": (["fetch", "api", "URL/stream", "-o", "no/file"], "no/file cannot be written"),
    "nobody there": (["fetch", "api", "http://127.0.0.1:1/"], "cannot be reached"),
    "a scheme that is none": (["fetch", "api", "ftp://example.org"], "the URL is wrong"),
    "a time that is none": (["fetch", "api", "https://example.org", "--max-time", "x"], "is not a duration"),
    "no command": (["exec", "api"], "COMMAND"),
    "a variable that is none": (["exec", "api", "--env", "A=B", "--", "true"], "the name of a variable"),
    "an unknown action of docker": (["credential", "docker", "api", "frob"], "docker's actions are"),
    "junk from kubectl": (["credential", "kubectl", "api"], "KUBERNETES_EXEC_INFO is no JSON"),
}


@pytest.fixture(scope="module")
def mistaken(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Shell, str]]:
    """One login for all mistakes, which change nothing, and the server's address."""
    with Backend() as built:
        shell = Shell(tmp_path_factory.mktemp("home"))
        shell.login(built.url)
        yield shell, built.url


@pytest.mark.parametrize(("arguments", "says"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_gets_one_clear_line_without_a_secret(
    mistaken: tuple[Shell, str], arguments: list[str], says: str
) -> None:
    shell, url = mistaken
    junk = {"KUBERNETES_EXEC_INFO": "{" if says.startswith("KUBERNETES") else ""}
    done = shell(*(word.replace("URL", url) for word in arguments), **junk)
    assert says in one_line(done)
    assert "hunter2" not in done.stderr + done.stdout


def test_every_option_is_an_environment_variable_too(shell: Shell, server: Backend) -> None:
    login = {"UNBROKEN_AS": "api", "UNBROKEN_USER": "ada", "UNBROKEN_PASSWORD_STDIN": "1", "UNBROKEN_LABEL": "x y"}
    assert shell("login", server.url, given=PASSWORD, **login).returncode == 0
    assert server.sessions.list_of("ada")[0].label == "x y"
    assert shell("exec", "api", "--", "sh", "-c", 'test "$T"', UNBROKEN_ENV="T").returncode == 0
    for command, names in EXPECTED.items():
        text = shell(*command.split(), "--help").stdout
        missing = [name for name in names.split() if f"UNBROKEN_{name}" not in text]
        assert missing == [], command


EXPECTED = {
    "login": "AS USER PASSWORD_STDIN PASTE SCOPE LABEL PREFIX TOKEN_ENDPOINT REVOCATION_ENDPOINT CLIENT_ID "
    "CLIENT_SECRET_STDIN ORIGIN ALLOW_PLAIN_HTTP",
    "fetch": "REQUEST HEADER DATA JSON_DATA OUTPUT INCLUDE FAIL LOCATION MAX_TIME",
    "status": "JSON",
    "exec": "ENV",
    "credential git": "USERNAME",
    "credential docker": "USERNAME",
}
