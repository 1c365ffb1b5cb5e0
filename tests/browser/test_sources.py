"""The source files of the browser module, each alone, in Node: ``sources.test.mjs``."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.browser.build import SOURCES
from tests.support.npm import node_modules

TESTS = Path(__file__).parent / "sources.test.mjs"


def test_source_files_work_alone() -> None:
    node = shutil.which("node")
    node_modules(SOURCES)  # says how to get Node.js where it is missing
    whole = "data:text/javascript,globalThis.FULL = true"  # which the build defines
    command = [node, "--import", whole, "--test", "--test-reporter", "spec", str(TESTS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout
