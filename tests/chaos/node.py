"""One node of a server, as a process that a test may kill: ``python -m tests.chaos.node STORE PORT``.

1. It is what one worker of ``unbroken serve`` is, but that any name logs in with ``PASSWORD``, that what happens to
   sessions is written to its log line by line, so that a kill loses none of it, and that its clock can be put forward.
2. It keeps its port when it is started again. Ports are taken from below those of outgoing connections: a client that
   tries again and again could otherwise be connected to itself.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tests.support.paths import ROOT
from tests.support.services import free_port
from tests.support.waiting import until

__all__ = ["PASSWORD", "Node", "ask"]

PASSWORD = "correct horse"


def ask(
    url: str, method: str, path: str, body: object = None, seconds: float = 30.0, **headers: str
) -> tuple[int, dict[str, Any]]:
    """Status and JSON of one answer, on a connection of its own. Raises OSError or HTTPException without one."""
    connection = http.client.HTTPConnection(*host_and_port(url), timeout=seconds)
    kind = {} if body is None else {"content-type": "application/json"}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        connection.request(method, path, None if body is None else json.dumps(body), kind | named)
        with connection.getresponse() as response:
            text = response.read()
            return response.status, json.loads(text) if text.startswith(b"{") else {}
    finally:
        connection.close()


def host_and_port(url: str) -> tuple[str, int]:
    host, _, port = url.removeprefix("http://").rpartition(":")
    return host, int(port)


class Node:
    """A running node: its URL, what it has said, and how it dies and comes back."""

    def __init__(self, store: str, folder: Path, name: str = "node") -> None:
        self.store, self.port = store, free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / f"{name}-{self.port}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, store: str = "") -> None:
        """Starts it, over another *store* if one is named; returns when it is ready."""
        self.store = store or self.store
        command = [sys.executable, "-m", "tests.chaos.node", self.store, str(self.port)]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, process_group=0)
        until(self._ready, "a node that is ready", 60.0)

    def kill(self) -> None:
        """kill -9."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(20)

    def stop(self) -> None:
        """Ends it, if it runs, and fails if it said that anything was wrong with its own code."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def verdicts(self) -> Counter[str]:
        """How often it has given each verdict but the usual one, in all its lives."""
        words = [line.split() for line in self.said().splitlines() if line.startswith("verdict ")]
        return Counter(word for _, word in words)

    def said(self) -> str:
        """All that it has written to its log, in all its lives."""
        return self.log.read_text(errors="replace")

    def check(self) -> None:
        """Fails if its own code has failed, or if it has raised a reuse alarm."""
        said = self.said()
        assert "session.reuse_detected" not in said, said[-4000:]
        assert "Traceback" not in said, said[-4000:]

    def put_clock_forward(self, seconds: float) -> None:
        """Its clock is so many *seconds* ahead from now on."""
        status, _ = ask(self.url, "POST", "/chaos/clock", {"ahead": seconds})
        assert status == 204

    def _ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.said()[-4000:]
        try:
            return ask(self.url, "GET", "/auth/health/ready", seconds=5.0)[0] == 200
        except (OSError, http.client.HTTPException):
            return False


def main(store: str, port: int) -> None:
    """Serves until it is ended."""
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    from unbroken.server import Sessions, open_store
    from unbroken.server.events import ReuseDetected, ServerEvent, SessionRefreshed
    from unbroken.starlette import routes

    ahead = 0.0

    def say(*words: str) -> None:
        os.write(1, f"{' '.join(words)}\n".encode())

    def tell(event: ServerEvent) -> None:
        if isinstance(event, ReuseDetected):
            say(event.kind, event.sid, event.evidence)
        elif isinstance(event, SessionRefreshed) and event.verdict != "rotated":
            say("verdict", event.verdict)

    async def clock(request: Request) -> Response:
        nonlocal ahead
        ahead = (await request.json())["ahead"]
        return Response(status_code=204)

    def authenticate(name: str, password: str) -> str | None:
        return name if password == PASSWORD else None

    sessions = Sessions(open_store(store), on_event=tell, clock=lambda: time.time() + ahead)
    app = Starlette(routes=[*routes(sessions, authenticate), Route("/chaos/clock", clock, methods=["POST"])])
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
