"""Servers as processes, and the process that loads them.

1. One worker process each: uvicorn for ASGI, with uvloop and httptools as it takes them by itself where they are
   installed; for WSGI gunicorn or waitress, the faster one in this run.
2. An application finds its store in the environment: ``BENCH_STORE``, a URL that no other contender uses.
3. Every process ends with the ``with`` block that started it.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tests.support.services import free_port

CONNECTIONS = 16
ROOT = Path(__file__).parents[2]
UVICORN = ["uvicorn", "--factory", "--port", "PORT", "--no-access-log", "--log-level", "warning"]
GUNICORN = ["gunicorn", "-k", "gthread", "-b", "127.0.0.1:PORT", "--log-level", "warning", "--threads"]
BY = {
    "uvicorn": UVICORN,
    "uvicorn by itself": [*UVICORN, "--loop", "asyncio", "--http", "h11"],
    **{f"uvicorn, {workers} workers": [*UVICORN, "--workers", str(workers)] for workers in (1, 2, 4)},  # of scale/nodes
    "gunicorn, 4 threads": [*GUNICORN, "4"],
    "gunicorn, 1 thread": [*GUNICORN, "1"],
    "waitress, 8 threads": ["waitress", "--threads", "8", "--listen", "127.0.0.1:PORT", "--call"],
}
WSGI = tuple(name for name in BY if not name.startswith("uvicorn"))


@dataclass(frozen=True)
class Contender:
    """One application of ``apps``: how it is served, and how a refresh is requested."""

    name: str
    app: str  # the module; "ours:flask" is another of its functions than ``app``
    by: str
    path: str
    kind: str = "json"  # how the generator asks

    @property
    def module(self) -> str:
        return "bench.server.apps." + self.app.partition(":")[0]

    @property
    def factory(self) -> str:
        function = self.app.partition(":")[2] or "app"
        return f"{self.module}:{function}" + ("()" if self.by.startswith("gunicorn") else "")


@dataclass(frozen=True)
class Served:
    """A running contender: its process, its port, and a token for each connection."""

    pid: int
    port: int
    tokens: list[str]

    def used(self) -> float:
        """Return the CPU seconds that its processes have used."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return sum(_used(pid) for pid in (str(self.pid), *children))


def _used(pid: str) -> float:
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


@contextmanager
def served(one: Contender, store: str) -> Iterator[Served]:
    """Run *one* with *store*."""
    environment = os.environ | {"BENCH_STORE": store, "PYTHONPATH": str(ROOT)}
    made = [sys.executable, "-m", "bench.server.apps", one.module, str(CONNECTIONS)]
    done = subprocess.run(made, env=environment, capture_output=True, timeout=120, check=False)
    if done.returncode:
        raise RuntimeError(f"{one.name} could not be made ready:\n{done.stderr.decode(errors='replace')[-3000:]}")
    tokens = json.loads(done.stdout.splitlines()[-1])
    port = free_port()
    command = [sys.executable, "-m", *(word.replace("PORT", str(port)) for word in BY[one.by]), one.factory]
    with (
        tempfile.TemporaryFile() as said,
        subprocess.Popen(command, env=environment, stdout=said, stderr=said) as started,
    ):
        try:
            _until_it_listens(started, port, said)
            yield Served(started.pid, port, tokens)
        finally:
            started.terminate()
            try:
                started.wait(10)
            except subprocess.TimeoutExpired:
                started.kill()


def _until_it_listens(started: subprocess.Popen[bytes], port: int, said: Any) -> None:
    ends = time.monotonic() + 30
    while time.monotonic() < ends and started.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.5):
            return
        time.sleep(0.05)
    said.seek(0)
    raise RuntimeError(f"{started.args} did not start:\n{said.read().decode(errors='replace')[-3000:]}")


class Load:
    """The load generator; it runs inside the ``with`` block."""

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "bench.server.generator"]
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.most_core = 0.0
        self._open: dict[str, Served] = {}
        return self

    def __exit__(self, *_: object) -> None:
        self._pipes()[0].close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()

    def open(self, name: str, at: Served, path: str, kind: str) -> None:
        """Open a target under *name*."""
        self._open[name] = at
        self._told({"open": name, "port": at.port, "path": path, "kind": kind, "tokens": at.tokens})

    def run(self, name: str, seconds: float) -> dict[str, Any]:
        """Return the result of a turn of *seconds* at *name* (``generator.run``); ``used``: its CPU seconds."""
        before = self._open[name].used()
        seen = self._told({"run": name, "seconds": seconds})
        seen["used"] = self._open[name].used() - before
        self.most_core = max(self.most_core, seen["core"])
        return seen

    def _told(self, what: dict[str, Any]) -> dict[str, Any]:
        into, out = self._pipes()
        into.write(json.dumps(what) + "\n")
        into.flush()
        line = out.readline()
        if not line:
            raise RuntimeError("the generator has ended: its error is above")
        response: dict[str, Any] = json.loads(line)
        return response

    def _pipes(self) -> tuple[Any, Any]:
        return self._process.stdin, self._process.stdout
