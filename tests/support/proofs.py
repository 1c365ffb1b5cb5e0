"""A client's key and its proofs (RFC 9449), made by ``cryptography`` alone: right ones, and every wrong one."""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from base64 import urlsafe_b64encode
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, utils
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

LEFT_OUT: Any = type("LeftOut", (), {})()  # a member of a proof that is not there


def b64(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def ath(access_token: str) -> str:
    return b64(hashlib.sha256(access_token.encode()).digest())


class ClientKey:
    """A key, its thumbprint *jkt*, and the proofs that it signs; *alg* is ES256, Ed25519 or EdDSA."""

    def __init__(self, alg: str = "ES256") -> None:
        self.alg = alg
        self.private: Any = ec.generate_private_key(ec.SECP256R1()) if alg == "ES256" else _ed25519()

    @property
    def jwk(self) -> dict[str, str]:
        public = self.private.public_key()
        if self.alg == "ES256":
            numbers = public.public_numbers()
            x, y = (b64(number.to_bytes(32)) for number in (numbers.x, numbers.y))
            return {"kty": "EC", "crv": "P-256", "x": x, "y": y}
        return {"kty": "OKP", "crv": "Ed25519", "x": b64(public.public_bytes(Encoding.Raw, PublicFormat.Raw))}

    @property
    def private_jwk(self) -> dict[str, str]:
        if self.alg == "ES256":
            return self.jwk | {"d": b64(self.private.private_numbers().private_value.to_bytes(32))}
        return self.jwk | {"d": b64(self.private.private_bytes_raw())}

    @property
    def jkt(self) -> str:
        text = json.dumps(self.jwk, sort_keys=True, separators=(",", ":"))
        return b64(hashlib.sha256(text.encode()).digest())

    def proof(self, method: str, url: str, access_token: str = "", nonce: str = "", **changed: Any) -> str:
        """A proof for one request. *changed* are other claims, or LEFT_OUT; ``head`` changes the header."""
        head = {"typ": "dpop+jwt", "alg": self.alg, "jwk": self.jwk} | changed.pop("head", {})
        claims = {"jti": secrets.token_urlsafe(16), "htm": method, "htu": url, "iat": int(time.time())}
        claims |= ({"ath": ath(access_token)} if access_token else {}) | ({"nonce": nonce} if nonce else {}) | changed
        parts = ({name: one for name, one in part.items() if one is not LEFT_OUT} for part in (head, claims))
        return self.sign(*(json.dumps(part).encode() for part in parts))

    def sign(self, head: bytes, payload: bytes) -> str:
        message = f"{b64(head)}.{b64(payload)}"
        return f"{message}.{b64(self.signature(message.encode()))}"

    def signature(self, message: bytes) -> bytes:
        if self.alg != "ES256":
            return self.private.sign(message)
        r, s = utils.decode_dss_signature(self.private.sign(message, ec.ECDSA(SHA256())))
        return r.to_bytes(32) + s.to_bytes(32)


def _ed25519() -> ed25519.Ed25519PrivateKey:
    return ed25519.Ed25519PrivateKey.generate()
