"""Encrypt texts with Fernet of ``cryptography`` (AES-128-CBC and HMAC-SHA256), under keys that can be rotated.

1. The first key encrypts, every key decrypts. To rotate, put a new key before the old one.
2. A key is 32 random bytes in URL-safe base64, as ``new_key`` returns it.
3. A text, such as an environment variable, may hold several keys, separated by commas or white space.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any

from unbroken._private_files import read_secret
from unbroken.errors import ConfigurationError

__all__ = ["EncryptionKey", "Encryptor", "keys_from_environment", "keys_from_file", "keys_in", "new_key"]

EncryptionKey = str | bytes | Sequence[str | bytes]


class Encryptor:
    """Encrypt and decrypt texts with *key*: one key, or several with the newest first.

    Raises ConfigurationError for a *key* that is malformed or empty.
    """

    def __init__(self, key: EncryptionKey) -> None:
        fernet = _fernet()
        keys = [key] if isinstance(key, (str, bytes)) else list(key)
        try:
            self._all_keys: Any = fernet.MultiFernet([fernet.Fernet(one) for one in keys])  # rule 1
            self._first_key: Any = fernet.Fernet(keys[0])
        except (ValueError, TypeError, IndexError):
            raise ConfigurationError(
                "an encryption key is 32 bytes in URL-safe base64:"
                " create one with unbroken.server.stores.encrypted_keys.new_key()"
            ) from None

    def encrypt(self, text: str) -> str:
        """Return *text*, encrypted with the first key."""
        return self._all_keys.encrypt(text.encode()).decode()  # type: ignore[no-any-return]  # imported lazily

    def decrypt(self, encrypted: str) -> str | None:
        """Return the text; None if it was encrypted with another key, or changed since."""
        return self._decrypt_with(self._all_keys, encrypted)

    def uses_current_key(self, encrypted: str) -> bool:
        """Return whether *encrypted* was encrypted with the first key."""
        return self._decrypt_with(self._first_key, encrypted) is not None

    @staticmethod
    def _decrypt_with(fernet: Any, encrypted: str) -> str | None:
        try:
            return fernet.decrypt(encrypted.encode()).decode()  # type: ignore[no-any-return]
        except (_fernet().InvalidToken, UnicodeError):
            return None


def new_key() -> str:
    """Return a new random key. Store it apart from the data that it encrypts."""
    return _fernet().Fernet.generate_key().decode()  # type: ignore[no-any-return]


def keys_from_environment(name: str) -> list[str]:
    """Return the keys in the environment variable *name*, newest first. Raise ConfigurationError if it is not set."""
    keys = keys_in(os.environ.get(name, ""))
    if not keys:
        raise ConfigurationError(f"the environment variable {name} is not set: set it to the encryption key")
    return keys


def keys_from_file(path: str | os.PathLike[str]) -> list[str]:
    """Return the keys in the file at *path*, newest first. Raise ConfigurationError if there are none to read.

    It also does if other users may have changed the file (``_private_files.py``).
    """
    try:
        keys = keys_in(read_secret(path, "the encryption key file").decode())
    except OSError as error:
        raise ConfigurationError(f"the encryption key file {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise ConfigurationError(f"the encryption key file {path} is not UTF-8 text") from None
    if not keys:
        raise ConfigurationError(f"the encryption key file {path} is empty")
    return keys


def keys_in(text: str) -> list[str]:
    """Return the keys in *text* (rule 3)."""
    return [key for key in re.split(r"[,\s]+", text) if key]


def _fernet() -> Any:
    try:
        from cryptography import fernet  # noqa: PLC0415  # an extra, needed only for encryption
    except ImportError as error:
        raise ConfigurationError("encryption needs cryptography: pip install 'unbroken[encryption]'") from error
    return fernet
