"""How sessions, keys and accounts are written in Redis, and the names of their Redis keys.

1. The part of a name in braces decides the hash slot of a cluster: all of one session is in one slot, all of one
   subject, and all revocations.
2. Subjects and sids are in names only as hashes, so no text can break a name.
3. The format has no version. A newer release may append to a list: an older one ignores what it does not know, and a
   newer one uses the default for what an older one did not write. So both may run at once during an upgrade.
"""

from __future__ import annotations

import hashlib
import json
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from dataclasses import astuple, replace
from typing import Any, NamedTuple

from unbroken import _base64
from unbroken.errors import InvalidRequest
from unbroken.server.core.rotation import SessionRow
from unbroken.server.keys.keyring import KeyRecord
from unbroken.server.stores.base import Account

__all__ = [
    "CHANGING_FIELDS",
    "ListEntry",
    "RedisKeys",
    "account_from",
    "encode_key",
    "encode_values",
    "fixed_text",
    "keys_from",
    "session_row",
    "with_subject_revocation",
]

# The fields of a row that change, and their names in its hash: short, because each session stores them.
CHANGING_FIELDS = {
    "generation": "g",
    "branch": "b",
    "rotated_at": "t1",
    "promoted_branch": "b1",
    "previous_rotated_at": "t2",
    "previous_promoted_branch": "b2",
    "idempotency_hash": "a",
    "first_used_branch": "s",
    "idempotency_key_repeated": "d",
    "presenter": "p",
    "shared": "h",
    "shared_streak": "k",
    "used_earlier_at": "ue",
    "used_at": "u",
    "idle_expires_at": "i",
    "expires_at": "x",
    "revoked_at": "r",
    "revoked_why": "w",
    "evidence": "v",
    "newest_scope": "sc",
    "jkt": "j",  # it never changes; in the hash it costs an unbound session nothing
    "stamp": "c",
}
INTEGER_FIELDS = (
    "generation", "branch", "promoted_branch", "previous_promoted_branch", "first_used_branch", "shared_streak",
)  # fmt: skip
BYTES_FIELDS = ("idempotency_hash", "jkt", "newest_scope", "stamp")
TEXT_FIELDS = ("revoked_why", "evidence", "presenter")
BOOL_FIELDS = ("idempotency_key_repeated", "shared")
DEFAULTS = {"idempotency_key_repeated": False, "presenter": "", "shared": False, "shared_streak": 0}  # as empty
FIXED_FIELDS = (
    "sid", "subject", "created_at", "client_id", "scope", "coordinated", "label", "ip", "user_agent",
    "issuer", "audience",
)  # fmt: skip
HASH_BYTES = 16


class RedisKeys:
    """The names of all Redis keys that begin with *prefix*."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.expiries, self.keys, self.accounts = f"{prefix}:expiries", f"{prefix}:keys", f"{prefix}:accounts"
        self.revocations = f"{{{prefix}:revocations}}"
        self.last_revocation = f"{self.revocations}:last"
        self.channel = f"{prefix}:notifications"

    def session(self, key: bytes) -> tuple[str, str]:
        """Return the names of a session's hash of changing fields, and of its text of fixed fields."""
        name = f"{self.prefix}:{{{urlsafe_b64encode(key).decode()}}}"
        return name, name + ":about"

    def subject(self, subject: str) -> tuple[str, str]:
        """Return the names of a subject's list of sessions, and of its epoch."""
        name = f"{self.prefix}:of:{{{_hash(_to_bytes(subject))}}}"
        return name, name + ":epoch"

    def unrevoked(self, subject: str) -> str:
        """Return the name of a subject's list of sessions without those that are known to be over, by login."""
        return self.subject(subject)[0] + ":unrevoked"

    def sid(self, sid: str) -> str:
        """Return the name under which a session's key is found by its sid."""
        return f"{self.prefix}:sid:{_hash(_to_bytes(sid))}"

    def marker(self, key: bytes) -> str:
        """Return the name of a marker."""
        return f"{self.prefix}:marker:{_hash(key)}"


class ListEntry(NamedTuple):
    """A session in the list of a subject, or in the list of expiries."""

    key: bytes
    sid: str

    def encode(self) -> bytes:
        return bytes([len(self.key)]) + self.key + self.sid.encode()

    @classmethod
    def decode(cls, data: bytes) -> ListEntry:
        end = 1 + data[0]
        return cls(data[1:end], data[end:].decode())


def encode_values(row: SessionRow) -> list[bytes]:
    """Return the values of ``CHANGING_FIELDS`` in their order; empty for the default, None of most of them."""
    return [_encode_field(name, getattr(row, name)) for name in CHANGING_FIELDS]


def fixed_text(row: SessionRow) -> str:
    """Return the fixed fields as a text."""
    return json.dumps([getattr(row, name) for name in FIXED_FIELDS], separators=(",", ":"))


def session_row(key: bytes, changing: Mapping[bytes, bytes], text: bytes | None) -> SessionRow | None:
    """Return the row of a session's hash and text; None if one of them is missing."""
    if text is None or CHANGING_FIELDS["generation"].encode() not in changing:
        return None
    found = {name: changing.get(field.encode()) for name, field in CHANGING_FIELDS.items()}
    fixed = dict(zip(FIXED_FIELDS, json.loads(text), strict=False))  # rule 3
    return SessionRow(key=key, **fixed, **{name: _decode(name, value) for name, value in found.items()})


def with_subject_revocation(row: SessionRow, epoch_of_login: bytes, epoch: Sequence[bytes | None]) -> SessionRow:
    """Return *row*, revoked if a later *epoch* revoked all sessions of its subject while it was active."""
    number, at, reason = epoch
    if row.revoked_at is not None or number is None or at is None or int(number) <= int(epoch_of_login):
        return row
    revoked_at = float(at)
    if revoked_at >= min(row.idle_expires_at, row.expires_at):
        return row
    return replace(row, revoked_at=revoked_at, revoked_why=(reason or b"").decode())


def keys_from(found: Mapping[bytes, bytes]) -> list[KeyRecord]:
    """Return the keys of the hash *found*, oldest first."""
    records = []
    for name, text in found.items():
        what, _, kid = name.decode().partition(" ")
        if what == "text":
            ends, token_ttl = found[b"ends " + kid.encode()], found[b"ttl " + kid.encode()]
            use, alg, secret, created_at, signs_from = json.loads(text)[:5]
            verifies_until = float(ends) if ends else None
            records.append(KeyRecord(kid, use, alg, secret, created_at, signs_from, verifies_until, float(token_ttl)))
    return sorted(records, key=lambda record: (record.created_at, record.kid))


def encode_key(record: KeyRecord) -> tuple[str, str, bytes, bytes]:
    """Return the arguments of the script SAVE_KEYS for one key."""
    kid, *fixed, ends, token_ttl = astuple(record)
    return kid, json.dumps(fixed), _encode(ends), _encode(token_ttl)


def account_from(name: str, text: bytes) -> Account:
    """Return the account that was written as *text*."""
    return Account(name, *json.loads(text)[:5])  # rule 3


def _encode_field(name: str, value: Any) -> bytes:
    if name in DEFAULTS and value == DEFAULTS[name]:
        return b""
    return b"1" if name in BOOL_FIELDS else _encode(value)


def _encode(value: Any) -> bytes:
    """Return *value* as bytes. Texts begin with ``=``, so that an empty text differs from None."""
    if value is None:
        return b""
    if isinstance(value, bytes):
        return b"=" + value
    if isinstance(value, str):
        return b"=" + value.encode()
    return (repr(value) if isinstance(value, int) else repr(float(value))).encode()


def _decode(name: str, value: bytes | None) -> Any:
    if not value:
        return DEFAULTS.get(name)
    if name in BOOL_FIELDS:
        return True
    if name in BYTES_FIELDS:
        return value[1:]
    if name in TEXT_FIELDS:
        return value[1:].decode()
    return int(value) if name in INTEGER_FIELDS else float(value)


def _to_bytes(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest("a name or an id is not valid text") from error


def _hash(data: bytes) -> str:
    return _base64.encode(hashlib.sha256(data).digest()[:HASH_BYTES])  # rule 2
