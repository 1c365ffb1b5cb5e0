"""Files that hold secrets, and lock files beside them.

They are opened as ssh opens its own: no other user may have put them there, or may change them.

1. A file, and the folder that it is in, belong to this user or to root. Root trusts root alone: a user could
   point it at any file.
2. No other user may write to the file or to its folder. A sticky folder, such as /tmp, is no harm: others can add files
   there, but not replace ours. For SQLite it is: it reads what lies beside its file under a similar name. A group
   that has only this user counts as the user.
3. No link is followed when a file is opened. One that this user or root has put into such a folder is resolved once,
   before; on a read-only mount, where no one can put any, links are followed (secrets of containers are links). A link
   on the way to the folder is another user's where others may have put it: below a folder that they may write to.
4. What others may only read is used, and a warning says which command mends it: it is too late to refuse. A token file
   should be closed by itself; of other files the warning comes where the folder does not keep others out.

Where files have no owners, as on Windows, nothing is checked.

A lock between the processes of one machine is ``flock`` on a file of its own.

5. The file is never deleted: a process that waits on a deleted file and one that creates it anew would hold two locks.
6. The operating system releases the lock when its holder dies. A forked child has a copy of the descriptor, which would
   keep the lock: it closes the copy at once, and the holder unlocks explicitly. A fork waits where a descriptor is open
   and not yet known, or no longer.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import logging
import os
import shlex
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from unbroken._concurrency import ForkGate, close_copy, register_fork_aware
from unbroken.errors import ConfigurationError, StoreBusy, StoreUnavailable

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None  # type: ignore[assignment]  # require_flock checks for it

__all__ = [
    "create_private",
    "ensure_private",
    "file_lock",
    "has_flock",
    "locked_file",
    "machine_folder",
    "open_private",
    "read_beginning",
    "read_private",
    "read_secret",
    "replace_private",
    "require_flock",
    "require_private_folder",
    "resolve_private",
]

_log = logging.getLogger("unbroken")

HAS_OWNERS = hasattr(os, "geteuid")
ROOT = 0
FIRST_PAUSE_SECONDS, MAX_PAUSE_SECONDS = 0.001, 0.05
FLAGS = os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) if HAS_OWNERS else 0


def resolve_private(path: str | os.PathLike[str], what: str) -> Path:
    """Return the real path of *what* at *path*. Raise ConfigurationError for a link that another user may have put."""
    named = Path(path).expanduser().absolute()
    if HAS_OWNERS:
        _refuse_planted_links(named.parent, what)
        if named.is_symlink():
            require_private_folder(Path(os.path.realpath(named.parent)))
            if not _is_trusted(named.lstat().st_uid):
                raise ConfigurationError(f"{what} {named} is a link of another user: name the file itself")
    return Path(os.path.realpath(named))  # rule 3


def _refuse_planted_links(folder: Path, what: str) -> None:
    """Raise ConfigurationError for a link on the way to *folder* that another user may have put there (rule 3)."""
    is_open = False  # whether others may write to a folder on the way
    for step in (*reversed(folder.parents), folder):
        try:
            found = step.lstat()
        except OSError:
            return  # what is not there is made, or reported, by the caller
        if stat.S_ISLNK(found.st_mode):
            if is_open and not _is_trusted(found.st_uid):
                raise ConfigurationError(f"{what} is below {step}, a link of another user: name its folder itself")
            found = step.stat() if step.exists() else found
        is_open = is_open or _others_may_write(found)


def require_private_folder(folder: Path, *, alone: bool = False) -> None:
    """Raise ConfigurationError if others may put files into *folder*, or replace those in it (rules 1 and 2).

    With *alone* a sticky folder is refused too.
    """
    if not HAS_OWNERS:
        return
    found = os.stat(folder)
    if not stat.S_ISDIR(found.st_mode):
        return  # opening a file in it raises the error
    if not _is_trusted(found.st_uid):
        raise ConfigurationError(f"the folder {folder} {_belongs_to(found.st_uid)}")
    if not _others_may_write(found):
        return
    if alone and found.st_mode & stat.S_ISVTX:
        raise ConfigurationError(f"other users may put files into {folder}: use a folder of your own for SQLite")
    if not found.st_mode & stat.S_ISVTX:
        raise ConfigurationError(f"other users may write to the folder {folder}: run `chmod go-w {_quoted(folder)}`")


def _others_may_write(folder: os.stat_result) -> bool:
    by_group = folder.st_mode & stat.S_IWGRP and not _is_own_group(folder.st_gid)
    return bool(by_group or folder.st_mode & stat.S_IWOTH)


def open_private(path: Path, flags: int, what: str, *, closed_by_folder: bool = False) -> int:
    """Return a descriptor of *what* at *path*, which *flags* may create, for its owner alone.

    *closed_by_folder*: it is no matter that others may read it in a folder that keeps them out (rule 4). Raise
    ConfigurationError if it cannot be trusted, and OSError if it cannot be opened.
    """
    if HAS_OWNERS:
        require_private_folder(path.parent)
    try:
        descriptor = os.open(path, flags | FLAGS, 0o600)
    except OSError:
        if os.path.lexists(path):  # the system refuses some of these by itself, without the reason
            _check(path.lstat(), path, what, closed_by_folder)
        raise
    try:
        _check(os.fstat(descriptor), path, what, closed_by_folder)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def ensure_private(path: Path, what: str, *, closed_by_folder: bool = False) -> None:
    """Create *what* at *path* if it is missing, and check it as ``open_private`` does. One that exists is not opened.

    For SQLite: a process that closes any descriptor of a file loses all its locks on it, those of SQLite too. It reads
    the files beside it, FILE-wal and FILE-journal, whichever user has put them there: so no other may (rule 2).
    """
    if HAS_OWNERS:
        require_private_folder(path.parent, alone=True)
    if not os.path.lexists(path):
        with contextlib.suppress(FileExistsError):
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
            os.close(open_private(path, flags, what, closed_by_folder=closed_by_folder))
    _check(path.lstat(), path, what, closed_by_folder)


def read_private(path: Path, what: str, *, closed_by_folder: bool = False) -> bytes:
    """Return the content of *what* at *path*. The parameters and the errors are those of ``open_private``."""
    with os.fdopen(open_private(path, os.O_RDONLY, what, closed_by_folder=closed_by_folder), "rb") as file:
        return file.read()


def read_beginning(path: Path, what: str, size: int, *, closed_by_folder: bool = False) -> bytes:
    """Return the first *size* bytes of *what* at *path*. The other parameters and the errors are ``open_private``'s."""
    with os.fdopen(open_private(path, os.O_RDONLY, what, closed_by_folder=closed_by_folder), "rb") as file:
        return file.read(size)


def read_secret(path: str | os.PathLike[str], what: str) -> bytes:
    """Return the content of *what* at *path*, which an operator has put there, as ``read_private`` does (rule 3)."""
    named = Path(path).expanduser().absolute()
    if not HAS_OWNERS or os.statvfs(named.parent).f_flag & os.ST_RDONLY:
        return named.read_bytes()
    return read_private(resolve_private(named, what), what, closed_by_folder=True)


def replace_private(path: Path, data: bytes) -> None:
    """Put a file with *data*, for its owner alone, in the place of the one at *path*, in one step. Raise OSError."""
    handle, beside = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # mkstemp makes it 0600
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(beside, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(beside)
        raise


def create_private(path: Path, data: bytes) -> bool:
    """Put a file with *data*, for its owner alone, at *path*, in one step. Return False if it exists. Raise OSError."""
    handle, beside = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # mkstemp makes it 0600
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.link(beside, path)
    except FileExistsError:
        return False
    finally:
        with contextlib.suppress(OSError):
            os.unlink(beside)
    return True


def machine_folder(folder: str | None = None) -> str:
    """Return a folder for the locks of this user's processes on this machine, made if it is missing.

    *folder*: another one than that in the folder for temporary files. Raise OSError if there can be none that only this
    user may write to.
    """
    folder = folder or os.path.join(tempfile.gettempdir(), f"unbroken-{os.getuid()}")
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder, 0o700)
    found = os.lstat(folder)  # another user may have put a folder or a link there
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(errno.EPERM, "it belongs to another user, or others may write to it")
    return folder


def _check(found: os.stat_result, path: Path, what: str, closed_by_folder: bool) -> None:
    if not HAS_OWNERS:
        return
    if stat.S_ISLNK(found.st_mode):
        raise ConfigurationError(f"{what} {path} is a link, and links are not followed: remove it")
    if not stat.S_ISREG(found.st_mode):
        raise ConfigurationError(f"{what} {path} is not a file: remove it")
    if not _is_trusted(found.st_uid):
        raise ConfigurationError(f"{what} {path} {_belongs_to(found.st_uid)}")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigurationError(f"other users may change {what} {path}: run `chmod 600 {_quoted(path)}`")
    is_open = found.st_mode & (stat.S_IRGRP | stat.S_IROTH) and found.st_uid == os.geteuid()
    if is_open and not (closed_by_folder and not os.stat(path.parent).st_mode & (stat.S_IXGRP | stat.S_IXOTH)):
        _tell(f"other users may read {what} {path}: run `chmod 600 {_quoted(path)}`")  # rule 4


@functools.lru_cache(maxsize=100)
def _tell(message: str) -> None:
    """Log *message* once."""
    _log.warning("%s", message)


def _is_trusted(owner: int) -> bool:
    return owner in (os.geteuid(), ROOT)


def _belongs_to(owner: int) -> str:
    import pwd  # noqa: PLC0415  # POSIX only

    try:
        name = pwd.getpwuid(owner).pw_name
    except KeyError:
        name = f"the user {owner}"
    return f"belongs to {name}: run this as {name}, or name one of your own"


def _is_own_group(group: int) -> bool:
    """Return whether *group* has this user's name, and no other member."""
    import grp  # noqa: PLC0415  # POSIX only
    import pwd  # noqa: PLC0415

    try:
        user, found = pwd.getpwuid(os.geteuid()), grp.getgrgid(group)
    except KeyError:
        return False
    return found.gr_gid == user.pw_gid and found.gr_name == user.pw_name and set(found.gr_mem) <= {user.pw_name}


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))


# ---- locks -----------------------------------------------------------------------------------------------------------


def has_flock() -> bool:
    """Return whether the system has ``flock``."""
    return fcntl is not None


def require_flock(what: str) -> None:
    """Raise ConfigurationError if the system has no ``flock``."""
    if fcntl is None:
        raise ConfigurationError(f"{what} needs a POSIX system; use another store here")


@contextmanager
def file_lock(path: str, timeout: float) -> Iterator[None]:
    """Hold the lock file at *path*. Raise StoreBusy after *timeout* seconds, StoreUnavailable if it cannot open.

    Raise ConfigurationError if another user may have put it there (rules 1 to 3).
    """
    with locked_file(path, timeout):
        yield


@contextmanager
def locked_file(path: str, timeout: float) -> Iterator[int]:
    """Hold the lock file as ``file_lock`` does, and give its descriptor."""
    descriptor = _open_lock(path)
    try:
        _acquire_lock(descriptor, path, timeout)
        yield descriptor
    finally:
        _release_lock(descriptor)


def _open_lock(path: str) -> int:
    try:
        with _lock_gate:  # rule 6
            descriptor = open_private(Path(path), os.O_RDWR | os.O_CREAT, "the lock file")
            _lock_descriptors.all.add(descriptor)
            return descriptor
    except OSError as error:
        raise StoreUnavailable(f"the lock file {path} cannot be opened: {error.strerror}") from error


def _release_lock(descriptor: int) -> None:
    with _lock_gate:
        if descriptor in _lock_descriptors.all:  # a child that was forked in the block has closed it
            _lock_descriptors.all.discard(descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # rule 6
            os.close(descriptor)


def _acquire_lock(descriptor: int, path: str, timeout: float) -> None:
    """Poll for the lock, with growing pauses: a blocking flock cannot be given up."""
    ends, pause = time.monotonic() + timeout, FIRST_PAUSE_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= ends:
                raise StoreBusy(f"the lock {path} stayed busy for {timeout:g} seconds") from None
        except OSError as error:
            raise StoreUnavailable(f"the lock {path} cannot be taken: {error.strerror}") from error
        time.sleep(pause)
        pause = min(pause * 2, MAX_PAUSE_SECONDS)


class _LockDescriptors:
    """The descriptors of the locks that this process holds or waits for."""

    def __init__(self) -> None:
        self.all: set[int] = set()

    def reset_after_fork(self) -> None:
        for descriptor in self.all:
            close_copy(descriptor)  # rule 6
        self.all.clear()


_lock_gate = ForkGate()
_lock_descriptors = _LockDescriptors()
register_fork_aware(_lock_descriptors)
