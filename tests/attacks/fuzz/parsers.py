"""The parsers: functions of bytes that may raise what they document, and nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

from tests.support.proofs import ClientKey
from unbroken import HttpResponse, ResponseMatch, oauth2, unbroken_server
from unbroken import _base64 as base64url
from unbroken._http import is_loopback, origin_of, parse_challenges, parse_json, retry_after_seconds
from unbroken._time import to_seconds
from unbroken._verify.revocation import _active, _page
from unbroken.cli.parsers import InvalidValue, parse_duration
from unbroken.cli.settings import read_settings
from unbroken.client.core.content_coding import decode_body
from unbroken.client.core.dialect import is_bearer_challenge
from unbroken.client.core.metadata import (
    read_authorization_server,
    read_protected_resource,
    resource_metadata_url,
    server_metadata_urls,
)
from unbroken.client.core.proof import proof_error
from unbroken.client.profiles import _parse_profile
from unbroken.client.proof_key import ProofKey
from unbroken.client.prover import Prover
from unbroken.client.stores.codec import CorruptRecord, SessionCodec
from unbroken.errors import (
    BadResponse,
    ConfigurationError,
    InvalidGrant,
    InvalidProof,
    InvalidToken,
    Refused,
    TryLater,
    UnbrokenError,
)
from unbroken.server import MemorySessionStore, RequestProof, Sessions
from unbroken.server.core.proof import normalized_url, raw_path_of
from unbroken.server.core.refresh_token import RefreshToken
from unbroken.server.http.authentication import is_foreign_token
from unbroken.server.http.cookies import Cookies, CookieTransport
from unbroken.server.http.introspection import _cursor
from unbroken.server.http.messages import Request
from unbroken.server.http.origins import AllowedOrigins
from unbroken.server.http.token import read_idempotency_key
from unbroken.server.keys.proof_token import ProofReader
from unbroken.server.keys.remote_jwks import RemoteKeySet
from unbroken.tokens import TokenResponse, jwt_lifetime, jwt_thumbprint

__all__ = ["PARSERS", "Parser"]


class Parser(NamedTuple):
    """One parser, what it may raise, and inputs that are nearly right."""

    parse: Callable[[bytes], object]
    errors: tuple[type[Exception], ...] = ()
    seeds: tuple[bytes, ...] = ()


JSON_SEEDS = (
    b'{"access_token": "a", "refresh_token": "r", "expires_in": 3600, "refresh_seq": 3, "scope": ["a", "b"]}',
    b'{"error": "invalid_grant", "error_description": "gone", "reason": "reuse"}',
    b'{"data": {"access_token": "a"}, "expires_in": "1e400", "refresh_seq": "99999999999999999999"}',
    b'{"error": "mfa_required", "mfa_token": "m", "challenge_type": "totp", "hint": "\\u001b[2J"}',
    b"error=bad_refresh_token&error_description=gone&access_token=a",
)
HEADERS = ("content-type", "retry-after", "date", "www-authenticate", "content-encoding", "content-length")
CODE_IN_200 = replace(unbroken_server("https://a.example"), challenge=ResponseMatch.of(200, field="code", values=(1,)))
STANDARD = oauth2("https://a.example/token", over=("gone",))
PROVER = Prover(ProofKey.in_memory("Ed25519"), lambda: 1e9)
RECORD = (
    b'{"unbroken":1,"version":1,"epoch":1,"tokens":{"access_token":"a","version":1},"idempotency_key":null,"over":""}'
)


def _text(data: bytes) -> str:
    return data.decode("latin-1")


def _response(data: bytes) -> HttpResponse:
    """A response whose status, headers and body come from *data*."""
    head, _, body = data.partition(b"\n")
    values = _text(head).split("\x01")
    statuses = (200, 201, 400, 401, 403, 429, 500, 503)
    return HttpResponse(statuses[len(head) % len(statuses)], dict(zip(HEADERS, values, strict=False)), body)


def _as_form(data: bytes) -> HttpResponse:
    return HttpResponse(200, {"content-type": "application/x-www-form-urlencoded"}, data)


def _challenge(data: bytes) -> object:
    found = HttpResponse(401, {"www-authenticate": _text(data)})
    return is_bearer_challenge(found), parse_challenges(_text(data))


def _body_challenge(data: bytes) -> object:
    found = _response(data)
    return CODE_IN_200.may_read_body(found.headers), CODE_IN_200.is_challenge(found)


def _retry_after(data: bytes) -> object:
    first, _, second = _text(data).partition("\n")
    seconds = retry_after_seconds(HttpResponse(503, {"retry-after": first, "date": second}))
    assert 0.0 <= seconds <= 3600.0
    return seconds


def _granted(data: bytes) -> object:
    """Junk beside the tokens must not cost them: the value of *data* stands in each optional field."""
    junk = parse_json(data)
    for name in ("expires_in", "refresh_expires_in", "refresh_seq", "scope", "token_type"):
        found = TokenResponse.from_response({"access_token": "a", "refresh_token": "r", name: junk})
        assert (found.access_token, found.refresh_token) == ("a", "r")
        assert found.expires_in is None or 0.0 < found.expires_in < math.inf
    return junk


def _granted_body(data: bytes) -> object:
    """The same as text: whatever value *data* spells, if it is one."""
    body = b'{"access_token": "a", "junk": ' + data + b"}"
    if parse_json(data) is None or b"\0" in data:
        return parse_json(body)
    return STANDARD.read_refresh_response(HttpResponse(200, {}, body))


def _record(data: bytes) -> object:
    record = SessionCodec("it", None).decode(data)
    return SessionCodec("it", None).encode(record), record.stamp, repr(record.tokens)


def _decoded(data: bytes) -> object:
    for coding in ("gzip", "deflate", "br", "zstd", "gzip, br", _text(data[:9])):
        assert len(decode_body(data, coding, 1000).data) <= 1000
    return data


def _settings(data: bytes) -> object:
    name = ("store", "access_ttl", "port", "origins", "cookies_mode", "log_level")[len(data) % 6]
    return read_settings({name: _text(data)}, {}, None)


def _request(data: bytes) -> object:
    kinds = ("application/json", "application/x-www-form-urlencoded")
    request = Request("POST", "/", {"content-type": kinds[len(data) % 2]}, data)
    return request.json() if len(data) % 2 == 0 else request.form()


def _origin(data: bytes) -> object:
    return is_loopback(_text(data)), origin_of(_text(data))


def _jwt(data: bytes) -> object:
    lifetime = jwt_lifetime("e30." + base64url.encode(data) + ".x")
    assert lifetime is None or 0.0 < lifetime < math.inf
    thumbprint = jwt_thumbprint("e30." + base64url.encode(data) + ".x")
    assert thumbprint.isascii()
    return lifetime, jwt_lifetime(_text(data)), jwt_thumbprint(_text(data))


def _asks_for_a_proof(data: bytes) -> object:
    """What a server says about a proof: its status, its challenge, a nonce, a date and an error."""
    values, statuses = _text(data).split("\x01"), (200, 400, 401, 403)
    headers = dict(zip(("dpop-nonce", "date", "www-authenticate", "age"), values, strict=False))
    response = HttpResponse(statuses[len(data) % 4], headers, data)
    asks = PROVER.must_repeat("https://a.example/", response)
    proof = PROVER.proof("GET", "https://a.example/")
    assert len(proof) < 4096
    known = PROVER._known.get("https://a.example")
    assert ProofReader().read(proof).claims.nonce == (known.nonce if known else "")
    return asks, proof_error(response)


def _server_metadata(data: bytes) -> object:
    """Metadata whose fields hold the value of *data*, or that is *data*."""
    junk = parse_json(data)
    fields = {"issuer": "https://a.example", "token_endpoint": "https://a.example/token"}
    for name in ("", "token_endpoint", "jwks_uri", "scopes_supported", "token_endpoint_auth_methods_supported"):
        try:
            server = read_authorization_server({**fields, name: junk} if name else junk, "https://a.example")
        except BadResponse:
            continue
        assert origin_of(server.token_endpoint).scheme == "https"  # in capitals, too
    return junk


def _resource_metadata(data: bytes) -> object:
    junk, url = parse_json(data), "https://a.example/orders"
    fields = {"resource": "https://a.example", "authorization_servers": ["https://b.example"]}
    for name in ("", "resource", "authorization_servers", "scopes_supported"):
        try:
            resource, servers, *_ = read_protected_resource({**fields, name: junk} if name else junk, url)
        except BadResponse:
            continue
        assert origin_of(resource) == origin_of(url)
        assert all(origin_of(server).scheme == "https" for server in servers)
    return junk, resource_metadata_url(_text(data))


def _well_known(data: bytes) -> object:
    return server_metadata_urls(_text(data))


def _profile(data: bytes) -> object:
    """A profile is checked as a whole: what it may raise becomes "the profile is damaged"."""
    document: Any = parse_json(data)
    return document if not isinstance(document, dict) else _parse_profile("api", document).dialect()


PARSERS: dict[str, Parser] = {
    "JSON": Parser(parse_json, (), JSON_SEEDS),
    "form": Parser(lambda data: _as_form(data).parsed(), (), JSON_SEEDS),
    "refresh response": Parser(lambda data: STANDARD.read_refresh_response(_response(data)), (), JSON_SEEDS),
    "refresh form": Parser(lambda data: STANDARD.read_refresh_response(_as_form(data)), (), JSON_SEEDS),
    "login response": Parser(
        lambda data: STANDARD.read_login_response(_response(data)),
        (UnbrokenError,),
        tuple(b"\n" + s for s in JSON_SEEDS),
    ),
    "granted tokens": Parser(_granted, (), (b"3600", b'"1e9"', b'["a"]', b"-1", b"1e999", b"9" * 500, b"[" * 50)),
    "granted response": Parser(_granted_body, (), (b"1", b'"x"', b"[[[[1]]]]", b'{"a": [1]}')),
    "proof that is asked for": Parser(
        _asks_for_a_proof,
        (),
        (
            b'n-1\x01Sun, 06 Nov 1994 08:49:37 GMT\x01DPoP error="use_dpop_nonce", algs="ES256"\x01',
            b'n-1\x01\x01DPoP error="invalid_dpop_proof"',
            b'{"error": "use_dpop_nonce"}',
        ),
    ),
    "challenge": Parser(
        _challenge, (), (b'Bearer realm="a\\"b", error="invalid_token", Basic QQ==', b"Digest a=b,c=d")
    ),
    "challenge in a body": Parser(_body_challenge, (), (b'application/json\x01\x01\x01\x01\x0120\n{"code": 1}',)),
    "Retry-After": Parser(
        _retry_after,
        (),
        (b"120", b"Wed, 21 Oct 2015 07:28:00 GMT\nWed, 21 Oct 2015 07:27:00 GMT", b"Mon, 1 Jan 99999999999"),
    ),
    "JWT of others": Parser(_jwt, (), (b'{"exp": 2, "iat": 1}', b'{"exp": "1e999", "iat": NaN}')),
    "stored record": Parser(_record, (CorruptRecord, ConfigurationError), (RECORD,)),
    "content coding": Parser(
        _decoded, (), (b"\x1f\x8b\x08\0\0\0\0\0\0\xff\x03\0\0\0\0\0\0\0\0\0", b"\x28\xb5\x2f\xfd\0")
    ),
    "base64url": Parser(lambda data: base64url.decode(_text(data)), (ValueError,), (b"YQ", b"YWI")),
    "origin": Parser(_origin, (ConfigurationError,), (b"https://a.example:443/x?y", b"http://[::1]:80", b"http://a@b")),
    "idempotency key": Parser(lambda data: read_idempotency_key(_text(data)), (), (b'"a\\"b";c=1', b"a-b-c")),
    "duration": Parser(lambda data: parse_duration(_text(data)), (InvalidValue,), (b"30m", b"1.5h", b"7d", b"1e9")),
    "duration of a program": Parser(
        lambda data: to_seconds("x", _number(data)), (ConfigurationError,), (b"1", b"-0.0")
    ),
    "server metadata": Parser(
        _server_metadata,
        (),
        (
            b'{"issuer": "https://a.example", "token_endpoint": "https://a.example/t"}',
            b'"http://127.0.0.1/"',
            b'["x", 1]',
        ),
    ),
    "resource metadata": Parser(
        _resource_metadata, (), (b'"https://a.example/or"', b'Bearer resource_metadata="https://b"', b'["http://x"]')
    ),
    "issuer": Parser(_well_known, (ConfigurationError,), (b"https://a.example/b", b"https://a.example:99999/?x#y")),
    "profile": Parser(
        _profile,
        (ConfigurationError, ValueError, TypeError, KeyError, AttributeError),
        (b'{"unbroken": 1, "url": "https://a.example", "kind": "oauth2", "origins": ["https://b.example"]}',),
    ),
    "settings": Parser(_settings, (), (b"postgresql://a:b@c/d", b"30m", b"8400", b"Strict")),
    "request body": Parser(_request, (Refused,), JSON_SEEDS),
}


# ---- the server ------------------------------------------------------------------------------------------------------

SESSIONS = Sessions(MemorySessionStore(), issuer="https://a.example")
ISSUED = SESSIONS.create("ada", scope="read")
TRANSPORT = CookieTransport(Cookies("both"), AllowedOrigins(["https://a.example"]))
COOKIE = f"__Host-unbroken-access={ISSUED.access_token}; __Host-unbroken-refresh={ISSUED.refresh_token}".encode()


def _access_token(data: bytes) -> object:
    text = _text(data)
    head, _, rest = ISSUED.access_token.partition(".")
    for token in (text, f"{head}.{base64url.encode(data)}.{rest}", f"{base64url.encode(data)}.{rest}"):
        is_foreign_token(token, "https://a.example")
        try:
            SESSIONS.verify(token)
        except InvalidToken:
            continue
    return text


KEY = ClientKey("Ed25519")
PROOF = KEY.proof("GET", "https://a.example/auth/session").encode()


def _proof(data: bytes) -> object:
    """The header of a stranger: whole, its parts, and its parts under a good signature."""
    text, head = _text(data), PROOF.partition(b".")[0].decode()
    own_head = base64url.decode(head)
    for proof in (text, f"{head}.{base64url.encode(data)}.AA", KEY.sign(own_head, data)):
        path = text[:50].partition("\n")[0]
        for sent in (RequestProof(proof, "GET", "/auth/session"), RequestProof(proof, text[:5], path, text[:20])):
            try:
                SESSIONS.verify_proof(sent)
            except InvalidProof:
                continue
    return text


def _url_of_a_proof(data: bytes) -> object:
    once = normalized_url(_text(data))
    assert normalized_url(once) == once
    return once, raw_path_of(_text(data), "/")


def _refresh_token(data: bytes) -> object:
    return RefreshToken.decode(_text(data), lambda _: b"k" * 32)


def _cookies(data: bytes) -> object:
    headers = {"cookie": _text(data), "origin": _text(data), "host": "a.example", "x-unbroken": "1"}
    request = Request("POST", "/auth/refresh", headers)
    return TRANSPORT.wants_cookies(request), TRANSPORT.access_tokens(request), TRANSPORT.refresh_tokens(request)


def _origin_of_a_request(data: bytes) -> object:
    first, _, second = _text(data).partition("\n")
    return AllowedOrigins(["https://a.example"]).is_trusted(Request("GET", "/", {"origin": first, "host": second}))


def _other_server(data: bytes) -> object:
    document: Any = parse_json(data)
    if not isinstance(document, dict):
        return RemoteKeySet(document)
    for read in (_active, _page, RemoteKeySet):
        try:
            read(document)
        except (BadResponse, TryLater):
            continue
    return document


SERVER = {
    "access token": Parser(_access_token, (), (ISSUED.access_token.encode(), b'{"alg":"none"}', b'{"exp":1e999}')),
    "refresh token": Parser(_refresh_token, (InvalidGrant,), ((ISSUED.refresh_token or "").encode(),)),
    "proof": Parser(_proof, (), (PROOF, b'{"jti":"a","htm":"GET","htu":"https://a.example/auth/session","iat":1e999}')),
    "URL of a proof": Parser(_url_of_a_proof, (ValueError,), (b"https://a.example:443/%41/..?x#y", b"http://[::1]:80")),
    "cookies": Parser(_cookies, (Refused,), (COOKIE, b"a=b; c=d")),
    "origin of a request": Parser(_origin_of_a_request, (), (b"https://a.example\na.example", b"null\n[::1]:80")),
    "answer of another server": Parser(
        _other_server,
        (BadResponse,),
        (b'{"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "YQ", "kid": "1"}]}', b'{"active": true, "exp": 1}',
         b'{"cursor": 1, "revoked": [{"sid": "a", "until": 9}]}'),
    ),
    "cursor": Parser(lambda data: _cursor(_text(data)), (Refused,), (b"after=12", b"after=" + b"9" * 30)),
}  # fmt: skip
PARSERS |= SERVER


def _number(data: bytes) -> Any:
    value = parse_json(data)
    return value if value is not None else _text(data)
