"""The JWK set that another server publishes, for services that only verify (RFC 7517).

1. A key verifies the one algorithm that it names, and only if that fits its type: EdDSA with Ed25519, ES256 with P-256
   (RFC 8725 §3.1). A shared secret is not a public key, and a key that is published with its private part is refused:
   every reader could sign with it.
2. Keys of other types and for other uses are ignored (RFC 7517 §5), and so are two keys with one ``kid``.
3. A set without any usable key is an error: the caller keeps the set it had.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from typing import Any

from joserfc.errors import JoseError

from unbroken.errors import BadResponse
from unbroken.server.keys.keyring import VerifyingKey

__all__ = ["MAX_JWKS_BYTES", "RemoteKeySet"]

_log = logging.getLogger("unbroken")
MAX_JWKS_BYTES = 256 * 1024
MAX_JWKS_KEYS = 100
MAX_KID_CHARS = 200
KEY_TYPES = {"EdDSA": ("OKP", "Ed25519"), "ES256": ("EC", "P-256")}
PUBLIC_FIELDS = {"EdDSA": ("kty", "crv", "x"), "ES256": ("kty", "crv", "x", "y")}
PRIVATE_FIELDS = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"})  # RFC 7518 §6, and drafts


class RemoteKeySet:
    """The usable keys of a JWK set. Two sets are equal if they verify the same signatures.

    Raises BadResponse if *document* is not a JWK set, or has no usable key.
    """

    def __init__(self, document: object) -> None:
        entries = document.get("keys") if isinstance(document, dict) else None
        if not isinstance(entries, list) or len(entries) > MAX_JWKS_KEYS:
            raise BadResponse(f"not a JWK set of at most {MAX_JWKS_KEYS} keys", field="keys")
        names = Counter(kid for entry in entries if isinstance(kid := _field(entry, "kid"), str))
        self._material = {
            kid: (alg, fields)
            for entry in entries
            if (kid := _field(entry, "kid")) and isinstance(kid, str) and names[kid] == 1 and len(kid) <= MAX_KID_CHARS
            for alg, fields in _usable(kid, entry)
        }
        self._keys: dict[str, VerifyingKey] = {}
        for kid, (alg, fields) in self._material.items():
            try:
                self._keys[kid] = VerifyingKey(kid, alg, dict(fields))
            except (JoseError, ValueError, TypeError, KeyError):
                _log.warning("the published key %r cannot be parsed", kid)
        if not self._keys:  # rule 3
            raise BadResponse("no published key is usable: EdDSA (Ed25519) or ES256 (P-256)", field="keys")

    def verifier(self, kid: str) -> VerifyingKey | None:
        """Return the key named *kid*; None if there is none."""
        return self._keys.get(kid)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemoteKeySet) and self._material == other._material

    __hash__ = None  # type: ignore[assignment]  # compared, never used as a key

    def __repr__(self) -> str:
        return f"<RemoteKeySet {sorted(self._keys)}>"


def _usable(kid: str, entry: Mapping[str, Any]) -> list[tuple[str, dict[str, str]]]:
    """Return the algorithm and the public fields of *entry*, as the one item of a list; empty if it is not usable."""
    if PRIVATE_FIELDS & entry.keys():
        _log.error("the key %r is published with its private part: its signatures are refused; retire it", kid)
        return []
    alg, use, operations = entry.get("alg"), entry.get("use", "sig"), entry.get("key_ops", ["verify"])
    if not isinstance(alg, str) or KEY_TYPES.get(alg) != (entry.get("kty"), entry.get("crv")):  # rule 1
        return []
    if use != "sig" or not isinstance(operations, list) or "verify" not in operations:  # rule 2
        return []
    fields = {name: value for name in PUBLIC_FIELDS[alg] if isinstance(value := entry.get(name), str)}
    return [(alg, fields)]


def _field(entry: object, name: str) -> object:
    return entry.get(name) if isinstance(entry, dict) else None
