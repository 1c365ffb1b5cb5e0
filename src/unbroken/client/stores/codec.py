"""A record as bytes, for every store that writes one down; sealed, if there is a key.

1. The form says which version of it it is; one that a newer version of this library has written is refused.
2. Bytes that are no record are ``Damaged``: what becomes of them is for the store to say, but nothing is guessed.
3. Sealing is that of ``_sealing.py``: the first key seals, every key opens. A record that lies there unsealed is read,
   and sealed when next written.
4. What cannot be opened is never taken for damaged: a wrong key must not cost anybody their session.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from unbroken._encryption import EncryptionKey, Encryptor, keys_from_environment, new_key
from unbroken.client.core.record import StoredSession
from unbroken.errors import ConfigurationError
from unbroken.tokens import Tokens

__all__ = ["CorruptRecord", "EncryptionKey", "SessionCodec", "key_from_environment", "key_from_keyring", "new_key"]

FORMAT = 1
ENCRYPTED_PREFIX = b"unbroken-encrypted:"


class CorruptRecord(Exception):
    """These bytes are no record."""


class SessionCodec:
    """Records to bytes and back. *key*: seals them; *place* is what error messages call the store."""

    def __init__(self, place: str, key: EncryptionKey | None = None) -> None:
        self._place = place
        self._sealer = None if key is None else Encryptor(key)

    def encode(self, record: StoredSession) -> bytes:
        """*record* as bytes."""
        plain = json.dumps({"unbroken": FORMAT, **asdict(record)})
        return plain.encode() if self._sealer is None else ENCRYPTED_PREFIX + self._sealer.encrypt(plain).encode()

    def decode(self, data: bytes) -> StoredSession:
        """The record that *data* holds. Raises Damaged, or ConfigurationError (rules 1 and 4)."""
        if data.startswith(ENCRYPTED_PREFIX):
            data = self._decrypted(data[len(ENCRYPTED_PREFIX) :])
        try:
            return _record_of(json.loads(data), self._place)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise CorruptRecord(f"{self._place} does not hold tokens") from error

    def _decrypted(self, sealed: bytes) -> bytes:
        if self._sealer is None:
            raise ConfigurationError(f"{self._place} is sealed: give the store its key")
        plain = self._sealer.decrypt(sealed.decode("latin-1"))
        if plain is None:
            raise ConfigurationError(f"{self._place} cannot be opened: it was sealed with another key")
        return plain.encode()


def key_from_environment(name: str = "UNBROKEN_STORE_KEY") -> list[str]:
    """The keys in the environment variable *name*, the newest first, with commas between them.

    Raises ConfigurationError when it is not set.
    """
    return keys_from_environment(name)


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


def _record_of(form: dict[str, Any], place: str) -> StoredSession:
    if int(form["unbroken"]) > FORMAT:
        raise ConfigurationError(f"{place} was written by a newer version of unbroken: upgrade this one")
    version, epoch, attempt, over = form["version"], form["epoch"], form["idempotency_key"], form["over"]
    tokens = None if form["tokens"] is None else Tokens(**form["tokens"])
    if not (isinstance(version, int) and isinstance(epoch, int) and isinstance(over, str)):
        raise TypeError("not a record")
    if not (attempt is None or isinstance(attempt, str)) or (tokens and not _are_whole(tokens, version)):
        raise TypeError("not a record")
    return StoredSession(version, epoch, tokens, attempt, over)


def _are_whole(tokens: Tokens, version: int) -> bool:
    texts = (tokens.access_token, tokens.refresh_token or "", tokens.scope, tokens.token_type)
    numbers = (tokens.received_at, tokens.expires_in or 0.0, tokens.refresh_expires_in or 0.0, tokens.refresh_seq or 0)
    return (
        all(isinstance(text, str) for text in texts)
        and all(isinstance(number, (int, float)) for number in numbers)
        and bool(tokens.access_token)
        and tokens.version == version
    )
