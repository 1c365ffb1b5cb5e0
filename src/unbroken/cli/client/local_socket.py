"""A Unix socket that only this user can reach, for ``unbroken broker`` and ``unbroken token --watch``.

1. The socket has mode 0600 from its first moment, and the folder is one that others may not write to. What is there
   already is replaced only if it is a socket of this user's that no process listens on.
2. A lock file beside the socket is held by the process that listens: a socket without a holder is a left-over.
3. The system says who connects (SO_PEERCRED, LOCAL_PEERCRED). A connection of another user's, root's too, is closed.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from unbroken._private_files import locked_file, require_private_folder
from unbroken.client.profiles import prepare_folder
from unbroken.errors import ConfigurationError, StoreBusy, StoreUnavailable

__all__ = ["MAX_UNACCEPTED_CONNECTIONS", "default_socket", "is_own_connection", "listening"]

MAX_UNACCEPTED_CONNECTIONS = 512
MAX_PATH_BYTES = 103  # of the address of a socket, on the system with the shortest
PEERCRED = struct.Struct("3i")  # Linux: process, user, group
XUCRED = struct.Struct("=IIh")  # macOS and BSD: version, user, number of groups
SOL_LOCAL, LOCAL_PEERCRED = 0, 1


def default_socket() -> Path:
    """Return where the broker of this user listens: in ``$XDG_RUNTIME_DIR``, or in the folder of the profiles."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(runtime) and os.path.isdir(runtime):
        return Path(runtime, "unbroken.sock")
    return prepare_folder() / "broker.sock"


@contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    """Yield a socket that listens at *path*, and remove it afterwards (rules 1 and 2). Raise ConfigurationError."""
    path = _checked(path)
    try:
        with locked_file(f"{path}.lock", 0.0):
            sock = _bound(path)
            try:
                yield sock
            finally:
                sock.close()
                with contextlib.suppress(OSError):
                    os.unlink(path)
    except StoreBusy:
        raise ConfigurationError(f"another process listens at {path}: use that one, or --socket") from None
    except StoreUnavailable as error:
        raise ConfigurationError(str(error)) from error


def is_own_connection(connection: socket.socket) -> bool:
    """Return whether this user's process is at the other end of *connection* (rule 3)."""
    if sys.platform.startswith("linux"):
        _, user, _ = PEERCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEERCRED.size))
    else:
        size = 128
        found = connection.getsockopt(SOL_LOCAL, LOCAL_PEERCRED, size)
        _, user, _ = XUCRED.unpack_from(found)
    return bool(user == os.geteuid())


def _checked(path: Path) -> Path:
    """Return *path* in its real folder, which is made if it is missing."""
    if not hasattr(socket, "AF_UNIX"):
        raise ConfigurationError("this system has no Unix sockets")
    path = path.expanduser().absolute()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = Path(os.path.realpath(path.parent))
        require_private_folder(folder)
    except OSError as error:
        raise ConfigurationError(f"the folder {path.parent} cannot be used: {error.strerror}") from error
    if len(os.fsencode(folder / path.name)) > MAX_PATH_BYTES:
        raise ConfigurationError(f"{folder / path.name} is too long for a socket: at most {MAX_PATH_BYTES} bytes")
    return folder / path.name


def _bound(path: Path) -> socket.socket:
    with contextlib.suppress(FileNotFoundError):
        found = path.lstat()
        if not stat.S_ISSOCK(found.st_mode) or found.st_uid != os.geteuid():
            raise ConfigurationError(f"{path} exists and is not a socket of this user's: name another one")
        os.unlink(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        sock.bind(os.fspath(path))
        sock.listen(MAX_UNACCEPTED_CONNECTIONS)
    except OSError as error:
        sock.close()
        raise ConfigurationError(f"the socket {path} cannot be made: {error.strerror}") from error
    finally:
        os.umask(before)
    return sock
