"""A real Firefox, by WebDriver BiDi, which it speaks itself. Without it tests fail in CI, and are skipped elsewhere.

1. A context is a user context of Firefox: its cookies and storages are its own.
2. Each page is a window: Firefox slows down the timers of tabs behind another.
"""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from websockets.sync.client import ClientConnection, connect

from tests.browser.engines.page import SECONDS, DriverPage, ScriptError
from tests.support.services import unavailable

__all__ = ["firefox"]

PROGRAMS = ("firefox-esr", "firefox")
LISTENING = re.compile(r"BiDi listening on (ws://\S+)")
# Nothing on this machine is asked for anything by the browser itself.
PREFERENCES = {
    "app.update.enabled": False,
    "browser.shell.checkDefaultBrowser": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "services.settings.server": "http://127.0.0.1:9",
    "toolkit.telemetry.reportingpolicy.firstRun": False,
}


class _Bidi:
    """The connection to a Firefox."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket, self._numbers = socket, itertools.count(1)

    def __call__(self, method: str, **parameters: Any) -> Any:
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(timeout=SECONDS))
            if message.get("id") == number:
                if message["type"] == "error":
                    raise ScriptError(f"{method}: {message['message']}")
                return message["result"]


class _Page(DriverPage):
    def __init__(self, bidi: _Bidi, context: str) -> None:
        self._bidi, self._context = bidi, context

    def _run(self, body: str) -> str:
        done = self._bidi(
            "script.callFunction",
            functionDeclaration=f"async () => {{ {body} }}",
            target={"context": self._context},
            awaitPromise=True,
        )
        return done["result"]["value"] if done["type"] == "success" else str(done["exceptionDetails"]["text"])

    def goto(self, url: str) -> None:
        self._bidi("browsingContext.navigate", context=self._context, url=url, wait="complete")

    def reload(self) -> None:
        self._bidi("browsingContext.reload", context=self._context, wait="complete")

    def close(self) -> None:
        self._bidi("browsingContext.close", context=self._context)


class _Context:
    def __init__(self, bidi: _Bidi) -> None:
        self._bidi = bidi
        self._name = bidi("browser.createUserContext")["userContext"]  # rule 1

    def new_page(self) -> _Page:
        made = self._bidi("browsingContext.create", type="window", userContext=self._name)  # rule 2
        return _Page(self._bidi, made["context"])

    def close(self) -> None:
        self._bidi("browser.removeUserContext", userContext=self._name)


class _Firefox:
    def __init__(self, bidi: _Bidi) -> None:
        self._bidi = bidi

    def new_context(self) -> _Context:
        return _Context(self._bidi)


@contextmanager
def firefox() -> Iterator[_Firefox]:
    """A running Firefox, with a profile of its own."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        unavailable("Firefox", "apt-get install firefox-esr")
    with tempfile.TemporaryDirectory() as profile:
        settings = "".join(
            f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in PREFERENCES.items()
        )
        with open(f"{profile}/user.js", "w", encoding="utf-8") as file:
            file.write(settings)
        command = [program, "--headless", "--no-remote", "--profile", profile, "--remote-debugging-port", "0"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        try:
            with connect(_address(process) + "/session", max_size=None) as socket:
                bidi = _Bidi(socket)
                bidi("session.new", capabilities={})
                yield _Firefox(bidi)
        finally:
            process.terminate()
            process.communicate(timeout=SECONDS)


def _address(process: subprocess.Popen[str]) -> str:
    """Where a Firefox that has just been started listens."""
    assert process.stderr is not None
    for line in process.stderr:
        if found := LISTENING.search(line):
            return found[1]
    raise AssertionError("Firefox ended before it listened")
