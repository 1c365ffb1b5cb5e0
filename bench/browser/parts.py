"""What the pages need that is no Python: Chromium, and the packages of ``page/package.json`` from npm."""

from __future__ import annotations

import shutil
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from tests.browser.chromium import chromium, program
from tests.support import npm

__all__ = ["BUNDLED", "PAGE", "chromium", "missing", "node_modules"]

PAGE = Path(__file__).parent / "page"
BUNDLED = "supertokens-website"  # comes as CommonJS only


def missing() -> str:
    """What is not there, and how to get it; empty if all is there."""
    if find_spec("playwright") is None:
        return "Playwright is not installed: pip install -r requirements/dev.txt"
    if program() is None:
        return "Chromium is not installed: apt-get install chromium"
    if shutil.which("npm") is None:
        return "Node.js with npm is not installed: install version 20 or newer, from nodejs.org or the system"
    return ""


@cache
def node_modules() -> Path:
    """The packages, installed and bundled."""
    return npm.node_modules(PAGE, _bundle)


def _bundle(folder: Path) -> None:
    """Makes one ES module of a package that has none."""
    entry = f"export {{ default }} from '{BUNDLED}';"
    (folder / "entry.js").write_text(entry)
    esbuild = "node_modules/esbuild/bin/esbuild"
    npm.run(folder, "node", esbuild, "entry.js", "--bundle", "--format=esm", f"--outfile=node_modules/{BUNDLED}.js")
