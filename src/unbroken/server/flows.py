"""What a server does with its sessions, each flow once, as a coroutine over the store.

1. What begins with a refresh token is ``exchange.py``, with a ticket ``tickets.py``; the rest of a session's life is
   here.
2. An access token is verified without the store, but for what ``watch.py`` has to look up; one that is refused is
   InvalidToken, with a reason.
3. A revoked session stays revoked: this process knows at once, and says so to who listens.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Coroutine
from dataclasses import replace
from time import monotonic
from typing import Any

from unbroken._bounded_cache import BoundedCache
from unbroken.errors import ConfigurationError, InvalidToken, LoginRefused, TryLater
from unbroken.server.core.events import ServerEvent, SessionCreated, SessionRevoked
from unbroken.server.core.refresh_token import row_key
from unbroken.server.core.rotation import Policy, SessionRow, why_inactive
from unbroken.server.core.session_info import (
    MAX_USER_AGENT_CHARS,
    SessionInfo,
    compact_user_agent,
    device_name,
    session_info,
)
from unbroken.server.freshness import KeyAndRevocationCache
from unbroken.server.grants.refresh_grant import MAX_SWAP_TRIES, RefreshGrant, too_contended
from unbroken.server.grants.tickets import Ticket, TicketIssuer
from unbroken.server.grants.token_issuer import ClaimsHook, TokenIssuer
from unbroken.server.keys.access_token import AccessTokenVerifier, Claims, kid_of
from unbroken.server.keys.keyring import KeyRecord, Keyring
from unbroken.server.listeners import Listeners
from unbroken.server.stores import SessionStore
from unbroken.server.stores.markers import new_device, void_pending_logins
from unbroken.tokens import TokenResponse

__all__ = ["Flows"]

WasEnded = Callable[[], Coroutine[Any, Any, bool]]

_log = logging.getLogger("unbroken")
LONGEST_LABEL = 200
USES_REMEMBERED = 10_000


class Flows:
    """Every flow over one store. ``Sessions`` gives them two spellings, and their documentation."""

    def __init__(
        self,
        store: SessionStore,
        policy: Policy,
        issuer: str,
        audience: str,
        claims: ClaimsHook | None,
        listeners: Listeners,
        confirm_first_use: bool,
        clock: Callable[[], float],
    ) -> None:
        self.store, self.policy, self._listeners, self._clock = store, policy, listeners, clock
        self.confirms = confirm_first_use
        self._confirmed: BoundedCache[tuple[str, int], None] = BoundedCache(USES_REMEMBERED)
        self.watch = KeyAndRevocationCache(store, {"sign": policy.access_ttl, "mac": policy.refresh_ttl}, clock)
        self.mint = TokenIssuer(self.watch, policy, issuer, audience, claims)
        exchange = RefreshGrant(store, policy, self.watch, self.mint, listeners, clock)
        self.refresh, self.inspect = exchange.refresh, exchange.inspect
        self._tickets = TicketIssuer(store, self.watch, issuer, audience, clock)
        self.redeem = self._tickets.redeem
        self._verifier = AccessTokenVerifier(issuer, audience)

    async def login(
        self,
        subject: str,
        client_id: str,
        scope: str,
        label: str,
        ip: str,
        user_agent: str,
        coordinated: bool,
        was_ended: WasEnded | None = None,
    ) -> TokenResponse:
        """*was_ended*: asked when the session is stored; True: it came too late, and is ended untold."""
        _check_subject(subject)
        await self.watch.refresh_if_due()
        now, f = self._clock(), secrets.token_bytes(16)
        row = SessionRow(
            key=row_key(f),
            sid=secrets.token_urlsafe(16),
            subject=str(subject),
            created_at=now,
            used_at=now,
            idle_expires_at=now + min(self.policy.refresh_ttl, self.policy.max_age),
            expires_at=now + self.policy.max_age,
            client_id=client_id,
            scope=" ".join(dict.fromkeys(scope.split())),
            coordinated=coordinated,
            label=label[:LONGEST_LABEL],
            ip=ip[:64],
            user_agent=compact_user_agent(user_agent),
        )
        granted = self.mint.issue_current(f, row, row.scope, now)
        await self.store.insert(row)
        # Before it is told: who hears of a login may end all the others, and means the ones before.
        if was_ended is not None and await was_ended():
            until = self.watch.dead_until(now)
            self.watch.add_revocations(
                [(sid, until) for sid in await self.store.revoke(now, "revoked", until, sid=row.sid)]
            )
            raise LoginRefused("all sessions were ended while this login was under way", reason="changed")
        if self._listeners:
            is_new = await self._is_new(row, now)
            self._tell(
                SessionCreated(row.sid, row.subject, client_id, row.ip, user_agent[:MAX_USER_AGENT_CHARS], is_new)
            )
        return granted

    async def _is_new(self, row: SessionRow, now: float) -> bool:
        try:
            return await new_device(self.store, row.subject, row.client_id, device_name(row.user_agent), now)
        except TryLater as error:  # better told once too often
            _log.warning("whether the device of session %s is new could not be found out: %s", row.sid, error)
            return True

    def known(self, access_token: str) -> Claims | None:
        """What a good token says, where no I/O is due; None where ``verify`` has to look."""
        if self.confirms or monotonic() > self.watch.fresh_until:
            return None
        return self._verifier.verify_cached(access_token, self.watch.revoked, self._clock())

    async def verify(self, access_token: str, *, fresh: bool = False) -> Claims:
        """*fresh*: somebody has seen already that the store need not be asked."""
        watch = self.watch
        if not fresh and monotonic() > watch.fresh_until:
            await watch.refresh_if_due()
        try:
            claims = self._verifier.verify(access_token, watch.keyring, watch.revoked, self._clock())
        except InvalidToken:
            if not await self.watch.refresh_for_unknown_key(kid_of(access_token)):
                raise
            claims = self._verifier.verify(access_token, watch.keyring, watch.revoked, self._clock())
        if self.confirms:
            await self._confirm(claims)
        return claims

    async def ticket(self, access: str | Claims) -> Ticket:
        """*access*: a token, or what one said that has been verified."""
        return await self._tickets.issue(access if isinstance(access, Claims) else await self.verify(access))

    async def logout(self, access_token: str | None, refresh_token: str | None) -> bool:
        await self.watch.refresh_if_due()
        sids = set()
        if access_token is not None and (sid := await self._sid_of_access(access_token)):
            sids.add(sid)
        if refresh_token is not None and (found := await self.inspect(refresh_token)):
            sids.add(found[0].sid)
        for sid in sids:
            await self.revoke("logged_out", sid=sid)
        return bool(sids)

    async def _sid_of_access(self, access_token: str) -> str | None:
        """The session of a genuine access token, however old."""
        await self.watch.refresh_for_unknown_key(kid_of(access_token))
        try:
            return self._verifier.verify_signature(access_token, self.watch.keyring, self._clock()).sid
        except InvalidToken:
            return None

    async def list_of(self, subject: str | None, include_ended: bool) -> list[SessionInfo]:
        now = self._clock()
        rows = await self.store.sessions(subject)
        return [session_info(row) for row in rows if include_ended or not why_inactive(row, now)]

    async def rename(self, sid: str, label: str, subject: str | None) -> SessionInfo | None:
        """As with every change but R1: read, compare and set."""
        for _ in range(MAX_SWAP_TRIES):
            now, found = self._clock(), await self.store.sessions(subject, sid)
            if not found or why_inactive(found[0], now):
                return None
            after = replace(found[0], label=label[:LONGEST_LABEL])
            if after == found[0] or await self.store.compare_and_set(found[0], after, self.watch.dead_until(now)):
                self.mint.cache_row(after)
                return session_info(after)
        raise too_contended("this session changes too often now")

    async def revoke(
        self, why: str, *, sid: str | None = None, subject: str | None = None, keep: str | None = None
    ) -> int:
        """Ends what is named. An empty name names nothing: only None is any."""
        if "" in (sid, subject, keep) or (sid is None and subject is None):
            return 0
        await self.watch.refresh_if_due()
        now = self._clock()
        until = self.watch.dead_until(now)
        if sid is None and subject is not None:  # logins that wait for a code end first: they become sessions no more
            await void_pending_logins(self.store, subject, now)
        about = {} if sid is None else {row.sid: row.subject for row in await self.store.sessions(sid=sid)}
        ended = await self.store.revoke(now, why, until, sid=sid, subject=subject, except_sid=keep)
        self.watch.add_revocations([(one, until) for one in ended])
        for one in ended:
            self._tell(SessionRevoked(one, subject or about.get(one, ""), why))
        return len(ended)

    async def keyring(self) -> Keyring:
        await self.watch.refresh_now()
        return self.watch.keyring

    async def rotate_keys(self, publish_ahead: float) -> list[KeyRecord]:
        await self.store.save_keys((await self.keyring()).rotated(self._clock(), publish_ahead))
        return list((await self.keyring()).records)

    async def retire_key(self, kid: str) -> bool:
        records = (await self.keyring()).retired(kid, self._clock())
        await self.store.save_keys(records)
        await self.watch.refresh_now()
        return bool(records)

    async def jwks(self) -> dict[str, object]:
        await self.watch.refresh_if_due()
        return self.watch.keyring.jwks(self._clock())

    async def _confirm(self, claims: Claims) -> None:
        """The first use of an access token settles its branch: once a generation for each process. If the store is
        busy, the token is no worse for it, and its next use settles it.
        """
        use, done = (claims.sid, claims.generation), False
        if use in self._confirmed:
            return
        self._confirmed.put(use, None)
        try:
            await self.store.record_first_use(claims.sid, claims.generation, claims.branch)
            done = True
        except TryLater:
            pass
        finally:
            if not done:
                self._confirmed.discard(use)

    def _tell(self, event: ServerEvent) -> None:
        self._listeners.notify(event)


def _check_subject(subject: object) -> None:
    """Raises ConfigurationError: an application that gives such a subject is not right."""
    if not isinstance(subject, str) or not subject or any("\ud800" <= char <= "\udfff" for char in subject):
        raise ConfigurationError("the subject of a login must be a text that is not empty: see what authenticate gives")
