"""Tokens in one file of one machine, shared by all processes that open it.

1. The file is only ever replaced whole: written beside, flushed to the disk, renamed. A crash leaves old or new.
2. It is readable by its owner alone (0600), from its first byte on.
3. Two lock files stand beside it and are never deleted: a waiter on a deleted file would hold another lock than the
   next one to come. ``.renewal`` is held for a whole exchange, ``.write`` for one compare-and-set.
   The operating system frees both when their holder dies.
4. A file that cannot be read as tokens is set aside under another name, never deleted. One that a newer version of this
   library has written is refused, and left alone.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from unbroken.client.record import EMPTY, Record
from unbroken.errors import ConfigurationError, StoreUnavailable
from unbroken.tokens import Tokens

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None  # type: ignore[assignment]  # its absence is checked when a store is made

__all__ = ["FileStore"]

FORMAT = 1
_log = logging.getLogger("unbroken")


class FileStore:
    """Tokens in the file at *path* (``~`` is understood); its folder is made if it is missing, for its owner alone.

    Raises ConfigurationError when the folder cannot be made or written, or the system has no ``flock``.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        if fcntl is None:
            raise ConfigurationError("FileStore needs a POSIX system; use another store here")
        self.path = Path(os.path.realpath(Path(path).expanduser()))
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(f"the folder {self.path.parent} cannot be made: {error.strerror}") from error
        if self.path.is_dir() or not os.access(self.path.parent, os.W_OK | os.X_OK):
            raise ConfigurationError(f"{self.path} cannot be written: name a file in a folder that you may write to")

    def load(self) -> Record:
        """The record in the file; ``EMPTY`` without one. Raises StoreUnavailable, or ConfigurationError (rule 4)."""
        try:
            text = self.path.read_bytes()
        except FileNotFoundError:
            return EMPTY
        except OSError as error:
            raise StoreUnavailable(f"the token file {self.path} cannot be read: {error.strerror}") from error
        try:
            return _record_of(json.loads(text), self.path)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return self._set_aside(text)

    def save(self, record: Record, expected: Record) -> bool:
        """Replaces *expected* by *record*, on the disk when it returns; False if it is another one now."""
        try:
            with self._flock(".write", 10.0):
                if not self.load().same(expected):
                    return False
                self._replace(json.dumps(_form_of(record)).encode())
                return True
        except OSError as error:
            raise StoreUnavailable(f"the token file {self.path} cannot be written: {error.strerror}") from error

    def lock(self, timeout: float) -> contextlib.AbstractContextManager[None]:
        """Held by one renewal at a time on this machine. Raises StoreUnavailable after *timeout* seconds."""
        return self._flock(".renewal", timeout)

    @contextmanager
    def _flock(self, suffix: str, timeout: float) -> Iterator[None]:
        name = str(self.path) + suffix
        try:
            held = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreUnavailable(f"the lock file {name} cannot be opened: {error.strerror}") from error
        try:
            _wait_for(held, name, timeout)
            yield
        finally:
            os.close(held)  # this also frees the lock

    def _replace(self, data: bytes) -> None:
        folder = self.path.parent
        handle, beside = tempfile.mkstemp(prefix=f".{self.path.name}.", dir=folder)  # mkstemp makes it 0600
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
        entry = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(entry)
        finally:
            os.close(entry)

    def _set_aside(self, text: bytes) -> Record:
        """Moves a damaged file away, unless somebody has replaced it meanwhile."""
        aside = self.path.with_name(f"{self.path.name}.damaged-{time.time_ns()}")
        with contextlib.suppress(OSError):
            if self.path.read_bytes() == text:
                os.rename(self.path, aside)
                _log.warning("the token file %s is damaged: it was set aside as %s; log in again", self.path, aside)
        return EMPTY


def _wait_for(held: int, name: str, timeout: float) -> None:
    """Polls, because a blocking flock cannot be given up; the pauses grow from 1 to 50 milliseconds."""
    ends, pause = time.monotonic() + timeout, 0.001
    while True:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= ends:
                raise StoreUnavailable(f"the lock {name} stayed busy for {timeout:g} seconds") from None
        except OSError as error:
            raise StoreUnavailable(f"the lock {name} cannot be taken: {error.strerror}") from error
        time.sleep(pause)
        pause = min(pause * 2, 0.05)


def _form_of(record: Record) -> dict[str, object]:
    form = asdict(record)
    return {"unbroken": FORMAT, **form}


def _record_of(form: dict[str, object], path: Path) -> Record:
    if int(str(form["unbroken"])) > FORMAT:
        raise ConfigurationError(f"the token file {path} was written by a newer version of unbroken: upgrade this one")
    version, epoch, attempt, over = form["version"], form["epoch"], form["attempt"], form["over"]
    tokens = None if form["tokens"] is None else Tokens(**form["tokens"])  # type: ignore[arg-type]  # checked below
    if not (isinstance(version, int) and isinstance(epoch, int) and isinstance(over, str)):
        raise TypeError("not a record")
    if not (attempt is None or isinstance(attempt, str)) or (tokens and not _are_whole(tokens, version)):
        raise TypeError("not a record")
    return Record(version, epoch, tokens, attempt, over)


def _are_whole(tokens: Tokens, version: int) -> bool:
    texts = (tokens.access_token, tokens.refresh_token or "", tokens.scope, tokens.token_type)
    numbers = (tokens.received_at, tokens.lifetime or 0.0, tokens.refresh_lifetime or 0.0, tokens.seq or 0)
    return (
        all(isinstance(text, str) for text in texts)
        and all(isinstance(number, (int, float)) for number in numbers)
        and bool(tokens.access_token)
        and tokens.version == version
    )
