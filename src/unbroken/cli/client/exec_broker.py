"""The broker of ``unbroken exec --broker``: it serves one session for as long as one command runs.

1. It is no child of the command, which may wait for all of its children. It watches the process id of the command: by a
   pidfd where the system has them, else by looking twice a second.
2. The command starts when the broker listens, and not at all if it cannot.
3. Its socket is in a new folder of mode 0700, and removed with it.
4. A command may end in the middle of a refresh: its tokens are waited for, as at the end of every program.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from unbroken._single_flight import flights_under_way
from unbroken.cli.client.broker import serve_sessions
from unbroken.errors import ConfigurationError, UnbrokenError

__all__ = ["start_broker"]

POLL_SECONDS = 0.5
MAX_MESSAGE_BYTES = 4096
READY = b"+"


def start_broker(name: str) -> str:
    """Start a broker of the session *name* until this process ends; return the path of its socket.

    The caller has no threads: this forks. Raise ConfigurationError if the broker cannot start.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR") or None
    folder = Path(tempfile.mkdtemp(prefix="unbroken-", dir=runtime if runtime and os.path.isdir(runtime) else None))
    path, command = folder / "broker.sock", os.getpid()
    mine, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(mine)
            if os.fork() == 0:  # rule 1
                _run(path, name, command, theirs)
        finally:
            os._exit(0)
    os.close(theirs)
    os.waitpid(child, 0)
    with os.fdopen(mine, "rb") as pipe:
        said = pipe.read(MAX_MESSAGE_BYTES)
    if said != READY:  # rule 2
        shutil.rmtree(folder, ignore_errors=True)
        raise ConfigurationError(said.decode("utf-8", "replace") or "the broker did not start")
    return str(path)


def _run(path: Path, name: str, command: int, outcome: int) -> None:
    os.setsid()  # Ctrl-C is for the command
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1):
        os.dup2(null, number)

    def tell(text: bytes) -> None:
        os.write(outcome, text[:MAX_MESSAGE_BYTES])
        os.close(outcome)

    try:
        serve_sessions(path, (name,), ready=lambda: tell(READY), ended=lambda end: _watch(command, end))
    except UnbrokenError as error:
        tell(str(error).encode())
    finally:
        shutil.rmtree(path.parent, ignore_errors=True)
        for refresh in flights_under_way():  # rule 4
            refresh.join()


def _watch(process: int, end: Callable[[], None]) -> None:
    """Call *end* when *process* has ended."""
    loop = asyncio.get_running_loop()
    try:
        descriptor = os.pidfd_open(process)
    except ProcessLookupError:
        end()
    except (AttributeError, OSError):  # not Linux, or an old one
        _poll(process, end)
    else:
        loop.add_reader(descriptor, end)


def _poll(process: int, end: Callable[[], None]) -> None:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        end()
    else:
        asyncio.get_running_loop().call_later(POLL_SECONDS, _poll, process, end)
