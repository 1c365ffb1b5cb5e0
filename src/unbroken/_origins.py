"""Origins, compared as parsed values (RFC 6454), never as text; and which of them are safe for secrets. Pure.

1. An origin is scheme, host and port; nothing else of a URL counts.
2. Secrets travel over https. Plain http is safe on loopback only: 127.0.0.0/8, ::1, both also as IPv4-mapped IPv6,
   localhost and its subdomains (RFC 6761 §6.3).
"""

from __future__ import annotations

import ipaddress
from typing import NamedTuple
from urllib.parse import urlsplit

from unbroken.errors import ConfigurationError

__all__ = ["DEFAULT_PORTS", "Origin", "ascii_and_unicode_forms", "is_loopback", "is_secure", "origin_of"]


DEFAULT_PORTS = {"http": 80, "https": 443}


class Origin(NamedTuple):
    """An origin (RFC 6454 §4); ``host`` has neither upper-case letters nor brackets."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        """Return the origin as text (RFC 6454 §6.2): without the default port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}" + ("" if self.port == DEFAULT_PORTS.get(self.scheme, 0) else f":{self.port}")


def origin_of(url: str) -> Origin:
    """Return the origin of *url*.

    Raise ConfigurationError if it is not an absolute http(s) URL, holds a user name or a password, or has characters
    that must be percent-encoded.
    """
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
    return Origin(parts.scheme, parts.hostname, port or DEFAULT_PORTS[parts.scheme])


def ascii_and_unicode_forms(host: str) -> set[str]:
    """Return *host* in both forms that HTTP libraries use: in ASCII, and decoded (RFC 5891)."""
    try:
        ascii_name = host.encode("idna").decode()
        return {host, ascii_name, ascii_name.encode().decode("idna")}
    except UnicodeError:
        return {host}


def is_secure(origin: Origin) -> bool:
    """Return whether secrets may be sent to *origin*: over https, or within this machine."""
    return origin.scheme == "https" or is_loopback(origin.host)  # rule 2


def is_loopback(host: str) -> bool:
    """Return whether *host* (without port and brackets) names this machine."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback
