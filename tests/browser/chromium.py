"""A real Chromium, and the packages from npm that its pages use. Without them tests fail in CI, else are skipped."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from tests.services import unavailable

__all__ = ["PAGE", "chromium", "node_modules"]

PAGE = Path(__file__).parent / "page"
PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@contextmanager
def chromium() -> Iterator[Any]:
    """A running browser, by Playwright."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        unavailable("Playwright", "pip install -r requirements/dev.txt")
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        unavailable("Chromium", "apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        try:
            yield browser
        finally:
            browser.close()


@cache
def node_modules() -> Path:
    """The packages of ``page/package.json``, installed once a version of that file, outside the repository."""
    wanted = (PAGE / "package.json").read_bytes()
    place = Path(tempfile.gettempdir()) / f"unbroken-browser-{os.getuid()}-{hashlib.sha256(wanted).hexdigest()[:16]}"
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        unavailable("Node.js", "install Node.js 20 or newer with npm, from nodejs.org or the system")
    if place.exists():
        return place / "node_modules"
    with tempfile.TemporaryDirectory(dir=tempfile.gettempdir()) as workshop:
        made = Path(workshop) / "made"
        made.mkdir()
        (made / "package.json").write_bytes(wanted)
        command = [npm or "npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts"]
        done = subprocess.run(command, cwd=made, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode:
            unavailable("a package from npm", f"npm install failed in {PAGE}:\n{done.stderr[-2000:]}")
        if not place.exists():
            made.rename(place)
    return place / "node_modules"
