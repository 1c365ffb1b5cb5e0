"""Access tokens: RFC 9068 JWTs, signed and verified.

1. Verified means: one of our keys, that key's own algorithm, ``typ`` at+jwt, our issuer, our audience, not expired, and
   past its ``nbf`` if it has one, the session not revoked (RFC 9068 §4, RFC 8725 §3). ``exp``, ``iss``, ``aud``,
   ``sub``, ``sid`` and ``jti`` are required; a ``cnf`` must be the thumbprint of a key (RFC 9449 §6.1). Numbers and
   texts are read strictly (``strict_jwt.py``).
2. One token has one text: a part that is not canonical base64url is refused, and so is the twin that every ECDSA
   signature has, so that another spelling of a token escapes no deny list, no cache and no log.
3. A token that was verified before is found in a cache by its text. Expiry, revocation and the key's end are checked
   every time.
4. Whatever is wrong is InvalidToken, with the reason ``malformed``, ``expired`` or ``revoked``; never another error.
5. The claims of a verified token are immutable, as many requests share them. Their JSON values are still dicts and
   lists, which compare, print and serialise as such (a mapping proxy does not); a copy is a plain dict or list.
6. A token that is bound to a key is good only with a proof of this key, which is not verified here: so
   ``verify_cached`` returns no claims of it, and who calls ``verify`` asks for the proof.
"""

from __future__ import annotations

import json
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from math import ceil
from secrets import token_hex
from typing import Any, NoReturn, Protocol

from joserfc.jws import deserialize_compact

from unbroken import _base64
from unbroken._bounded_cache import BoundedCache
from unbroken.errors import ConfigurationError, InvalidToken
from unbroken.server.core.rotation import Generation, SessionFacts, SessionRow
from unbroken.server.core.scope import TokenScope
from unbroken.server.keys.keyring import SigningKey, VerifyingKey
from unbroken.server.keys.strict_jwt import (
    MALFORMED_ERRORS,
    MAX_TIME,
    header_of,
    json_object,
    read_bool,
    read_count,
    read_text,
    read_time,
)

__all__ = [
    "AccessTokenVerifier",
    "Claims",
    "VerifyingKeys",
    "checked_extra",
    "fixed_claims",
    "frozen",
    "kid_of",
    "sign",
]


MAX_TOKEN_CHARS = 8192
MAX_CACHED_TOKENS = 10_000
_json = json.JSONEncoder(separators=(",", ":")).encode
EMPTY_JSON_TEXT = '""'
RESERVED_CLAIMS = frozenset(
    {"iss", "sub", "aud", "client_id", "iat", "exp", "nbf", "jti", "sid", "scope", "full", "seq", "br", "cnf"}
)
THUMBPRINT_BYTES = 32
CERTIFICATE_MEMBER = "x5t#S256"  # RFC 8705 §3.1


@dataclass(frozen=True, slots=True)
class Claims:
    """The claims of a verified access token. Times are seconds since the Unix epoch.

    ``jkt`` is the RFC 7638 thumbprint of the key that the token is bound to; empty if it is bound to none.
    ``certificate`` is the SHA-256 of the TLS certificate that it is bound to (RFC 8705 §3), or empty. ``extra``
    are the application's own claims. They can be copied, not changed: requests with this token share them. ``is_full``:
    no part of what the subject may have was asked for, so the token is the user's own.
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
    jkt: str = ""
    is_full: bool = False
    certificate: str = ""

    def has_scope(self, wanted: str) -> bool:
        """Return whether every word of *wanted* is in the token's scope (RFC 6749 §3.3)."""
        return set(wanted.split()) <= set(self.scope.split())

    def has_claims(self, wanted: Mapping[str, object]) -> bool:
        """Return whether ``extra`` has each value of *wanted*, alone or in a list: ``{"role": "admin"}``."""
        return all(_has(self.extra.get(name), value) for name, value in wanted.items())


def _has(found: object, wanted: object) -> bool:
    if isinstance(found, list) and not isinstance(wanted, list):
        return any(_is_same(one, wanted) for one in found)
    return _is_same(found, wanted)


def _is_same(found: object, wanted: object) -> bool:
    return found == wanted and isinstance(found, bool) == isinstance(wanted, bool)  # 1 is not true


def fixed_claims(row: SessionRow | SessionFacts, issuer: str, audience: str) -> str:
    """Return the start of the JSON of all access tokens of a session: the claims that never change."""
    # Assembled as text, which is three times as fast: every part is a text in JSON.
    server, client = f'"iss":{_json(issuer)},"sub":{_json(row.subject)},"aud":{_json(audience)}', _json(row.client_id)
    fixed = f'{{{server},"client_id":{client},"sid":{_json(row.sid)}'
    return fixed if row.jkt is None else f'{fixed},"cnf":{{"jkt":"{_base64.encode(row.jkt)}"}}'


def sign(
    fixed: str,
    scope: TokenScope,
    generation: Generation,
    now: float,
    ttl: float,
    extra: Mapping[str, object],
    key: SigningKey,
) -> str:
    """Return an access token for *generation* of a session, good for *ttl* seconds from *now*.

    *fixed* is what ``fixed_claims`` returned, *extra* what ``checked_extra`` returned. Raise ConfigurationError for a
    token that every verifier would refuse, because it is too long or lives too long.
    """
    own_json = f",{_json(dict(extra))[1:-1]}" if extra else ""
    expires_at = ceil(now + ttl)
    if expires_at > MAX_TIME:
        raise ConfigurationError("an access token must expire before the year 10000: shorten access_ttl")
    # Assembled as text: every part is a number, hexadecimal digits, or JSON already.
    times = f'"iat":{int(now)},"exp":{expires_at},"jti":"{token_hex(10)}"'
    words = _json(scope.words) if scope.words else EMPTY_JSON_TEXT
    place = f'"seq":{generation.number},"br":{generation.branch},"scope":{words}'
    full = ',"full":true' if scope.is_full else ""
    token = key.sign(f"{fixed},{times},{place}{full}{own_json}}}".encode())
    if len(token) > MAX_TOKEN_CHARS:
        raise ConfigurationError(
            f"an access token has at most {MAX_TOKEN_CHARS} characters: give it fewer or shorter claims"
        )
    return token


def checked_extra(extra: object) -> Mapping[str, object]:
    """Return the application's own claims. Raise ConfigurationError for what no verifier should read.

    That is anything but a JSON object with finite numbers, and a claim that this server sets itself; a ``cnf`` may bind
    the token to a certificate (RFC 8705 §3.1).
    """
    try:
        own = json_object(json.dumps(extra if isinstance(extra, dict) else dict(extra), allow_nan=False).encode())  # type: ignore[call-overload]  # whatever a hook returns
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigurationError(
            f"the claims hook must return a JSON object: {error or 'a name occurs twice'}"
        ) from error
    if taken := sorted((RESERVED_CLAIMS - {"cnf"}) & own.keys()):
        raise ConfigurationError(f"the claims hook must not set {', '.join(taken)}: the server does")
    if "cnf" in own and not _is_certificate(own["cnf"]):
        raise ConfigurationError(f"the claims hook must not set cnf, but for the {CERTIFICATE_MEMBER} of a certificate")
    return own


def _is_certificate(confirmation: object) -> bool:
    try:
        return _confirmation(confirmation)[0] == ""
    except MALFORMED_ERRORS:
        return False


class VerifyingKeys(Protocol):
    """The keys that verify tokens: the server's own ``Keyring``, or the ``RemoteKeySet`` it publishes."""

    def verifier(self, kid: str) -> VerifyingKey | None:
        """Return the key named *kid*, which may have ended; None if there is none."""


class AccessTokenVerifier:
    """Verifies access tokens of one issuer for one audience.

    *leeway*: how many seconds this machine's clock may differ from that of the issuer.
    """

    def __init__(self, issuer: str, audience: str, leeway: float = 0.0) -> None:
        self._issuer, self._audience, self._leeway = issuer, audience, leeway
        self._verified: BoundedCache[str, tuple[Claims, VerifyingKey]] = BoundedCache(MAX_CACHED_TOKENS)

    def verify(self, token: str, keyring: VerifyingKeys, revoked: Container[str], now: float) -> Claims:
        """Return the claims of *token*, good at *now*. Raise InvalidToken."""
        try:
            claims, key = self._verified.get(token) or self._read_and_cache(token, keyring, now)  # rule 3
        except TypeError:  # it is not even a text
            raise _malformed() from None
        if now - self._leeway >= claims.expires_at:
            raise InvalidToken("the access token has expired", reason="expired")
        if claims.sid in revoked or now - self._leeway >= key.dead_from:
            raise InvalidToken("the access token was revoked", reason="revoked")
        return claims

    def verify_cached(
        self, token: str, revoked: Container[str], now: float, *, has_proof: bool = False
    ) -> Claims | None:
        """Return the claims of *token*, if it was verified before and is good at *now*; else None, and for a token that
        needs a proof (rule 6). *has_proof*: the caller checks a proof.
        """
        cached = self._verified.get(token)
        if cached is None or ((cached[0].jkt or cached[0].certificate) and not has_proof):
            return None
        (claims, key), now = cached, now - self._leeway
        return None if now >= claims.expires_at or now >= key.dead_from or claims.sid in revoked else claims

    def verify_signature(self, token: str, keyring: VerifyingKeys, now: float) -> Claims:
        """Return the claims of a genuine token, even if it has expired or its session was revoked. Raise InvalidToken
        unless one of our keys made it that has not ended.
        """
        claims, key = self._verified.get(token) or self._read_and_cache(token, keyring, now)
        if now >= key.dead_from:
            raise InvalidToken("the access token was revoked", reason="revoked")
        return claims

    def _read_and_cache(self, token: str, keyring: VerifyingKeys, now: float) -> tuple[Claims, VerifyingKey]:
        try:
            found = self._read(token, keyring, now)
        except MALFORMED_ERRORS:  # rule 4
            raise _malformed() from None
        self._verified.put(token, found)
        return found

    def _read(self, token: str, keyring: VerifyingKeys, now: float) -> tuple[Claims, VerifyingKey]:
        header = header_of(token, MAX_TOKEN_CHARS)
        key = keyring.verifier(header["kid"])
        if key is None or header["alg"] != key.alg or header["typ"] != "at+jwt":  # rule 1
            raise ValueError
        body = json_object(deserialize_compact(token, key.jwk, registry=key.registry).payload)
        if not key.is_canonical_signature(_base64.decode(token.rpartition(".")[2])):  # rule 2
            raise ValueError
        if body["iss"] != self._issuer or body["aud"] != self._audience:
            raise ValueError
        if "nbf" in body and now + self._leeway < read_time(body["nbf"]):  # not cached: it may become valid
            raise ValueError
        return _claims(body), key


def kid_of(token: str) -> str | None:
    """Return the ``kid`` in the header of *token*; None if it has none. Nothing is proved."""
    try:
        return read_text(header_of(token, MAX_TOKEN_CHARS)["kid"])
    except MALFORMED_ERRORS:
        return None


def _claims(body: Mapping[str, Any]) -> Claims:
    names = ("sub", "sid", "client_id", "scope", "iss", "aud", "jti")
    subject, sid, client_id, scope, issuer, audience, jti = (read_text(body[name]) for name in names)
    issued_at, expires_at = (read_time(body[name]) for name in ("iat", "exp"))
    seq, branch = (read_count(body[name]) for name in ("seq", "br"))
    extra = frozen({name: value for name, value in body.items() if name not in RESERVED_CLAIMS})
    jkt, certificate = _confirmation(body["cnf"]) if "cnf" in body else ("", "")
    is_full = read_bool(body["full"]) if "full" in body else False
    return Claims(
        subject, sid, client_id, scope, issuer, audience, issued_at, expires_at, jti, seq, branch, extra, jkt, is_full,
        certificate,
    )  # fmt: skip


def _confirmation(value: Any) -> tuple[str, str]:
    """Return the thumbprints of a key and of a certificate in a ``cnf`` claim, one of them or both.

    Raise ValueError for any other confirmation: it cannot be checked here.
    """
    if not isinstance(value, dict) or not value or not value.keys() <= {"jkt", CERTIFICATE_MEMBER}:
        raise ValueError
    for thumbprint in value.values():
        if len(_base64.decode(read_text(thumbprint))) != THUMBPRINT_BYTES:
            raise ValueError
    return value.get("jkt", ""), value.get(CERTIFICATE_MEMBER, "")


def _malformed() -> InvalidToken:
    return InvalidToken("this is not an access token of this server", reason="malformed")


def frozen(value: Any) -> Any:
    """Return *value*, which ``json.loads`` made, with no part that can be changed (rule 5)."""
    if isinstance(value, dict):
        return FrozenDict({name: frozen(part) for name, part in value.items()})
    return FrozenList(map(frozen, value)) if isinstance(value, list) else value


def _refuse(*_: object, **__: object) -> NoReturn:
    raise TypeError("the claims of a token are shared: change a copy")


class FrozenDict(dict[str, Any]):
    """An immutable JSON object."""

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)

    def __copy__(self) -> dict[str, Any]:
        return dict(self)


class FrozenList(list[Any]):
    """An immutable JSON array."""

    __setitem__ = __delitem__ = __iadd__ = __imul__ = _refuse
    append = clear = extend = insert = pop = remove = reverse = sort = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        return list, (list(self),)

    def __copy__(self) -> list[Any]:
        return list(self)
