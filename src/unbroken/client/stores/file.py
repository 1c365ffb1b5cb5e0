"""Tokens in one file of one machine, shared by all processes that open it.

1. The file is replaced as a whole: written beside, flushed to the disk, renamed. A crash leaves the old or the new one.
2. Only its owner can read it (0600), from its first byte on; with a key its content is encrypted (``codec.py``). A
   file, a lock or a folder of another user's is refused (``_private_files.py``).
3. Two lock files stand beside it (``_private_files.py``): ``.refresh`` is held for a whole refresh, ``.write`` for one
   compare-and-set.
4. A token file that was damaged is set aside under another name, never deleted. A file that never was one is a user's
   own, and its path a mistake: it is refused and left alone. So is one that a newer version of this library has
   written, or that is encrypted with another key.
"""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
import time
from pathlib import Path

from unbroken._arguments import checked_class
from unbroken._private_files import (
    file_lock,
    read_beginning,
    read_private,
    require_flock,
    require_private_folder,
    resolve_private,
)
from unbroken.client.core.token_store import EMPTY, StoredSession
from unbroken.client.stores.codec import CorruptRecord, EncryptionKey, SessionCodec, was_record
from unbroken.errors import ConfigurationError, StoreUnavailable

__all__ = ["FileStore"]

_log = logging.getLogger("unbroken")

WRITE_LOCK_SECONDS = 10.0
BEGINNING_BYTES = 64  # enough to tell a token file from any other


@checked_class()
class FileStore:
    """Tokens in the file at *path* (``~`` is the home folder); a missing folder is created, for its owner alone.

    *key* encrypts them (``unbroken.client.stores.codec.new_key`` makes one). Raises ConfigurationError if the folder
    cannot be created or written, if other users may write to it or to the file, if the file is not a token file (rule
    4), if the key is not valid, or if the system has no ``flock``. A file that others may read is used, with a warning
    that says how to mend it.
    """

    def __init__(self, path: str | os.PathLike[str], *, key: EncryptionKey | None = None) -> None:
        require_flock("FileStore")
        self.path = resolve_private(path, "the token file")
        self._codec, self._key = SessionCodec(f"the token file {self.path}", key), key
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(f"the folder {self.path.parent} cannot be created: {error.strerror}") from error
        if self.path.is_dir() or not os.access(self.path.parent, os.W_OK | os.X_OK):
            raise ConfigurationError(f"{self.path} cannot be written: name a file in a folder that you may write to")
        require_private_folder(self.path.parent)
        with contextlib.suppress(OSError):  # without a file there is nothing to check
            self._require_token_file(read_beginning(self.path, "the token file", BEGINNING_BYTES))

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (self.path, self._key))

    def load(self) -> StoredSession:
        """Return the record; ``EMPTY`` without a file. Raise StoreUnavailable, or ConfigurationError (rule 4)."""
        with contextlib.suppress(CorruptRecord):
            return self._read()
        with file_lock(f"{self.path}.write", WRITE_LOCK_SECONDS):  # so that no process replaces the file meanwhile
            return self._read_or_set_aside()

    def save(self, record: StoredSession, expected: StoredSession) -> bool:
        """Replace *expected* by *record*, on the disk when it returns. Return False if another record is there."""
        try:
            with file_lock(f"{self.path}.write", WRITE_LOCK_SECONDS):  # rule 3
                if not self._read_or_set_aside().same(expected):
                    return False
                self._replace(self._codec.encode(record))
                return True
        except OSError as error:
            raise StoreUnavailable(f"the token file {self.path} cannot be written: {error.strerror}") from error

    def lock(self, timeout: float) -> contextlib.AbstractContextManager[None]:
        """Return the lock of a refresh on this machine; entering it raises StoreBusy after *timeout* seconds."""
        return file_lock(f"{self.path}.refresh", timeout)  # rule 3

    def _read(self) -> StoredSession:
        try:
            data = read_private(self.path, "the token file")
        except FileNotFoundError:
            return EMPTY
        except OSError as error:
            raise StoreUnavailable(f"the token file {self.path} cannot be read: {error.strerror}") from error
        try:
            return self._codec.decode(data)
        except CorruptRecord:
            self._require_token_file(data)
            raise

    def _require_token_file(self, data: bytes) -> None:
        if not was_record(data):  # rule 4
            raise ConfigurationError(f"{self.path} is not a token file, and was left as it is: name another file")

    def _read_or_set_aside(self) -> StoredSession:
        try:
            return self._read()
        except CorruptRecord:
            aside = self.path.with_name(f"{self.path.name}.damaged-{time.time_ns()}")
            with contextlib.suppress(OSError):
                os.rename(self.path, aside)
                _log.warning("the token file %s is damaged: it was set aside as %s; log in again", self.path, aside)
            return EMPTY

    def _replace(self, data: bytes) -> None:
        """Write *data* beside the file, then rename it into place (rule 1)."""
        folder = self.path.parent
        handle, beside = tempfile.mkstemp(prefix=f".{self.path.name}.", dir=folder)  # mkstemp makes it 0600: rule 2
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, self.path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(beside)
            raise
        entry = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)  # the rename is durable once the folder is on the disk
        try:
            os.fsync(entry)
        finally:
            os.close(entry)


def _rebuild(path: Path, key: EncryptionKey | None) -> FileStore:
    return FileStore(path, key=key)
