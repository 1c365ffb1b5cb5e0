"""What a proof of possession must say, and which URL it means (RFC 9449 §4.2 and §4.3). Pure.

With each request a client proves that it has the key of its session: the header ``DPoP`` is a JWT that this key has
signed, for this one request. The rules, in the order in which they are tried; each has the ``reason`` of its refusal:

    P1  form       one header with one JWT of the type dpop+jwt, and all of its claims      malformed
    P2  algorithm  one of ours, asymmetric, and the one that fits the key                   algorithm
    P3  key        a public key; its private part is not in the header                      private_key
    P4  signature  by this key                                                              signature
    P5  method     ``htm`` is the method of the request                                     method
    P6  url        ``htu`` is its URL as clients see it, without query and fragment         url
    P7  token      ``ath`` is the hash of the access token that came along                  access_token
    P8  nonce      the server's newest or the one before, where the server asks for one     (use_dpop_nonce)
    P9  time       made at most ``window`` seconds ago, and not in the future: by the time  too_old, too_new
                   of its nonce, where the server asks for one, otherwise by ``iat``
    P10 once       no earlier request of this key had its ``jti``                           replayed
    P11 binding    the session, or the access token, is bound to this key                   wrong_key

P1 to P4 are in ``keys/proof_token.py``, P8 in ``proofs/nonces.py``, P10 in ``proofs/replays.py``; P11 is R0k of
rotation, and the verification of access tokens.

Two URLs are one if they are equal after the normalization of RFC 3986 §6.2.2 and §6.2.3, as far as it cannot change
their meaning: the case of scheme and host, the default port, an empty path, and percent-encoding. Dot segments stay.
"""

from __future__ import annotations

import hashlib
import re
from typing import NamedTuple
from urllib.parse import quote, unquote, urlsplit

from unbroken import _base64
from unbroken._http import DEFAULT_PORTS, Origin

__all__ = [
    "MAX_CLOCK_SKEW_SECONDS",
    "ProofClaims",
    "ProofTarget",
    "RequestProof",
    "encoded_path",
    "normalized_url",
    "raw_path_of",
    "token_hash",
    "why_refused",
]

MAX_CLOCK_SKEW_SECONDS = 30.0  # how far a client's clock may be ahead
PERCENT_ENCODED = re.compile(r"%([0-9A-Fa-f]{2})")
UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
NOT_IN_URLS = re.compile(r"[^!-~]|\\")  # browsers leave other signs that RFC 3986 wants encoded as they are
SAFE_IN_PATHS = "/:@!$&'()*+,;=~-._"
WEBSOCKET_SCHEMES = {"ws": "http", "wss": "https"}


class RequestProof(NamedTuple):
    """The proof of one request as it arrived: *text* is its header ``DPoP``, empty if there is none.

    *path* is percent-encoded, as the client has sent it. *host* is the ``Host`` header. The handshake of a WebSocket
    may be proven for its ``wss`` URL, too. *spent* are the proofs that this very request has spent.
    """

    text: str
    method: str
    path: str
    host: str = ""
    is_websocket: bool = False
    spent: set[bytes] | None = None

    def __repr__(self) -> str:
        return f"<RequestProof {self.method} {self.path}>"


class ProofClaims(NamedTuple):
    """The claims of a proof. Times are seconds since the Unix epoch."""

    jti: str
    method: str
    url: str
    issued_at: float
    token_hash: str = ""
    nonce: str = ""


class ProofTarget(NamedTuple):
    """What a proof must be for: one of *urls*; *token_hash* is empty where no access token came along."""

    method: str
    urls: tuple[str, ...]
    token_hash: str = ""
    is_websocket: bool = False


def why_refused(claims: ProofClaims, target: ProofTarget, made_at: float, now: float, window: float) -> str:
    """Return the reason why *claims* do not prove *target* at *now* (P5 to P7, P9); empty if they do.

    *made_at* is when the proof was made, by its nonce or its ``iat``; *window* is in seconds.
    """
    if claims.method != target.method:
        return "method"  # P5
    if claims.url not in target.urls and not _means(claims.url, target):
        return "url"  # P6
    if target.token_hash and claims.token_hash != target.token_hash:
        return "access_token"  # P7
    if made_at < now - window:
        return "too_old"  # P9
    return "too_new" if made_at > now + min(window, MAX_CLOCK_SKEW_SECONDS) else ""


def token_hash(access_token: str) -> str:
    """Return the ``ath`` of a proof that comes with *access_token*."""
    return _base64.encode(hashlib.sha256(access_token.encode("ascii", "replace")).digest())


def normalized_url(url: str, *, is_websocket: bool = False) -> str:
    """Return the one spelling of *url*, an absolute http(s) URL, without query and fragment. Raise ValueError.

    *is_websocket*: ``ws`` and ``wss`` are http and https.
    """
    if NOT_IN_URLS.search(url):
        raise ValueError("not a URL")
    parts = urlsplit(url)
    scheme = WEBSOCKET_SCHEMES.get(parts.scheme, parts.scheme) if is_websocket else parts.scheme
    if scheme not in DEFAULT_PORTS or not parts.hostname or "@" in parts.netloc:
        raise ValueError("not an absolute http(s) URL")
    port = DEFAULT_PORTS[scheme] if parts.port is None else parts.port
    return f"{Origin(scheme, parts.hostname, port)}{PERCENT_ENCODED.sub(_decoded, parts.path) or '/'}"


def encoded_path(path: str) -> str:
    """Return *path*, which was decoded, as most clients encode it."""
    return quote(path, safe=SAFE_IN_PATHS)


def raw_path_of(target: str, path: str) -> str:
    """Return the path in the request target that a server has read (RFC 9112 §3.2); empty unless it means *path*.

    A proxy, or a mount, may have changed one of them.
    """
    raw = target.partition("?")[0]
    if not raw.startswith("/") and "://" in raw:  # the absolute form
        raw = "/" + raw.partition("://")[2].partition("/")[2]
    return raw if unquote(raw) == path else ""


def _means(url: str, target: ProofTarget) -> bool:
    """Return whether *url* is another spelling of one of the URLs of *target*."""
    try:
        meant = normalized_url(url, is_websocket=target.is_websocket)
        return any(meant == normalized_url(one) for one in target.urls)
    except ValueError:
        return False


def _decoded(found: re.Match[str]) -> str:
    """Return a percent-encoded character decoded if it need not be encoded (RFC 3986 §6.2.2.2)."""
    char = chr(int(found[1], 16))
    return char if char in UNRESERVED else found[0].upper()
