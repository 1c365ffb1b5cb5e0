"""The encryption key of a store that is a file: a file beside it, made at first start.

1. It is made whole or not at all, with mode 0600, and takes no name that exists (``link`` fails as ``O_EXCL`` does): of
   several processes that start at once, one makes it, and all read the same key.
2. It is on the disk before anything is encrypted with it.
3. As ssh does with its keys: a file that is a link, that another user owns or that other users may access is refused.
   It belongs to this process's user or to root, and root trusts root alone (``_private_files.py``).
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat

from unbroken._encryption import keys_in, new_key
from unbroken.errors import ConfigurationError

__all__ = ["make_key_file", "read_key_file"]

MAX_KEY_FILE_BYTES = 64 * 1024
NO_LINKS = getattr(os, "O_NOFOLLOW", 0)
NO_WAIT = getattr(os, "O_NONBLOCK", 0)  # for the writer of a named pipe that somebody has put there
NOT_FOR_OWNER = stat.S_IRWXG | stat.S_IRWXO


def read_key_file(path: str) -> list[str] | None:
    """Return the keys in the file at *path*, the newest first; None if there is no file.

    Raise ConfigurationError for a file that others could have written or can read (rule 3), and for an empty one.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | NO_LINKS | NO_WAIT | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unusable(path, "it is a link" if os.path.islink(path) else f"{error.strerror}") from error
    try:
        _check_safety(path, os.fstat(descriptor))
        text = os.read(descriptor, MAX_KEY_FILE_BYTES)
    finally:
        os.close(descriptor)
    keys = keys_in(text.decode("ascii", "replace"))
    if not keys:
        raise _unusable(path, "it is empty")
    return keys


def make_key_file(path: str) -> list[str]:
    """Return the key in a new file at *path*, or the keys in a file that was faster.

    Raise ConfigurationError if it cannot be written.
    """
    draft = f"{path}.{secrets.token_hex(8)}.new"
    try:
        try:
            _write(draft, new_key() + "\n")
            with contextlib.suppress(FileExistsError):
                os.link(draft, path)  # rule 1
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(draft)
        _flush_folder(path)  # rule 2
    except OSError as error:
        raise ConfigurationError(
            f"the encryption key {path} cannot be written: {error.strerror}; or set encryption_key"
        ) from error
    return read_key_file(path) or []


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | NO_LINKS | os.O_CLOEXEC, 0o600)
    with open(descriptor, "w", encoding="ascii") as file:
        file.write(text)
        file.flush()
        os.fsync(descriptor)


def _flush_folder(path: str) -> None:
    descriptor = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _check_safety(path: str, found: os.stat_result) -> None:
    """Raise ConfigurationError for what rule 3 refuses."""
    if not stat.S_ISREG(found.st_mode):
        raise _unusable(path, "it is no file")
    if found.st_uid not in (0, os.geteuid()):
        raise _unusable(path, "another user owns it")
    if found.st_mode & NOT_FOR_OWNER:
        raise _unusable(path, f"other users may access it: chmod 600 {path}")


def _unusable(path: str, why: str) -> ConfigurationError:
    return ConfigurationError(f"the encryption key {path} cannot be used: {why}")
