"""Single-purpose tokens: short-lived JWTs that this server alone makes and reads (tickets, logins that wait for MFA).

1. Each purpose has its own ``typ`` and its own key, derived from the keyring's newest MAC key. So no token of one
   purpose, and no access token, can be taken for another, not even by a service that checks nothing but the signature
   (RFC 8725 §3.11 and §3.12).
2. HS256 and nothing else (RFC 8725 §3.1). ``kid`` is the number of the MAC key: a retired key ends its tokens.
3. A token is bounded in size when it is made and before it is parsed.
4. ``decode`` proves who made the claims. What they mean, the expiry above all, is the caller's to check.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import Any

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import GuestProtocol, OctKey

from unbroken.errors import ConfigurationError
from unbroken.server.keys.access_token import kid_of
from unbroken.server.keys.keyring import Keyring

__all__ = ["MALFORMED_ERRORS", "PurposeToken", "mac_number_of"]

# What parsing a hostile token can raise.
MALFORMED_ERRORS = (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError, JoseError)
ALGORITHM = "HS256"


class PurposeToken:
    """The tokens of one purpose. *typ* names it in the header, *purpose* in the derivation of its key.

    *too_long* tells the operator what makes a token shorter than *max_chars*.
    """

    def __init__(self, typ: str, purpose: bytes, *, max_chars: int, too_long: str) -> None:
        self.typ, self.max_chars = typ, max_chars
        self._purpose, self._too_long = purpose, too_long

    def encode(self, claims: Mapping[str, Any], keyring: Keyring, now: float) -> str:
        """Return a token with *claims*. Raise ConfigurationError for one of more than ``max_chars`` characters."""
        mac = keyring.mac(now)
        header = {"alg": ALGORITHM, "typ": self.typ, "kid": str(mac.number)}
        token = jwt.encode(header, dict(claims), self.key(mac.secret), algorithms=[ALGORITHM])
        if len(token) > self.max_chars:
            raise ConfigurationError(f"a {self.typ} has at most {self.max_chars} characters: {self._too_long}")
        return token

    def decode(self, token: str, keyring: Keyring, now: float) -> dict[str, Any]:
        """Return the claims of *token*. Raise one of ``MALFORMED_ERRORS`` unless it is a token of this purpose."""
        if len(token) > self.max_chars:
            raise ValueError  # rule 3

        def key(token_of: GuestProtocol) -> OctKey:
            header = token_of.headers()
            secret = keyring.mac_key(int(header["kid"]), now)
            if header["typ"] != self.typ or secret is None:
                raise ValueError
            return self.key(secret)

        claims: dict[str, Any] = jwt.decode(token, key, algorithms=[ALGORITHM]).claims
        return claims

    def key(self, mac_secret: bytes) -> OctKey:
        """Return the key of this purpose, derived from a MAC key (rule 1)."""
        return OctKey.import_key(hmac.digest(mac_secret, self._purpose, "sha256"))


def mac_number_of(token: str) -> int | None:
    """Return the number of the MAC key that *token* names; None if it names none. Nothing is proved."""
    kid = kid_of(token) or ""
    return int(kid) if kid.isdecimal() and len(kid) < 10 else None
