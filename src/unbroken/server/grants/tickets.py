"""One-time tickets, for connections that a browser opens without headers: a WebSocket, an EventSource, a download.

    ticket = sessions.ticket(access_token)     # the page opens wss://shop.example.com/live?ticket=…
    claims = sessions.redeem(ticket.text)      # the claims of the access token; a second time raises InvalidToken

1. A URL is written into logs and histories. So a ticket is good for 30 seconds, never for longer than the access token
   it was made from, and once on all nodes, by a marker in the store. Without the store it is not redeemed: TryLater.
2. It is a single-purpose token (``purpose_token.py``): no access token can be taken for a ticket, nor the reverse.
3. It carries all claims of the access token. Redeeming returns the same ``Claims``, with the access token's expiry: a
   good time to close the connection. It needs no proof of a key, which a browser cannot send here: the proof was sent
   when the ticket was bought.
4. Whatever is wrong with a ticket is InvalidToken, with the reason ``malformed``, ``expired``, ``revoked`` or ``used``.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from unbroken.errors import InvalidToken
from unbroken.server.freshness import KeyAndRevocationCache
from unbroken.server.keys.access_token import Claims, frozen
from unbroken.server.keys.purpose_token import PurposeToken, mac_number_of
from unbroken.server.keys.strict_jwt import MALFORMED_ERRORS, read_count, read_text, read_time
from unbroken.server.stores.markers import MarkerStore, mark_once, marker_key

__all__ = ["Ticket", "TicketIssuer"]

TICKET_SECONDS = 30.0
REDEEMED_SECONDS = 2.0 * TICKET_SECONDS  # so that a marker outlives its ticket where the clocks of two nodes differ
MAX_TICKET_CHARS = 6144  # proxies take a request line of 8 KiB
TICKET_TOKEN = PurposeToken(
    "ticket+jwt",
    b"unbroken ticket",
    max_seconds=TICKET_SECONDS,
    max_chars=MAX_TICKET_CHARS,
    too_long="give access tokens fewer claims",
)


def read_flag(value: object) -> bool:
    """Return *value*, 1 or 0."""
    if read_count(value) > 1:
        raise ValueError
    return bool(value)


CLAIM_TYPES: dict[str, Callable[[Any], Any]] = {
    "subject": read_text, "sid": read_text, "client_id": read_text, "scope": read_text, "issuer": read_text,
    "audience": read_text, "issued_at": read_time, "expires_at": read_time, "jti": read_text,
    "generation": read_count, "branch": read_count, "extra": dict, "jkt": read_text, "is_full": read_flag,
    "certificate": read_text,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Ticket:
    """A ticket: ``text`` goes into a URL as it stands; ``expires_in`` is in seconds."""

    text: str = field(repr=False)
    expires_in: float

    def to_response(self) -> dict[str, object]:
        """Return the JSON object of the endpoint's response."""
        return {"ticket": self.text, "expires_in": int(self.expires_in)}


class TicketIssuer:
    """Issues and redeems the tickets of one issuer and one audience, under the keys in *freshness*."""

    def __init__(
        self,
        store: MarkerStore,
        freshness: KeyAndRevocationCache,
        issuer: str,
        audience: str,
        clock: Callable[[], float],
    ) -> None:
        self._store, self._freshness, self._clock = store, freshness, clock
        self._issuer, self._audience = issuer, audience

    async def issue(self, access: Claims) -> Ticket:
        """Return a ticket with the claims *access* of an access token.

        Raise InvalidToken if that token has expired, ConfigurationError for a ticket that is too long for a URL.
        """
        await self._refresh_if_due()
        now = self._clock()
        ttl = min(TICKET_SECONDS, access.expires_at - now)  # rule 1
        if ttl <= 0.0:
            raise InvalidToken("the access token has expired", reason="expired")
        claims = {
            "iss": self._issuer,
            "aud": self._audience,
            "iat": now,
            "exp": now + ttl,
            "jti": secrets.token_urlsafe(16),
            "access": {name: getattr(access, name) for name in CLAIM_TYPES}  # rule 3
            | {"is_full": int(access.is_full)},
        }
        return Ticket(TICKET_TOKEN.encode(claims, self._freshness.keyring, now), ttl)

    async def redeem(self, text: str) -> Claims:
        """Return the claims of the access token that the ticket was made from. Raise InvalidToken or TryLater."""
        await self._refresh_if_due()
        now = self._clock()
        claims, expires_at, marker = await self._authenticate(text, now)
        if now >= expires_at:
            raise InvalidToken("the ticket has expired", reason="expired")
        if claims.sid in self._freshness.revoked:
            raise InvalidToken("the session of this ticket was revoked", reason="revoked")
        if not await mark_once(self._store, marker, now, REDEEMED_SECONDS):  # rule 1
            raise InvalidToken("the ticket was used before", reason="used")
        return claims

    async def _refresh_if_due(self) -> None:
        if monotonic() > self._freshness.fresh_until:
            await self._freshness.refresh_if_due()

    async def _authenticate(self, text: str, now: float) -> tuple[Claims, float, bytes]:
        """Return the claims in a ticket, its expiry and the key of its marker. Raise InvalidToken ``malformed``."""
        try:
            return self._read(text, now)
        except MALFORMED_ERRORS:
            if await self._freshness.refresh_for_unknown_key(mac_number_of(text)):
                return await self._authenticate(text, now)
            raise InvalidToken("this is not a ticket of this server", reason="malformed") from None  # rule 4

    def _read(self, text: str, now: float) -> tuple[Claims, float, bytes]:
        found = TICKET_TOKEN.decode(text, self._freshness.keyring, now)  # rule 2
        if found["iss"] != self._issuer or found["aud"] != self._audience:
            raise ValueError
        if found["access"].keys() != CLAIM_TYPES.keys():
            raise ValueError
        values: dict[str, Any] = {name: read(found["access"][name]) for name, read in CLAIM_TYPES.items()}
        claims = Claims(**{**values, "extra": frozen(values["extra"])})
        if claims.issuer != self._issuer or claims.audience != self._audience:
            raise ValueError
        expires_at = min(read_time(found["exp"]), claims.expires_at)  # rule 1
        return claims, expires_at, marker_key(b"ticket", read_text(found["jti"]).encode())
