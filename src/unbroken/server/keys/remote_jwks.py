"""What a server has published of its keys, as those read it who only verify (RFC 7517).

1. A key is used for the one algorithm that it names, and only if that goes with its kind: EdDSA with Ed25519, ES256
   with P-256 (RFC 8725 §3.1). A shared secret is no public key, and neither is a key that is published with its private
   part: whoever has read it can sign.
2. Keys of other kinds, and those for other uses, are not looked at (RFC 7517 §5). Two of one name are no key at all.
3. A set in which nothing can be used is no answer: then what was known before stays in use.
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
MAX_JWKS_BYTES = 256 * 1024  # of a JWK set
MAX_JWKS_KEYS = 100
MAX_KID_CHARS = 200
KINDS = {"EdDSA": ("OKP", "Ed25519"), "ES256": ("EC", "P-256")}
PUBLIC = {"EdDSA": ("kty", "crv", "x"), "ES256": ("kty", "crv", "x", "y")}
SECRET = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"})  # RFC 7518 §6, and what is drafted


class RemoteKeySet:
    """The keys of a JWK set. Equal to another if it would accept the same signatures."""

    def __init__(self, document: object) -> None:
        """Raises BadResponse if *document* is no JWK set, or holds no key that can be used."""
        entries = document.get("keys") if isinstance(document, dict) else None
        if not isinstance(entries, list) or len(entries) > MAX_JWKS_KEYS:
            raise BadResponse(f"this is no JWK set of at most {MAX_JWKS_KEYS} keys", field="keys")
        names = Counter(kid for entry in entries if isinstance(kid := _of(entry, "kid"), str))
        self._material = {
            kid: (alg, fields)
            for entry in entries
            if (kid := _of(entry, "kid")) and isinstance(kid, str) and names[kid] == 1 and len(kid) <= MAX_KID_CHARS
            for alg, fields in _usable(kid, entry)
        }
        self._keys: dict[str, VerifyingKey] = {}
        for kid, (alg, fields) in self._material.items():
            try:
                self._keys[kid] = VerifyingKey(kid, alg, dict(fields))
            except (JoseError, ValueError, TypeError, KeyError):
                _log.warning("the published key %r cannot be read", kid)
        if not self._keys:
            raise BadResponse("no key is published that can be used: EdDSA (Ed25519) or ES256 (P-256)", field="keys")

    def verifier(self, kid: str) -> VerifyingKey | None:
        """The key named *kid*."""
        return self._keys.get(kid)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemoteKeySet) and self._material == other._material

    __hash__ = None  # type: ignore[assignment]  # it is compared, and kept nowhere by its value

    def __repr__(self) -> str:
        return f"<RemoteKeySet {sorted(self._keys)}>"


def _usable(kid: str, entry: Mapping[str, Any]) -> list[tuple[str, dict[str, str]]]:
    """The algorithm and the public fields of *entry* if it can be used, or nothing."""
    if SECRET & entry.keys():
        _log.error("a secret is published as the key %r: nothing that it signed is accepted; retire it", kid)
        return []
    alg, use, doing = entry.get("alg"), entry.get("use", "sig"), entry.get("key_ops", ["verify"])
    if not isinstance(alg, str) or KINDS.get(alg) != (entry.get("kty"), entry.get("crv")):
        return []
    if use != "sig" or not isinstance(doing, list) or "verify" not in doing:
        return []
    fields = {name: value for name in PUBLIC[alg] if isinstance(value := entry.get(name), str)}
    return [(alg, fields)]


def _of(entry: object, name: str) -> object:
    return entry.get(name) if isinstance(entry, dict) else None
