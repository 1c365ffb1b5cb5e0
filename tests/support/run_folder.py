"""Where a run keeps its files, and how it ends.

1. Everything temporary, also of the programs that tests start, is in one folder, which goes with the run.
2. A run that was killed leaves its folder to the next run, which removes it. A lock says that a folder is in use.
3. What outlives a run stays outside: pytest's folder, in which failures can be looked at, and packages of npm.
4. A run that is told to end (``SIGTERM``) ends as by Ctrl-C: fixtures are torn down, and servers stopped.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import os
import shutil
import signal
import tempfile
import threading
from multiprocessing.util import Finalize
from types import FrameType

__all__ = ["begin_run", "ends_in_order", "lasting_folder"]

PREFIX, LOCK = "unbroken-tests-", ".in-use"
AFTER_ITS_OWN = -200  # ``multiprocessing`` removes a folder of its own with -100
LASTING = "PYTEST_DEBUG_TEMPROOT"  # pytest looks there too


def begin_run() -> None:
    """Give this process and its children a folder of their own (rule 1), which is removed when this process ends."""
    _remove_left_behind()
    os.environ[LASTING] = lasting_folder()
    folder = tempfile.mkdtemp(prefix=PREFIX)
    os.chmod(folder, 0o755)  # PostgreSQL, which does not run as root, has a folder in it
    lock = os.open(os.path.join(folder, LOCK), os.O_CREAT | os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)
    os.environ["TMPDIR"] = tempfile.tempdir = folder
    Finalize(None, shutil.rmtree, (folder, True), exitpriority=AFTER_ITS_OWN)  # not in forked children


def lasting_folder() -> str:
    """Return the folder for what outlives a run (rule 3)."""
    return os.environ.get(LASTING) or tempfile.gettempdir()


def ends_in_order() -> None:
    """Make ``SIGTERM`` what Ctrl-C is (rule 4)."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _interrupted)


def _interrupted(_: int, __: FrameType | None) -> None:
    raise KeyboardInterrupt


def _remove_left_behind() -> None:
    """Remove the folders of runs that were killed (rule 2)."""
    for folder in glob.glob(os.path.join(lasting_folder(), f"{PREFIX}*")):
        with contextlib.suppress(OSError):  # in use, or another user's
            lock = os.open(os.path.join(folder, LOCK), os.O_RDWR)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)
