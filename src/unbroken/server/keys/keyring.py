"""Keyring: the keys that sign access tokens and authenticate refresh tokens, from first use to last.

1. The newest key signs, all that are still good verify. Keys are a list from the first day. Where the clock says that
   none may sign yet, the clock is wrong, and the first that will may do it now.
2. A key is published before it makes anything, so that verifiers and other processes know it when its first token
   arrives, and is kept until the last token it made is dead.
3. A key has one algorithm, chosen when it was made; a token that names another is refused (RFC 8725 §3.1).
4. ``kid`` of a signing key is its RFC 7638 thumbprint; a MAC key is a small number, as in every refresh token.
5. Retiring is at once and for good: nothing the key made is accepted any more. Another key takes its place.
6. A key knows how long what it makes can live: that decides when it, and a revocation, may be forgotten.
7. An end that is set can only come earlier, and that lifetime only grow, whichever process writes last. A secret that
   is encrypted (``stores.encrypted_keys``) replaces the stored one; a plain secret replaces none.

All keys live in the store: processes on one store share one keyring, and look for changes (see ``watch.py``).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from json import dumps, loads
from typing import Any, NamedTuple, TypeVar

from joserfc.errors import UnsupportedAlgorithmError
from joserfc.jwk import ECKey, OctKey, OKPKey
from joserfc.jws import JWSRegistry

from unbroken import _base64
from unbroken.errors import ConfigurationError

__all__ = [
    "ALGORITHMS",
    "ENCRYPTED_PREFIX",
    "KeyRecord",
    "Keyring",
    "MacKey",
    "SigningKey",
    "VerifyingKey",
    "new_mac_key",
    "new_signing_key",
]

ALGORITHMS = ("EdDSA", "ES256", "HS256")
ENCRYPTED_PREFIX = "encrypted:"  # an encrypted secret begins with it
NEVER = float("inf")
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
K = TypeVar("K", "SigningKey", "MacKey")


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """A key as it is stored. Times are seconds since the Unix epoch; ``verifies_until`` is None while it has no end."""

    kid: str
    use: str  # "sign" or "mac"
    alg: str
    secret: str = field(repr=False)
    created_at: float
    signs_from: float
    verifies_until: float | None = None
    token_ttl: float = 0.0  # the longest life of a token it has made

    def merged_with(self, other: KeyRecord) -> KeyRecord:
        """This key as it stands after another process wrote it as *other* (rule 7)."""
        ends = [end for end in (self.verifies_until, other.verifies_until) if end is not None]
        secret = other.secret if other.is_encrypted else self.secret
        ttl = max(self.token_ttl, other.token_ttl)
        return replace(self, secret=secret, verifies_until=min(ends, default=None), token_ttl=ttl)

    @property
    def is_encrypted(self) -> bool:
        """Whether ``secret`` is encrypted (``stores.encrypted_keys``)."""
        return self.secret.startswith(ENCRYPTED_PREFIX)

    def state(self, now: float) -> str:
        """``next`` (published, does not sign yet), ``active``, ``retiring`` (only verifies) or ``retired``."""
        if self.verifies_until is not None:
            return "retired" if now >= self.verifies_until else "retiring"
        return "next" if now < self.signs_from else "active"


class _Registry(JWSRegistry):
    """joserfc's registry with one algorithm in it. It does not warn of EdDSA, a name all verifiers know (RFC 8037)."""

    def __init__(self, alg: str) -> None:
        super().__init__(algorithms=[alg])
        self._alg = alg

    def get_alg(self, name: str) -> Any:
        if name != self._alg:
            raise UnsupportedAlgorithmError(f"this key does not do {name!r}")
        return self.algorithms[name]


class VerifyingKey:
    """A key that tokens are verified by, parsed once. ``dead_from`` is when it stops verifying.

    *fields* are those of its JWK, public or private.
    """

    def __init__(self, kid: str, alg: str, fields: dict[str, Any], dead_from: float = NEVER) -> None:
        self.kid, self.alg, self.dead_from = kid, alg, dead_from
        self.jwk: Any = _import(alg, fields)
        self.registry = _Registry(alg)  # knows this one algorithm and no other

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.alg} {self.kid}>"

    def is_canonical_signature(self, signature: bytes) -> bool:
        """Whether *signature* is spelled as this key spells it. It proves nothing else."""
        return self.alg != "ES256" or _low_s(signature) == signature


class SigningKey(VerifyingKey):
    """A key that signs, too."""

    def __init__(self, record: KeyRecord) -> None:
        ends = NEVER if record.verifies_until is None else record.verifies_until
        super().__init__(record.kid, record.alg, loads(record.secret), ends)
        self.signs_from = record.signs_from
        algorithm, jwk = self.registry.get_alg(record.alg), self.jwk
        self._signature: Callable[[bytes], bytes] = lambda message: algorithm.sign(message, jwk)
        if record.alg == "ES256":
            self._signature = lambda message: _low_s(algorithm.sign(message, jwk))
        elif record.alg == "EdDSA":
            # RFC 8037 §3.1: the signature as it is; joserfc would look at the key each time.
            self._signature = jwk.get_op_key("sign").sign
        header = dumps({"alg": self.alg, "kid": self.kid, "typ": "at+jwt"}, separators=(",", ":"))
        self._head = _base64.encode_to_bytes(header.encode()) + b"."

    def sign(self, payload: bytes) -> str:
        """*payload* as a compact JWS (RFC 7515 §7.1); its header names the key and ``at+jwt``."""
        message = self._head + _base64.encode_to_bytes(payload)
        return (message + b"." + _base64.encode_to_bytes(self._signature(message))).decode()

    def public(self) -> dict[str, object] | None:
        """The public key as a JWK (RFC 7517); None for a shared secret, which is published nowhere."""
        if self.alg == "HS256":
            return None
        fields: dict[str, object] = dict(self.jwk.as_dict(private=False))
        return fields | {"kid": self.kid, "use": "sig", "alg": self.alg}


class MacKey(NamedTuple):
    """A key for refresh tokens, parsed once."""

    number: int
    secret: bytes
    signs_from: float
    dead_from: float

    def __repr__(self) -> str:
        return f"<MacKey {self.number}>"


class Keyring:
    """The keys of one store, ready for use. A new value replaces it when the store's keys change.

    Raises ConfigurationError for keys that are still encrypted.
    """

    def __init__(self, records: Iterable[KeyRecord], known: Keyring | None = None) -> None:
        self.records = tuple(sorted(records, key=lambda record: (record.created_at, record.kid)))
        if any(record.is_encrypted for record in self.records):
            raise ConfigurationError("the keys in the store are encrypted: set encryption_key, or encryption_key_file")
        old = {key.kid: key for key in known.signing} if known else {}
        self.signing: tuple[SigningKey, ...] = tuple(
            _parsed(record, old) for record in self.records if record.use == "sign"
        )
        self._by_kid = {key.kid: key for key in self.signing}
        macs = sorted((r for r in self.records if r.use == "mac"), key=lambda r: -int(r.kid))
        self._macs = {key.number: key for key in map(_mac_key, macs)}

    def __repr__(self) -> str:
        return f"<Keyring of {len(self.signing)} signing and {len(self._macs)} MAC keys>"

    def signer(self, now: float) -> SigningKey:
        """The key that signs at *now*: the newest that may. Raises ConfigurationError without one."""
        if len(self.signing) == 1 and self.signing[0].signs_from <= now < self.signing[0].dead_from:
            return self.signing[0]
        return _newest(self.signing, now)

    def verifier(self, kid: str) -> SigningKey | None:
        """The key named *kid*, which may be dead already."""
        return self._by_kid.get(kid)

    def mac(self, now: float) -> MacKey:
        """The key that new refresh tokens are made with. Raises ConfigurationError without one."""
        for key in self._macs.values():  # the newest first
            if key.dead_from == NEVER and key.signs_from <= now:
                return key
        return _newest(self._macs.values(), now)

    def mac_key(self, kid: int, now: float) -> bytes | None:
        """The bytes of the MAC key number *kid*, while it verifies."""
        key = self._macs.get(kid)
        return key.secret if key is not None and now < key.dead_from else None

    def knows(self, kid: str | int) -> bool:
        """Whether there is, or was, a key of this name."""
        return kid in self._by_kid or kid in self._macs

    def jwks(self, now: float) -> dict[str, object]:
        """The public keys that verify now or soon, as a JWK set (RFC 7517 §5)."""
        living = (key.public() for key in self.signing if now < key.dead_from)
        return {"keys": [key for key in living if key is not None]}

    def longest_access(self) -> float:
        """The longest life of an access token that may be about, in seconds."""
        return max((record.token_ttl for record in self.records if record.use == "sign"), default=0.0)

    def rotated(self, now: float, publish_ahead: float) -> list[KeyRecord]:
        """The records to store for a rotation: a new key of each use, and an end for those they replace."""
        starts = now + publish_ahead
        lasting = [record for record in self.records if record.verifies_until is None]
        ended = [replace(record, verifies_until=starts + record.token_ttl + 1.0) for record in lasting]
        return [*self._successors(("sign", "mac"), now, starts), *ended]

    def retired(self, kid: str, now: float) -> list[KeyRecord]:
        """The records to store when *kid* ends at once: its own, and a successor if no other key can take its place."""
        ended = [replace(record, verifies_until=now) for record in self.records if record.kid == kid]
        able = {r.use for r in self.records if r.kid != kid and r.verifies_until is None and r.signs_from <= now}
        return [*ended, *self._successors([record.use for record in ended if record.use not in able], now, now)]

    def _successors(self, uses: Iterable[str], now: float, starts: float) -> list[KeyRecord]:
        """A new key for each of *uses*, of the algorithm of the last."""
        alg = next((record.alg for record in reversed(self.records) if record.use == "sign"), "EdDSA")
        number = max(self._macs, default=0) + 1
        return [
            new_signing_key(alg, now, starts) if use == "sign" else new_mac_key(number, now, starts) for use in uses
        ]


def new_signing_key(alg: str, now: float, signs_from: float) -> KeyRecord:
    """A fresh signing key. Raises ConfigurationError for an unknown algorithm."""
    if alg not in ALGORITHMS:
        raise ConfigurationError(f"unknown algorithm {alg!r}: use one of {', '.join(ALGORITHMS)}")
    key: Any
    if alg == "EdDSA":
        key = OKPKey.generate_key("Ed25519")
    elif alg == "ES256":
        key = ECKey.generate_key("P-256")
    else:
        key = OctKey.generate_key(256)
    secret = {name: value for name, value in key.as_dict(private=True).items() if name != "kid"}
    return KeyRecord(key.thumbprint(), "sign", alg, dumps(secret), now, signs_from)


def new_mac_key(number: int, now: float, signs_from: float) -> KeyRecord:
    """A fresh key for refresh tokens."""
    return KeyRecord(str(number), "mac", "HS256", _base64.encode(secrets.token_bytes(32)), now, signs_from)


def _newest(keys: Iterable[K], now: float) -> K:
    """The key that makes tokens at *now* (rule 1). Raises ConfigurationError if none of *keys* verifies any more."""
    living = [key for key in keys if now < key.dead_from]
    if not living:
        raise ConfigurationError("no key may make tokens now: make one with `unbroken keys rotate --now`")
    able = [key for key in living if key.signs_from <= now]
    if not able:
        return min(living, key=lambda key: key.signs_from)
    return max(able, key=lambda key: (key.dead_from == NEVER, key.signs_from))


def _parsed(record: KeyRecord, old: dict[str, SigningKey]) -> SigningKey:
    """The parsed key, taken over from before if nothing but its end has changed."""
    key = old.get(record.kid)
    if key is None or key.signs_from != record.signs_from:
        return SigningKey(record)
    key.dead_from = NEVER if record.verifies_until is None else record.verifies_until
    return key


def _low_s(signature: bytes) -> bytes:
    """The ECDSA signature (r, s), or its twin (r, n − s), which is as good: the one with the lower s."""
    r, s = signature[:32], int.from_bytes(signature[32:])
    return r + min(s, P256_ORDER - s).to_bytes(32)


def _mac_key(record: KeyRecord) -> MacKey:
    ends = NEVER if record.verifies_until is None else record.verifies_until
    return MacKey(int(record.kid), _base64.decode(record.secret), record.signs_from, ends)


def _import(alg: str, fields: dict[str, Any]) -> Any:
    kind: Any = {"EdDSA": OKPKey, "ES256": ECKey, "HS256": OctKey}[alg]
    return kind.import_key(fields)
