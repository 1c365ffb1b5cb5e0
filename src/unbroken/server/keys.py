"""Keyring: the keys that sign access tokens and authenticate refresh tokens, from first use to last.

1. The newest key signs, all that are still good verify. Keys are a list from the first day.
2. A signing key is published before it signs, so that verifiers elsewhere know it when its first token arrives, and is
   served until the last token it signed is dead.
3. A key has one algorithm, chosen when it was made; a token that names another is refused (RFC 8725 §3.1).
4. ``kid`` of a signing key is its RFC 7638 thumbprint; a MAC key is a small number, as in every refresh token.
5. Retiring is at once and for good: nothing the key made is accepted any more. Another key takes its place.
6. A key knows how long what it makes can live: that decides when it, and a revocation, may be forgotten.
7. An end that is set can only come earlier, and that lifetime only grow, whichever process writes last.

All keys live in the store: processes on one store share one keyring, and look for changes (see ``watch.py``).
"""

from __future__ import annotations

import secrets
from base64 import urlsafe_b64decode
from binascii import b2a_base64
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from json import dumps, loads
from typing import Any

from joserfc.errors import UnsupportedAlgorithmError
from joserfc.jwk import ECKey, OctKey, OKPKey
from joserfc.jws import JWSRegistry

from unbroken.errors import ConfigurationError

__all__ = ["ALGORITHMS", "KeyRecord", "Keyring", "SigningKey", "new_mac_key", "new_signing_key"]

ALGORITHMS = ("EdDSA", "ES256", "HS256")
FOREVER = float("inf")
URL_SAFE = bytes.maketrans(b"+/", b"-_")


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

    def joined(self, other: KeyRecord) -> KeyRecord:
        """This key as it stands after another process wrote it as *other* (rule 7)."""
        ends = [end for end in (self.verifies_until, other.verifies_until) if end is not None]
        return replace(self, verifies_until=min(ends, default=None), token_ttl=max(self.token_ttl, other.token_ttl))

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


class SigningKey:
    """A signing key, parsed once. ``dead_from`` is when it stops verifying."""

    def __init__(self, record: KeyRecord) -> None:
        self.kid, self.alg = record.kid, record.alg
        self.signs_from = record.signs_from
        self.dead_from = FOREVER if record.verifies_until is None else record.verifies_until
        self.jwk: Any = _import(record.alg, loads(record.secret))
        self.registry = _Registry(record.alg)  # knows this one algorithm and no other
        algorithm, jwk = self.registry.get_alg(record.alg), self.jwk
        self._signature: Callable[[bytes], bytes] = lambda message: algorithm.sign(message, jwk)
        if record.alg == "EdDSA":
            # RFC 8037 §3.1: the signature as it is; joserfc would look at the key each time.
            self._signature = jwk.get_op_key("sign").sign
        header = dumps({"alg": self.alg, "kid": self.kid, "typ": "at+jwt"}, separators=(",", ":"))
        self._head = _b64(header.encode()) + b"."

    def __repr__(self) -> str:
        return f"<SigningKey {self.alg} {self.kid}>"

    def sign(self, payload: bytes) -> str:
        """*payload* as a compact JWS (RFC 7515 §7.1); its header names the key and ``at+jwt``."""
        message = self._head + _b64(payload)
        return (message + b"." + _b64(self._signature(message))).decode()

    def public(self) -> dict[str, object] | None:
        """The public key as a JWK (RFC 7517); None for a shared secret, which is published nowhere."""
        if self.alg == "HS256":
            return None
        fields: dict[str, object] = dict(self.jwk.as_dict(private=False))
        return fields | {"kid": self.kid, "use": "sig", "alg": self.alg}


class Keyring:
    """The keys of one store, ready for use. A new value replaces it when the store's keys change."""

    def __init__(self, records: Iterable[KeyRecord], known: Keyring | None = None) -> None:
        self.records = tuple(sorted(records, key=lambda record: (record.created_at, record.kid)))
        old = {key.kid: key for key in known.signing} if known else {}
        self.signing: tuple[SigningKey, ...] = tuple(
            _parsed(record, old) for record in self.records if record.use == "sign"
        )
        self._by_kid = {key.kid: key for key in self.signing}
        macs = sorted((r for r in self.records if r.use == "mac"), key=lambda r: -int(r.kid))
        self._macs = {int(r.kid): (_unb64(r.secret), r) for r in macs}

    def __repr__(self) -> str:
        return f"<Keyring of {len(self.signing)} signing and {len(self._macs)} MAC keys>"

    def signer(self, now: float) -> SigningKey:
        """The key that signs at *now*: the newest that may. Raises ConfigurationError without one."""
        if len(self.signing) == 1 and self.signing[0].signs_from <= now < self.signing[0].dead_from:
            return self.signing[0]
        able = [key for key in self.signing if key.signs_from <= now < key.dead_from]
        lasting = [key for key in able if key.dead_from == FOREVER] or able
        if not lasting:
            raise ConfigurationError("no key may sign now: make one with `unbroken keys rotate --now`")
        return max(lasting, key=lambda key: key.signs_from)

    def verifier(self, kid: str, now: float) -> SigningKey | None:
        """The key named *kid*, while it verifies."""
        key = self._by_kid.get(kid)
        return key if key is not None and now < key.dead_from else None

    def mac(self, now: float) -> tuple[int, bytes]:
        """Number and bytes of the key that new refresh tokens are made with. Raises ConfigurationError without one."""
        for kid, (key, record) in self._macs.items():  # the newest first
            if record.verifies_until is None and record.signs_from <= now:
                return kid, key
        raise ConfigurationError("no key may make refresh tokens now: make one with `unbroken keys rotate --now`")

    def mac_key(self, kid: int, now: float) -> bytes | None:
        """The MAC key number *kid*, while it verifies."""
        key, record = self._macs.get(kid, (b"", None))
        return key if record is not None and record.state(now) != "retired" else None

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
        return [new_signing_key(alg, now, starts) if use == "sign" else new_mac_key(number, now, now) for use in uses]


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
    return KeyRecord(str(number), "mac", "HS256", _b64(secrets.token_bytes(32)).decode(), now, signs_from)


def _parsed(record: KeyRecord, old: dict[str, SigningKey]) -> SigningKey:
    """The parsed key, taken over from before if nothing but its end has changed."""
    key = old.get(record.kid)
    if key is None or key.signs_from != record.signs_from:
        return SigningKey(record)
    key.dead_from = FOREVER if record.verifies_until is None else record.verifies_until
    return key


def _import(alg: str, fields: dict[str, Any]) -> Any:
    kind: Any = {"EdDSA": OKPKey, "ES256": ECKey, "HS256": OctKey}[alg]
    return kind.import_key(fields)


def _b64(data: bytes) -> bytes:
    return b2a_base64(data, newline=False).translate(URL_SAFE).rstrip(b"=")


def _unb64(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))
