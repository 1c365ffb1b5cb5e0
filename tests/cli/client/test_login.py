"""Logging in and out.

Modules: cli/terminal.py.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import time

import pytest

from tests.cli.client.shell import COMMAND, Echo, OAuth, Shell, one_line
from tests.cli.client.test_environment import mode, plain
from tests.support.backend import PASSWORD, Backend


def test_a_session_from_login_to_logout(shell: Shell, server: Backend) -> None:
    shell.login(server.url, "api", "--label", "laptop")
    assert [info.label for info in server.sessions.list_sessions("ada")] == ["laptop"]
    token = shell("token", "api").stdout.strip()
    assert server.sessions.verify(token).subject == "ada"
    done = shell("logout", "api")
    assert (done.returncode, done.stdout) == (0, "api: logged out; the server confirmed it\n")
    assert server.sessions.list_sessions("ada") == []
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
    granted = server.sessions.create("eve")
    done = shell("login", server.url, "--as", "api", "--paste", given=f"{granted.refresh_token}\n")
    assert done.returncode == 0, done.stderr
    assert server.refreshes == 1
    assert server.sessions.verify(shell("token", "api").stdout.strip()).subject == "eve"
    assert server.refreshes == 1
    shell.age(3600)
    assert shell("token", "api").returncode == 0
    assert (server.refreshes, server.alarms()) == (2, 0)


def test_a_refused_login_changes_nothing(api: Shell, server: Backend) -> None:
    before = api.secrets()
    refused = api("login", server.url, "--as", "api", "--user", "ada", "--password-stdin", given="wrong\n")
    assert "the login was refused" in one_line(refused)
    pasted = api("login", server.url, "--as", "api", "--paste", given="nonsense\n")
    assert "the server did not accept the refresh token" in one_line(pasted)
    assert "nonsense" not in pasted.stderr
    assert api.secrets() == before
    assert api("token", "api").stdout.strip() == before[0]


def test_a_login_by_password_ends_the_session_it_replaces(api: Shell, server: Backend) -> None:
    [before] = server.sessions.list_sessions("ada")
    api.login(server.url)
    [after] = server.sessions.list_sessions("ada")
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
    server.sessions.revoke_subject("ada")
    api.age(3600)
    assert api("token", "api").returncode == 2
    done = api("logout", "api")
    assert (done.returncode, done.stdout) == (0, "api: forgotten; the session was over already\n")


def test_login_works_with_any_oauth_server(shell: Shell, oauth: OAuth) -> None:
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
    granted = oauth.sessions.create("ada", client_id="shop")
    where = ["login", oauth.url, "--as", "shop", "--token-endpoint", oauth.url + "/auth/token", "--client-id", "shop"]
    assert shell(*where, "--paste", given=f"{granted.refresh_token}\n").returncode == 0
    assert oauth.sessions.verify(shell("token", "shop").stdout.strip()).subject == "ada"
    done = shell("logout", "shop")
    assert done.returncode == 1
    assert "there is no --revocation-endpoint" in done.stdout


def test_who_ends_the_input_is_not_asked_for_more(shell: Shell, server: Backend) -> None:
    ours, theirs = os.openpty()
    command = [*COMMAND, "login", server.url, "--as", "api"]
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=shell.environment(), cwd=shell.home
    )
    os.close(theirs)
    try:
        read_until(ours, b"User: ")
        os.write(ours, b"\x04")
        seen = read_until(ours, b"unbroken: stopped")
        assert process.wait(20) == 2
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    assert b"Password" not in seen


# ---- whose session it is ---------------------------------------------------------------------------------------------


def test_a_login_says_as_whom_and_status_shows_it(shell: Shell, server: Backend) -> None:
    login = ("login", server.url, "--as", "api", "--user", "ada", "--password-stdin")
    assert f"logged in at {server.url} as ada;" in shell(*login, given=PASSWORD + "\n").stdout
    granted = server.sessions.create("eve")
    assert "as eve;" in shell("login", server.url, "--as", "two", "--paste", given=f"{granted.refresh_token}\n").stdout
    users = {line["name"]: line["user"] for line in json.loads(shell("status", "--json").stdout)}
    assert users == {"api": "ada", "two": "eve"}


def test_another_users_session_is_replaced_only_if_that_is_wanted(api: Shell, server: Backend) -> None:
    login = ("login", server.url, "--as", "api", "--user", "bob", "--password-stdin")
    refused = one_line(api(*login, given=PASSWORD + "\n"))
    assert "api is a session of ada: use another name, or --replace" in refused
    assert [info.subject for info in server.sessions.list_sessions()] == ["ada"]
    assert api(*login, "--replace", given=PASSWORD + "\n").returncode == 0
    assert [info.subject for info in server.sessions.list_sessions()] == ["bob"]


@pytest.mark.parametrize(("said", "user"), [(b"y\n", "bob"), (b"\n", "ada")], ids=["yes", "no"])
def test_at_a_terminal_it_is_asked_before_another_users_session_is_replaced(
    api: Shell, server: Backend, said: bytes, user: str
) -> None:
    own = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
    ours, theirs = os.openpty()
    command = [sys.executable, "-c", own, *COMMAND, "login", server.url, "--as", "api", "--user", "bob"]
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=api.environment(), cwd=api.home, start_new_session=True
    )
    os.close(theirs)
    try:
        read_until(ours, b"api is a session of ada: log ada out and replace it? [y/N] ")
        os.write(ours, said)
        if user == "bob":
            read_until(ours, b"Password: ")
            os.write(ours, PASSWORD.encode() + b"\n")
        assert process.wait(60) == (0 if user == "bob" else 2)
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    assert [info.subject for info in server.sessions.list_sessions()] == [user]


def test_a_session_that_is_over_says_how_it_was_logged_in(shell: Shell, oauth: OAuth) -> None:
    granted = oauth.sessions.create("ada", client_id="shop")
    where = ["login", oauth.url, "--as", "shop", "--token-endpoint", oauth.url + "/auth/token", "--client-id", "shop"]
    assert shell(*where, "--paste", given=f"{granted.refresh_token}\n").returncode == 0
    oauth.sessions.revoke_subject("ada")
    shell.age(3600, "shop")
    words = f"--as shop --token-endpoint {oauth.url}/auth/token --client-id shop --paste`"
    assert words in one_line(shell("token", "shop"))


def test_a_login_at_a_server_that_is_not_unbroken_says_so(shell: Shell, echo: Echo) -> None:
    login = ("login", echo.url, "--as", "api", "--user", "ada", "--password-stdin")
    assert f"no unbroken server responds at {echo.url}/auth (" in one_line(shell(*login, given="x\n"))


@pytest.mark.skipif(os.geteuid() == 0 and not shutil.which("setpriv"), reason="nothing stops root here")
def test_a_login_that_could_not_be_stored_is_not_begun(api: Shell, server: Backend) -> None:
    with mode(api.folder, 0o500):
        done = plain(api, "login", server.url, "--as", "new", "--user", "ada", "--password-stdin")
    assert "is read-only" in one_line(done)
    assert len(server.sessions.list_sessions()) == 1
