"""Where tokens may go: origins, compared as parsed values (RFC 6454), never as texts. Pure.

1. An origin is scheme, host and port; nothing else of a URL counts.
2. Tokens travel over https. Plain http is for loopback, or for who says so in so many words.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from unbroken.errors import ConfigurationError

__all__ = ["Origin", "ascii_and_unicode_forms", "is_loopback", "origin_of"]

Origin = tuple[str, str, int]


def origin_of(url: str) -> Origin:
    """Scheme, host and port of *url* (RFC 6454). Raises ConfigurationError when it is no absolute HTTP URL."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), -1
    if parts.username is not None or parts.password is not None:
        raise ConfigurationError(f"the URL of {parts.hostname} holds a user name or a password: leave them out")
    if parts.scheme not in ("http", "https") or not parts.hostname or port == -1:
        shown = url.partition("?")[0].rpartition("@")[2]
        raise ConfigurationError(f"{shown!r} is not an absolute http(s) URL")
    if any(sign <= " " or sign == "\x7f" for sign in url) or not (parts.path + parts.query).isascii():
        raise ConfigurationError(f"a URL of {parts.hostname} holds characters that must be percent-encoded")
    return parts.scheme, parts.hostname, port or (443 if parts.scheme == "https" else 80)


def ascii_and_unicode_forms(host: str) -> set[str]:
    """*host* in the two ways that HTTP libraries give it: in ASCII, and decoded (RFC 5891)."""
    try:
        ascii_name = host.encode("idna").decode()
        return {host, ascii_name, ascii_name.encode().decode("idna")}
    except UnicodeError:
        return {host}


def is_loopback(host: str) -> bool:
    """Whether *host* is this very machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
