"""What a proxy says about the TLS certificate of a client (RFC 8705 §3). Pure.

    certificate_hash("the-secret 5d0e…", "the-secret")      # the x5t#S256 of the certificate, or ""

The proxy ends the TLS connection, asks for a certificate, and sends a header with a secret that it shares with this
server, a space, and the SHA-256 of the certificate (its DER form).

1. The secret makes the difference: anyone can send a header, also past a proxy that appends to it or knows another
   spelling of it. The comparison takes the same time whatever was sent.
2. The hash may be hexadecimal, with colons or without, or base64, in both alphabets: proxies write what they like.
   Anything else is no certificate, as is a header that came twice.
"""

from __future__ import annotations

import hmac
import re

from unbroken import _base64

__all__ = ["certificate_hash"]

HEXADECIMAL = re.compile(r"[0-9A-Fa-f]{2}(:?[0-9A-Fa-f]{2}){31}")
BASE64 = re.compile(r"[A-Za-z0-9+/_-]{43}=?")


def certificate_hash(value: str, secret: str) -> str:
    """Return the hash in *value*, a header of the proxy that knows *secret*, as ``x5t#S256``; else ""."""
    sent, _, told = value.strip().partition(" ")
    if not secret or not hmac.compare_digest(sent.encode(errors="replace"), secret.encode()):  # rule 1
        return ""
    told = told.strip()
    if HEXADECIMAL.fullmatch(told):  # rule 2
        return _base64.encode(bytes.fromhex(told.replace(":", "")))
    return told.rstrip("=").replace("+", "-").replace("/", "_") if BASE64.fullmatch(told) else ""
