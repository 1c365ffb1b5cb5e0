"""Sessions: the server's end. Create, refresh, verify, log out, list, revoke.

1. Every operation has two spellings. ``acreate`` awaits; ``create`` blocks and needs no event loop. The awaiting one is
   the implementation, the blocking one runs it by ``run_sync``. An awaiting one within ``run_sync`` blocks too: so code
   that is written once serves both.
2. In an event loop, what writes durably to a store that blocks (login, logout, revocation: they wait for the disk) runs
   in a worker thread: ``@in_worker``. What is quick runs inline, and in a thread only if another process locks the
   store: ``@inline``. A store that awaits needs neither.
3. ``verify`` and ``refresh`` are on the path of every request and of every refresh: both their spellings are written
   out, without the wrapper in between.
4. A session that this process revokes is refused here at once, and listeners are notified.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping
from dataclasses import replace
from functools import cache, wraps
from time import monotonic
from typing import Any, Concatenate, ParamSpec, Self, TypeVar
from urllib.parse import urlsplit

from unbroken._bounded_cache import BoundedCache
from unbroken._encryption import EncryptionKey
from unbroken._sync import in_sync_context, run_sync
from unbroken.errors import ConfigurationError, InvalidRequest, InvalidToken, TryLater
from unbroken.server.core.events import EventListener, ServerEvent, SessionRevoked
from unbroken.server.core.rotation import FIRST_PARTY, Policy, SessionRow, why_inactive
from unbroken.server.core.session_info import (
    MAX_LABEL_CHARS,
    Caller,
    NewSession,
    RefreshInspection,
    Revocation,
    RevocationPage,
    SessionInfo,
    SessionPage,
    session_info,
)
from unbroken.server.freshness import REVOCATION_MARGIN_SECONDS, KeyAndRevocationCache
from unbroken.server.grants.refresh_grant import MAX_SWAP_TRIES, RefreshGrant, too_contended, wrong_client
from unbroken.server.grants.session_creator import SessionCreator
from unbroken.server.grants.tickets import Ticket, TicketIssuer
from unbroken.server.grants.token_issuer import TokenIssuer
from unbroken.server.keys.access_token import AccessTokenVerifier, Claims, kid_of
from unbroken.server.keys.keyring import KeyRecord, Keyring
from unbroken.server.listeners import listeners_of
from unbroken.server.stores import SessionStore, open_store
from unbroken.server.stores.encrypted_keys import encrypted_by_default
from unbroken.server.stores.markers import forget_devices, void_pending_logins
from unbroken.server.worker_pool import STORE_POOL, run_in_worker, run_inline
from unbroken.tokens import TokenResponse

__all__ = ["SessionInfo", "Sessions", "end_sessions"]

DEVELOPMENT_ISSUER = "http://127.0.0.1:8400"  # where ``unbroken serve`` listens
MAX_REMEMBERED_USES = 10_000
DEFAULT_PAGE_SESSIONS = 100
MAX_PAGE_SESSIONS = 1000
EVENTS_IN_A_ROW = 500  # then other tasks run
_log = logging.getLogger("unbroken")

P = ParamSpec("P")
T = TypeVar("T")
Method = Callable[Concatenate["Sessions", P], Coroutine[Any, Any, T]]


def inline(method: Method[P, T]) -> Method[P, T]:
    """Make *method*, which rarely waits, an operation of ``Sessions`` (rule 2)."""

    @wraps(method)
    async def operation(self: Sessions, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await run_inline(self.store, lambda: method(self, *args, **kwargs))

    return operation


def in_worker(method: Method[P, T]) -> Method[P, T]:
    """Make *method*, which waits for the disk, an operation of ``Sessions`` (rule 2)."""

    @wraps(method)
    async def operation(self: Sessions, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await run_in_worker(self.store, lambda: method(self, *args, **kwargs))

    return operation


class Sessions:
    """All sessions of one server, for any number of threads and tasks.

    *store* is a store, or the URL of one: ``sqlite:///app.db``. *issuer* is the public URL of this server; it stands in
    every access token. Without it, tokens name the address of a development server, and the first login logs a warning.
    *claims* returns further claims for the access tokens of a session; if it raises, no token is issued and nothing is
    spent. *on_event* is one listener or several. *confirm_first_use*: the first use of an access token settles its
    branch at once, for servers whose clients store tokens before they use them. *encryption_key*, or several with the
    newest first, encrypts the keys in the store, so that a dump of it makes no token; ``"none"`` leaves them as they
    are. It is not needed for SQLite, which gets a file with a key beside it, and for a store in memory; elsewhere it
    may also be in the environment, as UNBROKEN_ENCRYPTION_KEY. *clock* returns the time of day, in seconds.

    Raises ConfigurationError for a store, an issuer or an encryption key that cannot be used, and StoreUnavailable for
    a store that does not respond. ``close`` it, or use it as a context manager.
    """

    def __init__(
        self,
        store: SessionStore | str,
        *,
        policy: Policy = Policy(),
        issuer: str | None = None,
        audience: str = "unbroken",
        claims: Callable[[SessionInfo], Mapping[str, object]] | None = None,
        on_event: EventListener | Collection[EventListener] | None = None,
        confirm_first_use: bool = False,
        encryption_key: EncryptionKey | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._has_no_issuer = issuer is None
        self.issuer = DEVELOPMENT_ISSUER if issuer is None else _checked_issuer(issuer)
        self.audience, self.policy, self.clock = audience, policy, clock
        opened = open_store(store) if isinstance(store, str) else _checked_store(store)
        self.store = store = encrypted_by_default(opened, encryption_key)
        self._listeners = listeners = listeners_of(on_event)
        token_ttls = {"sign": policy.access_ttl, "mac": policy.refresh_ttl}
        self._freshness = freshness = KeyAndRevocationCache(store, token_ttls, clock)
        self._issuer = TokenIssuer(freshness, policy, self.issuer, audience, claims)
        self._creator = SessionCreator(store, policy, freshness, self._issuer, listeners, clock)
        self._refresh_grant = RefreshGrant(store, policy, freshness, self._issuer, listeners, clock)
        self._tickets = TicketIssuer(store, freshness, self.issuer, audience, clock)
        self._verifier = AccessTokenVerifier(self.issuer, audience)
        self._confirms_first_use = confirm_first_use
        self._confirmed_uses: BoundedCache[tuple[str, int], None] = BoundedCache(MAX_REMEMBERED_USES)

    # ---- tokens --------------------------------------------------------------------------------------------------

    def create(
        self,
        subject: str,
        *,
        client_id: str = FIRST_PARTY,
        scope: str = "",
        label: str = "",
        coordinated: bool = False,
        caller: Caller = Caller(),
    ) -> TokenResponse:
        """Return the tokens of a new session of *subject*, who has been authenticated.

        *coordinated*: the client stores its idempotency keys and shares them, as unbroken's own client does (see
        ``NewSession``). Raises ConfigurationError for a subject that fits into no token.
        """
        return run_sync(
            self.acreate(subject, client_id=client_id, scope=scope, label=label, coordinated=coordinated, caller=caller)
        )

    @in_worker
    async def acreate(
        self,
        subject: str,
        *,
        client_id: str = FIRST_PARTY,
        scope: str = "",
        label: str = "",
        coordinated: bool = False,
        caller: Caller = Caller(),
    ) -> TokenResponse:
        """``create`` for event loops."""
        return await self._create(subject, NewSession(client_id, scope, label, coordinated), caller)

    @in_worker
    async def acreate_unless(
        self, subject: str, new: NewSession, caller: Caller, *, voided: Callable[[], Awaitable[bool]]
    ) -> TokenResponse:
        """``acreate`` for login endpoints: raises LoginRefused if the login was voided while it was under way.

        *voided* is awaited once the session is stored and before listeners are notified. If it returns True, the
        session is revoked. Within ``run_sync`` it must not suspend.
        """
        return await self._create(subject, new, caller, voided)

    async def _create(
        self, subject: str, new: NewSession, caller: Caller, voided: Callable[[], Awaitable[bool]] | None = None
    ) -> TokenResponse:
        if self._has_no_issuer:
            _warn_of_development_issuer()
        return await self._creator.create(subject, new, caller, voided)

    def refresh(
        self,
        refresh_token: str,
        *,
        idempotency_key: str | None = None,
        client_id: str | None = None,
        scope: str | None = None,
        caller: Caller = Caller(),
    ) -> TokenResponse:
        """Return new tokens for a refresh token (RFC 6749 §6). Raises InvalidGrant, InvalidScope or TryLater.

        The same *idempotency_key* always gets the same tokens. *client_id* must be that of the session; only for the
        server's own client it may be left out. *scope* narrows the access token. A session of another issuer or
        audience on the same store is refused.
        """
        return run_sync(self._refresh_grant.refresh(refresh_token, idempotency_key, client_id, scope, caller))

    async def arefresh(
        self,
        refresh_token: str,
        *,
        idempotency_key: str | None = None,
        client_id: str | None = None,
        scope: str | None = None,
        caller: Caller = Caller(),
    ) -> TokenResponse:
        """``refresh`` for event loops."""
        grant = self._refresh_grant
        return await run_inline(
            self.store, lambda: grant.refresh(refresh_token, idempotency_key, client_id, scope, caller)
        )

    async def arefresh_within(
        self,
        refresh_token: str,
        allowed: Callable[[str, str], Awaitable[str]] | None,
        *,
        idempotency_key: str | None = None,
        client_id: str | None = None,
        scope: str | None = None,
        caller: Caller = Caller(),
    ) -> TokenResponse:
        """``arefresh`` for endpoints whose application decides about scopes.

        *allowed*, if it is not None, is awaited with the subject and the scope of the next access token, unless that
        is empty, and returns what is left of it. If it raises, nothing is spent. Within ``run_sync`` it must not
        suspend.
        """
        grant = self._refresh_grant
        return await run_inline(
            self.store, lambda: grant.refresh(refresh_token, idempotency_key, client_id, scope, caller, allowed)
        )

    def inspect_refresh(self, refresh_token: str) -> RefreshInspection | None:
        """Return the session of a refresh token and whether the token is usable now; None unless it is genuine."""
        return run_sync(self.ainspect_refresh(refresh_token))

    @inline
    async def ainspect_refresh(self, refresh_token: str) -> RefreshInspection | None:
        """``inspect_refresh`` for event loops."""
        return await self._refresh_grant.inspect(refresh_token)

    def verify(self, access_token: str) -> Claims:
        """Return the claims of a good access token. Raises InvalidToken: ``malformed``, ``expired`` or ``revoked``."""
        # The look-up costs less than a coroutine that does it (rule 3).
        return self.verify_cached(access_token) or run_sync(self._verify(access_token))

    async def averify(self, access_token: str) -> Claims:
        """``verify`` for event loops."""
        claims = self.verify_cached(access_token)
        if claims is not None:
            return claims
        return await run_inline(self.store, lambda: self._verify(access_token))

    def verify_cached(self, access_token: str) -> Claims | None:
        """Return the claims of a good access token that was verified before, if no I/O is due; else None."""
        freshness = self._freshness
        if self._confirms_first_use or monotonic() > freshness.fresh_until:
            return None
        return self._verifier.verify_cached(access_token, freshness.revoked, self.clock())

    async def _verify(self, access_token: str) -> Claims:
        freshness = self._freshness
        if monotonic() > freshness.fresh_until:
            await freshness.refresh_if_due()
        try:
            claims = self._verifier.verify(access_token, freshness.keyring, freshness.revoked, self.clock())
        except InvalidToken:
            if not await freshness.refresh_for_unknown_key(kid_of(access_token)):
                raise
            claims = self._verifier.verify(access_token, freshness.keyring, freshness.revoked, self.clock())
        if self._confirms_first_use:
            await self._confirm(claims)
        return claims

    async def _confirm(self, claims: Claims) -> None:
        """Record the first use of an access token, once a generation for each process.

        If the store cannot, the token is good all the same, and its next use is recorded.
        """
        use, is_recorded = (claims.sid, claims.generation), False
        if use in self._confirmed_uses:
            return
        self._confirmed_uses.put(use, None)
        try:
            await self.store.record_first_use(claims.sid, claims.generation, claims.branch)
            is_recorded = True
        except TryLater:
            pass
        finally:
            if not is_recorded:
                self._confirmed_uses.discard(use)

    def ticket(self, access: str | Claims) -> Ticket:
        """Return a ticket for one connection that a browser opens without headers; it goes into the URL.

        *access* is a good access token, or the claims of one. Raises InvalidToken as ``verify`` does.
        """
        return run_sync(self.aticket(access))

    @inline
    async def aticket(self, access: str | Claims) -> Ticket:
        """``ticket`` for event loops."""
        return await self._tickets.issue(access if isinstance(access, Claims) else await self._verify(access))

    def redeem(self, ticket: str) -> Claims:
        """Return the claims of the access token that *ticket* was made from, once on all nodes.

        Raises InvalidToken (``malformed``, ``expired``, ``revoked`` or ``used``), or TryLater without the store.
        """
        return run_sync(self.aredeem(ticket))

    @inline
    async def aredeem(self, ticket: str) -> Claims:
        """``redeem`` for event loops."""
        return await self._tickets.redeem(ticket)

    # ---- sessions ------------------------------------------------------------------------------------------------

    def list_sessions(self, subject: str | None = None, *, include_revoked: bool = False) -> list[SessionInfo]:
        """Return the sessions of *subject*, or all sessions, last used first.

        *include_revoked* adds those that were revoked or have expired, as far as the store still has them.
        """
        return run_sync(self.alist_sessions(subject, include_revoked=include_revoked))

    async def alist_sessions(self, subject: str | None = None, *, include_revoked: bool = False) -> list[SessionInfo]:
        """``list_sessions`` for event loops. Between two parts of a long list other tasks run."""
        found: dict[str, SessionInfo] = {}  # a list that changes meanwhile may show a session twice
        cursor = None
        while cursor != "":
            page = await self.apage_sessions(
                subject, limit=MAX_PAGE_SESSIONS, cursor=cursor or "", include_revoked=include_revoked
            )
            found |= {info.sid: info for info in page.sessions}
            cursor = page.next
            if cursor and not in_sync_context():
                await _let_others_run()
        return sorted(found.values(), key=lambda info: -info.used_at)

    def page_sessions(
        self,
        subject: str | None = None,
        *,
        limit: int = DEFAULT_PAGE_SESSIONS,
        cursor: str = "",
        include_revoked: bool = False,
    ) -> SessionPage:
        """Return at most *limit* sessions of *subject*, or of all, and the *cursor* for the next ones.

        The pages are in the order of the logins, the latest first; within a page, the last used comes first. A page may
        be short, or empty, although others follow. Raises InvalidRequest for a wrong limit or cursor.
        """
        return run_sync(self.apage_sessions(subject, limit=limit, cursor=cursor, include_revoked=include_revoked))

    @inline
    async def apage_sessions(
        self,
        subject: str | None = None,
        *,
        limit: int = DEFAULT_PAGE_SESSIONS,
        cursor: str = "",
        include_revoked: bool = False,
    ) -> SessionPage:
        """``page_sessions`` for event loops."""
        if not 1 <= limit <= MAX_PAGE_SESSIONS:
            raise InvalidRequest(f"limit must be between 1 and {MAX_PAGE_SESSIONS}")
        return await self._page(subject, limit, cursor, include_revoked)

    async def _page(self, subject: str | None, limit: int, cursor: str, include_revoked: bool) -> SessionPage:
        now = self.clock()
        try:
            rows, following = await self.store.page(subject, limit, cursor, include_revoked=include_revoked)
        except ValueError:
            raise InvalidRequest("cursor is not one that a page came with") from None
        found = [session_info(row) for row in rows if include_revoked or not why_inactive(row, now)]
        return SessionPage(sorted(found, key=lambda info: -info.used_at), following)

    def rename(self, sid: str, label: str, *, subject: str | None = None) -> SessionInfo | None:
        """Give the session *sid* another label and return it; None if it is not alive, or not *subject*'s."""
        return run_sync(self.arename(sid, label, subject=subject))

    @inline
    async def arename(self, sid: str, label: str, *, subject: str | None = None) -> SessionInfo | None:
        """``rename`` for event loops."""
        for _ in range(MAX_SWAP_TRIES):
            now, found = self.clock(), await self.store.sessions(subject, sid)
            if not found or why_inactive(found[0], now) or not self._may_manage(found[0], subject):
                return None
            after = replace(found[0], label=label[:MAX_LABEL_CHARS])
            dead_until = self._freshness.dead_until(now)
            if after == found[0] or await self.store.compare_and_set(found[0], after, dead_until):
                self._issuer.cache_row(after)
                return session_info(after)
        raise too_contended("this session changes too often now")

    def logout(
        self, *, access_token: str | None = None, refresh_token: str | None = None, client_id: str | None = None
    ) -> bool:
        """Revoke the sessions of these tokens, and return whether there are any. Old genuine tokens count as well.

        With *client_id*, raises InvalidGrant for a session of another client.
        """
        return run_sync(self.alogout(access_token=access_token, refresh_token=refresh_token, client_id=client_id))

    @in_worker
    async def alogout(
        self, *, access_token: str | None = None, refresh_token: str | None = None, client_id: str | None = None
    ) -> bool:
        """``logout`` for event loops."""
        await self._freshness.refresh_if_due()
        owners: dict[str, str] = {}  # the client of each session
        if access_token is not None and (claims := await self._claims_of(access_token)):
            owners[claims.sid] = claims.client_id
        if refresh_token is not None and (found := await self._refresh_grant.inspect(refresh_token)):
            owners[found.session.sid] = found.session.client_id
        if client_id is not None and not set(owners.values()) <= {client_id}:
            raise wrong_client()
        for sid in owners:
            await self._revoke("logged_out", sid=sid)
        return bool(owners)

    def revoke(self, sid: str, *, subject: str | None = None, why: str = "revoked") -> bool:
        """Revoke the session *sid*, and return whether it was alive. With *subject*, only if it is that subject's."""
        return run_sync(self.arevoke(sid, subject=subject, why=why))

    @in_worker
    async def arevoke(self, sid: str, *, subject: str | None = None, why: str = "revoked") -> bool:
        """``revoke`` for event loops."""
        return bool(await self._revoke(why, sid=sid, subject=subject))

    def revoke_others(self, subject: str, *, keep: str) -> int:
        """Revoke all sessions of *subject* but the one with the sid *keep*, and return how many.

        Those of other issuers and audiences on the same store stay as they are.
        """
        return run_sync(self.arevoke_others(subject, keep=keep))

    @in_worker
    async def arevoke_others(self, subject: str, *, keep: str) -> int:
        """``revoke_others`` for event loops."""
        rows = await self.store.sessions(subject)
        if all(map(self._issuer.is_own, rows)):
            return await self._revoke("revoked", subject=subject, keep=keep)
        if not subject or not keep:
            return 0
        await _void_what_waits(self.store, subject, self.clock())
        own = [row.sid for row in rows if row.sid != keep and self._issuer.is_own(row)]
        return sum([await self._revoke("revoked", sid=sid, subject=subject) for sid in own])

    def revoke_subject(self, subject: str, *, keep: str | None = None) -> int:
        """Revoke all sessions of *subject*, after a new password or the end of an account, and return how many.

        Also those of other issuers and audiences on the same store, which share its subjects. The session with the sid
        *keep* is spared.
        """
        return run_sync(self.arevoke_subject(subject, keep=keep))

    @in_worker
    async def arevoke_subject(self, subject: str, *, keep: str | None = None) -> int:
        """``revoke_subject`` for event loops."""
        return await self._revoke("revoked", subject=subject, keep=keep)

    async def _revoke(
        self, why: str, *, sid: str | None = None, subject: str | None = None, keep: str | None = None
    ) -> int:
        # An empty name matches no session; only None means any.
        if "" in (sid, subject, keep) or (sid is None and subject is None):
            return 0
        await self._freshness.refresh_if_due()
        now = self.clock()
        until = self._freshness.dead_until(now)
        if sid is None and subject is not None:
            await _void_what_waits(self.store, subject, now)
        rows = [] if sid is None else await self.store.sessions(sid=sid)
        if not all(self._may_manage(row, subject) for row in rows):
            return 0
        subjects = {row.sid: row.subject for row in rows}
        revoked = await self.store.revoke(now, why, until, sid=sid, subject=subject, except_sid=keep)
        self._freshness.add_revocations([(one, until) for one in revoked])  # rule 4
        for number, one in enumerate(revoked, 1):
            self.notify(SessionRevoked(one, subject or subjects.get(one, ""), why))
            if number % EVENTS_IN_A_ROW == 0 and not in_sync_context():
                await _let_others_run()
        return len(revoked)

    def _may_manage(self, row: SessionRow, subject: str | None) -> bool:
        """Return whether *subject* may change the session *row* here; None is the operator, who may change any."""
        return subject is None or self._issuer.is_own(row)

    async def _claims_of(self, access_token: str) -> Claims | None:
        """Return the claims of a genuine access token, however old; else None."""
        await self._freshness.refresh_for_unknown_key(kid_of(access_token))
        try:
            return self._verifier.verify_signature(access_token, self._freshness.keyring, self.clock())
        except InvalidToken:
            return None

    def revocations(self, after: int = 0) -> RevocationPage:
        """Return the sessions revoked since the cursor *after*; 0 for all whose access tokens may be alive."""
        return run_sync(self.arevocations(after))

    @inline
    async def arevocations(self, after: int = 0) -> RevocationPage:
        """``revocations`` for event loops."""
        cursor, revoked = await self.store.revocations(after)
        return RevocationPage(cursor, [Revocation(sid, until) for sid, until in revoked])

    # ---- keys ----------------------------------------------------------------------------------------------------

    def keyring(self) -> Keyring:
        """Return the keys as the store has them now."""
        return run_sync(self.akeyring())

    async def acached_keyring(self, mac_number: int | None = None) -> Keyring:
        """Return the keys as this process knows them, for login endpoints.

        For a token that names the unknown MAC key *mac_number* the store is asked, but not for every such token.
        """
        freshness = self._freshness
        if monotonic() > freshness.fresh_until:
            await run_inline(self.store, freshness.refresh_if_due)
        if mac_number is not None:
            await run_inline(self.store, lambda: freshness.refresh_for_unknown_key(mac_number))
        return freshness.keyring

    @inline
    async def akeyring(self) -> Keyring:
        """``keyring`` for event loops."""
        await self._freshness.refresh_now()
        return self._freshness.keyring

    def rotate_keys(self, *, publish_ahead: float = 600.0) -> list[KeyRecord]:
        """Make new keys, which are published now and used in *publish_ahead* seconds, and return all keys.

        With 0, other processes and verifiers may not know the new keys when their first tokens arrive.
        """
        return run_sync(self.arotate_keys(publish_ahead=publish_ahead))

    @in_worker
    async def arotate_keys(self, *, publish_ahead: float = 600.0) -> list[KeyRecord]:
        """``rotate_keys`` for event loops."""
        freshness = self._freshness
        await freshness.refresh_now()
        await self.store.save_keys(freshness.keyring.rotated(self.clock(), publish_ahead))
        await freshness.refresh_now()
        return list(freshness.keyring.records)

    def retire_key(self, kid: str) -> bool:
        """Retire a key at once: no token it made is accepted any more. Return False if there is no such key."""
        return run_sync(self.aretire_key(kid))

    @in_worker
    async def aretire_key(self, kid: str) -> bool:
        """``retire_key`` for event loops."""
        freshness = self._freshness
        await freshness.refresh_now()
        records = freshness.keyring.retired(kid, self.clock())
        await self.store.save_keys(records)
        await freshness.refresh_now()
        return bool(records)

    def jwks(self) -> dict[str, object]:
        """Return the public keys as a JWK set (RFC 7517 §5)."""
        return run_sync(self.ajwks())

    @inline
    async def ajwks(self) -> dict[str, object]:
        """``jwks`` for event loops."""
        await self._freshness.refresh_if_due()
        return self._freshness.keyring.jwks(self.clock())

    # ---- events --------------------------------------------------------------------------------------------------

    def add_listener(self, listener: EventListener) -> None:
        """Call *listener* with every event from now on."""
        self._listeners.add(listener)

    @property
    def listeners(self) -> tuple[EventListener, ...]:
        """All listeners, in the order in which they are called."""
        return tuple(self._listeners)

    def notify(self, event: ServerEvent) -> None:
        """Call all listeners with *event*. What one of them raises is logged."""
        self._listeners.notify(event)

    # ---- the end -------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Stop listening to the store's notifications, and close the store."""
        self._freshness.listener.stop()
        self.store.close()

    async def aclose(self) -> None:
        """``close`` for event loops. It also closes the connections of the running loop."""
        if in_sync_context():
            self.close()
            return
        await STORE_POOL.run(self._freshness.listener.stop)
        await self.store.aclose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


async def end_sessions(store: SessionStore, subject: str, now: float, keep: str | None = None) -> int:
    """Revoke all sessions of *subject* in *store* but *keep*, and return how many.

    For who has the store alone, perhaps without its encryption key: other processes refuse the access tokens soon.
    """
    await _void_what_waits(store, subject, now)
    longest = max((key.token_ttl for key in await store.keys() if key.use == "sign"), default=0.0)
    until = now + longest + REVOCATION_MARGIN_SECONDS
    return len(await store.revoke(now, "revoked", until, subject=subject, except_sid=keep))


async def _void_what_waits(store: SessionStore, subject: str, now: float) -> None:
    # Before the sessions are revoked: a login that waits for MFA must not become one afterwards.
    await void_pending_logins(store, subject, now)
    await forget_devices(store, subject, now)


async def _let_others_run() -> None:
    from anyio.lowlevel import checkpoint  # noqa: PLC0415  # blocking use needs no event loop library

    await checkpoint()


OPERATIONS = tuple(name for name, value in vars(SessionStore).items() if not name.startswith("_") and callable(value))


def _checked_store(store: SessionStore) -> SessionStore:
    """Return *store*. Raise ConfigurationError for anything else."""
    missing = [name for name in OPERATIONS if not callable(getattr(store, name, None))]
    if missing or isinstance(store, type):
        what = store.__name__ if isinstance(store, type) else type(store).__name__
        raise ConfigurationError(
            f"Sessions needs a store, such as SqliteSessionStore('app.db'), or its URL: not {what}"
        )
    return store


@cache
def _warn_of_development_issuer() -> None:
    """Log once in a process that tokens name a development server."""
    _log.warning("no issuer is set: access tokens name %s. Set issuer to this server's public URL", DEVELOPMENT_ISSUER)


def _checked_issuer(issuer: str) -> str:
    """Return *issuer*. Raise ConfigurationError unless it is a URL without query and fragment (RFC 8414 §2)."""
    try:
        parts = urlsplit(issuer)
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and not (parts.query or parts.fragment)
    except (ValueError, TypeError, AttributeError):
        is_url = False
    if not is_url:
        raise ConfigurationError("issuer must be the public URL of this server, as https://id.example.com")
    return issuer
