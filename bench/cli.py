"""How long the command line takes to start: CPU time, as a ratio to a bare interpreter of the same run.

Commands of the client run often and many at once, so they import only what they need. ``unbroken token`` is measured
with a valid token: it reads two files, and sends nothing.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.figure import Figure, in_turns
from unbroken import Tokens
from unbroken.client.profile_session import ProfileSession
from unbroken.client.profiles import Profile, save_profile, token_store

ROUNDS = 9
LIMIT = 20.0  # bare interpreters
COMMANDS = {
    "import unbroken": ["-c", "import unbroken"],
    "unbroken --version": ["-m", "unbroken.cli", "--version"],
    "unbroken token NAME": ["-m", "unbroken.cli", "token", "api"],
    "unbroken serve --help": ["-m", "unbroken.cli", "serve", "--help"],
}


def figures() -> Iterator[Figure]:
    with TemporaryDirectory(prefix="unbroken-bench-") as folder:
        os.chmod(folder, 0o700)
        os.environ["UNBROKEN_HOME"] = folder
        _log_in()
        taken = in_turns(
            {"bare": _cpu_seconds("-c", "pass"), **{name: _cpu_seconds(*words) for name, words in COMMANDS.items()}},
            ROUNDS,
        )
        del os.environ["UNBROKEN_HOME"]
    yield Figure("start of a bare interpreter, CPU", taken["bare"] * 1000, "ms")
    for name in COMMANDS:
        ratio = taken[name] / taken["bare"]
        is_limited = name == "unbroken token NAME"
        limit = f"at most {LIMIT:g}" if is_limited else ""
        yield Figure(f"{name}, over a bare interpreter", ratio, "x", limit, ratio <= LIMIT if is_limited else None)


def _log_in() -> None:
    """Store a session whose access token is valid for a year."""
    profile = Profile(name="api", url="https://api.example.com", user="ada")
    save_profile(profile)
    assert (Path(os.environ["UNBROKEN_HOME"]) / "api.json").exists()
    tokens = Tokens("access", "refresh", expires_in=365 * 86400.0, received_at=time.time())
    ProfileSession(profile, token_store("api")).import_tokens(tokens)


def _cpu_seconds(*arguments: str) -> Callable[[], float]:
    """Return a function that runs a new interpreter, and returns the CPU seconds that it took."""

    def run() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    return run
