"""Sealing texts by Fernet of ``cryptography`` (AES-128-CBC and HMAC-SHA256), under keys that can be changed.

The first key seals, every key opens: so a key is changed by putting a new one before it. A key is 32 random bytes in
URL-safe base64, as ``new_key`` makes it; a text may hold several, with commas or white space between them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unbroken.errors import ConfigurationError

__all__ = ["EncryptionKey", "Encryptor", "keys_from_environment", "keys_from_file", "new_key"]

EncryptionKey = str | bytes | Sequence[str | bytes]


class Encryptor:
    """Seals texts and opens them. Raises ConfigurationError for a *key* that is none."""

    def __init__(self, key: EncryptionKey) -> None:
        fernet = _fernet()
        keys = [key] if isinstance(key, (str, bytes)) else list(key)
        try:
            self._fernet: Any = fernet.MultiFernet([fernet.Fernet(one) for one in keys])
            self._first: Any = fernet.Fernet(keys[0])
        except (ValueError, TypeError, IndexError):
            raise ConfigurationError(
                "a seal key is 32 bytes in URL-safe base64: make one with `unbroken keys new-seal-key`, or by new_key()"
            ) from None

    def encrypt(self, text: str) -> str:
        """*text*, unreadable, under the first key."""
        return self._fernet.encrypt(text.encode()).decode()  # type: ignore[no-any-return]  # a lazily imported module

    def decrypt(self, sealed: str) -> str | None:
        """What was sealed; None if that was done with another key, or if it was changed since."""
        return self._decrypt_with(self._fernet, sealed)

    def uses_current_key(self, sealed: str) -> bool:
        """Whether *sealed* was sealed with the first key."""
        return self._decrypt_with(self._first, sealed) is not None

    @staticmethod
    def _decrypt_with(fernet: Any, sealed: str) -> str | None:
        try:
            return fernet.decrypt(sealed.encode()).decode()  # type: ignore[no-any-return]
        except (_fernet().InvalidToken, UnicodeError):
            return None


def new_key() -> str:
    """A fresh key. Keep it where what it seals is not."""
    return _fernet().Fernet.generate_key().decode()  # type: ignore[no-any-return]


def keys_from_environment(name: str) -> list[str]:
    """The keys in the environment variable *name*, the newest first. Raises ConfigurationError when it is not set."""
    keys = _keys(os.environ.get(name, ""))
    if not keys:
        raise ConfigurationError(f"the environment variable {name} is not set: it holds the key that seals")
    return keys


def keys_from_file(path: str | os.PathLike[str]) -> list[str]:
    """The keys in a file, the newest first. Raises ConfigurationError when there are none."""
    try:
        keys = _keys(Path(path).expanduser().read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"the seal key file {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise ConfigurationError(f"the seal key file {path} is no text") from None
    if not keys:
        raise ConfigurationError(f"the seal key file {path} is empty")
    return keys


def _keys(text: str) -> list[str]:
    return [key for key in re.split(r"[,\s]+", text) if key]


def _fernet() -> Any:
    try:
        from cryptography import fernet  # noqa: PLC0415  # an extra: only for whoever seals
    except ImportError as error:
        raise ConfigurationError("sealing needs cryptography: pip install 'unbroken[sealed]'") from error
    return fernet
