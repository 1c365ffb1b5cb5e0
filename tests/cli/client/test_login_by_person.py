"""Logging in with a browser, and with a code on another device."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.client.shell import COMMAND, Shell, one_line
from tests.support.oauth_server import Manners, OAuthServer

OPENS = f"""#!{sys.executable}
import sys, urllib.request
urllib.request.urlopen(sys.argv[1], timeout=10).read()
"""


@pytest.fixture
def person() -> Iterator[OAuthServer]:
    with OAuthServer().run() as server:
        yield server


@pytest.fixture
def browser(tmp_path: Path) -> str:
    """A program that opens a URL and waits for its page, as a browser of the user's choice."""
    program = tmp_path / "browser"
    program.write_text(OPENS)
    program.chmod(0o700)
    return str(program)


def test_a_login_with_a_browser(shell: Shell, person: OAuthServer, browser: str) -> None:
    command = ("login", person.url, "--as", "api", "--web", "--client-id", "app", "--scope", "orders")
    done = shell(*command, BROWSER=browser)
    assert done.returncode == 0, done.stderr
    assert f"log in with a browser on this machine: {person.url}/authorize?" in done.stderr
    assert done.stdout == f"logged in at {person.url}; the session is called api\n"
    assert person.asked[0]["scope"] == "orders"
    assert shell("token", "api").stdout.strip() in person.access_tokens
    shell.age(3600)
    assert shell("token", "api").stdout.strip() in person.access_tokens
    assert [form["grant_type"] for form in person.forms] == ["authorization_code", "refresh_token"]
    for secret in shell.secrets():
        assert secret not in done.stderr + done.stdout
    person.refresh_tokens.clear()
    shell.age(3600)
    again = f"run `unbroken login {person.url} --as api --issuer {person.url} --client-id app --web`"
    assert again in one_line(shell("token", "api"))
    assert shell(*command, BROWSER=browser).returncode == 0
    assert shell("token", "api").stdout.strip() in person.access_tokens


def test_a_login_with_a_code(shell: Shell, person: OAuthServer) -> None:
    command = [*COMMAND, "login", person.url, "--as", "api", "--device", "--issuer", person.url, "--client-id", "app"]
    process = subprocess.Popen(
        command, env=shell.environment(), cwd=shell.home, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None
        shown = process.stderr.readline()
        assert re.search(rf"open {person.url}/enter on any device, and enter the code [0-9A-F]{{8}}$", shown.strip())
        person.agree()
        told, _ = process.communicate(timeout=30)
    finally:
        process.kill()
        process.communicate()
    assert (process.returncode, told) == (0, f"logged in at {person.url}; the session is called api\n")
    assert shell("token", "api").stdout.strip() in person.access_tokens


def test_a_client_with_a_secret(shell: Shell, browser: str) -> None:
    with OAuthServer(Manners(secret="hush")).run() as person:
        command = ("login", person.url, "--as", "api", "--web", "--client-id", "app", "--client-secret-stdin")
        assert shell(*command, given="hush\n", BROWSER=browser).returncode == 0
        assert shell("token", "api").stdout.strip() in person.access_tokens


def test_a_login_that_is_refused_stores_nothing(shell: Shell, person: OAuthServer, browser: str) -> None:
    person.change_redirect = {"code": None, "error": "access_denied"}
    done = shell("login", person.url, "--as", "api", "--web", "--client-id", "app", BROWSER=browser)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "unbroken: the login was denied (access_denied)"
    assert list(shell.folder.glob("*.json")) == []


def test_what_does_not_go_together(shell: Shell, person: OAuthServer) -> None:
    login = ("login", person.url, "--as", "api")
    for options, message in (
        (("--web", "--device"), "a login is one of --web, --device, --paste"),
        (("--web", "--paste"), "a login is one of"),
        (("--device", "--user", "ada"), "a login is one of"),
        (("--web", "--token-endpoint", person.url + "/token"), "use --issuer, not --token-endpoint"),
        (("--issuer", person.url), "--issuer and --redirect-uri need --web or --device"),
        (("--web",), "needs the client_id"),
        (("--web", "--client-id", "a", "--redirect-uri", "https://example.com/"), "is on this machine"),
        (("--web", "--client-id", "a", "--issuer", person.url + "/x"), "publishes no metadata"),
    ):
        assert message in one_line(shell(*login, *options))


def test_a_server_without_metadata_is_named(shell: Shell) -> None:
    began = time.monotonic()
    with OAuthServer().run() as person:
        done = shell("login", person.url + "/api", "--as", "api", "--web", "--client-id", "app")
    assert "name the OAuth 2.0 server with --issuer" in one_line(done)
    assert time.monotonic() - began < 30
