"""The address of a client, as servers and proxies spell it.

One client has one address, whichever its spelling: some proxies add the port, which changes with each connection, or
write an IPv4 address as IPv6 (mapped, or by the NAT64 prefix of RFC 6052).
"""

from __future__ import annotations

import ipaddress
import re

__all__ = ["read_address"]

WITH_PORT = re.compile(r"\[([^\]]*)\](?::[0-9]*)?|([0-9.]+):[0-9]*")
NAT64 = ipaddress.ip_network("64:ff9b::/96")  # an IPv4 address is in the last 32 bits (RFC 6052 §2.1)


def read_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the address in *text*, without port and zone; None for another text, such as the name of a socket."""
    text = text.strip().strip('"')  # RFC 7239 §6 quotes an IPv6 address
    if found := WITH_PORT.fullmatch(text):
        text = found[1] or found[2] or text
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and (address.ipv4_mapped or address in NAT64):
        return ipaddress.IPv4Address(address.packed[-4:])
    return address
