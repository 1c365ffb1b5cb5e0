"""The party behind a request: its network and its program, as far as these tell two holders of a token apart.

    203.0.113.0/24 Firefox on Linux

1. The network is that of the address: /24 of IPv4, because one client may leave through several addresses of its
   company or its provider; /64 of IPv6, within which a device changes its own address. Every loopback address is a
   network of its own, and a port changes nothing. The address of a server's own socket is unknown: ``-``.
2. The program is the family of the ``User-Agent``, without versions: a client that updates itself stays the same.
3. What is unknown of one of two parties does not tell them apart. An application that refreshes without a ``Caller``
   has one party, the empty one, which counts as no other party.
4. An IPv4 and an IPv6 address of the same program may be one device with both (dual stack): suspicious, not certain.
"""

from __future__ import annotations

import re
from enum import Enum
from functools import lru_cache
from ipaddress import ip_network

from unbroken.server.core.addresses import read_address
from unbroken.server.core.user_agent import device_name

__all__ = ["UNKNOWN_PARTY", "Relation", "compare_parties", "party_of"]

UNKNOWN_PARTY = ""
UNKNOWN = "-"
MAX_NETWORK_CHARS = 64
IPV4_NETWORK_BITS = 24
IPV6_NETWORK_BITS = 64
MAX_CACHED_PARTIES = 10_000
NOT_PRINTABLE = re.compile(r"[^!-~]+")
VERSION = re.compile(r"[0-9.]+")


class Relation(Enum):
    """How two parties relate. Only OTHER is certain."""

    SAME = "same"
    DUAL_STACK = "dual_stack"
    OTHER = "other"


@lru_cache(MAX_CACHED_PARTIES)
def party_of(ip: str, user_agent: str) -> str:
    """Return the party of a request from the address *ip*; empty if nothing is known of it (rule 3)."""
    if not ip and not user_agent:
        return UNKNOWN_PARTY
    return f"{_network(ip)} {_program(user_agent)}"


def compare_parties(one: str, other: str) -> Relation:
    """Return how two parties relate."""
    if one == other or not one or not other:
        return Relation.SAME  # rule 3
    network, _, program = one.partition(" ")
    other_network, _, other_program = other.partition(" ")
    if program != other_program:
        return Relation.OTHER
    if UNKNOWN in (network, other_network):
        return Relation.SAME  # rule 3
    return Relation.DUAL_STACK if (":" in network) != (":" in other_network) else Relation.OTHER  # rule 4


def _network(ip: str) -> str:
    """Return the network of an address (rule 1); another text stands for itself."""
    address = read_address(ip)
    if address is None:
        return NOT_PRINTABLE.sub("_", ip)[:MAX_NETWORK_CHARS].replace(":", "_") or UNKNOWN
    if address.is_loopback:
        return str(address)
    bits = IPV4_NETWORK_BITS if address.version == 4 else IPV6_NETWORK_BITS
    return str(ip_network((address, bits), strict=False))


def _program(user_agent: str) -> str:
    """Return the family of a ``User-Agent`` (rule 2). A header that is missing is one, too."""
    name = VERSION.sub("", NOT_PRINTABLE.sub(" ", device_name(user_agent))).strip()
    return name or UNKNOWN
