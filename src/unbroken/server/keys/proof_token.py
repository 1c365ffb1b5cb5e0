"""One proof of possession: the JWT in the header ``DPoP``, its key and its signature (``core/proof.py``, P1 to P4).

1. Proofs come from strangers. They are bounded before they are read, and read strictly (``strict_jwt.py``). Whatever is
   wrong is InvalidProof, with a reason.
2. The algorithms are ES256 with P-256, and Ed25519 under its name and under its older one, EdDSA (RFC 9864): the ones
   of our own tokens. Their keys have one size, so that no stranger chooses what a verification costs.
3. The thumbprint is that of the key's required members alone (RFC 7638 §3.2), each in its canonical spelling: one key
   has one thumbprint, whatever else stands in its JWK.
4. A client sends the same header with each proof. So the key of a header whose signature was good is parsed once. Then
   a proof costs little more than its signature: ``cryptography`` verifies it without the layers of a JOSE library.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from joserfc.jwk import ECKey, OKPKey

from unbroken import _base64
from unbroken._bounded_cache import BoundedCache
from unbroken.errors import InvalidProof
from unbroken.server.core.proof import ProofClaims
from unbroken.server.keys.remote_jwks import PRIVATE_FIELDS
from unbroken.server.keys.strict_jwt import MALFORMED_ERRORS, json_object, read_text, read_time

__all__ = ["MAX_PROOF_CHARS", "PROOF_ALGORITHMS", "ProofReader", "SignedProof"]

Verify = Callable[[bytes, bytes], None]  # of a message and a signature; raises InvalidSignature
PROOF_ALGORITHMS = ("ES256", "Ed25519", "EdDSA")
MAX_PROOF_CHARS = 4096
MAX_JTI_CHARS = 256
MAX_CACHED_KEYS = 10_000
MEMBER_BYTES = 32  # of a coordinate, and of an Ed25519 key
SIGNATURE_BYTES = 64
JWT_TYPE = "dpop+jwt"
# The members that RFC 7638 §3.2 and RFC 8037 §2 require: those with a fixed value, and those of the key.
KEY_MEMBERS = {
    "ES256": ({"kty": "EC", "crv": "P-256"}, ("x", "y")),
    "Ed25519": ({"kty": "OKP", "crv": "Ed25519"}, ("x",)),
    "EdDSA": ({"kty": "OKP", "crv": "Ed25519"}, ("x",)),
}
MESSAGES = {
    "missing": "a proof is required: send one in the header DPoP",
    "malformed": "the header DPoP is not one proof of RFC 9449",
    "algorithm": f"sign proofs with {', '.join(PROOF_ALGORITHMS)}",
    "private_key": "the header of the proof has the private key: it is not secret any more",
    "signature": "the proof is not signed by the key in its header",
    "method": "the proof is for another method",
    "url": "the proof is for another URL",
    "access_token": "the proof is for another access token",
    "too_old": "the proof is too old: is the client's clock right?",
    "too_new": "the proof is from the future: is the client's clock right?",
    "replayed": "the proof was used before",
    "wrong_key": "the session is bound to another key",
}


class SignedProof(NamedTuple):
    """A proof with a good signature: the thumbprint of its key, in base64url, and its claims."""

    jkt: str
    claims: ProofClaims


class ProofReader:
    """Reads proofs, and verifies their signatures."""

    def __init__(self) -> None:
        self._keys: BoundedCache[str, tuple[str, Verify]] = BoundedCache(MAX_CACHED_KEYS)

    def read(self, text: str) -> SignedProof:
        """Return the proof in *text*, the value of a ``DPoP`` header. Raise InvalidProof."""
        if not text:
            raise refused("missing")
        try:
            return self._read(text)
        except InvalidSignature:  # P4
            raise refused("signature") from None
        except MALFORMED_ERRORS:
            raise refused("malformed") from None

    def _read(self, text: str) -> SignedProof:
        if len(text) > MAX_PROOF_CHARS:  # rule 1
            raise ValueError
        message, _, signature = text.rpartition(".")
        head, _, payload = message.partition(".")
        known = self._keys.get(head)
        jkt, verify = known or _key_of(json_object(_base64.decode(head)))
        verify(message.encode("ascii"), _base64.decode(signature))
        if known is None:
            self._keys.put(head, (jkt, verify))  # rule 4
        return SignedProof(jkt, _claims(json_object(_base64.decode(payload))))


def refused(reason: str) -> InvalidProof:
    """Return the error for *reason*."""
    return InvalidProof(MESSAGES[reason], reason=reason)


def _key_of(header: Mapping[str, Any]) -> tuple[str, Verify]:
    """Return the thumbprint of the key in the header of a proof, and what verifies its signatures.

    Raise InvalidProof, or one of MALFORMED_ERRORS.
    """
    alg, jwk = read_text(header["alg"]), header["jwk"]
    if header["typ"] != JWT_TYPE or "crit" in header or not isinstance(jwk, dict):  # P1
        raise ValueError
    if alg not in KEY_MEMBERS:  # P2
        raise refused("algorithm")
    if PRIVATE_FIELDS & jwk.keys():  # P3
        raise refused("private_key")
    fixed, names = KEY_MEMBERS[alg]
    if not fixed.items() <= jwk.items() or jwk.get("alg", alg) not in _names_of(alg):  # rule 2
        raise refused("algorithm")
    members = {name: read_text(jwk[name]) for name in names}
    if any(len(_base64.decode(value)) != MEMBER_BYTES for value in members.values()):  # rule 3
        raise ValueError
    kind: Any = ECKey if alg == "ES256" else OKPKey
    key: Any = kind.import_key({**fixed, **members})
    make: Any = _verify_es256 if alg == "ES256" else _verify_ed25519
    return key.thumbprint(), make(key.public_key)


def _names_of(alg: str) -> tuple[str, ...]:
    return ("Ed25519", "EdDSA") if alg in ("Ed25519", "EdDSA") else (alg,)


def _verify_es256(key: EllipticCurvePublicKey) -> Verify:
    """Return what raises InvalidSignature unless a signature (RFC 7518 §3.4) of a message is by *key*."""
    verify, how, from_bytes = key.verify, ECDSA(SHA256()), int.from_bytes

    def verify_signature(message: bytes, signature: bytes) -> None:
        if len(signature) != SIGNATURE_BYTES:
            raise InvalidSignature
        r, s = from_bytes(signature[:MEMBER_BYTES]), from_bytes(signature[MEMBER_BYTES:])
        verify(encode_dss_signature(r, s), message, how)

    return verify_signature


def _verify_ed25519(key: Ed25519PublicKey) -> Verify:
    """Return the same for a key of RFC 8037 §3.1."""
    return lambda message, signature: key.verify(signature, message)


def _claims(body: Mapping[str, Any]) -> ProofClaims:
    """Return the claims of a proof. Raise one of MALFORMED_ERRORS (P1)."""
    jti, method, url, ath, nonce = body["jti"], body["htm"], body["htu"], body.get("ath", ""), body.get("nonce", "")
    if not type(jti) is type(method) is type(url) is type(ath) is type(nonce) is str:
        raise TypeError
    if not 0 < len(jti) <= MAX_JTI_CHARS:  # RFC 9449 §11.1
        raise ValueError
    return ProofClaims(read_text(jti), method, url, read_time(body["iat"]), ath, nonce)
