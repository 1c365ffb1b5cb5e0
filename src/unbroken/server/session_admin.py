"""What is done with sessions that exist: list, page, rename, revoke; and the listeners that hear of it.

1. A subject changes the sessions of this issuer and this audience alone, an operator (subject None) any.
2. A session that this process revokes is refused here at once, and listeners are notified.
3. Before the sessions of a subject are revoked, its logins that wait for MFA are voided: none of them may become a
   session afterwards.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from unbroken._arguments import checked_class
from unbroken._concurrency import in_sync_context, run_sync
from unbroken.errors import InvalidRequest
from unbroken.server.core.events import EventListener, ServerEvent, SessionRevoked
from unbroken.server.core.rotation import SessionRow, why_inactive
from unbroken.server.core.session_info import (
    MAX_LABEL_CHARS,
    Revocation,
    RevocationPage,
    SessionInfo,
    SessionPage,
    session_info,
)
from unbroken.server.freshness import REVOCATION_MARGIN_SECONDS, KeyAndRevocationCache
from unbroken.server.grants.refresh_grant import MAX_SWAP_TRIES, too_contended
from unbroken.server.grants.token_issuer import TokenIssuer
from unbroken.server.listeners import Listeners
from unbroken.server.stores import SessionStore
from unbroken.server.stores.base import in_worker, inline
from unbroken.server.stores.markers import forget_devices, void_pending_logins

__all__ = ["DEFAULT_PAGE_SESSIONS", "MAX_PAGE_SESSIONS", "SessionAdmin", "end_sessions"]

DEFAULT_PAGE_SESSIONS = 100
MAX_PAGE_SESSIONS = 1000
EVENTS_IN_A_ROW = 500  # then other tasks run


CHECKED = (
    "alist_sessions",
    "apage_sessions",
    "arename",
    "arevoke",
    "arevoke_others",
    "arevoke_subject",
    "arevocations",
)


@checked_class(*CHECKED, "arevocations", "add_listener")  # the blocking spellings run these
class SessionAdmin:
    """The operations of ``Sessions`` on sessions that exist, each in both spellings (rule 1 of sessions.py)."""

    def __init__(
        self,
        store: SessionStore,
        freshness: KeyAndRevocationCache,
        issuer: TokenIssuer,
        listeners: Listeners,
        clock: Callable[[], float],
    ) -> None:
        self.store, self.clock = store, clock
        self._freshness, self._issuer, self._listeners = freshness, issuer, listeners

    # ---- list and rename -----------------------------------------------------------------------------------------

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
        be short, or empty, although others follow. Raise InvalidRequest for a wrong limit or cursor.
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

    # ---- revoke --------------------------------------------------------------------------------------------------

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

    def revocations(self, after: int = 0) -> RevocationPage:
        """Return the sessions revoked since the cursor *after*; 0 for all whose access tokens may be alive."""
        return run_sync(self.arevocations(after))

    @inline
    async def arevocations(self, after: int = 0) -> RevocationPage:
        """``revocations`` for event loops."""
        cursor, revoked = await self.store.revocations(after)
        return RevocationPage(cursor, [Revocation(sid, until) for sid, until in revoked])

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
        self._freshness.add_revocations([(one, until) for one in revoked])  # rule 2
        for number, one in enumerate(revoked, 1):
            self.notify(SessionRevoked(one, subject or subjects.get(one, ""), why))
            if number % EVENTS_IN_A_ROW == 0 and not in_sync_context():
                await _let_others_run()
        return len(revoked)

    def _may_manage(self, row: SessionRow, subject: str | None) -> bool:
        """Return whether *subject* may change the session *row* here (rule 1)."""
        return subject is None or self._issuer.is_own(row)

    # ---- events --------------------------------------------------------------------------------------------------

    def add_listener(self, listener: EventListener) -> None:
        """Call *listener* with every event from now on."""
        self._listeners.append(listener)

    @property
    def listeners(self) -> tuple[EventListener, ...]:
        """All listeners, in the order in which they are called."""
        return tuple(self._listeners)

    def notify(self, event: ServerEvent) -> None:
        """Call all listeners with *event*. What one of them raises is logged."""
        self._listeners.notify(event)


async def end_sessions(store: SessionStore, subject: str, now: float, keep: str | None = None) -> int:
    """Revoke all sessions of *subject* in *store* but *keep*, and return how many.

    For who has the store alone, perhaps without its encryption key: other processes refuse the access tokens soon.
    """
    await _void_what_waits(store, subject, now)
    longest = max((key.token_ttl for key in await store.keys() if key.use == "sign"), default=0.0)
    until = now + longest + REVOCATION_MARGIN_SECONDS
    return len(await store.revoke(now, "revoked", until, subject=subject, except_sid=keep))


async def _void_what_waits(store: SessionStore, subject: str, now: float) -> None:
    # rule 3
    await void_pending_logins(store, subject, now)
    await forget_devices(store, subject, now)


async def _let_others_run() -> None:
    from anyio.lowlevel import checkpoint  # noqa: PLC0415  # blocking use needs no event loop library

    await checkpoint()
