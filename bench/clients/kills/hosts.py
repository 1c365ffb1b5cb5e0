"""Three hosts on one machine: each has a network, a name and a folder for temporary files of its own.

1. A host is a network namespace and a host name (``unshare``), where the system lets us make them; else only its
   folder is its own. Processes of two hosts have no lock file in common, and no connection but to the servers.
2. The token servers listen on loopback in each of them, on one port; stores are reached by Unix sockets, which belong
   to the file system and not to a network.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import shutil
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CLONE_NEWNET = 0x40000000
SIOCSIFFLAGS, IFF_UP = 0x8914, 1


@dataclass(frozen=True)
class Host:
    """A host: how to run a command on it, and the socket that the token servers have there."""

    name: str
    folder: Path
    prefix: tuple[str, ...]
    listening: socket.socket

    def environment(self) -> dict[str, str]:
        return os.environ | {"TMPDIR": str(self.folder), "UNBROKEN_HOME": str(self.home)}

    @property
    def home(self) -> Path:
        """The folder of the profiles of the command line."""
        return self.folder / "profiles"


@contextlib.contextmanager
def hosts(number: int, folder: Path, port: int) -> Iterator[list[Host]]:
    """Make so many hosts, whose token servers listen on *port*."""
    with contextlib.ExitStack() as opened:
        made = []
        for n in range(number):
            own = folder / f"host{n}"
            (own / "profiles").mkdir(mode=0o700, parents=True)
            own.chmod(0o700)
            keeper = _namespace(f"host{n}")
            if keeper is not None:
                opened.callback(_end, keeper)
            made.append(_host(f"host{n}", own, keeper, port, made))
            opened.callback(made[-1].listening.close)
        yield made


def _host(name: str, folder: Path, keeper: subprocess.Popen[bytes] | None, port: int, others: list[Host]) -> Host:
    if keeper is None:
        shared = others[0].listening.dup() if others else listen(port)
        return Host(name, folder, (), shared)
    prefix = ("nsenter", "--target", str(keeper.pid), "--net", "--uts", "--")
    return Host(name, folder, prefix, _listen_in(keeper.pid, port))


def _namespace(name: str) -> subprocess.Popen[bytes] | None:
    """Return a process that keeps the namespaces of a host; None where there can be none."""
    if os.geteuid() != 0 or not shutil.which("unshare") or not shutil.which("nsenter"):
        return None
    script = f"echo {name} >/proc/sys/kernel/hostname; echo; exec sleep 100000"
    keeper = subprocess.Popen(
        ["unshare", "--net", "--uts", "sh", "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert keeper.stdout is not None
    if keeper.stdout.readline() == b"\n":
        return keeper
    keeper.wait()
    return None


def _end(keeper: subprocess.Popen[bytes]) -> None:
    keeper.kill()
    keeper.wait()


def _listen_in(process: int, port: int) -> socket.socket:
    """Return a socket that listens in the network of *process*: a socket stays where it was made."""
    made: list[socket.socket] = []

    def work() -> None:
        with open(f"/proc/{process}/ns/net") as network:
            if ctypes.CDLL(None, use_errno=True).setns(network.fileno(), CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as loopback:
            fcntl.ioctl(loopback, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))
        made.append(listen(port))

    thread = threading.Thread(target=work)  # a network is that of a thread
    thread.start()
    thread.join()
    return made[0]


def listen(port: int) -> socket.socket:
    ends = time.monotonic() + 5
    while True:
        made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            made.bind(("127.0.0.1", port))
        except OSError:
            made.close()
            if time.monotonic() > ends:
                raise
            time.sleep(0.05)
            continue
        made.listen(4096)
        return made
