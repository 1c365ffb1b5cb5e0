"""Single-purpose tokens: short-lived JWTs that this server alone makes and reads (tickets, logins that wait for MFA).

1. Each purpose has its own ``typ`` and its own key, derived from the keyring's newest MAC key. So no token of one
   purpose, and no access token, can be taken for another, not even by a service that checks nothing but the signature
   (RFC 8725 §3.11 and §3.12).
2. HS256 and nothing else (RFC 8725 §3.1). ``kid`` is the number of the MAC key: a retired key ends its tokens.
3. A token is bounded in size when it is made and before it is parsed, and is read strictly (``strict_jwt.py``).
4. A token says when it was made and when it expires, and the time between is at most that of its purpose: a key that an
   attacker has makes no token that outlives the key.
5. ``decode`` proves who made the claims, and that they are neither too old nor too new. What else they mean is the
   caller's to check.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import Any

from joserfc import jwt
from joserfc.jwk import OctKey
from joserfc.jws import deserialize_compact

from unbroken.errors import ConfigurationError
from unbroken.server.keys.keyring import Keyring
from unbroken.server.keys.strict_jwt import MALFORMED_ERRORS, header_of, json_object, read_text, read_time

__all__ = ["MALFORMED_ERRORS", "PurposeToken", "mac_number_of"]

ALGORITHM = "HS256"
MAX_KID_DIGITS = 9
CLOCK_SKEW_SECONDS = 30.0  # how far the clock of the node that made a token may be ahead


class PurposeToken:
    """The tokens of one purpose. *typ* names it in the header, *purpose* in the derivation of its key.

    A token lives for *max_seconds* at most (rule 4). *too_long* tells the operator what makes a token shorter than
    *max_chars*.
    """

    def __init__(self, typ: str, purpose: bytes, *, max_seconds: float, max_chars: int, too_long: str) -> None:
        self.typ, self.max_seconds, self.max_chars = typ, max_seconds, max_chars
        self._purpose, self._too_long = purpose, too_long

    def encode(self, claims: Mapping[str, Any], keyring: Keyring, now: float) -> str:
        """Return a token with *claims*, among them ``iat`` and ``exp``.

        Raise ConfigurationError for one of more than ``max_chars`` characters.
        """
        mac = keyring.mac(now)
        header = {"alg": ALGORITHM, "typ": self.typ, "kid": str(mac.number)}
        token = jwt.encode(header, dict(claims), self.key(mac.secret), algorithms=[ALGORITHM])
        if len(token) > self.max_chars:
            raise ConfigurationError(f"a {self.typ} has at most {self.max_chars} characters: {self._too_long}")
        return token

    def decode(self, token: str, keyring: Keyring, now: float) -> dict[str, Any]:
        """Return the claims of *token*. Raise one of ``MALFORMED_ERRORS`` unless it is a token of this purpose.

        An expired token is returned too: its claims say when (``exp``).
        """
        header = header_of(token, self.max_chars)  # rule 3
        if header["alg"] != ALGORITHM or header["typ"] != self.typ:  # rule 2
            raise ValueError
        secret = keyring.mac_key(_mac_number(header["kid"]), now)
        if secret is None:
            raise ValueError
        claims = json_object(deserialize_compact(token, self.key(secret), algorithms=[ALGORITHM]).payload)
        made_at, expires_at = read_time(claims["iat"]), read_time(claims["exp"])
        if made_at > now + CLOCK_SKEW_SECONDS or expires_at > made_at + self.max_seconds:  # rule 4
            raise ValueError
        return claims

    def key(self, mac_secret: bytes) -> OctKey:
        """Return the key of this purpose, derived from a MAC key (rule 1)."""
        return OctKey.import_key(hmac.digest(mac_secret, self._purpose, "sha256"))


def mac_number_of(token: str) -> int | None:
    """Return the number of the MAC key that *token* names; None if it names none. Nothing is proved."""
    try:
        return _mac_number(header_of(token, len(token))["kid"])
    except MALFORMED_ERRORS:
        return None


def _mac_number(kid: object) -> int:
    """Return the number that *kid* spells as ``encode`` does. Raise one of ``MALFORMED_ERRORS``."""
    text = read_text(kid)
    if len(text) > MAX_KID_DIGITS or str(number := int(text)) != text:
        raise ValueError
    return number
