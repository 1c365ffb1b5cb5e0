"""Keyring: the keys that sign access tokens and authenticate refresh tokens, from first use to last.

1. The newest key signs, every key that has not ended verifies. If the clock says that no key may sign yet, the clock is
   wrong, and the key that may sign first signs now.
2. A key is published before it signs, so that verifiers and other processes know it when its first token arrives, and
   verifies until the last token it made has expired.
3. A key has one algorithm, chosen when it is made; a token that names another is refused (RFC 8725 §3.1).
4. The ``kid`` of a signing key is its RFC 7638 thumbprint; that of a MAC key is a small number, as it stands in every
   refresh token.
5. Retiring takes effect at once and cannot be undone: nothing the key made is accepted any more. Another key takes
   over.
6. A key stores how long the tokens it makes can live: that decides when the key, and a revocation, may be forgotten.
7. Whichever process writes last, the end of a key can only come earlier, and that lifetime can only grow. An encrypted
   secret (``stores/encrypted_keys.py``) replaces the stored one; one that is not encrypted never does.

All keys are in the store: the processes on one store share one keyring, and poll for changes (``freshness.py``). The
compact JWS is assembled here, because a refresh signs: joserfc would parse header and key again each time.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from json import dumps, loads
from typing import Any, Literal, NamedTuple, TypeVar

from joserfc.errors import UnsupportedAlgorithmError
from joserfc.jwk import ECKey, OctKey, OKPKey
from joserfc.jws import JWSRegistry

from unbroken import _base64
from unbroken.errors import ConfigurationError

__all__ = [
    "ALGORITHMS",
    "ENCRYPTED_PREFIX",
    "Algorithm",
    "KeyRecord",
    "KeyState",
    "KeyUse",
    "Keyring",
    "MacKey",
    "SigningKey",
    "VerifyingKey",
    "new_mac_key",
    "new_signing_key",
]

Algorithm = Literal["EdDSA", "ES256", "HS256"]
KeyUse = Literal["sign", "mac"]
KeyState = Literal["next", "active", "retiring", "retired"]

ALGORITHMS: tuple[Algorithm, ...] = ("EdDSA", "ES256", "HS256")
ENCRYPTED_PREFIX = "encrypted:"  # of an encrypted secret
ENDED_KEY_MARGIN_SECONDS = 1.0  # between the expiry of a key's last token and the key's own end
NEVER = float("inf")
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
K = TypeVar("K", "SigningKey", "MacKey")


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """A key as it is stored. Times are seconds since the Unix epoch.

    ``verifies_until`` is None while the key has no end. ``token_ttl`` is the longest life of a token that the key
    makes, in seconds (rule 6).
    """

    kid: str
    use: KeyUse
    alg: Algorithm
    secret: str = field(repr=False)
    created_at: float
    signs_from: float
    verifies_until: float | None = None
    token_ttl: float = 0.0

    def merged_with(self, other: KeyRecord) -> KeyRecord:
        """Return this key after another process wrote it as *other* (rule 7)."""
        ends = [end for end in (self.verifies_until, other.verifies_until) if end is not None]
        secret = other.secret if other.is_encrypted else self.secret
        ttl = max(self.token_ttl, other.token_ttl)
        return replace(self, secret=secret, verifies_until=min(ends, default=None), token_ttl=ttl)

    @property
    def is_encrypted(self) -> bool:
        """Whether ``secret`` is encrypted."""
        return self.secret.startswith(ENCRYPTED_PREFIX)

    def state(self, now: float) -> KeyState:
        """Return ``next`` (published, does not sign yet), ``active``, ``retiring`` (only verifies) or ``retired``."""
        if self.verifies_until is not None:
            return "retired" if now >= self.verifies_until else "retiring"
        return "next" if now < self.signs_from else "active"


class _Registry(JWSRegistry):
    """joserfc's registry of one algorithm (rule 3), without its warning of EdDSA, which every verifier knows."""

    def __init__(self, alg: str) -> None:
        super().__init__(algorithms=[alg])
        self._alg = alg

    def get_alg(self, name: str) -> Any:
        if name != self._alg:
            raise UnsupportedAlgorithmError(f"this key's algorithm is {self._alg}, not {name!r}")
        return self.algorithms[name]


class VerifyingKey:
    """A key that verifies tokens until ``dead_from``, parsed once. *fields* are those of its JWK, public or private."""

    def __init__(self, kid: str, alg: str, fields: dict[str, Any], dead_from: float = NEVER) -> None:
        self.kid, self.alg, self.dead_from = kid, alg, dead_from
        self.jwk: Any = _import(alg, fields)
        self.registry = _Registry(alg)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.alg} {self.kid}>"

    def is_canonical_signature(self, signature: bytes) -> bool:
        """Return whether *signature* has the one form that this key makes. It proves nothing else.

        Every ECDSA signature has a twin that verifies too: ``_low_s`` makes one of the two canonical.
        """
        return self.alg != "ES256" or _low_s(signature) == signature


class SigningKey(VerifyingKey):
    """A key that also signs."""

    def __init__(self, record: KeyRecord) -> None:
        ends = NEVER if record.verifies_until is None else record.verifies_until
        super().__init__(record.kid, record.alg, loads(record.secret), ends)
        self.signs_from = record.signs_from
        algorithm, jwk = self.registry.get_alg(record.alg), self.jwk
        self._signature: Callable[[bytes], bytes] = lambda message: algorithm.sign(message, jwk)
        if record.alg == "ES256":
            self._signature = lambda message: _low_s(algorithm.sign(message, jwk))
        elif record.alg == "EdDSA":
            # RFC 8037 §3.1: the plain signature. joserfc would check the key each time.
            self._signature = jwk.get_op_key("sign").sign
        header = dumps({"alg": self.alg, "kid": self.kid, "typ": "at+jwt"}, separators=(",", ":"))
        self._head = _base64.encode_to_bytes(header.encode()) + b"."

    def sign(self, payload: bytes) -> str:
        """Return *payload* as a compact JWS (RFC 7515 §7.1), with the type ``at+jwt`` of RFC 9068 §2.1."""
        message = self._head + _base64.encode_to_bytes(payload)
        return (message + b"." + _base64.encode_to_bytes(self._signature(message))).decode()

    def public(self) -> dict[str, object] | None:
        """Return the public key as a JWK (RFC 7517 §4); None for a shared secret, which is never published."""
        if self.alg == "HS256":
            return None
        fields: dict[str, object] = dict(self.jwk.as_dict(private=False))
        return fields | {"kid": self.kid, "use": "sig", "alg": self.alg}


class MacKey(NamedTuple):
    """A key that authenticates refresh tokens, parsed once."""

    number: int
    secret: bytes
    signs_from: float
    dead_from: float

    def __repr__(self) -> str:
        return f"<MacKey {self.number}>"


class Keyring:
    """The keys of one store, parsed. Immutable: another keyring replaces it when the store's keys change.

    *previous* lends its parsed keys. Raises ConfigurationError for encrypted keys without their encryption key.
    """

    def __init__(self, records: Iterable[KeyRecord], previous: Keyring | None = None) -> None:
        self.records = tuple(sorted(records, key=lambda record: (record.created_at, record.kid)))
        if any(record.is_encrypted for record in self.records):
            raise ConfigurationError("the keys in the store are encrypted: set encryption_key, or encryption_key_file")
        parsed = {key.kid: key for key in previous.signing} if previous else {}
        self.signing: tuple[SigningKey, ...] = tuple(
            _signing_key(record, parsed) for record in self.records if record.use == "sign"
        )
        self._by_kid = {key.kid: key for key in self.signing}
        macs = sorted((r for r in self.records if r.use == "mac"), key=lambda r: -int(r.kid))
        self._macs = {key.number: key for key in map(_mac_key, macs)}

    def __repr__(self) -> str:
        return f"<Keyring of {len(self.signing)} signing and {len(self._macs)} MAC keys>"

    def signer(self, now: float) -> SigningKey:
        """Return the key that signs at *now* (rule 1). Raise ConfigurationError without one."""
        if len(self.signing) == 1 and self.signing[0].signs_from <= now < self.signing[0].dead_from:
            return self.signing[0]
        return _maker(self.signing, now)

    def verifier(self, kid: str) -> SigningKey | None:
        """Return the key named *kid*, which may have ended; None if there is none."""
        return self._by_kid.get(kid)

    def mac(self, now: float) -> MacKey:
        """Return the key that authenticates new refresh tokens (rule 1). Raise ConfigurationError without one."""
        for key in self._macs.values():  # the newest first
            if key.dead_from == NEVER and key.signs_from <= now:
                return key
        return _maker(self._macs.values(), now)

    def mac_key(self, kid: int, now: float) -> bytes | None:
        """Return the secret of the MAC key number *kid*; None if there is none, or if it has ended."""
        key = self._macs.get(kid)
        return key.secret if key is not None and now < key.dead_from else None

    def knows(self, kid: str | int) -> bool:
        """Return whether a key has this name, ended or not."""
        return kid in self._by_kid or kid in self._macs

    def jwks(self, now: float) -> dict[str, object]:
        """Return the public keys that verify at *now* or later, as a JWK set (RFC 7517 §5)."""
        living = (key.public() for key in self.signing if now < key.dead_from)
        return {"keys": [key for key in living if key is not None]}

    def longest_access(self) -> float:
        """Return the longest life of an access token that may exist, in seconds (rule 6)."""
        return max((record.token_ttl for record in self.records if record.use == "sign"), default=0.0)

    def rotated(self, now: float, publish_ahead: float) -> list[KeyRecord]:
        """Return the records to store for a rotation: a new key of each use, and an end for those they replace."""
        signs_from = now + publish_ahead  # rule 2
        replaced = [record for record in self.records if record.verifies_until is None]
        ended = [
            replace(record, verifies_until=signs_from + record.token_ttl + ENDED_KEY_MARGIN_SECONDS)
            for record in replaced
        ]
        return [*self._successors(("sign", "mac"), now, signs_from), *ended]

    def retired(self, kid: str, now: float) -> list[KeyRecord]:
        """Return the records to store when *kid* is retired: its own, and a successor if no other key can take over."""
        ended = [replace(record, verifies_until=now) for record in self.records if record.kid == kid]  # rule 5
        able = {r.use for r in self.records if r.kid != kid and r.verifies_until is None and r.signs_from <= now}
        return [*ended, *self._successors([record.use for record in ended if record.use not in able], now, now)]

    def _successors(self, uses: Iterable[KeyUse], now: float, signs_from: float) -> list[KeyRecord]:
        """Return a new key for each of *uses*, of the algorithm of the newest."""
        alg = next((record.alg for record in reversed(self.records) if record.use == "sign"), "EdDSA")
        number = max(self._macs, default=0) + 1
        return [
            new_signing_key(alg, now, signs_from) if use == "sign" else new_mac_key(number, now, signs_from)
            for use in uses
        ]


def new_signing_key(alg: str, now: float, signs_from: float) -> KeyRecord:
    """Return a new signing key. Raise ConfigurationError for an unknown algorithm."""
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
    return KeyRecord(key.thumbprint(), "sign", alg, dumps(secret), now, signs_from)  # rule 4


def new_mac_key(number: int, now: float, signs_from: float) -> KeyRecord:
    """Return a new key for refresh tokens."""
    return KeyRecord(str(number), "mac", "HS256", _base64.encode(secrets.token_bytes(32)), now, signs_from)


def _maker(keys: Iterable[K], now: float) -> K:
    """Return the key that makes tokens at *now* (rule 1). Raise ConfigurationError if all of *keys* have ended."""
    living = [key for key in keys if now < key.dead_from]
    if not living:
        raise ConfigurationError("every key has ended: make new ones with `unbroken keys rotate --now`")
    able = [key for key in living if key.signs_from <= now]
    if not able:
        return min(living, key=lambda key: key.signs_from)
    return max(able, key=lambda key: (key.dead_from == NEVER, key.signs_from))


def _signing_key(record: KeyRecord, parsed: dict[str, SigningKey]) -> SigningKey:
    """Return the key of *record*: the parsed one, if only its end has changed."""
    key = parsed.get(record.kid)
    if key is None or key.signs_from != record.signs_from:
        return SigningKey(record)
    key.dead_from = NEVER if record.verifies_until is None else record.verifies_until
    return key


def _low_s(signature: bytes) -> bytes:
    """Return the ECDSA signature (r, s) or its twin (r, n − s), which verifies too: the one with the lower s."""
    r, s = signature[:32], int.from_bytes(signature[32:])
    return r + min(s, P256_ORDER - s).to_bytes(32)


def _mac_key(record: KeyRecord) -> MacKey:
    ends = NEVER if record.verifies_until is None else record.verifies_until
    return MacKey(int(record.kid), _base64.decode(record.secret), record.signs_from, ends)


def _import(alg: str, fields: dict[str, Any]) -> Any:
    kind: Any = {"EdDSA": OKPKey, "ES256": ECKey, "HS256": OctKey}[alg]
    return kind.import_key(fields)
