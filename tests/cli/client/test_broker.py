"""``unbroken broker``: tokens over a Unix socket.

Modules: cli/client/exec_broker.py, cli/client/local_socket.py.
"""

from __future__ import annotations

import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.cli.client.background import Background, background, unix_client
from tests.cli.client.shell import Shell, one_line
from tests.support.backend import PASSWORD, Backend
from tests.support.services import unavailable
from tests.support.strict_server import StrictServer
from tests.support.waiting import until
from unbroken.cli.ending import WAITING


@pytest.fixture
def socket(api: Shell) -> Path:
    return api.home / "b.sock"


@pytest.fixture
def broker(api: Shell, socket: Path) -> Iterator[Background]:
    with background(api, "broker", UNBROKEN_BROKER=str(socket)) as started:
        assert started.ready == f"listening at {socket.resolve()}\n"
        yield started


def test_the_broker_gives_the_token_the_header_and_when_it_expires(
    broker: Background, api: Shell, socket: Path
) -> None:
    [token, refresh_token] = api.secrets()
    with unix_client(socket) as client:
        plain, header = client.get("/api/token"), client.get("/api/header")
        found = client.get("/api/token", headers={"accept": "application/json"}).json()
    assert (plain.text, header.text) == (token + "\n", f"Authorization: Bearer {token}\n")
    assert plain.headers["cache-control"] == "no-store"
    assert found["access_token"] == token
    assert 0 < found["expires_in"] <= 1800
    assert refresh_token not in plain.text + header.text + str(found)
    assert stat.S_IMODE(socket.stat().st_mode) == 0o600


def test_curl_can_use_it(broker: Background, api: Shell, server: Backend, socket: Path) -> None:
    if shutil.which("curl") is None:
        unavailable("curl", "apt-get install curl")
    line = f"curl -sf --unix-socket {socket} http://broker/api/header | curl -sf -H @- {server.url}/echo"
    assert '"sub":"ada"' in subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=True).stdout


def test_forty_programs_cost_one_refresh(api: Shell, server: Backend, socket: Path) -> None:
    api.age(3600)
    server.slow_next(0.5)
    with background(api, "broker", "--socket", str(socket)), ThreadPoolExecutor(40) as pool:

        def ask(_: int) -> str:
            with unix_client(socket) as client:
                return client.get("/api/token").raise_for_status().text.strip()

        assert set(pool.map(ask, range(40))) == {api.secrets()[0]}
    assert (server.refreshes, server.alarms()) == (1, 0)


def test_a_rejected_token_is_answered_with_a_newer_one(
    broker: Background, api: Shell, server: Backend, socket: Path
) -> None:
    [old, _] = api.secrets()
    with unix_client(socket) as client:
        new = client.post("/api/token", content=old).text.strip()
        again = client.post("/api/token", content=old).text.strip()
        assert client.post("/api/token", content="").status_code == 400
    assert new == again == api.secrets()[0] != old
    assert server.refreshes == 1


def test_what_cannot_be_given_says_why(broker: Background, api: Shell, server: Backend, socket: Path) -> None:
    with unix_client(socket) as client:
        assert "did you mean api?" in client.get("/apu/token").text
        assert client.get("/apu/token").status_code == 404
        assert client.get("/").status_code == client.get("/../api/token/x").status_code == 404
        assert client.delete("/api/token").headers["allow"] == "GET, POST"
        api.age(3600)
        for _ in range(3):
            server.fail_next(503, headers={"retry-after": "2"})
        # This broker has not used the session yet.
        later = client.get("/api/token")
        assert (later.status_code, later.headers["retry-after"]) == (503, "3"), later.text
        server.sessions.revoke_subject("ada")
        over = client.post("/api/token", content=api.secrets()[0])
        while over.status_code == 503:
            over = client.get("/api/token")
        assert over.status_code == 401
        assert f"run `unbroken login {server.url} --as api --user ada`" in over.text
        api.login(server.url)
        assert client.get("/api/token").text == api.secrets()[0] + "\n", "the new login is noticed"
        assert api("logout", "api").returncode == 0
        assert client.get("/api/token").status_code in (401, 404), "a logout is noticed at once"


def test_only_the_sessions_that_were_named_are_served(api: Shell, server: Backend, socket: Path) -> None:
    api.login(server.url, "other")
    with background(api, "broker", "--socket", str(socket), "other"), unix_client(socket) as client:
        assert client.get("/other/token").status_code == 200
        assert client.get("/api/token").status_code == 404
    assert "no session of that name" in one_line(api("broker", "--socket", str(socket), "nobody"))


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_and_removes_the_socket(
    broker: Background, api: Shell, socket: Path, how: signal.Signals
) -> None:
    assert broker.end(how) == (0, "")
    assert not socket.exists()


def test_a_signal_in_mid_refresh_ends_it_when_the_tokens_are_stored(shell: Shell) -> None:
    """Who waits for the token is told so soon, and a strict server sees no token twice."""
    with StrictServer(lifetime=1.0).run() as strict:
        login = ["login", strict.url, "--as", "api", "--token-endpoint", strict.url + "/token", "--user", "ada"]
        assert shell(*login, "--password-stdin", given="pw").returncode == 0
        socket = shell.home / "b.sock"
        with background(shell, "broker", UNBROKEN_BROKER=str(socket)) as started, ThreadPoolExecutor(1) as pool:
            strict.delay = 5.0
            asked = len(strict.forms)
            time.sleep(1.1)
            waiting = pool.submit(lambda: unix_client(socket).get("/api/token"))
            until(lambda: len(strict.forms) > asked)
            began = time.monotonic()
            started.process.send_signal(signal.SIGTERM)
            response = waiting.result()
            assert (response.status_code, response.text) == (503, "the broker is ending\n")
            assert response.headers["retry-after"] == "1"
            assert time.monotonic() - began < 4.0
            until(lambda: not socket.exists())
            assert started.wait() == (0, f"unbroken: {WAITING}\n")
        strict.delay = 0.0
        assert shell("token", "api").returncode == 0
        assert strict.reuses == 0


def test_a_second_one_is_refused_and_what_a_killed_one_left_is_replaced(
    broker: Background, api: Shell, socket: Path
) -> None:
    assert "another process listens at" in one_line(api("broker", "--socket", str(socket)))
    broker.end(signal.SIGKILL)
    assert socket.exists()
    with background(api, "broker", "--socket", str(socket)), unix_client(socket) as client:
        assert client.get("/api/token").status_code == 200


def test_the_broker_listens_where_the_user_keeps_such_things(api: Shell) -> None:
    runtime = api.home / "runtime"
    runtime.mkdir(mode=0o700)
    with background(api, "broker", XDG_RUNTIME_DIR=str(runtime)) as started:
        assert started.ready == f"listening at {runtime / 'unbroken.sock'}\n"
    with background(api, "broker", XDG_RUNTIME_DIR="") as started:
        assert started.ready == f"listening at {api.folder.resolve() / 'broker.sock'}\n"


def test_broker_commands_and_programs_together_at_a_strict_server(shell: Shell) -> None:
    """The broker is one more program that uses the profile."""
    with StrictServer(lifetime=1.0).run() as strict:
        login = ["login", strict.url, "--as", "api", "--token-endpoint", strict.url + "/token", "--user", "ada"]
        assert shell(*login, "--password-stdin", given=PASSWORD).returncode == 0
        socket = shell.home / "b.sock"
        with background(shell, "broker", "--socket", str(socket)), unix_client(socket) as client:
            for _ in range(5):
                given = {client.get("/api/token").text.strip(), shell("token", "api").stdout.strip()}
                assert any(strict.is_good(f"Bearer {token}") for token in given)
        assert (strict.reuses, strict.logins) == (0, 1)
