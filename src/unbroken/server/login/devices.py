"""Device tokens: what shows the rate limit that a client has logged in to this account before.

The idea is OWASP's *device cookie* (Slow Down Online Guessing Attacks with Device Cookies).

1. A device token is a single-purpose token (``keys/purpose_token.py``). It opens nothing: it only decides which limit
   counts the wrong passwords of its client.
2. It is valid for one subject, and for one spelling of one name: another account with a similar name is another one.
3. It is void when all sessions of its subject, or all others, are revoked, as after a change of password: what a thief
   has learned from a login is worth nothing then.
4. A value that no server of ours has made counts as no device, and costs the store nothing.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from unbroken.server.keys.purpose_token import PurposeToken, mac_number_of
from unbroken.server.keys.strict_jwt import MALFORMED_ERRORS, read_text, read_time
from unbroken.server.sessions import Sessions
from unbroken.server.stores.base import run_inline
from unbroken.server.stores.markers import DEVICE_TOKEN_SECONDS, device_forgotten_since, devices_key

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
        return DEVICE_TOKEN.encode(claims, await self._sessions.acached_keyring(), now)

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
            is_good = found["aud"] == self._audience and found["name"] == spelling.hex()
            is_good = is_good and now < read_time(found["exp"])
            issued_at = read_time(found["iat"])
        except MALFORMED_ERRORS:
            return b""  # rule 4
        store = self._sessions.store
        if not is_good or await run_inline(store, lambda: device_forgotten_since(store, devices, issued_at)):
            return b""
        return device
