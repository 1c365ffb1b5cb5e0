"""``unbroken token NAME --watch``.

Modules: cli/ending.py.
"""

from __future__ import annotations

import os
import signal
import stat
import threading
import time

import pytest

from tests.cli.client.background import background, unix_client
from tests.cli.client.shell import Shell, one_line
from tests.support.backend import PASSWORD, Backend
from tests.support.strict_server import StrictServer
from tests.support.waiting import until
from unbroken.cli.ending import WAITING


def test_the_file_has_a_good_token_at_every_moment(shell: Shell) -> None:
    """A strict server, tokens of a second, and a reader that reads all the time, while commands refresh too."""
    file, seen, done = shell.home / "token", set[str](), threading.Event()
    with StrictServer(lifetime=1.0).run() as server:
        login = ["login", server.url, "--as", "api", "--token-endpoint", server.url + "/token", "--user", "ada"]
        assert shell(*login, "--password-stdin", given=PASSWORD).returncode == 0
        bad: list[str] = []

        def read() -> None:
            while not done.is_set():
                token = file.read_text()
                seen.add(token)
                if not server.is_good("Bearer " + token.strip()):
                    bad.append(token)
                time.sleep(0.005)

        with background(shell, "token", "api", "--watch", str(file)) as watcher:
            assert watcher.ready == f"the token is in {file.resolve()}\n"
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
            reader = threading.Thread(target=read)
            reader.start()
            for _ in range(4):
                assert shell("token", "api").returncode == 0
            time.sleep(2)
            done.set()
            reader.join()
            assert watcher.end() == (0, "")
        assert len(seen) >= 3
        assert all(token.endswith("\n") and len(token) > 10 for token in seen), "never a part of one"
        assert server.reuses == 0
        assert len(bad) <= len(seen) * 120, "a token may be old for as long as the watcher's pause, and no longer"


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_and_removes_the_file(api: Shell, how: signal.Signals) -> None:
    with background(api, "token", "api", "--watch", "token") as watcher:
        assert (api.home / "token").read_text() == api.secrets()[0] + "\n"
        assert watcher.end(how) == (0, "")
    assert not (api.home / "token").exists()
    assert [path for path in api.home.iterdir() if path.name.startswith(".token")] == []


def test_a_signal_in_mid_refresh_removes_the_file_at_once_and_the_tokens_are_stored(shell: Shell) -> None:
    with StrictServer(lifetime=1.0).run() as strict:
        login = ["login", strict.url, "--as", "api", "--token-endpoint", strict.url + "/token", "--user", "ada"]
        assert shell(*login, "--password-stdin", given=PASSWORD).returncode == 0
        with background(shell, "token", "api", "--watch", "token") as watcher:
            strict.delay = 4.0
            asked = len(strict.forms)
            until(lambda: len(strict.forms) > asked)
            watcher.process.send_signal(signal.SIGTERM)
            until(lambda: not (shell.home / "token").exists(), "the file is removed", 1.5)
            assert watcher.wait() == (0, f"unbroken: {WAITING}\n")
        assert not (shell.home / "token").exists()
        strict.delay = 0.0
        assert shell("token", "api").returncode == 0
        assert strict.reuses == 0


def test_another_programs_refresh_is_in_the_file_at_once(api: Shell, server: Backend) -> None:
    with background(api, "token", "api", "--watch", "token"):
        [old, _] = api.secrets()
        server.expire()
        assert api("fetch", "api", server.url + "/echo").returncode == 0
        until(lambda: (api.home / "token").read_text() == api.secrets()[0] + "\n", seconds=5)
        assert api.secrets()[0] != old
        os.unlink(api.home / "token")
        until((api.home / "token").exists, seconds=5)
    assert server.refreshes == 1


def test_the_end_of_the_session_ends_it_and_removes_the_file(api: Shell, server: Backend) -> None:
    with background(api, "token", "api", "--watch", "token") as watcher:
        assert api("logout", "api").returncode == 0
        status, errors = watcher.wait()
    assert status == 2
    assert f"run `unbroken login {server.url} --as api --user ada`" in errors
    assert len(errors.splitlines()) == 1
    assert not (api.home / "token").exists()


def test_an_ill_server_is_told_once_and_the_last_token_stays(shell: Shell) -> None:
    with Backend(access_ttl=2.0) as server:
        shell.login(server.url)
        with background(shell, "token", "api", "--watch", "token") as watcher:
            until((shell.home / "token").exists)
            asked = server.refreshes  # it starts with a refresh if the machine is slow
            for _ in range(6):
                server.fail_next(500)
            until(lambda: server.refreshes >= asked + 6)
            before = (shell.home / "token").read_text()
            until(lambda: (shell.home / "token").read_text() != before)
            status, errors = watcher.end()
        assert status == 0
        assert len(errors.splitlines()) <= 1, errors
        assert server.alarms() == 0


def test_what_a_killed_one_left_is_replaced(api: Shell, server: Backend) -> None:
    with background(api, "token", "api", "--watch", "token") as watcher:
        watcher.end(signal.SIGKILL)
    left = (api.home / "token").read_text()
    server.expire()
    assert api("fetch", "api", server.url + "/echo").returncode == 0
    assert left != api.secrets()[0] + "\n"
    with background(api, "token", "api", "--watch", "token"):
        assert (api.home / "token").read_text() == api.secrets()[0] + "\n"


@pytest.mark.parametrize("target", ["token.sock", "unix:token"])
def test_a_socket_serves_this_session_only(api: Shell, server: Backend, target: str) -> None:
    api.login(server.url, "other")
    with background(api, "token", "api", "--watch", target) as watcher:
        with unix_client(api.home / target.removeprefix("unix:")) as client:
            assert client.get("/api/token").text == api.secrets()[0] + "\n"
            assert client.get("/other/token").status_code == 404
        assert watcher.end() == (0, "")


def test_a_session_or_a_file_that_cannot_be_watched_is_refused(api: Shell) -> None:
    assert "no session of that name" in one_line(api("token", "nobody", "--watch", "token"))
    assert "the folder" in one_line(api("token", "api", "--watch", "missing/token"))
    (api.home / "notes").write_text("milk\nbread\n")
    (api.home / "notes").chmod(0o600)
    assert "holds something else than a token" in one_line(api("token", "api", "--watch", "notes"))
    assert (api.home / "notes").read_text() == "milk\nbread\n"
    assert "too long for a socket" in one_line(api("token", "api", "--watch", "x" * 120 + ".sock"))
