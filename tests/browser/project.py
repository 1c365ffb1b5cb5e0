"""The project of a user: frameworks and bundlers of ``frameworks/package.json``, and our package as npm packs it."""

from __future__ import annotations

import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.browser.build import BUILT
from tests.support.commands import clean_environment
from tests.support.npm import node_modules, run

__all__ = ["FRAMEWORKS", "bundled", "install", "packed", "running"]

FRAMEWORKS = Path(__file__).parent / "frameworks"


def packed(folder: Path) -> Path:
    """Pack the package as for a registry; return the tarball."""
    node_modules(FRAMEWORKS)  # says how to get npm where it is missing
    run(BUILT, "npm", "pack", "--pack-destination", str(folder))
    [tarball] = folder.glob("*.tgz")
    return tarball


def install(folder: Path, tarball: Path | None = None, *, wanted: Path = FRAMEWORKS) -> Path:
    """Make ``node_modules`` in *folder*, as npm would, with our package beside the others; return the folder.

    Without a tarball the package is a copy of what is built, which takes npm half a second less. *wanted* has the
    ``package.json`` of the others.
    """
    modules = folder / "node_modules"
    modules.mkdir(parents=True)
    for entry in node_modules(wanted).iterdir():
        (modules / entry.name).symlink_to(entry)
    if tarball is None:
        shutil.copytree(BUILT, modules / "unbroken-session")
    else:
        with tarfile.open(tarball) as packed_files:
            packed_files.extractall(modules, filter="data")
        (modules / "package").rename(modules / "unbroken-session")
    (folder / "package.json").write_text('{"private": true, "type": "module"}')
    return folder


def bundled(project: Path, entry: Path) -> str:
    """Return the page's script that esbuild makes of *entry* in a *project*, with the development build of React."""
    shutil.copy(entry, project)
    out = project / f"{entry.stem}.bundle.js"
    program = str(project / "node_modules" / ".bin" / "esbuild")
    options = ["--bundle", "--format=iife", '--define:process.env.NODE_ENV="development"', "--log-level=warning"]
    run(project, program, entry.name, f"--outfile={out.name}", *options)
    return out.read_text()


@contextmanager
def running(command: list[str], folder: Path, said: str, **environment: str) -> Iterator[str]:
    """The address that a program says it listens on."""
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=clean_environment(**environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        heard = []
        for line in process.stdout or ():
            heard.append(line)
            if found := re.search(
                said + r".*?(http://(?:127\.0\.0\.1|localhost):\d+)", re.sub(r"\x1b\[\d+m", "", line)
            ):
                yield found[1]
                return
        pytest.fail("it did not start:\n" + "".join(heard))
    finally:
        process.terminate()
        process.communicate(timeout=20)
