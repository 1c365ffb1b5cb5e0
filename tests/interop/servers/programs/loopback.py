"""Serves a WSGI application on loopback: what the Python servers of this folder share, and no part of any of them.

    GET  /count              {"refreshes": hits of the token endpoint, "challenges": responses with 401 elsewhere}
    POST /forward?seconds=N  moves the clock of this process ahead, so that tokens expire without a wait

1. The port goes into the file ``port`` of the folder as soon as the server listens; port 0 picks a free one.
2. The process ends with its standard input, so that none outlives the tests, however they end.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import time_machine
from werkzeug.serving import make_server

LIFETIME = 300  # seconds that an access token lives, on every server of this folder


def arguments() -> tuple[int, Path]:
    """Port and folder, as given on the command line."""
    return int(sys.argv[1]), Path(sys.argv[2])


def serve(app: Any, token_endpoint: str) -> None:
    """Serves *app* until standard input ends."""
    port, folder = arguments()
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    threading.Thread(target=_end_with_input, daemon=True).start()
    server = make_server("127.0.0.1", port, _Counted(app, token_endpoint), threaded=True)
    (folder / "port.new").write_text(str(server.port))
    (folder / "port.new").replace(folder / "port")
    server.serve_forever()


def _end_with_input() -> None:
    while os.read(sys.stdin.fileno(), 1024):
        pass
    os._exit(0)


class _Counted:
    """*app*, its hits counted, and a clock that can be moved."""

    def __init__(self, app: Any, token_endpoint: str) -> None:
        self._app, self._token_endpoint = app, token_endpoint
        self._lock = threading.Lock()
        self._counts = {"refreshes": 0, "challenges": 0}
        self._clock = time_machine.travel(time.time()).start()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        match environ["PATH_INFO"]:
            case "/count":
                return self._say(start_response)
            case "/forward":
                self._clock.shift(float(parse_qs(environ["QUERY_STRING"])["seconds"][0]))
                return self._say(start_response)
            case self._token_endpoint:
                self._count("refreshes")
                return self._app(environ, start_response)

        def watched(status: str, *rest: Any) -> Any:
            if status.startswith("401"):
                self._count("challenges")
            return start_response(status, *rest)

        return self._app(environ, watched)

    def _count(self, what: str) -> None:
        with self._lock:
            self._counts[what] += 1

    def _say(self, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "application/json")])
        return [json.dumps(self._counts).encode()]
