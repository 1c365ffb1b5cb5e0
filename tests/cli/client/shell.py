"""Commands in a home of their own, and the servers they speak with."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.support.backend import PASSWORD
from unbroken import FileStore
from unbroken.server import Sessions

COMMAND = [sys.executable, "-m", "unbroken.cli"]
Done = subprocess.CompletedProcess[str]


@dataclass
class Shell:
    """Runs commands in a home of their own."""

    home: Path

    @property
    def folder(self) -> Path:
        return self.home / ".config" / "unbroken"

    def environment(self, **more: str) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("UNBROKEN_", "XDG_"))}
        return {**kept, "HOME": str(self.home), "COLUMNS": "200", **more}

    def __call__(self, *arguments: str, given: str | bytes = "", **environment: str) -> Done:
        data = given.encode() if isinstance(given, str) else given
        done = self.raw([*COMMAND, *arguments], data, **environment)
        return Done(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())

    def raw(self, command: list[str], data: bytes = b"", **environment: str) -> subprocess.CompletedProcess[bytes]:
        env = self.environment(**environment)
        return subprocess.run(command, input=data, capture_output=True, cwd=self.home, env=env, timeout=60, check=False)

    def login(self, url: str, name: str = "api", *more: str) -> None:
        done = self("login", url, "--as", name, "--user", "ada", "--password-stdin", *more, given=PASSWORD + "\n")
        assert done.returncode == 0, done.stderr

    def age(self, seconds: float, name: str = "api") -> None:
        """The tokens were received *seconds* earlier than they were."""
        store = FileStore(self.folder / f"{name}.tokens.json")
        before = store.load()
        assert before.tokens is not None
        older = replace(before.tokens, received_at=before.tokens.received_at - seconds)
        assert store.save(replace(before, tokens=older), before)

    def secrets(self, name: str = "api") -> list[str]:
        tokens = FileStore(self.folder / f"{name}.tokens.json").load().tokens
        assert tokens is not None
        return [tokens.access_token, str(tokens.refresh_token)]


def one_line(done: Done) -> str:
    """The error of a command that could not do its work."""
    assert done.returncode == 2, done
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith("unbroken: ")
    return done.stderr


@dataclass
class OAuth:
    """A server of RFC 6749 for clients with a secret, and who came to its token endpoint as whom."""

    url: str
    sessions: Sessions
    came: list[str]


@dataclass
class Echo:
    """A server that responds with what it got."""

    url: str
    got: list[dict[str, Any]]
    paths: list[bytes]


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler], tls: ssl.SSLContext | None = None) -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        if tls:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join(10)
