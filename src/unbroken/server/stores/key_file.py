"""The encryption key of a store that is a file: a file beside it, made at first start.

1. It is made whole or not at all, with mode 0600, and takes no name that exists (``link`` fails as ``O_EXCL`` does): of
   several processes that start at once, one makes it, and all read the same key.
2. It is on the disk before anything is encrypted with it.
3. A file, a folder or a link that another user may have put there is refused (``_private_files.py``). As ssh does with
   its keys, so is a file that other users may only read.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shlex
import stat
from pathlib import Path

from unbroken._encryption import keys_in, new_key
from unbroken._private_files import HAS_OWNERS, open_private
from unbroken.errors import ConfigurationError

__all__ = ["make_key_file", "read_key_file"]

WHAT = "the encryption key"
MAX_KEY_FILE_BYTES = 64 * 1024
NOT_FOR_OWNER = stat.S_IRWXG | stat.S_IRWXO


def read_key_file(path: str) -> list[str] | None:
    """Return the keys in the file at *path*, the newest first; None if there is no file.

    Raise ConfigurationError for a file that others could have written or can read (rule 3), and for an empty one.
    """
    try:
        descriptor = open_private(Path(path), os.O_RDONLY, WHAT, closed_by_folder=True)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigurationError(f"{WHAT} {path} cannot be read: {error.strerror}") from error
    with os.fdopen(descriptor, "rb") as file:
        if HAS_OWNERS and os.fstat(descriptor).st_mode & NOT_FOR_OWNER:
            raise ConfigurationError(f"other users may access {WHAT} {path}: run `chmod 600 {shlex.quote(path)}`")
        keys = keys_in(file.read(MAX_KEY_FILE_BYTES).decode("ascii", "replace"))
    if not keys:
        raise ConfigurationError(f"{WHAT} {path} is empty")
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
    with open(open_private(Path(path), os.O_WRONLY | os.O_CREAT | os.O_EXCL, WHAT), "w", encoding="ascii") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _flush_folder(path: str) -> None:
    descriptor = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
