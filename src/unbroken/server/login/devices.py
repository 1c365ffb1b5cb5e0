"""Device tokens: what shows the rate limit that a client has logged in to this account before.

The idea is OWASP's *device cookie* (Slow Down Online Guessing Attacks with Device Cookies).

1. A device token is a single-purpose token (``keys/purpose_token.py``). It opens nothing: it only decides which limit
   counts the wrong passwords of its client.
2. It is valid for one subject, and for one spelling of one name: another account with a similar name is another one.
3. It is void when all sessions of its subject, or all others, are revoked, as after a change of password: what a thief
   has learned from a login is worth nothing then.
4. A value that no server of ours has made counts as no device, and costs the store nothing.
5. For codes (MFA) a network counts as a device too, if the subject has logged in from there with a code: who knows the
   password could use up the codes of a user whose browser has lost its device token. Passwords never depend on it:
   that would tell strangers from where a user logs in.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from unbroken.server.keys.purpose_token import PurposeToken, mac_number_of
from unbroken.server.keys.strict_jwt import MALFORMED_ERRORS, read_text, read_time
from unbroken.server.login.rate_limit import network_key
from unbroken.server.sessions import Sessions
from unbroken.server.stores.base import run_in_worker, run_inline
from unbroken.server.stores.markers import DEVICE_TOKEN_SECONDS, device_forgotten_since, devices_key, marker_key

__all__ = ["DeviceTokens"]

DEVICE_TOKEN = PurposeToken(
    "device+jwt",
    b"unbroken device",
    max_seconds=DEVICE_TOKEN_SECONDS,
    max_chars=2048,
    too_long="use a shorter issuer",
)


class DeviceTokens:
    """Issues device tokens that are good for *known_for* seconds, and reads them."""

    def __init__(self, sessions: Sessions, known_for: float) -> None:
        self._sessions, self._audience = sessions, sessions.issuer + "#device"
        self._seconds = min(known_for, DEVICE_TOKEN_SECONDS)

    async def issue(self, subject: str, spelling: bytes, device: bytes) -> str:
        """Return a token for *subject* under this spelling of the name. *device* is its id, if it has one already."""
        now = self._sessions.clock()
        claims = {
            "aud": self._audience,
            "sub": devices_key(subject.encode("utf-8", "replace")).hex(),
            "name": spelling.hex(),
            "iat": now,
            "exp": now + self._seconds,
            "jti": (device or secrets.token_bytes(16)).hex(),
        }
        return DEVICE_TOKEN.encode(claims, await self._sessions.acached_keyring(), now)  # rule 1

    async def device_of(self, tokens: Sequence[str], spelling: bytes) -> bytes:
        """Return the id of the device of the first of *tokens* that is good for this name; empty if none is."""
        for token in filter(None, tokens):
            if device := await self._device_of(token, spelling):
                return device
        return b""

    async def _device_of(self, token: str, spelling: bytes) -> bytes:
        now, keyring = self._sessions.clock(), await self._sessions.acached_keyring(mac_number_of(token))
        try:
            found = DEVICE_TOKEN.decode(token, keyring, now)
            device, devices = (bytes.fromhex(read_text(found[name])) for name in ("jti", "sub"))
            is_good = found["aud"] == self._audience and found["name"] == spelling.hex()  # rule 2
            is_good = is_good and now < read_time(found["exp"])
            issued_at = read_time(found["iat"])
        except MALFORMED_ERRORS:
            return b""  # rule 4
        store = self._sessions.store
        if not is_good or await run_inline(store, lambda: device_forgotten_since(store, devices, issued_at)):
            return b""
        return device

    async def network_of(self, subject: str, ip: str) -> bytes:
        """Return the id of the network around *ip*, if *subject* has logged in from there with a code; else nothing."""
        devices, network = devices_key(subject.encode("utf-8", "replace")), network_key(ip)
        store = self._sessions.store

        async def find() -> bytes:
            [until] = await store.read_markers([_network_marker(devices, network)])
            is_known = until > self._sessions.clock()
            if not is_known or await device_forgotten_since(store, devices, until - self._seconds):  # rule 3
                return b""
            return network

        return await run_inline(store, find) if network else b""

    async def remember_network(self, subject: str, ip: str) -> None:
        """Remember that *subject* has logged in from the network around *ip* with a code (rule 5)."""
        devices, network = devices_key(subject.encode("utf-8", "replace")), network_key(ip)
        marker, now, seconds = _network_marker(devices, network), self._sessions.clock(), self._seconds
        if network:
            store = self._sessions.store
            await run_in_worker(store, lambda: store.advance_marker(marker, now, seconds, seconds))


def _network_marker(devices: bytes, network: bytes) -> bytes:
    return marker_key(b"code network", devices, network)
