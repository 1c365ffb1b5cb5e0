"""What the pages need that is no Python: Chromium, and the packages of ``page/package.json`` from npm."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parent / "page"
PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BUNDLED = "supertokens-website"  # comes as CommonJS only


def missing() -> str:
    """What is not there, and how to get it; empty if all is there."""
    if find_spec("playwright") is None:
        return "Playwright is not installed: pip install -r requirements/dev.txt"
    if _program() is None:
        return "Chromium is not installed: apt-get install chromium"
    if shutil.which("npm") is None:
        return "Node.js with npm is not installed: install version 20 or newer, from nodejs.org or the system"
    return ""


def _program() -> str | None:
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


@contextmanager
def chromium() -> Iterator[Any]:
    """A running browser, by Playwright."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_program(), args=["--no-sandbox", "--disable-gpu"])
        try:
            yield browser
        finally:
            browser.close()


@cache
def node_modules() -> Path:
    """The packages, installed and bundled once a version of ``package.json``, outside the repository."""
    wanted = (PAGE / "package.json").read_bytes()
    place = Path(tempfile.gettempdir()) / f"unbroken-bench-{os.getuid()}-{hashlib.sha256(wanted).hexdigest()[:16]}"
    if not place.exists():
        with tempfile.TemporaryDirectory() as workshop:
            made = Path(workshop) / "made"
            made.mkdir()
            (made / "package.json").write_bytes(wanted)
            _run(made, "npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts")
            _bundle(made)
            made.rename(place)
    return place / "node_modules"


def _bundle(folder: Path) -> None:
    """Makes one ES module of a package that has none."""
    entry = f"export {{ default }} from '{BUNDLED}';"
    (folder / "entry.js").write_text(entry)
    program = "node_modules/esbuild/bin/esbuild"
    _run(folder, "node", program, "entry.js", "--bundle", "--format=esm", f"--outfile=node_modules/{BUNDLED}.js")


def _run(folder: Path, *command: str) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[:2])} failed:\n{done.stderr[-2000:]}")
