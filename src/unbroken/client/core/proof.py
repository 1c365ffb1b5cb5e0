"""What the proofs of a client say (RFC 9449 §4.2), and what a server's response says about them (§8 and §9). Pure.

1. A proof is for one request: its method, its URL without query and fragment, spelled as it is sent, and the access
   token that goes along.
2. A nonce is a text of the server's, good for its origin alone; one that could not stand in a header is none.
3. A server that wants another proof says so with a 401 at a resource, or with a 400 (some: 401) at a token endpoint. It
   has not carried the request out. That is no challenge of the token: no refresh would help.
4. The ``Date`` of a response tells the server's clock, to a second. A difference of a few seconds is none, and a
   response from a cache tells an old time.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from json.encoder import encode_basestring_ascii as quoted
from urllib.parse import urlsplit

from unbroken import _base64
from unbroken._http import HttpResponse, parse_challenges

__all__ = [
    "NONCE_HEADER",
    "PROOF_ALGORITHMS",
    "PROOF_ERRORS",
    "PROOF_HEADER",
    "access_token_hash",
    "clock_offset",
    "htu_of",
    "nonce_in",
    "origin_in",
    "proof_claims",
    "proof_error",
]

PROOF_ALGORITHMS = ("ES256", "Ed25519", "EdDSA")  # the one that is asked for first is the one that most servers know
PROOF_HEADER, NONCE_HEADER = "DPoP", "dpop-nonce"
NONCE_REQUIRED, PROOF_REFUSED = "use_dpop_nonce", "invalid_dpop_proof"
PROOF_ERRORS = (NONCE_REQUIRED, PROOF_REFUSED)
NONCE = re.compile(r"[\x21\x23-\x5B\x5D-\x7E]{1,1024}")  # RFC 9449 §8.1
SAME_CLOCK_SECONDS = 5.0


def proof_claims(jti: str, method: str, htu: str, issued_at: int, ath: str, nonce: str) -> bytes:
    """Return the claims of a proof as JSON. Without an access token *ath* is empty, as is an unknown *nonce*.

    *jti* and *ath* are base64url. It is written by hand because each request pays for it: a JSON encoder takes thrice
    as long.
    """
    more = f',"ath":"{ath}"' if ath else ""
    more += f',"nonce":{quoted(nonce)}' if nonce else ""
    return f'{{"jti":"{jti}","htm":{quoted(method)},"htu":{quoted(htu)},"iat":{issued_at}{more}}}'.encode()


def access_token_hash(access_token: str) -> str:
    """Return the ``ath`` of a proof that goes along with *access_token*."""
    return _base64.encode(hashlib.sha256(access_token.encode("ascii", "replace")).digest())


def htu_of(url: str) -> str:
    """Return *url* as a proof names it (rule 1): without query, fragment and user, and with a path."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    if not host.isascii():
        host = host.encode("idna").decode("ascii")  # as it is sent (RFC 5891)
    return f"{parts.scheme}://{host}{parts.path or '/'}"


def origin_in(htu: str) -> str:
    """Return the origin in a URL as ``htu_of`` returns it."""
    return htu[: htu.index("/", htu.index("://") + 3)]


def nonce_in(headers: Mapping[str, str]) -> str:
    """Return the nonce that a response has for the next proof (rule 2); "" without one."""
    nonce = headers.get(NONCE_HEADER, "")
    return nonce if NONCE.fullmatch(nonce) else ""


def proof_error(response: HttpResponse) -> str:
    """Return ``use_dpop_nonce`` or ``invalid_dpop_proof`` if *response* refuses the proof (rule 3); "" if not."""
    if response.status not in (400, 401):
        return ""
    for scheme, parameters in parse_challenges(response.headers.get("www-authenticate", "")):
        if scheme == "dpop" and parameters.get("error") in PROOF_ERRORS:
            return parameters["error"]
    body = response.parsed()
    error = body.get("error") if isinstance(body, Mapping) else ""
    return error if error in PROOF_ERRORS else ""


def clock_offset(headers: Mapping[str, str], now: float) -> float | None:
    """Return the seconds that the server's clock is ahead of *now* (rule 4); None if the response does not tell."""
    if "date" not in headers or "age" in headers:
        return None
    from email.utils import parsedate_to_datetime  # noqa: PLC0415  # slow to import, and clocks are seldom looked at

    try:
        offset = parsedate_to_datetime(headers["date"]).timestamp() - now
    except (ValueError, TypeError, OverflowError, IndexError, AttributeError):  # what the parser stumbles over
        return None
    return offset if abs(offset) > SAME_CLOCK_SECONDS else 0.0
