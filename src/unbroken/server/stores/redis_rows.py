"""How a session, a key and an account are written in Redis, and under which names.

Names in braces decide the hash slot: all of one session, all of one subject, and all of the feed are in one slot each.
Subjects and sids stand in no name but as their hash, so that no text can break one.

What is written has no version. A newer release may append to a list: an older one passes over what it does not know,
and a newer one takes the default for what an older one has not written, so that both can be at work on the way.
"""

from __future__ import annotations

import hashlib
import json
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from dataclasses import astuple, replace
from typing import Any, NamedTuple

from unbroken.errors import InvalidRequest
from unbroken.server.core.rotation import SessionRow
from unbroken.server.keys.keyring import KeyRecord
from unbroken.server.stores import Account

__all__ = [
    "CHANGING",
    "Entry",
    "Names",
    "account_of",
    "ended_by",
    "key_written",
    "keys_of",
    "lasting",
    "row_of",
    "values_of",
]

# The fields of a row that change, and their names in the hash.
CHANGING = {
    "generation": "g",
    "branch": "b",
    "rotated_at": "t1",
    "promoted_branch": "b1",
    "previous_rotated_at": "t2",
    "previous_promoted_branch": "b2",
    "idempotency_hash": "a",
    "first_used_branch": "s",
    "used_at": "u",
    "idle_expires_at": "i",
    "expires_at": "x",
    "revoked_at": "r",
    "revoked_why": "w",
    "evidence": "v",
}
NUMBERS, BYTES = (
    ("generation", "branch", "promoted_branch", "previous_promoted_branch", "first_used_branch"),
    ("idempotency_hash",),
)
TEXTS = ("revoked_why", "evidence")
LASTING = ("sid", "subject", "created_at", "client_id", "scope", "coordinated", "label", "ip", "user_agent")


class Names:
    """The names of everything, for one *prefix*."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.ends, self.keys, self.accounts = f"{prefix}:ends", f"{prefix}:keys", f"{prefix}:accounts"
        self.feed, self.last, self.channel = f"{{{prefix}:feed}}", f"{{{prefix}:feed}}:last", f"{prefix}:news"

    def row(self, key: bytes) -> tuple[str, str]:
        """Of what changes in a session, and of what does not."""
        name = f"{self.prefix}:{{{urlsafe_b64encode(key).decode()}}}"
        return name, name + ":about"

    def subject(self, subject: str) -> tuple[str, str]:
        """Of a subject's list of sessions, and of its epoch."""
        name = f"{self.prefix}:of:{{{_hashed(_bytes(subject))}}}"
        return name, name + ":epoch"

    def sid(self, sid: str) -> str:
        """Of what leads from a sid to its session."""
        return f"{self.prefix}:sid:{_hashed(_bytes(sid))}"

    def time(self, key: bytes) -> str:
        """Of the time kept under *key*."""
        return f"{self.prefix}:time:{_hashed(key)}"


class Entry(NamedTuple):
    """A session as it stands in lists."""

    key: bytes
    sid: str

    def text(self) -> bytes:
        return bytes([len(self.key)]) + self.key + self.sid.encode()

    @classmethod
    def read(cls, text: bytes) -> Entry:
        end = 1 + text[0]
        return cls(text[1:end], text[end:].decode())


def values_of(row: SessionRow) -> list[bytes]:
    """The values of ``CHANGING``, in its order; nothing is None."""
    return [_written(getattr(row, name)) for name in CHANGING]


def lasting(row: SessionRow) -> str:
    """The text of what does not change."""
    return json.dumps([getattr(row, name) for name in LASTING], separators=(",", ":"))


def row_of(key: bytes, changing: Mapping[bytes, bytes], text: bytes | None) -> SessionRow | None:
    """The row that was written so; None if there is none."""
    if text is None or b"g" not in changing:
        return None
    found = {name: changing.get(field.encode()) for name, field in CHANGING.items()}
    lasting = dict(zip(LASTING, json.loads(text), strict=False))
    return SessionRow(key=key, **lasting, **{name: _read(name, value) for name, value in found.items()})


def ended_by(row: SessionRow, epoch_then: bytes, epoch: Sequence[bytes | None]) -> SessionRow:
    """*row* as it is if its subject's sessions were all ended after its login, and it lived then."""
    number, at, why = epoch
    if row.revoked_at is not None or number is None or at is None or int(number) <= int(epoch_then):
        return row
    ended_at = float(at)
    if ended_at >= min(row.idle_expires_at, row.expires_at):
        return row
    return replace(row, revoked_at=ended_at, revoked_why=(why or b"").decode())


def keys_of(found: Mapping[bytes, bytes]) -> list[KeyRecord]:
    """All keys, the oldest first."""
    records = []
    for name, text in found.items():
        what, _, kid = name.decode().partition(" ")
        if what == "text":
            ends, life = found[b"ends " + kid.encode()], found[b"life " + kid.encode()]
            use, alg, secret, created_at, signs_from = json.loads(text)[:5]
            verifies_until = float(ends) if ends else None
            records.append(KeyRecord(kid, use, alg, secret, created_at, signs_from, verifies_until, float(life)))
    return sorted(records, key=lambda record: (record.created_at, record.kid))


def key_written(record: KeyRecord) -> tuple[str, str, bytes, bytes]:
    """What SAVE_KEYS takes of a key."""
    kid, *fixed, ends, life = astuple(record)
    return kid, json.dumps(fixed), _written(ends), _written(life)


def account_of(name: str, text: bytes) -> Account:
    """The account that was written as *text*."""
    return Account(name, *json.loads(text)[:3])


def _written(value: Any) -> bytes:
    if value is None:
        return b""
    if isinstance(value, bytes):
        return b"=" + value
    if isinstance(value, str):
        return b"=" + value.encode()
    return (repr(value) if isinstance(value, int) else repr(float(value))).encode()


def _read(name: str, value: bytes | None) -> Any:
    if not value:
        return None
    if name in BYTES:
        return value[1:]
    if name in TEXTS:
        return value[1:].decode()
    return int(value) if name in NUMBERS else float(value)


def _bytes(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest("a name or an id is not valid text") from error


def _hashed(text: bytes) -> str:
    return urlsafe_b64encode(hashlib.sha256(text).digest()[:16]).decode().rstrip("=")
