"""Commands that run until a signal ends them."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2

from tests.cli.client.shell import COMMAND, Shell

__all__ = ["Background", "background", "unix_client"]


class Background:
    """A command that has said that it is ready."""

    def __init__(self, shell: Shell, arguments: tuple[str, ...], environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=shell.environment(**environment),
            cwd=shell.home,
            text=True,
        )
        assert self.process.stdout is not None
        self.ready = self.process.stdout.readline()

    def end(self, how: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
        """End it; return its exit status and what it said on standard error."""
        if self.process.poll() is None:
            self.process.send_signal(how)
        return self.wait()

    def wait(self) -> tuple[int, str]:
        """Wait until it ends by itself."""
        _, errors = self.process.communicate(timeout=30)
        return self.process.returncode, errors


@contextmanager
def background(shell: Shell, *arguments: str, **environment: str) -> Iterator[Background]:
    command = Background(shell, arguments, environment)
    try:
        yield command
    finally:
        if command.process.poll() is None:
            command.process.kill()
        command.process.communicate(timeout=30)


def unix_client(path: object) -> httpx2.Client:
    return httpx2.Client(transport=httpx2.HTTPTransport(uds=str(path)), base_url="http://broker", timeout=30)
