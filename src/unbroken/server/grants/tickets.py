"""Tickets: what a page opens a connection with where it can set no header: a WebSocket, an EventSource, a download.

    ticket = sessions.ticket(access_token)     # the page opens wss://shop.example.com/live?ticket=…
    claims = sessions.redeem(ticket.text)      # what the access token said; a second time it is InvalidToken

1. What stands in a URL is written into logs and histories. So a ticket is good for 30 seconds, never for longer than
   the access token it was bought with, and once: on all nodes, by a mark in the store. Where the store does not answer,
   nobody comes in: TryLater.
2. It is a JWT with a ``typ`` and a key of its own, derived from the keyring's MAC key: no access token can be taken for
   it, nor it for one, not even by a service that looks at nothing but a signature (RFC 8725 §3.11 and §3.12).
3. It says all that the access token said. Whoever redeems it has the same ``Claims``, with the expiry of the access
   token: a good time to end the connection.
4. Whatever is wrong is InvalidToken, with the reason ``malformed``, ``expired``, ``revoked`` or ``used``.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from time import monotonic
from typing import Any

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import GuestProtocol, OctKey

from unbroken.errors import ConfigurationError, InvalidToken
from unbroken.server.freshness import KeyAndRevocationCache
from unbroken.server.keys.access_token import Claims, frozen, kid_of
from unbroken.server.stores.markers import MarkerStore, mark_once, marker_key

__all__ = ["Ticket", "TicketIssuer"]

TICKET_SECONDS = 30.0  # seconds
REDEEMED_MARKER_SECONDS = (
    2.0 * TICKET_SECONDS
)  # a mark outlives its ticket, also where the clocks of two nodes differ by nearly half a minute
MAX_TICKET_CHARS = 6144  # characters: proxies take a request line of 8 KiB
TYPE = "ticket+jwt"
NAMES = tuple(one.name for one in fields(Claims))
MALFORMED_ERRORS = (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError, JoseError)


@dataclass(frozen=True, slots=True)
class Ticket:
    """A ticket: ``text`` stands in a URL as it is; ``expires_in`` are seconds."""

    text: str = field(repr=False)
    expires_in: float

    def to_response(self) -> dict[str, object]:
        """The JSON object that the endpoint answers."""
        return {"ticket": self.text, "expires_in": int(self.expires_in)}


class TicketIssuer:
    """Sells tickets and redeems them, for one issuer and one audience, under the keys that *watch* knows."""

    def __init__(
        self, store: MarkerStore, watch: KeyAndRevocationCache, issuer: str, audience: str, clock: Callable[[], float]
    ) -> None:
        self._store, self._watch, self._clock = store, watch, clock
        self._issuer, self._audience = issuer, audience

    async def issue(self, claims: Claims) -> Ticket:
        """A ticket for the holder of an access token that says *claims*. Raises InvalidToken if that has expired, and
        ConfigurationError for a ticket that would be too long for a URL.
        """
        await self._look()
        now = self._clock()
        life = min(TICKET_SECONDS, claims.expires_at - now)
        if life <= 0.0:
            raise InvalidToken("the access token has expired", reason="expired")
        mac = self._watch.keyring.mac(now)
        header = {"alg": "HS256", "typ": TYPE, "kid": str(mac.number)}
        access = {name: getattr(claims, name) for name in NAMES}
        said = {"iss": self._issuer, "aud": self._audience, "exp": now + life, "jti": secrets.token_urlsafe(16)}
        text = jwt.encode(header, {**said, "access": access}, _key(mac.secret), algorithms=["HS256"])
        if len(text) > MAX_TICKET_CHARS:
            raise ConfigurationError(
                f"a ticket has at most {MAX_TICKET_CHARS} characters: give access tokens fewer claims"
            )
        return Ticket(text, life)

    async def redeem(self, text: str) -> Claims:
        """What the access token said that the ticket *text* was bought with. Raises InvalidToken, or TryLater."""
        await self._look()
        now = self._clock()
        claims, ends, mark = await self._genuine(text, now)
        if now >= ends:
            raise InvalidToken("the ticket has expired", reason="expired")
        if claims.sid in self._watch.revoked:
            raise InvalidToken("the session of this ticket has ended", reason="revoked")
        if not await mark_once(self._store, mark, now, REDEEMED_MARKER_SECONDS):
            raise InvalidToken("the ticket was used before", reason="used")
        return claims

    async def _look(self) -> None:
        if monotonic() > self._watch.fresh_until:
            await self._watch.refresh_if_due()

    async def _genuine(self, text: str, now: float) -> tuple[Claims, float, bytes]:
        """What is in a ticket of ours, its end, and the key of its mark. Raises InvalidToken ``malformed``."""
        try:
            return self._read(text, now)
        except MALFORMED_ERRORS:
            if await self._watch.refresh_for_unknown_key(_number_of(text)):
                return await self._genuine(text, now)
            raise InvalidToken("this is not a ticket of this server", reason="malformed") from None

    def _read(self, text: str, now: float) -> tuple[Claims, float, bytes]:
        if len(text) > MAX_TICKET_CHARS:
            raise ValueError

        def key(found: GuestProtocol) -> OctKey:
            header = found.headers()
            secret = self._watch.keyring.mac_key(int(header["kid"]), now)
            if header["typ"] != TYPE or secret is None:
                raise ValueError
            return _key(secret)

        said: dict[str, Any] = jwt.decode(text, key, algorithms=["HS256"]).claims
        if said["iss"] != self._issuer or said["aud"] != self._audience:
            raise ValueError
        claims = Claims(**{**said["access"], "extra": frozen(said["access"]["extra"])})
        return claims, float(said["exp"]), marker_key(b"ticket", said["jti"].encode())


def _number_of(text: str) -> int | None:
    """The number of the key that *text* says it was made with. Nothing is proved."""
    kid = kid_of(text) or ""
    return int(kid) if kid.isdecimal() and len(kid) < 10 else None


def _key(secret: bytes) -> OctKey:
    return OctKey.import_key(hmac.digest(secret, b"unbroken ticket", "sha256"))
