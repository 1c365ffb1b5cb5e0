"""Records as bytes, encrypted if there is a key, for every store that writes them down.

1. The format has a number. A record that a newer version of this library has written is refused.
2. Bytes that are no record raise CorruptRecord. The store decides what happens to them. A record has only values that
   this library writes: no text that would break a header, no number that no clock can show.
3. Encryption is that of ``_encryption.py``: the first key encrypts, every key decrypts. An unencrypted record
   is read, and encrypted when it is written next.
4. What cannot be decrypted never counts as corrupt: a wrong key must not cost a user the session.
5. A record that was damaged still begins as records do, unless next to nothing is left of it. Anything else was never
   one (``was_record``): a user's own file, whose path was typed by mistake.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from unbroken._arguments import checked, checked_class
from unbroken._encryption import EncryptionKey, Encryptor, keys_from_environment, new_key
from unbroken._http import is_safe_in_header
from unbroken.client.core.token_store import StoredSession
from unbroken.errors import ConfigurationError
from unbroken.tokens import Tokens

__all__ = ["CorruptRecord", "EncryptionKey", "SessionCodec", "key_from_environment", "key_from_keyring", "new_key"]

RECORD_FORMAT = 1
ENCRYPTED_PREFIX = b"unbroken-encrypted:"
PLAIN_PREFIX = b'{"unbroken":'
MAX_REST_BYTES = 4  # a shorter file holds nothing worth keeping (rule 5)
MAX_COUNT = 2**63 - 1
MAX_TIME_SECONDS = 1e11  # since the Unix epoch: three thousand years


class CorruptRecord(Exception):
    """The stored bytes cannot be decoded."""


@checked_class()
class SessionCodec:
    """Encodes records and decodes them. *key* encrypts them; error messages call the store *store_name*."""

    def __init__(self, store_name: str, key: EncryptionKey | None = None) -> None:
        self._store_name = store_name
        self._encryptor = None if key is None else Encryptor(key)

    def encode(self, record: StoredSession) -> bytes:
        """Return *record* as bytes."""
        plain = json.dumps({"unbroken": RECORD_FORMAT, **asdict(record)})
        if self._encryptor is None:
            return plain.encode()
        return ENCRYPTED_PREFIX + self._encryptor.encrypt(plain).encode()

    def decode(self, data: bytes) -> StoredSession:
        """Return the record in *data*. Raise CorruptRecord, or ConfigurationError (rules 1 and 4)."""
        if data.startswith(ENCRYPTED_PREFIX):
            data = self._decrypt(data[len(ENCRYPTED_PREFIX) :])
        try:
            return _to_record(json.loads(data), self._store_name)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError) as error:
            raise CorruptRecord(f"{self._store_name} does not hold tokens") from error  # rule 2

    def _decrypt(self, encrypted: bytes) -> bytes:
        if self._encryptor is None:
            raise ConfigurationError(f"{self._store_name} is encrypted: give the store its key")
        plain = self._encryptor.decrypt(encrypted.decode("latin-1"))
        if plain is None:
            raise ConfigurationError(f"{self._store_name} cannot be decrypted: it was encrypted with another key")
        return plain.encode()


def was_record(data: bytes) -> bool:
    """Return whether *data*, or what it begins with, is a record or the rest of a damaged one (rule 5)."""
    return len(data) <= MAX_REST_BYTES or any(
        data.startswith(prefix) or prefix.startswith(data) for prefix in (PLAIN_PREFIX, ENCRYPTED_PREFIX)
    )


@checked()
def key_from_environment(name: str = "UNBROKEN_STORE_KEY") -> list[str]:
    """Return the keys in the environment variable *name*: the newest first, with commas between them.

    Raise ConfigurationError if it is not set.
    """
    return keys_from_environment(name)


@checked()
def key_from_keyring(service: str, name: str = "unbroken-store-key") -> str:
    """Return the key that the system's secret store keeps for *service*; the first call makes it."""
    import keyring  # noqa: PLC0415  # an extra

    key = keyring.get_password(service, name)
    if key is None:
        keyring.set_password(service, name, new_key())
        key = keyring.get_password(service, name)  # read back: another process may have written its own
    if key is None:
        raise ConfigurationError("the system's secret store did not keep the key")
    return key


def _to_record(fields: dict[str, Any], store_name: str) -> StoredSession:
    if int(fields["unbroken"]) > RECORD_FORMAT:
        raise ConfigurationError(f"{store_name} was written by a newer version of unbroken: upgrade this one")  # rule 1
    version, epoch, over = fields["version"], fields["epoch"], fields["over"]
    idempotency_key = fields["idempotency_key"]
    tokens = None if fields["tokens"] is None else Tokens(**fields["tokens"])
    if not (_is_count(version) and _is_count(epoch) and _is_text(over)):
        raise TypeError("not a record")
    if not (idempotency_key is None or _is_text(idempotency_key)):
        raise TypeError("not a record")
    if tokens and not _are_valid(tokens, version):
        raise TypeError("not a record")
    device_token = fields.get("device_token", "")  # older versions write none
    begun_by, begun_at = fields.get("begun_by", ""), fields.get("begun_at", 0.0)
    if not (_is_text(device_token) and _is_text(begun_by) and _is_time(begun_at)):
        raise TypeError("not a record")
    return StoredSession(version, epoch, tokens, idempotency_key, over, device_token, begun_by, begun_at)


def _are_valid(tokens: Tokens, version: int) -> bool:
    texts = (tokens.access_token, tokens.refresh_token or "", tokens.scope, tokens.token_type, tokens.jkt)
    moments = (tokens.received_at, tokens.expires_in or 0.0, tokens.refresh_expires_in or 0.0)
    return (
        all(map(_is_text, texts))
        and all(map(_is_time, moments))
        and all(map(_is_count, (tokens.epoch, tokens.refresh_seq or 0)))
        and bool(tokens.access_token)
        and isinstance(tokens.idempotent, bool)
        and tokens.version == version
    )


def _is_text(value: object) -> bool:
    """Return whether *value* can stand in a header, where most of these texts go."""
    return isinstance(value, str) and is_safe_in_header(value)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_COUNT


def _is_time(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0.0 <= value <= MAX_TIME_SECONDS
