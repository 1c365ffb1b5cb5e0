"""Which requests come from one party, and which certainly do not."""

from __future__ import annotations

import pytest

from unbroken.server.core.party import Relation, compare_parties, party_of

FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:{0}) Gecko/20100101 Firefox/{0}"


@pytest.mark.parametrize(
    ("ip", "agent", "party"),
    [
        ("203.0.113.7", FIREFOX.format("140.0"), "203.0.113.0/24 Firefox on Linux"),
        ("2001:db8:1:2:3::4", "curl/8.16", "2001:db8:1:2::/64 curl"),
        ("::ffff:203.0.113.7", "", "203.0.113.0/24 -"),
        ("203.0.113.7:51234", "curl/8", "203.0.113.0/24 curl"),
        ("[2001:db8:1:2::4]:443", "curl/8", "2001:db8:1:2::/64 curl"),
        ('"[2001:db8:1:2::4]:443"', "curl/8", "2001:db8:1:2::/64 curl"),
        ("64:ff9b::203.0.113.7", "curl/8", "203.0.113.0/24 curl"),
        ("fe80::1%eth0", "app/1 (x)", "fe80::/64 app"),
        ("127.0.0.2", "curl/8", "127.0.0.2 curl"),
        ("testclient", "okhttp-4.12", "testclient okhttp-"),
        ("", "curl/8", "- curl"),
        ("", "", ""),
    ],
)
def test_a_party_is_a_network_and_a_program(ip: str, agent: str, party: str) -> None:
    assert party_of(ip, agent) == party


@pytest.mark.parametrize(
    ("one", "other", "relation"),
    [
        (("203.0.113.7", FIREFOX.format("140.0")), ("203.0.113.200", FIREFOX.format("141.0")), Relation.SAME),
        (("203.0.113.7", "curl/8"), ("", ""), Relation.SAME),
        (("203.0.113.7", "curl/8"), ("", "curl/8"), Relation.SAME),
        (("203.0.113.7", "curl/8"), ("2001:db8::1", "curl/8"), Relation.DUAL_STACK),
        (("203.0.113.7", "curl/8"), ("2001:db8::1", "wget/1"), Relation.OTHER),
        (("203.0.113.7", "curl/8"), ("203.0.113.7", ""), Relation.OTHER),
        (("203.0.113.7", "curl/8"), ("203.0.114.7", "curl/8"), Relation.OTHER),
        (("127.0.0.1", "curl/8"), ("127.0.0.2", "curl/8"), Relation.OTHER),
    ],
)
def test_parties_are_told_apart_where_it_is_certain(
    one: tuple[str, str], other: tuple[str, str], relation: Relation
) -> None:
    assert compare_parties(party_of(*one), party_of(*other)) is relation
    assert compare_parties(party_of(*other), party_of(*one)) is relation
