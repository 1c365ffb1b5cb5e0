"""Sessions: the server's end. Log in, refresh, verify, log out, list, revoke.

Every method has two spellings. ``refresh`` blocks and needs no event loop; ``arefresh`` awaits. Both run the same flow
of ``flows.py``: the first by ``run_sync``. In an event loop, the slow writes of a store that blocks (login, logout,
revocation: they wait for the disk) are moved to a thread. What is quick (refresh, verify) is done at once; only if
another process keeps the store busy, it is done again in a thread, where it can wait. An awaiting method that runs
within ``run_sync`` blocks too: so code that was written once for both serves both.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Coroutine, Mapping
from typing import Any, TypeVar

from unbroken._sync import in_sync_context, run_sync
from unbroken.server.core.events import EventListener, ServerEvent
from unbroken.server.core.rotation import Policy
from unbroken.server.core.session_info import SessionInfo
from unbroken.server.flows import Flows
from unbroken.server.grants.tickets import Ticket
from unbroken.server.keys.access_token import Claims
from unbroken.server.keys.keyring import KeyRecord, Keyring
from unbroken.server.listeners import listeners_of
from unbroken.server.stores import DatabaseLocked, SessionStore
from unbroken.server.worker_pool import STORE_POOL
from unbroken.tokens import TokenResponse

__all__ = ["SessionInfo", "Sessions"]

T = TypeVar("T")
ABOUT: dict[str, Any]
ABOUT = {"client_id": "first-party", "scope": "", "label": "", "ip": "", "user_agent": "", "coordinated": False}


class Sessions:
    """All sessions of one server. Share one object between its threads and tasks.

    *claims* gives further claims for a session's access tokens; an error in it refuses the token and spends nothing.
    *on_event* is told what happens; several may be. *confirm_first_use*: the first use of an access token settles its
    branch at once, for servers whose clients store tokens before they use them. Times are in seconds; *clock* gives the
    time of day.
    """

    def __init__(
        self,
        store: SessionStore,
        *,
        policy: Policy = Policy(),
        issuer: str = "http://127.0.0.1:8400",
        audience: str = "unbroken",
        claims: Callable[[SessionInfo], Mapping[str, object]] | None = None,
        on_event: EventListener | Collection[EventListener] | None = None,
        confirm_first_use: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.store, self.policy, self.issuer, self.audience = store, policy, issuer, audience
        self.clock, self._waits, listeners = clock, store.blocking, listeners_of(on_event)
        self.notify: Callable[[ServerEvent], None] = listeners.notify
        self.add_listener: Callable[[EventListener], None] = listeners.add
        self._flows = Flows(store, policy, issuer, audience, claims, listeners, confirm_first_use, clock)

    # ---- blocking ----------------------------------------------------------------------------------------------

    def create(
        self,
        subject: str,
        *,
        client_id: str = "first-party",
        scope: str = "",
        label: str = "",
        ip: str = "",
        user_agent: str = "",
        coordinated: bool = False,
    ) -> TokenResponse:
        """The tokens of a new session of *subject*, who has been authenticated.

        *coordinated*: the client stores its attempt ids and shares them, as unbroken's own does; then an old refresh
        token is forgiven only to a repetition of the same attempt, not for ``grace`` seconds.
        """
        return run_sync(self._flows.login(subject, client_id, scope, label, ip, user_agent, coordinated))

    def refresh(
        self,
        refresh_token: str,
        *,
        attempt: str | None = None,
        client_id: str | None = None,
        scope: str | None = None,
        ip: str = "",
        user_agent: str = "",
    ) -> TokenResponse:
        """New tokens for a refresh token (RFC 6749 §6). Raises InvalidGrant, InvalidScope, or TryLater.

        *attempt* is the id of the client's attempt; the same one always gets the same answer. *scope* narrows the
        access token. *client_id*, where given, must be the one the session began with.
        """
        return run_sync(self._flows.refresh(refresh_token, attempt, client_id, scope, ip, user_agent))

    def verify(self, access_token: str) -> Claims:
        """What a good access token says. Raises InvalidToken: ``malformed``, ``expired`` or ``revoked``."""
        return run_sync(self._flows.verify(access_token))

    def known(self, access_token: str) -> Claims | None:
        """What ``verify`` would say, if this token was seen before and no store has to be asked; else None."""
        return self._flows.known(access_token)

    def ticket(self, access: str | Claims) -> Ticket:
        """A ticket for one connection that a browser opens without headers, within 30 seconds: it goes into the URL.

        *access* is a good access token, or what one said that has been verified. Raises as ``verify`` does.
        """
        return run_sync(self._flows.ticket(access))

    def redeem(self, ticket: str) -> Claims:
        """What the access token said that *ticket* was bought with: once, on all nodes. Raises InvalidToken:
        ``malformed``, ``expired``, ``revoked`` or ``used``; or TryLater if the store does not answer.
        """
        return run_sync(self._flows.redeem(ticket))

    def logout(self, *, access_token: str | None = None, refresh_token: str | None = None) -> bool:
        """Ends the sessions that these tokens name; False if they name none. Any genuine token will do, however old."""
        return run_sync(self._flows.logout(access_token, refresh_token))

    def list_of(self, subject: str, *, include_ended: bool = False) -> list[SessionInfo]:
        """The sessions of *subject*, last used first."""
        return run_sync(self._flows.list_of(subject, include_ended))

    def list_all(self, *, include_ended: bool = False) -> list[SessionInfo]:
        """All sessions, last used first."""
        return run_sync(self._flows.list_of(None, include_ended))

    def rename(self, sid: str, label: str, *, subject: str | None = None) -> SessionInfo | None:
        """Gives the living session *sid* another label, with *subject* only if it is that subject's; None if there is
        none.
        """
        return run_sync(self._flows.rename(sid, label, subject))

    def revoke(self, sid: str, *, subject: str | None = None, why: str = "revoked") -> bool:
        """Ends the session *sid*, with *subject* only if it is that subject's; whether there was one to end."""
        return bool(run_sync(self._flows.revoke(why, sid=sid, subject=subject)))

    def revoke_others(self, subject: str, *, keep: str) -> int:
        """Ends all sessions of *subject* but the one with the sid *keep*; how many."""
        return run_sync(self._flows.revoke("revoked", subject=subject, keep=keep))

    def revoke_subject(self, subject: str) -> int:
        """Ends all sessions of *subject*: the password was changed, the account closed. How many."""
        return run_sync(self._flows.revoke("revoked", subject=subject))

    def inspect_refresh(self, refresh_token: str) -> tuple[SessionInfo, bool] | None:
        """The session of a genuine refresh token, and whether that token could be exchanged now; None for others."""
        return run_sync(self._flows.inspect(refresh_token))

    def keyring(self) -> Keyring:
        """The keys as the store has them now."""
        return run_sync(self._flows.keyring())

    def rotate_keys(self, *, publish_ahead: float = 600.0) -> list[KeyRecord]:
        """Makes new keys, which are published now and make tokens in *publish_ahead* seconds. All keys, after it.

        With 0, other processes and verifiers may not know the new keys yet when the first tokens come to them.
        """
        return run_sync(self._flows.rotate_keys(publish_ahead))

    def retire_key(self, kid: str) -> bool:
        """Ends a key at once: no token it made is accepted any more. False if there is no such key."""
        return run_sync(self._flows.retire_key(kid))

    def jwks(self) -> dict[str, object]:
        """The public keys (RFC 7517)."""
        return run_sync(self._flows.jwks())

    def revocations(self, after: int = 0) -> tuple[int, list[tuple[str, float]]]:
        """The sids revoked since the cursor *after*, each with how long its access tokens could live; a new cursor."""
        return run_sync(self.store.revocations(after))

    def close(self) -> None:
        """Stops listening to the store's news, and lets go of the store."""
        self._flows.watch.feed.stop()
        self.store.close()

    # ---- for event loops ---------------------------------------------------------------------------------------

    async def acreate(self, subject: str, **about: Any) -> TokenResponse:
        """``login`` without blocking. *was_ended* is asked when the session is stored: LoginRefused if so."""
        return await self._run_in_worker(lambda: self._flows.login(subject, **ABOUT | about))

    async def arefresh(
        self,
        refresh_token: str,
        *,
        attempt: str | None = None,
        client_id: str | None = None,
        scope: str | None = None,
        ip: str = "",
        user_agent: str = "",
    ) -> TokenResponse:
        """``refresh`` without blocking."""
        return await self._run_inline(
            lambda: self._flows.refresh(refresh_token, attempt, client_id, scope, ip, user_agent)
        )

    async def averify(self, access_token: str) -> Claims:
        """``verify`` without blocking."""
        flows = self._flows
        if self._waits and not in_sync_context() and (flows.confirms or time.monotonic() > flows.watch.fresh_until):
            return await self._run_inline(lambda: flows.verify(access_token))
        return await flows.verify(access_token, fresh=self._waits and not in_sync_context())

    async def aticket(self, access: str | Claims) -> Ticket:
        """``ticket`` without blocking."""
        return await self._run_inline(lambda: self._flows.ticket(access))

    async def aredeem(self, ticket: str) -> Claims:
        """``redeem`` without blocking."""
        return await self._run_inline(lambda: self._flows.redeem(ticket))

    async def alogout(self, *, access_token: str | None = None, refresh_token: str | None = None) -> bool:
        """``logout`` without blocking."""
        return await self._run_in_worker(lambda: self._flows.logout(access_token, refresh_token))

    async def alist_of(self, subject: str, *, include_ended: bool = False) -> list[SessionInfo]:
        """``list_of`` without blocking."""
        return await self._run_inline(lambda: self._flows.list_of(subject, include_ended))

    async def alist_all(self, *, include_ended: bool = False) -> list[SessionInfo]:
        """``list_all`` without blocking."""
        return await self._run_inline(lambda: self._flows.list_of(None, include_ended))

    async def arename(self, sid: str, label: str, *, subject: str | None = None) -> SessionInfo | None:
        """``rename`` without blocking."""
        return await self._run_inline(lambda: self._flows.rename(sid, label, subject))

    async def arevoke(self, sid: str, *, subject: str | None = None, why: str = "revoked") -> bool:
        """``revoke`` without blocking."""
        return bool(await self._run_in_worker(lambda: self._flows.revoke(why, sid=sid, subject=subject)))

    async def arevoke_others(self, subject: str, *, keep: str) -> int:
        """``revoke_others`` without blocking."""
        return await self._run_in_worker(lambda: self._flows.revoke("revoked", subject=subject, keep=keep))

    async def arevoke_subject(self, subject: str) -> int:
        """``revoke_subject`` without blocking."""
        return await self._run_in_worker(lambda: self._flows.revoke("revoked", subject=subject))

    async def akeyring(self) -> Keyring:
        """``keyring`` without blocking."""
        return await self._run_inline(self._flows.keyring)

    async def arotate_keys(self, publish_ahead: float = 600.0) -> list[KeyRecord]:
        """``rotate_keys`` without blocking."""
        return await self._run_in_worker(lambda: self._flows.rotate_keys(publish_ahead))

    async def aretire_key(self, kid: str) -> bool:
        """``retire_key`` without blocking."""
        return await self._run_in_worker(lambda: self._flows.retire_key(kid))

    async def ajwks(self) -> dict[str, object]:
        """``jwks`` without blocking."""
        return await self._run_inline(self._flows.jwks)

    async def arevocations(self, after: int = 0) -> tuple[int, list[tuple[str, float]]]:
        """``revocations`` without blocking."""
        return await self._run_inline(lambda: self.store.revocations(after))

    async def ainspect_refresh(self, refresh_token: str) -> tuple[SessionInfo, bool] | None:
        """``inspect_refresh`` without blocking."""
        return await self._run_inline(lambda: self._flows.inspect(refresh_token))

    async def aclose(self) -> None:
        """``close`` without blocking; what belongs to the running event loop is let go in it."""
        if in_sync_context():
            self.close()
            return
        await STORE_POOL.run(self._flows.watch.feed.stop)
        await self.store.aclose()

    async def _run_inline(self, flow: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """What *flow* gives, which nearly never waits. A flow that found the store busy has written nothing."""
        if not self._waits or in_sync_context():
            return await flow()
        try:
            with self.store.short_timeout():
                return await flow()  # it does not suspend, so that no other task runs within
        except DatabaseLocked:
            return await self._run_in_worker(flow)

    async def _run_in_worker(self, flow: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """What *flow* gives, which waits for the disk or for other processes."""
        if not self._waits or in_sync_context():
            return await flow()
        return await STORE_POOL.run(lambda: run_sync(flow()))
