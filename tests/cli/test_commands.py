"""The command line, as a user types it: real processes, one clear line for every mistake.

Modules: cli/__init__.py, cli/__main__.py, cli/options.py, cli/demo/command.py, cli/demo/scenario.py,
cli/demo/second_process.py, cli/demo/workers.py.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from unbroken import Session
from unbroken.cli.options import environment_variable
from unbroken.cli.settings import setting_definitions


def unbroken(folder: Path, *arguments: str, given: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "unbroken.cli", *arguments]
    env = {**os.environ, "COLUMNS": "200", **environment}
    return subprocess.run(
        command, input=given, capture_output=True, text=True, cwd=folder, env=env, timeout=60, check=False
    )


@contextmanager
def serving(folder: Path, *arguments: str) -> Iterator[str]:
    command = [sys.executable, "-m", "unbroken.cli", "serve", "--port", "0", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=folder)
    try:
        assert process.stdout is not None
        first = process.stdout.readline()
        url = first.split()[1].removesuffix("/auth")
        for _ in range(200):
            try:
                httpx2.get(url + "/.well-known/jwks.json", timeout=30)
                break
            except httpx2.TransportError:
                time.sleep(0.05)
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_server_a_user_and_a_session_from_nothing(tmp_path: Path, workers: str) -> None:
    assert (
        unbroken(tmp_path, "users", "add", "ada", "--password-stdin", given="pw\n").stdout
        == "added ada to sqlite:///unbroken.db\n"
    )
    with serving(tmp_path, "--workers", workers, "--access-ttl", "2s") as url:
        session = Session(url)
        session.login("ada", "pw", label="laptop")
        token = session.token()
        who = {"authorization": f"Bearer {token}"}
        assert httpx2.get(url + "/auth/session", headers=who, timeout=30).json()["sub"] == "ada"
        listed = unbroken(tmp_path, "sessions", "list", "--user", "ada").stdout
        assert "laptop" in listed
        sid = listed.splitlines()[1].split()[0]
        assert unbroken(tmp_path, "sessions", "revoke", sid).stdout == "revoked 1 session\n"
        time.sleep(1.0)
        for _ in range(4):
            response = httpx2.get(url + "/auth/session", headers=who, timeout=30)
            assert 'reason="revoked"' in response.headers["www-authenticate"] or "expired" in response.text
    assert unbroken(tmp_path, "sessions", "revoke", sid).returncode == 1


def test_the_users_commands_add_list_change_and_remove_accounts(tmp_path: Path) -> None:
    for name in ("ada", "bob"):
        unbroken(tmp_path, "users", "add", name, "--password-stdin", given="pw\n")
    listed = unbroken(tmp_path, "users", "list").stdout
    assert [line.split()[0] for line in listed.splitlines()] == ["NAME", "ada", "bob"]
    assert "argon2" not in listed
    changed = unbroken(tmp_path, "users", "passwd", "ADA", "--password-stdin", given="new\n")
    assert changed.stdout == "changed the password of ada, revoked 0 sessions\n"
    assert unbroken(tmp_path, "users", "remove", "bob").stdout == "removed bob, revoked 0 sessions\n"


def test_the_keys_commands_list_rotate_and_retire_keys(tmp_path: Path) -> None:
    first = unbroken(tmp_path, "keys", "list").stdout.splitlines()
    assert len(first) == 3
    rotated = unbroken(tmp_path, "keys", "rotate", "--publish-ahead", "1h").stdout
    assert {line.split()[3] for line in rotated.splitlines()[1:]} >= {"next", "retiring"}
    kid = next(line.split()[0] for line in first if "EdDSA" in line)
    assert unbroken(tmp_path, "keys", "rotate", "--now").returncode == 0
    assert unbroken(tmp_path, "keys", "retire", kid).stdout == f"retired {kid}\n"
    assert "retired" in unbroken(tmp_path, "keys", "list").stdout
    assert '"d"' not in rotated


def test_every_option_is_an_environment_variable_too(tmp_path: Path) -> None:
    (tmp_path / "else").mkdir()
    added = unbroken(
        tmp_path, "users", "add", "ada", "--password-stdin", given="pw\n", UNBROKEN_STORE="sqlite:///else/x.db"
    )
    assert added.returncode == 0
    assert (tmp_path / "else" / "x.db").exists()
    help_text = " ".join(unbroken(tmp_path, "serve", "--help").stdout.split())
    for name, setting in setting_definitions().items():
        shown = re.search(rf"\[env var: {environment_variable(name)}[;\]]", help_text)
        assert bool(shown) is ("option" in setting.sources), name


MISTAKES: dict[str, tuple[list[str], str]] = {
    "a wrong flag": (["serve", "--frob"], "No such option '--frob'"),
    "a wrong command": (["frob"], "No such command"),
    "a wrong duration": (["serve", "--access-ttl", "5x"], "is not a duration"),
    "no time at all": (["serve", "--access-ttl", "0"], "above zero"),
    "a wrong port": (["serve", "--port", "99999"], "--port must be between 0 and 65535"),
    "a file that is missing": (["serve", "--config", "no.toml"], "no.toml cannot be read: No such file"),
    "a secret as an option": (["serve", "--encryption-key", "x"], "No such option '--encryption-key'"),
    "an issuer that is none": (["serve", "--issuer", "x"], "issuer must be a URL"),
    "an address of somebody else": (["serve", "--host", "203.0.113.1"], "cannot listen on 203.0.113.1"),
    "an unknown store": (["serve", "--store", "mysql://x"], "unknown store"),
    "a store in no folder": (["users", "list", "--store", "sqlite:////no/such/folder/x.db"], "does not exist"),
    "memory for many": (["serve", "--store", "memory:", "--workers", "2"], "cannot share memory"),
    "no name": (["users", "add"], "'NAME'"),
    "an empty password": (["users", "add", "eve", "--password-stdin"], "a password has"),
    "nobody to ask": (["users", "add", "eve"], "--password-stdin"),
    "an unknown user": (["users", "remove", "eve"], "there is no user 'eve'"),
    "an unknown key": (["keys", "retire", "x"], "there is no key 'x'"),
    "nothing to revoke": (["sessions", "revoke"], "name either a session id"),
}


@pytest.mark.parametrize(("arguments", "says"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_gets_one_clear_line(tmp_path: Path, arguments: list[str], says: str) -> None:
    done = unbroken(tmp_path, *arguments)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("unbroken: ")
    assert says in done.stderr


def test_a_port_that_is_in_use_is_an_error_that_says_so(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = unbroken(tmp_path, "serve", "--port", str(taken.getsockname()[1]))
    assert done.returncode == 2
    assert "Address already in use; name another --port" in done.stderr


def test_the_demo_steals_a_bearer_token_that_works_and_a_bound_one_that_does_not(tmp_path: Path) -> None:
    done = unbroken(tmp_path, "demo", "--theft", "--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["bearer_worked_for_thief"] >= 4
    assert (summary["bound_worked_for_thief"], summary["bound_user_goes_on"]) == (0, True)
    shown = unbroken(tmp_path, "demo", "--theft")
    assert (shown.returncode, shown.stderr) == (0, "")
    for words in (
        "the bearer twin",
        "the bound session",
        "wrong_key",
        "401 invalid_token bound",
        "never worked for him",
    ):
        assert words in shown.stdout


def test_the_demo_keeps_its_promise(tmp_path: Path) -> None:
    done = unbroken(tmp_path, "demo", "--seconds", "8", "--workers", "20", "--json")
    summary = json.loads(done.stdout)
    assert done.returncode == 0, done.stderr
    assert summary["failed_requests"] == 0
    assert summary["reuse_before_theft"] == 0
    assert summary["theft_detected"] is True
    assert summary["server_kills"] == 2
    assert summary["responses_lost"] >= 3
    assert summary["rotations"] >= 4
    assert summary["requests"] > 100
    assert set(summary) == {
        "requests", "failed_requests", "requests_without_server", "rotations", "refresh_requests", "responses_lost",
        "server_kills", "reuse_before_theft", "theft_detected", "p50_ms", "p99_ms", "seconds",
    }  # fmt: skip
