"""What clients and proxies write into ``X-Forwarded-For``: nobody gets another's address, and nothing fails."""

from __future__ import annotations

import asyncio
import ipaddress
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from tests.attacks.conftest import attacks
from tests.support.attacks import Attacks
from unbroken.cli.serve import _uvicorn_config
from unbroken.cli.settings import Settings
from unbroken.server.core.addresses import read_address
from unbroken.server.core.party import Relation, compare_parties, party_of
from unbroken.server.login.rate_limit import address_key, network_key

__all__ = ["attacks"]
TRUSTED = ("10.0.0.0/8", "fd00::/8")
PROXIES = ("10.0.0.1", "10.9.8.7", "fd00::1")
AGENT = "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0"
IPV4_IN_IPV6 = [ipaddress.ip_network(text) for text in ("::ffff:0:0/96", "64:ff9b::/96")]

v4 = st.ip_addresses(v=4).filter(lambda ip: not ip.is_loopback)
v6 = st.ip_addresses(v=6).filter(lambda ip: not ip.is_loopback and not any(ip in net for net in IPV4_IN_IPV6))
addresses = st.one_of(v4, v6)
odd = st.one_of(
    st.text(max_size=60),
    st.text(alphabet="0123456789abcdefx.:[]%\" ,;=/\\\0\t-_", max_size=60),
    st.sampled_from(["", "unknown", "_hidden", "127.0.0.1", "::1", "[::1]", "10.0.0.1", "localhost", "for=10.0.0.1",
                     "1.2.3.4, 10.0.0.1", "0x7f.1", "2130706433", "127.1", "٣.٣.٣.٣", "1.2.3.4\r\nx: y", "%", "[",
                     "]:", '"'])
)  # fmt: skip
fuzzed = settings(max_examples=300, deadline=None)


def spellings(address: Any) -> list[str]:
    """How servers and proxies write an address."""
    text = str(address)
    if address.version == 4:
        return [text, f"{text}:443", f"::ffff:{text}", f"[::ffff:{text}]:1", f" {text} ", f"[{text}]:80"]
    return [text, address.exploded, text.upper(), f"[{text}]", f"[{text}]:443", f'"[{text}]:80"', f"{text}%eth0"]


def test_odd_texts_are_no_address_and_fail_nowhere(attacks: Attacks) -> None:
    @fuzzed
    @given(text=odd, real=addresses)
    def attempt(text: str, real: Any) -> None:
        attacks.try_one()
        found = read_address(text)
        party, keys = party_of(text, AGENT), (address_key(text), network_key(text))
        assert all(isinstance(key, bytes) for key in keys)
        assert party.isprintable()
        if found != real and read_address(text) is None:
            assert party.split(" ")[0] != party_of(str(real), AGENT).split(" ")[0], "it got another's network"
            assert address_key(text) != address_key(str(real))

    attempt()


def test_every_spelling_of_an_address_is_that_address(attacks: Attacks) -> None:
    @fuzzed
    @given(one=addresses, other=addresses)
    def attempt(one: Any, other: Any) -> None:
        attacks.try_one()
        assert {read_address(text) for text in spellings(one)} == {one}
        assert len({(party_of(text, AGENT), address_key(text), network_key(text)) for text in spellings(one)}) == 1
        bits = 24 if one.version == 4 else 64
        is_near = one.version == other.version and other in ipaddress.ip_network((one, bits), strict=False)
        for text in spellings(other):
            relation = compare_parties(party_of(str(one), AGENT), party_of(text, AGENT))
            expected = Relation.OTHER if one.version == other.version else Relation.DUAL_STACK
            assert relation is (Relation.SAME if is_near else expected)

    attempt()


def client_of(header: str, sender: str, trusted: tuple[str, ...] = TRUSTED) -> str:
    """The address of the client that ``unbroken serve`` sees, behind the proxies that it trusts."""
    seen: list[str] = []

    async def app(scope: Any, _receive: Any, _send: Any) -> None:
        seen.append(scope["client"][0])

    config = _uvicorn_config(Settings(forwarded_allow_ips=trusted), "https://id.example.com")
    middleware = ProxyHeadersMiddleware(app, trusted_hosts=config.forwarded_allow_ips)
    headers = [(b"x-forwarded-for", header.encode("latin-1", "replace"))]
    scope: Any = {"type": "http", "client": (sender, 1), "headers": headers, "scheme": "http"}
    asyncio.run(middleware(scope, None, None))  # type: ignore[arg-type]  # nothing is received or sent
    return seen[0]


def test_what_a_client_writes_itself_does_not_count_behind_any_number_of_proxies(attacks: Attacks) -> None:
    @settings(max_examples=150, deadline=None)
    @given(written=st.lists(odd, max_size=4), real=addresses, hops=st.lists(st.sampled_from(PROXIES), max_size=3))
    def attempt(written: list[str], real: Any, hops: list[str]) -> None:
        if any(
            real in ipaddress.ip_network(net) for net in TRUSTED if ipaddress.ip_network(net).version == real.version
        ):
            return
        attacks.try_one()
        chain = [*(text.replace(",", " ") for text in written), str(real), *hops]
        assert read_address(client_of(", ".join(chain), "10.0.0.1")) == real

    attempt()


def test_who_is_no_trusted_proxy_has_his_own_address(attacks: Attacks) -> None:
    @settings(max_examples=100, deadline=None)
    @given(written=odd)
    def attempt(written: str) -> None:
        attacks.try_one()
        assert client_of(written, "203.0.113.9") == "203.0.113.9"
        assert client_of(written, "203.0.113.9", ()) == "203.0.113.9"

    attempt()
