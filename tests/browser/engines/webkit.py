"""A real WebKit (WebKitGTK's MiniBrowser), by WebDriver. Without it tests fail in CI, and are skipped elsewhere.

1. A context is a session of WebDriver: a browser of its own, which forgets everything at its end.
2. A script runs in the window that was switched to, so each command names its window first.
3. WebKitGTK needs a display: a virtual one, of Xvfb.
"""

from __future__ import annotations

import glob
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2

from tests.browser.engines.page import SECONDS, DriverPage, ScriptError
from tests.support.services import free_port, unavailable
from tests.support.waiting import until

__all__ = ["webkit"]

BROWSERS = ("/usr/lib/*/webkit2gtk-4*/MiniBrowser", "/usr/libexec/webkit2gtk-4*/MiniBrowser")
SCRIPT = (
    "const done = arguments[arguments.length - 1]; (async () => { %s })().then(done, (error) => done(String(error)));"
)


class _Driver:
    """The connection to a WebKitWebDriver."""

    def __init__(self, port: int) -> None:
        self._http = httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=SECONDS, trust_env=False)

    def __call__(self, method: str, path: str, **parameters: Any) -> Any:
        sent = self._http.request(method, path, json=parameters if method == "POST" else None)
        value = sent.json()["value"]
        if sent.status_code != 200:
            raise ScriptError(f"{path}: {value['message'] or value['error']}")
        return value

    def is_ready(self) -> bool:
        try:
            return self._http.get("/status").status_code == 200
        except httpx2.TransportError:
            return False


class _Page(DriverPage):
    def __init__(self, driver: _Driver, session: str, handle: str) -> None:
        self._driver, self._session, self._handle = driver, session, handle

    def _command(self, method: str, path: str, **parameters: Any) -> Any:
        self._driver("POST", f"{self._session}/window", handle=self._handle)  # rule 2
        return self._driver(method, self._session + path, **parameters)

    def _run(self, body: str) -> str:
        return str(self._command("POST", "/execute/async", script=SCRIPT % body, args=[]))

    def goto(self, url: str) -> None:
        self._command("POST", "/url", url=url)

    def reload(self) -> None:
        self._command("POST", "/refresh")

    def close(self) -> None:
        self._command("DELETE", "/window")


class _Context:
    def __init__(self, driver: _Driver, browser: str) -> None:
        options = {"binary": browser, "args": ["--automation"]}
        capabilities = {"alwaysMatch": {"webkitgtk:browserOptions": options}}
        self._driver = driver
        self._session = f"/session/{driver('POST', '/session', capabilities=capabilities)['sessionId']}"  # rule 1
        self._first = driver("GET", f"{self._session}/window")

    def new_page(self) -> _Page:
        self._driver("POST", f"{self._session}/window", handle=self._first)  # rule 2; it stays, or the browser ends
        made = self._driver("POST", f"{self._session}/window/new", type="window")
        return _Page(self._driver, self._session, made["handle"])

    def close(self) -> None:
        self._driver("DELETE", self._session)


class _WebKit:
    def __init__(self, driver: _Driver, browser: str) -> None:
        self._driver, self._browser = driver, browser

    def new_context(self) -> _Context:
        return _Context(self._driver, self._browser)


@contextmanager
def webkit() -> Iterator[_WebKit]:
    """A running WebKit, on a display of its own."""
    browser = next((found for pattern in BROWSERS for found in glob.glob(pattern)), None)
    if browser is None or shutil.which("WebKitWebDriver") is None:
        unavailable("WebKit", "apt-get install webkit2gtk-driver")
    if shutil.which("Xvfb") is None:
        unavailable("Xvfb", "apt-get install xvfb")
    with _display() as display, tempfile.TemporaryDirectory() as home:
        port = free_port()
        environment = {**os.environ, "DISPLAY": display, "GDK_BACKEND": "x11", "HOME": home, "NO_AT_BRIDGE": "1"}
        environment |= {"WEBKIT_DISABLE_COMPOSITING_MODE": "1", "LIBGL_ALWAYS_SOFTWARE": "1"}
        command = ["WebKitWebDriver", f"--port={port}", "--host=127.0.0.1"]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            driver = _Driver(port)
            until(driver.is_ready)
            yield _WebKit(driver, browser)
        finally:
            process.terminate()
            process.wait(SECONDS)


@contextmanager
def _display() -> Iterator[str]:
    """A virtual display; its name (rule 3)."""
    read, write = os.pipe()
    command = ["Xvfb", "-displayfd", str(write), "-nolisten", "tcp", "-screen", "0", "800x600x24"]
    process = subprocess.Popen(command, pass_fds=[write], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.close(write)
    try:
        with open(read, encoding="ascii") as said:
            yield f":{json.loads(said.readline())}"
    finally:
        process.terminate()
        process.wait(SECONDS)
