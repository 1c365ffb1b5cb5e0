"""``unbroken`` as an operator runs it: commands, and servers that are started, asked and stopped."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2

__all__ = ["Server", "clean_environment", "serving", "unbroken"]

PASSWORD = "correct horse"


def clean_environment(**more: str) -> dict[str, str]:
    """The environment without what could be meant for unbroken."""
    return {name: text for name, text in os.environ.items() if not name.startswith("UNBROKEN_")} | {
        "COLUMNS": "200",
        "UNBROKEN_ENCRYPTION_KEY": "none",  # for stores on servers; SQLite has its key beside it
        **more,
    }


def unbroken(folder: Path, *arguments: str, given: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "unbroken.cli", *arguments]
    return subprocess.run(
        command,
        input=given,
        capture_output=True,
        text=True,
        cwd=folder,
        env=clean_environment(**environment),
        timeout=120,
        check=False,
    )


class Server:
    """A running ``unbroken serve``: its address, what it says, and how it ends."""

    def __init__(self, folder: Path, arguments: tuple[str, ...], environment: dict[str, str]) -> None:
        self.errors = folder / f"stderr-{time.monotonic_ns()}"
        command = [sys.executable, "-m", "unbroken.cli", "serve", "--port", "0", *arguments]
        with self.errors.open("wb") as errors:
            self.process = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=folder,
                env=clean_environment(**environment),
            )
        assert self.process.stdout is not None
        self.first = self.process.stdout.readline()
        assert self.first, self.errors.read_text()
        address = json.loads(self.first)["address"] if self.first.startswith("{") else self.first.split()[1]
        self.url = address.removesuffix("/auth")
        self.http = httpx2.Client(base_url=self.url, timeout=30)
        self.until(lambda: self.http.get("/auth/health").status_code == 200)

    def until(self, condition: Any) -> None:
        """Waits until *condition* is true; connections that are refused meanwhile are none of our business."""
        ends = time.monotonic() + 60
        while time.monotonic() < ends:
            assert self.process.poll() is None, self.errors.read_text()
            with contextlib.suppress(httpx2.TransportError):
                if condition():
                    return
            time.sleep(0.05)
        raise AssertionError(f"it did not happen: {self.errors.read_text()}")

    def login(self, name: str = "ada", **headers: str) -> dict[str, Any]:
        response = self.http.post("/auth/login", json={"username": name, "password": PASSWORD}, headers=headers)
        assert response.status_code == 200, response.text
        found: dict[str, Any] = response.json()
        return found

    def refresh(self, token: str) -> httpx2.Response:
        return self.http.post("/auth/refresh", json={"refresh_token": token})

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(how)
        status = self.process.wait(60)
        self.http.close()
        assert self.process.stdout is not None
        self.process.stdout.close()
        return status


@contextmanager
def serving(folder: Path, *arguments: str, **environment: str) -> Iterator[Server]:
    server = Server(folder, arguments, environment)
    try:
        yield server
    finally:
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.stop()
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait(20)
