"""``unbroken serve`` in production: several processes, how they end, what they count, what they log.

Modules: cli/application.py.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import threading
import time
from pathlib import Path

import httpx2
import pytest
from starlette.testclient import TestClient

from tests.support.commands import PASSWORD, Server, serving, unbroken
from tests.support.services import free_port
from unbroken.cli.application import application, worker_application
from unbroken.cli.settings import Settings

SLOW = b'{"username": "ada", "password": "correct horse"}'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    done = unbroken(tmp_path, "users", "add", "ada", "--password-stdin", given=PASSWORD + "\n")
    assert done.stdout == "added ada to sqlite:///unbroken.db\n", done.stderr
    return tmp_path


def workers_of(server: Server) -> set[int]:
    """The processes of *server* that multiprocessing made; its resource tracker is none."""
    listed = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
    return {int(pid) for pid in listed if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()}


class HalfSent:
    """A login of which the server has all but the last bytes."""

    def __init__(self, url: str) -> None:
        host, port = url.removeprefix("http://").split(":")
        self.socket = socket.create_connection((host, int(port)), timeout=60)
        head = f"POST /auth/login HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(SLOW)}"
        self.socket.sendall(head.encode() + b"\r\nexpect: 100-continue\r\n\r\n")
        assert b"100 Continue" in self.socket.recv(1000), "the application waits for the body"
        self.socket.sendall(SLOW[:20])

    def finish(self) -> bytes:
        """The response."""
        self.socket.sendall(SLOW[20:])
        response = b""
        with self.socket, contextlib.suppress(ConnectionError):
            while part := self.socket.recv(65536):
                response += part
        return response


def refuses(url: str) -> bool:
    host, port = url.removeprefix("http://").split(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError:
        return True
    return False


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_server_that_is_stopped_finishes_what_it_has_begun_and_takes_nothing_new(folder: Path, workers: str) -> None:
    with serving(folder, "--workers", workers) as server:
        begun = [HalfSent(server.url) for _ in range(3)]
        server.process.send_signal(signal.SIGTERM)
        ends = time.monotonic() + 30
        while not refuses(server.url) and workers == "1":  # the supervisor of several holds the socket, too
            assert time.monotonic() < ends
            time.sleep(0.05)
        responses = [one.finish() for one in begun]
        assert all(response.startswith(b"HTTP/1.1 200") and b"refresh_token" in response for response in responses)
        assert server.stop() == 0


def test_a_request_that_never_ends_does_not_keep_a_server_from_stopping(folder: Path) -> None:
    with serving(folder, "--shutdown-timeout", "1s") as server:
        begun = HalfSent(server.url)
        started = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - started < 30
        begun.socket.close()


def test_an_interrupt_is_a_stop_too(folder: Path) -> None:
    with serving(folder) as server:
        assert server.stop(signal.SIGINT) == 0
    assert "Traceback" not in server.errors.read_text()


@pytest.mark.parametrize("kind", ["sqlite", "postgres", "redis"])
def test_a_worker_that_dies_is_replaced_and_ends_no_session(
    kind: str, folder: Path, request: pytest.FixtureRequest
) -> None:
    store = [] if kind == "sqlite" else ["--store", request.getfixturevalue(kind).url]
    if store:
        unbroken(folder, "users", "add", "ada", "--password-stdin", *store, given=PASSWORD + "\n")
    with serving(folder, "--workers", "2", *store) as server:
        token = server.login()["refresh_token"]
        server.until(lambda: len(workers_of(server)) == 2)
        before = workers_of(server)
        os.kill(victim := min(before), signal.SIGKILL)
        server.until(lambda: len(workers_of(server)) == 2 and victim not in workers_of(server))
        with httpx2.Client(base_url=server.url, timeout=30) as http:
            response = http.post("/auth/refresh", json={"refresh_token": token})
        assert response.status_code == 200
        assert server.stop() == 0


def test_workers_whose_supervisor_was_killed_stop_too(folder: Path) -> None:
    with serving(folder, "--workers", "2") as server:
        server.until(lambda: len(workers_of(server)) == 2)
        workers = workers_of(server)
        server.process.kill()
        server.process.wait(20)
        ends = time.monotonic() + 60
        while not refuses(server.url):
            assert time.monotonic() < ends, workers
            time.sleep(0.1)


def test_a_worker_that_can_never_start_ends_the_server(folder: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        worker_application(Settings(store="sqlite:////no/such/folder/x.db"), "http://127.0.0.1:1")
    assert ended.value.code == 3, "uvicorn's word for: do not try again"


def test_metrics_are_those_of_all_workers_together(folder: Path) -> None:
    port = free_port()
    with serving(folder, "--workers", "2", "--metrics-port", str(port)) as server:
        for _ in range(6):  # connections of their own, so that both workers get some
            with httpx2.Client(base_url=server.url, timeout=30) as http:
                granted = http.post("/auth/login", json={"username": "ada", "password": PASSWORD}).json()
                assert http.post("/auth/refresh", json={"refresh_token": granted["refresh_token"]}).status_code == 200
                assert http.post("/auth/refresh", json={"refresh_token": "rt_x"}).status_code == 400
                assert http.post("/auth/login", json={"username": "ada", "password": "no"}).status_code == 401
        told = httpx2.get(f"http://127.0.0.1:{port}/metrics", timeout=30).text
        assert 'unbroken_server_refreshes_total{verdict="rotated"} 6.0' in told
        assert 'unbroken_server_refresh_refusals_total{reason="malformed"} 6.0' in told
        assert 'unbroken_server_login_refusals_total{why="password"} 6.0' in told
        assert "unbroken_server_logins_total 6.0" in told
        assert 'unbroken_server_store_seconds_count{operation="rotate_returning"} 6.0' in told
        assert "ada" not in told
        assert granted["refresh_token"] not in told
        assert server.stop() == 0


def test_metrics_are_off_unless_asked_for_and_a_busy_port_is_said_so(folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = unbroken(folder, "serve", "--port", "0", "--metrics-port", str(taken.getsockname()[1]))
    assert done.returncode == 2
    assert "name another --metrics-port" in done.stderr
    with serving(folder) as server:
        assert server.http.get("/metrics").status_code == 404
        assert server.http.get("/auth/metrics").status_code == 404


def test_logs_are_json_lines_and_no_output_holds_a_secret(folder: Path) -> None:
    secrets = [PASSWORD, "wrong pass", "not ada"]
    key = unbroken(folder, "keys", "new-encryption-key").stdout.strip()
    arguments = ("--log-format", "json", "--log-level", "debug", "--access-log", "--store", "sqlite:///unbroken.db")
    with serving(folder, *arguments, UNBROKEN_ENCRYPTION_KEY=key) as server:
        granted = server.login()
        secrets += [key, granted["refresh_token"], granted["access_token"]]
        assert (
            server.http.post("/auth/login", json={"username": "not ada", "password": "wrong pass"}).status_code == 401
        )
        newer = server.refresh(granted["refresh_token"]).json()
        secrets += [newer["refresh_token"], newer["access_token"]]
        assert server.http.get("/auth/session?token=" + newer["access_token"]).status_code == 401
        assert server.refresh(newer["refresh_token"] + "x").status_code == 400
        third = server.refresh(newer["refresh_token"]).json()
        secrets += [third["refresh_token"], third["access_token"]]
        for _ in range(3):  # an old one, from far behind: the session ends with a warning
            server.refresh(server.refresh(third["refresh_token"]).json()["refresh_token"])
            third = server.login()
        assert server.refresh(granted["refresh_token"]).status_code == 400
        assert server.stop() == 0
    said = server.errors.read_text()
    lines = [json.loads(line) for line in said.splitlines()]
    kinds = {line.get("event") for line in lines}
    assert {"login.accepted", "login.refused", "session.refreshed", "session.refresh_refused"} <= kinds
    requests = [line for line in lines if line["logger"] == "uvicorn.access"]
    assert {"/auth/login", "/auth/refresh", "/auth/session"} <= {line["path"] for line in requests}
    assert json.loads(server.first)["event"] == "server.listening"
    for secret in secrets:
        assert secret not in said + server.first


def test_an_address_behind_a_trusted_proxy_is_the_clients(folder: Path) -> None:
    for trusted, seen in ((("--forwarded-allow-ips", "127.0.0.1"), "203.0.113.9"), ((), "127.0.0.1")):
        with serving(folder, *trusted) as server:
            server.login(**{"x-forwarded-for": "198.51.100.1, 203.0.113.9"})
            listed = unbroken(folder, "sessions", "list").stdout
            assert seen in listed.splitlines()[1]
            assert server.stop() == 0


def test_the_file_of_settings_serves_and_is_what_other_commands_use(folder: Path) -> None:
    (folder / "unbroken.toml").write_text('store = "sqlite:///mine.db"\nprefix = "/id"\ndefault_scope = "read"\n')
    done = unbroken(folder, "users", "add", "bob", "--password-stdin", given=PASSWORD)
    assert done.returncode == 0, done.stderr
    assert (folder / "mine.db").exists()
    (folder / "unbroken.toml").write_text('store = "sqlite:///mine.db"\ndefault_scope = "read"\n')
    with serving(folder) as server:
        response = server.http.post("/auth/login", json={"username": "bob", "password": PASSWORD, "scope": "read"})
        assert response.json()["scope"] == "read"
        assert server.stop() == 0


def test_a_store_that_hangs_makes_a_server_unready_not_dead(folder: Path) -> None:
    """A PostgreSQL that accepts connections and never responds: the check ends in time, with a 503."""
    import anyio

    from unbroken.server import MemorySessionStore, Sessions
    from unbroken.server.http.endpoints import Endpoints
    from unbroken.server.http.health import HealthEndpoints
    from unbroken.server.http.messages import Request

    class Hanging(MemorySessionStore):
        async def health(self) -> None:
            await anyio.sleep(3600)

    async def asked() -> tuple[int, int]:
        sessions = Sessions(Hanging())
        endpoints = Endpoints(sessions, lambda name, password: name)
        ready = HealthEndpoints(sessions, store_timeout=0.05)
        live = await endpoints.handle(Request("GET", "/auth/health"))
        assert live is not None
        response = await ready.routes[1].handler(Request("GET", "/auth/health/ready"), "")
        assert json.loads(response.body) == {"status": "unavailable"}
        return live.status, response.status

    for backend in ("asyncio", "trio"):
        assert anyio.run(asked, backend=backend) == (200, 503)


def test_readiness_follows_the_store_and_says_nothing_secret(folder: Path) -> None:
    from unbroken.errors import StoreUnavailable
    from unbroken.server import MemorySessionStore, Sessions
    from unbroken.server.http.endpoints import Endpoints
    from unbroken.server.http.messages import Request

    class Away(MemorySessionStore):
        away = False

        async def health(self) -> None:
            if self.away:
                raise StoreUnavailable("postgresql at db.internal does not respond")

    store, before = Away(), threading.active_count()
    endpoints = Endpoints(Sessions(store), lambda name, password: name)
    for store.away, status in ((False, 200), (True, 503), (False, 200)):
        response = endpoints.handle_blocking(Request("GET", "/auth/health/ready"))
        assert response is not None
        assert response.status == status
        assert b"internal" not in response.body
        assert response.headers["cache-control"] == "no-store"
    assert threading.active_count() < before + 10


def test_serve_sends_no_redirect_to_a_host_named_in_a_header(tmp_path: Path) -> None:
    served = application(Settings(store=f"sqlite:///{tmp_path}/s.db"), "https://id.example.com")
    with TestClient(served, base_url="http://evil.example", follow_redirects=False) as client:
        response = client.post("/auth/login/", json={})
        assert (response.status_code, response.headers.get("location")) == (404, None)


def test_the_scope_of_an_account_follows_it_while_the_server_runs(folder: Path) -> None:
    (folder / "unbroken.toml").write_text('default_scope = ["read"]\naccount_scopes = true\n')
    assert unbroken(folder, "users", "scope", "ada", "write", "admin").returncode == 0
    assert unbroken(folder, "users", "list").stdout.splitlines()[1].split()[-2:] == ["write", "admin"]
    with serving(folder) as server:
        tokens = server.http.post("/auth/login", json={"username": "ada", "password": PASSWORD}).json()
        assert tokens["scope"] == "read write admin"
        for words, scope in ((["write"], "read write"), ([], "read"), (["admin"], "read admin")):
            done = unbroken(folder, "users", "scope", "ada", *words)
            assert (done.returncode, "next refresh" in done.stdout) == (0, True), done.stderr
            tokens = server.http.post("/auth/refresh", json={"refresh_token": tokens["refresh_token"]}).json()
            assert tokens["scope"] == scope
        assert server.stop() == 0
    wrong = unbroken(folder, "users", "scope", "eve", "read")
    assert (wrong.returncode, wrong.stderr) == (2, "unbroken: there is no user 'eve'\n")
