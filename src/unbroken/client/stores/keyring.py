"""Tokens in the secret store of the system: Keychain, Secret Service, or what else ``keyring`` finds.

1. A secret store has no compare-and-set: a lock file (``_private_files.py``) in *locks* replaces it, so all clients of
   the tokens must be on one machine and name the same folder.
2. Not every secret store writes in one step: a reader waits for a writer, or it would find half a file.
3. Some secret stores keep only short text (2,560 bytes on Windows): long tokens need another store.
"""

from __future__ import annotations

import os
import re
from contextlib import AbstractContextManager
from pathlib import Path

try:
    import keyring
    import keyring.errors
except ImportError as error:
    raise ImportError("KeyringStore needs keyring: pip install 'unbroken[keyring]'") from error

from unbroken._arguments import checked_class
from unbroken._private_files import file_lock, require_flock, require_private_folder
from unbroken.client.core.token_store import EMPTY, StoredSession
from unbroken.client.stores.codec import CorruptRecord, SessionCodec
from unbroken.errors import ConfigurationError, StoreUnavailable

__all__ = ["KeyringStore"]

WRITE_LOCK_SECONDS = 10.0


@checked_class()
class KeyringStore:
    """Tokens that the secret store of the system keeps for *service*, under *name*.

    *locks* is the folder of the lock files (``~`` is the home folder); it is created if it is missing.
    """

    def __init__(
        self, service: str, name: str = "default", *, locks: str | os.PathLike[str] = "~/.config/unbroken/locks"
    ) -> None:
        require_flock("KeyringStore")
        self.service, self.name, self.locks = service, name, Path(os.path.realpath(Path(locks).expanduser()))
        self._codec = SessionCodec(f"the secret {name!r} of {service!r}")
        try:
            self.locks.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(f"the folder {self.locks} cannot be created: {error.strerror}") from error
        require_private_folder(self.locks)
        self._lock = str(self.locks / re.sub(r"[^A-Za-z0-9.-]", "_", f"{service}.{name}"))

    def load(self) -> StoredSession:
        """Return the record; ``EMPTY`` if there is none."""
        with self._exclusive():  # rule 2
            return self._read()

    def _exclusive(self) -> AbstractContextManager[None]:
        return file_lock(self._lock + ".write", WRITE_LOCK_SECONDS)

    def _read(self) -> StoredSession:
        try:
            secret = keyring.get_password(self.service, self.name)
        except keyring.errors.KeyringError as error:
            raise StoreUnavailable(f"the system's secret store cannot be read: {type(error).__name__}") from error
        try:
            return EMPTY if secret is None else self._codec.decode(secret.encode())
        except CorruptRecord as error:
            raise StoreUnavailable(f"{error}: delete it, and log in again") from error

    def save(self, record: StoredSession, expected: StoredSession) -> bool:
        """Replace *expected* by *record*. Return False if another record is there."""
        with self._exclusive():  # rule 1
            if not self._read().same(expected):
                return False
            try:
                keyring.set_password(self.service, self.name, self._codec.encode(record).decode())
            except keyring.errors.KeyringError as error:
                raise StoreUnavailable(f"the system's secret store did not take the tokens: {error}") from error
            return True

    def lock(self, timeout: float) -> AbstractContextManager[None]:
        """Return the lock of a refresh on this machine; entering it raises StoreBusy after *timeout* seconds."""
        return file_lock(self._lock + ".refresh", timeout)
