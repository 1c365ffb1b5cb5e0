"""The creation of a session, once its subject has been authenticated.

1. The tokens are made before the row is stored: a login that cannot be served leaves nothing behind.
2. A login that was voided while it was under way, because all sessions of its subject were revoked meanwhile, is
   revoked before any listener hears of it: a listener may revoke all other sessions, and means those before this one.
3. ``SessionCreated`` says whether the device is new. A store that cannot tell counts as new: rather once too often.
4. The application is asked in the event loop, because its functions may be async; what writes is in a worker thread.
5. A login beyond ``Policy.max_sessions_per_subject`` ends the sessions that were used least recently, after its own is
   stored: of logins at the same time, the last one to look sees all.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Awaitable, Callable

from unbroken import _base64
from unbroken.errors import ConfigurationError, LoginRefused, TryLater
from unbroken.server.core.events import SessionCreated, SessionRevoked
from unbroken.server.core.refresh_token import SECRET_BYTES, row_key
from unbroken.server.core.rotation import Policy, SessionRow
from unbroken.server.core.scope import granted_scope, token_scope
from unbroken.server.core.session_info import (
    MAX_IP_CHARS,
    MAX_LABEL_CHARS,
    Caller,
    NewSession,
)
from unbroken.server.core.user_agent import MAX_USER_AGENT_CHARS, compact_user_agent, device_name
from unbroken.server.freshness import KeyAndRevocationCache
from unbroken.server.grants.rights import Allowed
from unbroken.server.grants.token_issuer import TokenIssuer
from unbroken.server.listeners import Listeners
from unbroken.server.stores import SessionStore
from unbroken.server.stores.base import run_in_worker
from unbroken.server.stores.markers import new_device
from unbroken.tokens import TokenResponse

__all__ = ["SessionCreator"]

_log = logging.getLogger("unbroken")


class SessionCreator:
    """Creates sessions in one store."""

    def __init__(
        self,
        store: SessionStore,
        policy: Policy,
        freshness: KeyAndRevocationCache,
        issuer: TokenIssuer,
        listeners: Listeners,
        clock: Callable[[], float],
    ) -> None:
        self._store, self._policy, self._freshness, self._issuer = store, policy, freshness, issuer
        self._listeners, self._clock = listeners, clock

    async def create(
        self,
        subject: str,
        new: NewSession,
        caller: Caller,
        rights: Allowed | None,
        voided: Callable[[], Awaitable[bool]] | None = None,
    ) -> TokenResponse:
        """Return the tokens of a new session of *subject*.

        Raise LoginRefused ``changed`` if *voided*, asked once the session is stored, returns True (rule 2),
        InvalidScope if nothing of the scope is allowed by *rights*, and ConfigurationError for a subject that fits into
        no token.
        """
        _check_subject(subject)
        await run_in_worker(self._store, self._freshness.refresh_if_due)
        allowed = await rights(subject) if rights else None  # rule 4
        new = new._replace(scope=granted_scope(new.scope, allowed))
        now, session_secret = self._clock(), secrets.token_bytes(SECRET_BYTES)
        row = self._row(row_key(session_secret), subject, new, caller, now)
        scope = token_scope(row.scope, allowed, row.client_id)
        tokens = await self._issuer.issue_current(session_secret, row, scope, now)  # rule 1
        await run_in_worker(self._store, lambda: self._insert(row, caller, voided, now))
        return tokens

    async def _insert(
        self, row: SessionRow, caller: Caller, voided: Callable[[], Awaitable[bool]] | None, now: float
    ) -> None:
        await self._store.insert(row)
        if voided is not None and await voided():
            await self._revoke(row, now)
            raise LoginRefused("all sessions were revoked while this login was under way", reason="changed")
        await self._trim(row.subject, now)
        if self._listeners:
            is_new = await self._is_new_device(row, now)
            agent = caller.user_agent[:MAX_USER_AGENT_CHARS]
            self._listeners.notify(SessionCreated(row.sid, row.subject, row.client_id, row.ip, agent, is_new))

    def _row(self, key: bytes, subject: str, new: NewSession, caller: Caller, now: float) -> SessionRow:
        return SessionRow(
            key=key,
            sid=secrets.token_urlsafe(16),
            subject=str(subject),  # a plain str: a subclass may hold more than its text
            created_at=now,
            used_at=now,
            idle_expires_at=now + min(self._policy.refresh_ttl, self._policy.max_age),
            expires_at=now + self._policy.max_age,
            client_id=new.client_id,
            scope=new.scope,
            issuer=self._issuer.issuer,
            audience=self._issuer.audience,
            coordinated=new.coordinated,
            label=new.label[:MAX_LABEL_CHARS],
            jkt=_base64.decode(new.jkt) if new.jkt else None,
            stamp=_base64.decode(new.stamp) if new.stamp else None,
            ip=caller.ip[:MAX_IP_CHARS],
            user_agent=compact_user_agent(caller.user_agent),
        )

    async def _revoke(self, row: SessionRow, now: float) -> None:
        until = self._freshness.dead_until(now)
        sids = await self._store.revoke(now, "revoked", until, sid=row.sid)
        self._freshness.add_revocations([(sid, until) for sid in sids])

    async def _trim(self, subject: str, now: float) -> None:
        """End what *subject* has beyond the limit of the policy (rule 5)."""
        most = self._policy.max_sessions_per_subject
        if most is None:
            return
        until = self._freshness.dead_until(now)
        try:
            ended = await self._store.trim(subject, most, now, "limit", until)
        except TryLater as error:
            _log.warning("cannot limit the sessions of a subject now, its next login does: %s", error)
            return
        self._freshness.add_revocations([(sid, until) for sid in ended])
        for sid in ended:
            self._listeners.notify(SessionRevoked(sid, subject, "limit"))

    async def _is_new_device(self, row: SessionRow, now: float) -> bool:
        try:
            return await new_device(self._store, row, device_name(row.user_agent), now)
        except TryLater as error:
            _log.warning("cannot tell whether the device of session %s is new: %s", row.sid, error)
            return True  # rule 3


def _check_subject(subject: object) -> None:
    """Raise ConfigurationError unless *subject* is a text that fits into a token."""
    if not isinstance(subject, str) or not subject or any("\ud800" <= char <= "\udfff" for char in subject):
        raise ConfigurationError("the subject of a session must be a non-empty str: check what authenticate returns")
