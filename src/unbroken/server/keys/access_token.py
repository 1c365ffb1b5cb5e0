"""Access tokens: RFC 9068 JWTs, made and verified.

1. Verified means: one of our keys, that key's own algorithm, ``typ`` at+jwt, our issuer, our audience, not expired, the
   session not revoked (RFC 9068 §4, RFC 8725 §3). ``exp``, ``iss``, ``aud``, ``sub``, ``sid`` and ``jti`` are required.
2. One token has one text: any part that is not canonical base64url is refused, and so is the twin that every ECDSA
   signature has, so that no list of revoked texts, no cache and no log can be fooled by another spelling.
3. A token that was verified before is known by its text. Expiry, revocation and the key's end are checked every time.
4. Whatever is wrong is InvalidToken, with the reason ``malformed``, ``expired`` or ``revoked``; never another error.

JSON values that nobody can change: many requests share one verified token.

They are still dicts and lists, so that they compare, print and serialise as such. A copy of one, or what comes out of
pickle, is a plain dict or list again, and belongs to whoever made it.
"""

from __future__ import annotations

import json
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from math import ceil
from secrets import token_hex
from typing import Any, NoReturn, Protocol

from joserfc.errors import JoseError
from joserfc.jws import deserialize_compact

from unbroken import _base64
from unbroken._bounded_cache import BoundedCache
from unbroken.errors import ConfigurationError, InvalidToken
from unbroken.server.core.rotation import Generation, SessionRow
from unbroken.server.keys.keyring import SigningKey, VerifyingKey

__all__ = ["AccessTokenVerifier", "Claims", "VerifyingKeys", "fixed_claims", "frozen", "kid_of", "sign"]


def frozen(value: Any) -> Any:
    """*value*, which ``json.loads`` has made, so that no part of it can be changed."""
    if isinstance(value, dict):
        return FrozenDict({name: frozen(part) for name, part in value.items()})
    return FrozenList(map(frozen, value)) if isinstance(value, list) else value


def _refuse(*_: object, **__: object) -> NoReturn:
    raise TypeError("the claims of a token are shared and cannot be changed: change a copy")


class FrozenDict(dict[str, Any]):
    """A JSON object for reading."""

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)

    def __copy__(self) -> dict[str, Any]:
        return dict(self)


class FrozenList(list[Any]):
    """A JSON array for reading."""

    __setitem__ = __delitem__ = __iadd__ = __imul__ = _refuse
    append = clear = extend = insert = pop = remove = reverse = sort = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        return list, (list(self),)

    def __copy__(self) -> list[Any]:
        return list(self)


MAX_TOKEN_CHARS = 8192  # characters of a token
MAX_CACHED_TOKENS = 10_000  # tokens
_json = json.JSONEncoder(separators=(",", ":")).encode
EMPTY = '""'
MALFORMED_ERRORS = (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError, JoseError)
RESERVED_CLAIMS = frozenset({"iss", "sub", "aud", "client_id", "iat", "exp", "jti", "sid", "scope", "seq", "br"})


@dataclass(frozen=True, slots=True)
class Claims:
    """What a verified access token says. Times are seconds since the Unix epoch.

    ``extra`` are the application's claims. All who verify the token share them: they can be copied, but not changed.
    """

    subject: str
    sid: str
    client_id: str
    scope: str
    issuer: str
    audience: str
    issued_at: float
    expires_at: float
    jti: str
    generation: int = 0
    branch: int = 0
    extra: Mapping[str, object] = field(default_factory=dict)

    def has_scope(self, wanted: str) -> bool:
        """Whether every word of *wanted* is in the token's scope."""
        return set(wanted.split()) <= set(self.scope.split())


def fixed_claims(row: SessionRow, issuer: str, audience: str) -> str:
    """The claims that are the same in all access tokens of a session: the beginning of their JSON."""
    same = {"iss": issuer, "sub": row.subject, "aud": audience, "client_id": row.client_id, "sid": row.sid}
    return _json(same)[:-1]


def sign(
    fixed: str, scope: str, place: Generation, now: float, life: float, extra: Mapping[str, object], key: SigningKey
) -> str:
    """An access token for *place* in a session, good for *life* seconds from *now*.

    Raises ConfigurationError for one that would be too long: every verifier would refuse it.
    """
    own = {name: value for name, value in extra.items() if name not in RESERVED_CLAIMS} if extra else {}
    more = f",{_json(own)[1:-1]}" if own else ""
    # Every part is JSON already: a number, random hexadecimal digits, or what json has written.
    changing = (
        f'"iat":{int(now)},"exp":{ceil(now + life)},"jti":"{token_hex(10)}","seq":{place.number},"br":{place.branch}'
    )
    token = key.sign(f'{fixed},{changing},"scope":{_json(scope) if scope else EMPTY}{more}}}'.encode())
    if len(token) > MAX_TOKEN_CHARS:
        raise ConfigurationError(
            f"an access token has at most {MAX_TOKEN_CHARS} characters: give it fewer or shorter claims"
        )
    return token


class VerifyingKeys(Protocol):
    """The keys that tokens are verified by: the server's own ``Keyring``, or what it has published."""

    def verifier(self, kid: str) -> VerifyingKey | None:
        """The key named *kid*, which may be dead already."""


class AccessTokenVerifier:
    """Verifies access tokens of one issuer for one audience."""

    def __init__(self, issuer: str, audience: str) -> None:
        self._issuer, self._audience = issuer, audience
        self._known: BoundedCache[str, tuple[Claims, VerifyingKey]] = BoundedCache(MAX_CACHED_TOKENS)

    def verify(self, token: str, keyring: VerifyingKeys, revoked: Container[str], now: float) -> Claims:
        """The claims of *token*, good at *now*. Raises InvalidToken."""
        claims, key = self._known.get(token) or self._first(token, keyring)
        if now >= claims.expires_at:
            raise InvalidToken("the access token has expired", reason="expired")
        if claims.sid in revoked or now >= key.dead_from:
            raise InvalidToken("the access token was revoked", reason="revoked")
        return claims

    def verify_cached(self, token: str, revoked: Container[str], now: float) -> Claims | None:
        """The claims of *token*, if it was seen before and is good at *now*; else None."""
        found = self._known.get(token)
        if found is None:
            return None
        claims, key = found
        return None if now >= claims.expires_at or now >= key.dead_from or claims.sid in revoked else claims

    def verify_signature(self, token: str, keyring: VerifyingKeys, now: float) -> Claims:
        """The claims of a token that may have expired, or be of an ended session, but was made by a key that is good
        at *now*. Raises InvalidToken.
        """
        claims, key = self._known.get(token) or self._first(token, keyring)
        if now >= key.dead_from:
            raise InvalidToken("the access token was revoked", reason="revoked")
        return claims

    def _first(self, token: str, keyring: VerifyingKeys) -> tuple[Claims, VerifyingKey]:
        try:
            found = self._read(token, keyring)
        except MALFORMED_ERRORS:
            raise _malformed() from None
        self._known.put(token, found)
        return found

    def _read(self, token: str, keyring: VerifyingKeys) -> tuple[Claims, VerifyingKey]:
        header = _header(token)
        key = keyring.verifier(header["kid"])
        if key is None or header["alg"] != key.alg or header["typ"] != "at+jwt" or "crit" in header:
            raise ValueError
        body = json.loads(deserialize_compact(token, key.jwk, registry=key.registry).payload)
        if not key.is_canonical_signature(_base64.decode(token.rpartition(".")[2])):
            raise ValueError
        if body["iss"] != self._issuer or body["aud"] != self._audience:
            raise ValueError
        return _claims(body), key


def kid_of(token: str) -> str | None:
    """The name of the key that *token* says it was signed by; None if it is no access token. Nothing is proved."""
    try:
        kid = _header(token)["kid"]
    except MALFORMED_ERRORS:
        return None
    return kid if isinstance(kid, str) else None


def _header(token: str) -> dict[str, Any]:
    """The header of a compact JWS whose three parts are spelled canonically."""
    if not isinstance(token, str) or len(token) > MAX_TOKEN_CHARS or not token.isascii():
        raise ValueError
    parts = token.split(".")
    if len(parts) != 3 or not all(map(_base64.decode, parts)):
        raise ValueError
    header: dict[str, Any] = json.loads(_base64.decode(parts[0]))
    return header


def _claims(body: Mapping[str, Any]) -> Claims:
    texts = [body[name] for name in ("sub", "sid", "client_id", "scope", "iss", "aud", "jti")]
    numbers = [body[name] for name in ("iat", "exp", "seq", "br")]
    if not all(isinstance(text, str) for text in texts):
        raise TypeError
    if not all(isinstance(number, (int, float)) and not isinstance(number, bool) for number in numbers):
        raise TypeError
    subject, sid, client_id, scope, issuer, audience, jti = texts
    issued_at, expires_at, seq, branch = numbers
    extra = frozen({name: value for name, value in body.items() if name not in RESERVED_CLAIMS})
    return Claims(
        subject, sid, client_id, scope, issuer, audience, float(issued_at), float(expires_at), jti, seq, branch, extra
    )


def _malformed() -> InvalidToken:
    return InvalidToken("this is not an access token of this server", reason="malformed")
