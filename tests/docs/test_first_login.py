"""The page about first logins: its programs and commands run against a server in which a person logs in."""

from __future__ import annotations

import os
import runpy
import sys
import webbrowser
from pathlib import Path

import pytest

from tests.docs.pages import API, page, run
from tests.support.oauth_server import OAuthServer
from unbroken import Session

OPENS = f"#!{sys.executable}\nimport sys, urllib.request\nurllib.request.urlopen(sys.argv[1], timeout=10).read()\n"


@pytest.fixture
def browser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    program = tmp_path / "browser"
    program.write_text(OPENS)
    program.chmod(0o700)
    monkeypatch.setenv("BROWSER", str(program))
    monkeypatch.delitem(sys.modules, webbrowser.__name__)  # it reads BROWSER at its first use in a process
    return program


def test_the_programs_of_the_page_log_in(browser: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = page("first-login.md").replace('print(f"Open', 'agree(f"Open')
    with OAuthServer().run() as server:
        (tmp_path / "example.py").write_text(code.replace(API, server.url))
        monkeypatch.chdir(tmp_path)
        seen: list[str] = []

        def agree(words: str) -> None:
            seen.append(words)
            server.agree()

        made = runpy.run_path("example.py", {"agree": agree})
        assert seen[0].startswith(f"Open {server.url}/enter and enter ")
        assert made["job"].token() in server.access_tokens
        assert made["session"].token()
        assert [one["scope"] for one in server.asked] == ["orders", "orders"]
        assert server.forms[-1]["grant_type"] == "client_credentials"
        assert Session(made["keycloak"]).dialect.login_endpoints


def test_the_commands_of_the_page_log_in(browser: Path, tmp_path: Path) -> None:
    command = tmp_path / "unbroken"
    command.write_text(f"#!/bin/sh\nexec '{sys.executable}' -m unbroken.cli \"$@\"\n")
    command.chmod(0o700)
    with OAuthServer().run() as server:
        done = run("set -e\n" + page("first-login.md", server.url, "sh"), tmp_path, "sh")
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1] in server.access_tokens
    assert os.environ["BROWSER"] == str(browser)
