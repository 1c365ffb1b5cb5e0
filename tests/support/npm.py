"""Packages from npm, for the programs and pages of tests.

1. They are installed once a version of their ``package.json``, outside the repository. Of several processes that
   need the same at once, one installs it, and the others wait.
2. Without Node.js or npm a test fails in CI, and is skipped elsewhere; the reason says how to get it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.support.run_folder import lasting_folder
from tests.support.services import unavailable

__all__ = ["node_modules", "run"]

INSTALL_SECONDS = 900.0  # the frameworks are 245 MB
INSTALL = ("npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts")


def node_modules(folder: Path, finish: Callable[[Path], object] = lambda made: None) -> Path:
    """The packages of ``folder/package.json``; *finish* does what is left to do in the folder that holds them."""
    wanted = (folder / "package.json").read_bytes()
    place = Path(lasting_folder()) / f"unbroken-npm-{os.getuid()}-{hashlib.sha256(wanted).hexdigest()[:16]}"
    if shutil.which("npm") is None or shutil.which("node") is None:
        unavailable("Node.js with npm", "install version 20 or newer, from nodejs.org or the system")
    with open(f"{place}.lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # rule 1
        if not place.exists():
            _install(folder, wanted, place, finish)
    return place / "node_modules"


def _install(folder: Path, wanted: bytes, place: Path, finish: Callable[[Path], object]) -> None:
    with tempfile.TemporaryDirectory(dir=lasting_folder()) as workshop:
        made = Path(workshop) / "made"
        made.mkdir()
        (made / "package.json").write_bytes(wanted)
        try:
            run(made, *INSTALL)
        except RuntimeError as error:
            unavailable(f"a package of {folder / 'package.json'}", str(error))
        finish(made)
        made.rename(place)


def run(folder: Path, *command: str) -> None:
    """Runs *command* in *folder*. Raises RuntimeError with what it said if it fails."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[:2])} failed:\n{done.stderr[-2000:]}")
