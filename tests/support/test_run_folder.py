"""What a run leaves behind: nothing, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

BEGIN = "from tests.support.run_folder import begin_run, ends_in_order; ends_in_order(); begin_run(); import tempfile\n"
WAIT = """
try:
    print(tempfile.gettempdir(), flush=True)
    input()
finally:
    print("torn down", flush=True)
"""


def run(folder: Path, script: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "TMPDIR": str(folder)}
    environment.pop("PYTEST_DEBUG_TEMPROOT", None)
    command = [sys.executable, "-c", BEGIN + script]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment
    )


def test_a_run_removes_all_that_it_made(tmp_path: Path) -> None:
    with run(tmp_path, "open(tempfile.mkdtemp() + '/file', 'w').close()") as process:
        assert process.wait(20) == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_told_to_end_is_torn_down(tmp_path: Path, how: signal.Signals) -> None:
    with run(tmp_path, WAIT) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(how)
        assert process.stdout.read() == "torn down\n"
    assert list(tmp_path.iterdir()) == []


def test_a_run_removes_what_a_killed_one_has_left_and_nothing_of_one_that_runs(tmp_path: Path) -> None:
    with run(tmp_path, WAIT) as killed, run(tmp_path, WAIT) as running:
        assert killed.stdout is not None
        assert running.stdout is not None
        left, used = Path(killed.stdout.readline().strip()), Path(running.stdout.readline().strip())
        killed.kill()
        killed.wait(20)
        assert left.exists()
        with run(tmp_path, "") as process:
            assert process.wait(20) == 0
        assert list(tmp_path.iterdir()) == [used]
        running.communicate("\n", timeout=20)
    assert list(tmp_path.iterdir()) == []
