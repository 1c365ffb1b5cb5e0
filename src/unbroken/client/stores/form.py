"""A record as bytes, for every store that writes one down; sealed, if there is a key.

1. The form says which version of it it is; one that a newer version of this library has written is refused.
2. Bytes that are no record are ``Damaged``: what becomes of them is for the store to say, but nothing is guessed.
3. Sealing is Fernet of ``cryptography`` (AES-128-CBC and HMAC-SHA256). The first key seals, every key opens: so a key
   is changed by putting a new one before it. A record that lies there unsealed is read, and sealed when next written.
4. What cannot be opened is never taken for damaged: a wrong key must not cost anybody their session.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from unbroken.client.record import Record
from unbroken.errors import ConfigurationError
from unbroken.tokens import Tokens

__all__ = ["Damaged", "Form", "Key", "key_from_environment", "key_from_keyring", "new_key"]

FORMAT = 1
SEALED = b"unbroken-sealed:"

Key = str | bytes | Sequence[str | bytes]


class Damaged(Exception):
    """These bytes are no record."""


class Form:
    """Records to bytes and back. *key*: seals them; *place* is what error messages call the store."""

    def __init__(self, place: str, key: Key | None = None) -> None:
        self._place = place
        self._seal = None if key is None else _sealer(key)

    def write(self, record: Record) -> bytes:
        """*record* as bytes."""
        plain = json.dumps({"unbroken": FORMAT, **asdict(record)}).encode()
        return plain if self._seal is None else SEALED + self._seal.encrypt(plain)

    def read(self, data: bytes) -> Record:
        """The record that *data* holds. Raises Damaged, or ConfigurationError (rules 1 and 4)."""
        if data.startswith(SEALED):
            data = self._opened(data[len(SEALED) :])
        try:
            return _record_of(json.loads(data), self._place)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise Damaged(f"{self._place} does not hold tokens") from error

    def _opened(self, sealed: bytes) -> bytes:
        from cryptography.fernet import InvalidToken  # noqa: PLC0415  # an extra: only for whoever seals

        if self._seal is None:
            raise ConfigurationError(f"{self._place} is sealed: give the store its key")
        try:
            plain: bytes = self._seal.decrypt(sealed)
        except InvalidToken:
            raise ConfigurationError(f"{self._place} cannot be opened: it was sealed with another key") from None
        return plain


def new_key() -> str:
    """A fresh key for a store, 32 random bytes in URL-safe base64. Keep it where the tokens are not."""
    return _fernet().Fernet.generate_key().decode()  # type: ignore[no-any-return]  # a lazily imported module


def key_from_environment(name: str = "UNBROKEN_STORE_KEY") -> list[str]:
    """The keys in the environment variable *name*, the newest first, with commas between them.

    Raises ConfigurationError when it is not set.
    """
    keys = [key.strip() for key in os.environ.get(name, "").split(",") if key.strip()]
    if not keys:
        raise ConfigurationError(f"the environment variable {name} is not set: it holds the key of the token store")
    return keys


def key_from_keyring(service: str, name: str = "unbroken-store-key") -> str:
    """The key that the system's secret store keeps for *service*; made and put there at the first call."""
    import keyring  # noqa: PLC0415  # an extra

    key = keyring.get_password(service, name)
    if key is None:
        keyring.set_password(service, name, new_key())
        key = keyring.get_password(service, name)  # what stands there: another process may have been faster
    if key is None:
        raise ConfigurationError("the system's secret store did not keep the key")
    return key


def _sealer(key: Key) -> Any:
    fernet = _fernet()
    keys = [key] if isinstance(key, (str, bytes)) else list(key)
    try:
        return fernet.MultiFernet([fernet.Fernet(one) for one in keys])
    except (ValueError, TypeError):
        raise ConfigurationError(
            "the store's key is not 32 bytes in URL-safe base64: make one with unbroken.client.stores.form.new_key()"
        ) from None


def _fernet() -> Any:
    try:
        from cryptography import fernet  # noqa: PLC0415  # an extra: only for whoever seals
    except ImportError as error:
        raise ConfigurationError("sealing tokens needs cryptography: pip install 'unbroken[sealed]'") from error
    return fernet


def _record_of(form: dict[str, Any], place: str) -> Record:
    if int(form["unbroken"]) > FORMAT:
        raise ConfigurationError(f"{place} was written by a newer version of unbroken: upgrade this one")
    version, epoch, attempt, over = form["version"], form["epoch"], form["attempt"], form["over"]
    tokens = None if form["tokens"] is None else Tokens(**form["tokens"])
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
