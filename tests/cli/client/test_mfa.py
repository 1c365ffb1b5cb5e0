"""Logging in where the server wants a code too."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from starlette.applications import Starlette

from tests.cli.client.shell import Shell, one_line
from tests.support.backend import running
from unbroken.server import MemorySessionStore, MfaRequired, Sessions
from unbroken.starlette import routes


@pytest.fixture
def url() -> Iterator[str]:
    def authenticate(name: str, _: str) -> MfaRequired:
        return MfaRequired(name, kind="totp", hint="your phone")

    served = routes(
        Sessions(MemorySessionStore()), authenticate, verify_mfa=lambda _subject, _kind, code: code == "123456"
    )
    with running(Starlette(routes=served)) as port:
        yield f"http://127.0.0.1:{port}"


def test_the_code_may_come_from_standard_input(shell: Shell, url: str) -> None:
    login = ("login", url, "--as", "api", "--user", "ada", "--password-stdin")
    assert shell(*login, "--code-stdin", given="pw\n123456\n").returncode == 0
    assert shell("token", "api").returncode == 0


def test_a_wrong_code_and_no_code_are_told_apart(shell: Shell, url: str) -> None:
    login = ("login", url, "--as", "api", "--user", "ada", "--password-stdin")
    assert "wrong code" in one_line(shell(*login, "--code-stdin", given="pw\n1\n"))
    assert "no terminal to ask for a code (your phone): use --code-stdin" in one_line(shell(*login, given="pw\n"))
