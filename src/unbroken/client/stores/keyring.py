"""Tokens in the system's secret store: Keychain, Secret Service, or whatever ``keyring`` finds.

1. A secret store knows no compare-and-set: a lock file (``flock.py``) in *locks* stands for it, so all who share the
   tokens must be on one machine, and name the same folder.
2. Nor does every one write in one step: whoever reads waits for whoever writes, else half a file would be no login.
3. Some secret stores keep only short texts (2,560 bytes on Windows): long tokens need another store.
"""

from __future__ import annotations

import os
import re
from contextlib import AbstractContextManager
from pathlib import Path

import keyring
import keyring.errors

from unbroken.client.core.record import EMPTY, StoredSession
from unbroken.client.stores.codec import CorruptRecord, SessionCodec
from unbroken.client.stores.file_lock import file_lock, require_flock
from unbroken.errors import ConfigurationError, StoreUnavailable

__all__ = ["KeyringStore"]


class KeyringStore:
    """Tokens that the system's secret store keeps for *service*, under *name*.

    *locks* is the folder of the lock files (``~`` is understood); it is made if it is missing.
    """

    def __init__(
        self, service: str, name: str = "default", *, locks: str | os.PathLike[str] = "~/.config/unbroken/locks"
    ) -> None:
        require_flock("KeyringStore")
        self.service, self.name, self.locks = service, name, Path(os.path.realpath(Path(locks).expanduser()))
        self._form = SessionCodec(f"the secret {name!r} of {service!r}")
        try:
            self.locks.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(f"the folder {self.locks} cannot be made: {error.strerror}") from error
        self._lock = str(self.locks / re.sub(r"[^A-Za-z0-9.-]", "_", f"{service}.{name}"))

    def load(self) -> StoredSession:
        """The record as it stands now; ``EMPTY`` when there is none."""
        with self._exclusive():
            return self._read()

    def _exclusive(self) -> AbstractContextManager[None]:
        return file_lock(self._lock + ".write", 10.0)

    def _read(self) -> StoredSession:
        try:
            secret = keyring.get_password(self.service, self.name)
        except keyring.errors.KeyringError as error:
            raise StoreUnavailable(f"the system's secret store cannot be read: {type(error).__name__}") from error
        try:
            return EMPTY if secret is None else self._form.decode(secret.encode())
        except CorruptRecord as error:
            raise StoreUnavailable(f"{error}: delete it, and log in again") from error

    def save(self, record: StoredSession, expected: StoredSession) -> bool:
        """Replaces *expected* by *record*; False if it is another one now."""
        with self._exclusive():
            if not self._read().same(expected):
                return False
            try:
                keyring.set_password(self.service, self.name, self._form.encode(record).decode())
            except keyring.errors.KeyringError as error:
                raise StoreUnavailable(f"the system's secret store did not take the tokens: {error}") from error
            return True

    def lock(self, timeout: float) -> AbstractContextManager[None]:
        """Held by one renewal at a time on this machine. Raises StoreBusy after *timeout* seconds."""
        return file_lock(self._lock + ".renewal", timeout)
