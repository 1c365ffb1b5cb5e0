"""A command that waits for a server says so at a terminal, and only there."""

from __future__ import annotations

import os
import pty
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.client.shell import COMMAND, Shell
from tests.support.backend import Backend


@pytest.fixture
def hung(api: Shell, server: Backend) -> Iterator[str]:
    """A shell whose session must be refreshed at a server that accepts connections and does not respond."""
    listening = socket.create_server(("127.0.0.1", 0))
    file = api.folder / "api.json"
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    file.write_text(file.read_text().replace(server.url, url))
    api.age(1e6)
    yield url
    listening.close()


@pytest.mark.parametrize("arguments", [("token", "api"), ("fetch", "api", "/"), ("exec", "api", "--", "true")])
def test_a_terminal_is_told_who_is_waited_for_and_how_long(api: Shell, hung: str, arguments: tuple[str, ...]) -> None:
    controller, terminal = pty.openpty()
    began = time.monotonic()
    process = subprocess.Popen(
        [*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=terminal, cwd=api.home, env=api.environment()
    )
    try:
        line = os.read(controller, 1000).decode()
        assert line.startswith(f"unbroken: waiting for {hung} to refresh the token, 57 seconds more at most")
        assert 2.5 < time.monotonic() - began < 15
    finally:
        process.kill()
        process.communicate()
        os.close(controller)
        os.close(terminal)


def test_a_pipe_is_not_told(api: Shell, hung: str, tmp_path: Path) -> None:
    error = tmp_path / "error"
    with error.open("w") as file:
        process = subprocess.Popen([*COMMAND, "token", "api"], stderr=file, cwd=api.home, env=api.environment())
        time.sleep(5)
        process.kill()
        process.wait()
    assert error.read_text() == ""
