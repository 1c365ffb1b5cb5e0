"""What becomes of a refresh token that somebody presents: found genuine, decided, carried out.

1. The decision is ``rotation.present``. Nearly every refresh is R1: then one statement is all that is asked of the
   store. Every other rule, and an R1 that lost a race, is read, decided, compared and set.
2. Where making tokens can fail, they are made before the rotation is written (``mint.py``): a refresh that fails has
   spent nothing. Where nothing but the store can fail, a session that this process does not remember need not be read
   first: the one statement gives it back.
3. A session that this process knows as ended stays ended, even if the store was put back to an older state in which it
   lives: then it is ended there again.
4. Refused is InvalidGrant or InvalidScope, each with a reason, and told to who listens.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from time import monotonic

from unbroken.errors import InvalidGrant, InvalidScope, TryLater
from unbroken.server.core.events import RefreshRejected, ReuseDetected, SessionRefreshed
from unbroken.server.core.refresh_token import RefreshToken, row_key
from unbroken.server.core.rotation import Generation, Policy, PresentedToken, SessionRow, Verdict, present, why_inactive
from unbroken.server.core.session_info import SessionInfo, session_info
from unbroken.server.freshness import KeyAndRevocationCache
from unbroken.server.grants.token_issuer import TokenIssuer
from unbroken.server.listeners import Listeners
from unbroken.server.stores import SessionStore
from unbroken.tokens import TokenResponse

__all__ = ["MAX_SWAP_TRIES", "RefreshGrant", "too_contended"]

_log = logging.getLogger("unbroken")
MAX_SWAP_TRIES = 20  # of a compare-and-set that others were faster at
MAX_IDEMPOTENCY_KEY_CHARS = 200  # characters of an attempt id
REFUSALS = (Verdict.DEAD, Verdict.REUSED)
WHY_REFUSED = {
    "expired": "the session has expired",
    "logged_out": "the session was logged out",
    "reuse": "the refresh token was used twice: the session was ended",
}


class RefreshGrant:
    """Refresh tokens over one store. The flows of ``flows.py`` that begin with one."""

    def __init__(
        self,
        store: SessionStore,
        policy: Policy,
        watch: KeyAndRevocationCache,
        mint: TokenIssuer,
        listeners: Listeners,
        clock: Callable[[], float],
    ) -> None:
        self._store, self._policy, self._watch, self._mint = store, policy, watch, mint
        self._listeners, self._clock = listeners, clock

    async def refresh(
        self, text: str, attempt: str | None, client_id: str | None, scope: str | None, ip: str, user_agent: str
    ) -> TokenResponse:
        """The next tokens. Raises InvalidGrant or InvalidScope, or TryLater: then nothing is spent."""
        try:
            return await self._refresh(text, attempt, client_id, scope, ip, user_agent)
        except InvalidGrant as error:
            if self._listeners:
                self._listeners.notify(RefreshRejected(reason=error.reason, ip=ip, user_agent=user_agent))
            raise

    async def inspect(self, text: str) -> tuple[SessionInfo, bool] | None:
        """The session of a refresh token, and whether it is in use; None for a token that was never ours."""
        await self._watch.refresh_if_due()
        now = self._clock()
        try:
            token = await self._authenticate_token(text, now)
        except InvalidGrant:
            return None
        row = await self._store.read(row_key(token.session_secret))
        if row is None:
            return None
        _, verdict = present(row, PresentedToken(token.generation, token.branch), now, self._policy)
        return session_info(row), verdict in (Verdict.ROTATED, Verdict.HEALED, Verdict.CONVERGED)

    async def _refresh(
        self, text: str, attempt: str | None, client_id: str | None, scope: str | None, ip: str, user_agent: str
    ) -> TokenResponse:
        if monotonic() > self._watch.fresh_until:
            await self._watch.refresh_if_due()
        now = self._clock()
        token = await self._authenticate_token(text, now)
        key, presented = row_key(token.session_secret), PresentedToken(token.generation, token.branch, _hashed(attempt))
        row = self._mint.cached_row(key)
        if row is None and scope is None and self._mint.never_fails:
            row = await self._store.rotate_returning(key, presented, now, self._policy.refresh_ttl, client_id)
            if row is not None:
                return await self._rotated(token, row, now)
            scope = _effective_scope(await self._row(key), client_id, scope)
            return await self._decide_and_swap(token, presented, scope, now, ip, user_agent)
        row = row or await self._row(key)
        scope = _effective_scope(row, client_id, scope)
        await self._check_ended(row, now)
        # Nearly always R1: then what the row will be is known, and its tokens are made before one statement settles it.
        idle_at = min(now + self._policy.refresh_ttl, row.expires_at)
        granted = self._mint.issue(
            token.session_secret, row, Generation(token.generation + 1, 0), now, idle_at, scope, now
        )
        if await self._store.rotate(key, presented, now, self._policy.refresh_ttl):
            self._tell_refreshed(row, Verdict.ROTATED, token.generation + 1)
            return granted
        return await self._decide_and_swap(token, presented, scope, now, ip, user_agent)

    async def _rotated(self, token: RefreshToken, row: SessionRow, now: float) -> TokenResponse:
        """The tokens for *row*, which R1 has just made."""
        await self._check_ended(row, now)
        self._mint.cache_row(row)
        granted = self._mint.issue_current(token.session_secret, row, row.scope, now)
        self._tell_refreshed(row, Verdict.ROTATED, row.generation)
        return granted

    async def _decide_and_swap(
        self, token: RefreshToken, presented: PresentedToken, scope: str, now: float, ip: str, user_agent: str
    ) -> TokenResponse:
        """Every rule but R1, and an R1 that lost a race."""
        key = row_key(token.session_secret)
        for _ in range(MAX_SWAP_TRIES):
            row = await self._store.read(key)
            if row is None:
                raise _unknown()
            if not why_inactive(row, now):
                await self._check_ended(row, now)
            after, verdict = present(row, presented, now, self._policy)
            granted = None if verdict in REFUSALS else self._mint.issue_current(token.session_secret, after, scope, now)
            if after is not row and not await self._store.compare_and_set(row, after, self._watch.dead_until(now)):
                continue
            if granted is not None:
                self._tell_refreshed(after, verdict, after.generation)
                return granted
            if verdict is Verdict.REUSED:
                self._found_reuse(row, after, now, ip, user_agent)
            raise _refused(why_inactive(after, now) or "reuse")
        raise too_contended("too many refreshes of one session at once")

    async def _authenticate_token(self, text: str, now: float) -> RefreshToken:
        """The refresh token that *text* spells. Raises InvalidGrant ``malformed``."""
        unknown: list[int] = []

        def key_of(kid: int) -> bytes | None:
            key = self._watch.keyring.mac_key(kid, now)
            if key is None:
                unknown.append(kid)
            return key

        try:
            return RefreshToken.decode(text, key_of)
        except InvalidGrant:
            if not unknown or not await self._watch.refresh_for_unknown_key(unknown[0]):
                raise
            return RefreshToken.decode(text, key_of)

    async def _row(self, key: bytes) -> SessionRow:
        row = await self._store.read(key)
        if row is None:
            raise _unknown()
        self._mint.cache_row(row)
        return row

    async def _check_ended(self, row: SessionRow, now: float) -> None:
        """Raises InvalidGrant for a session that was ended, as far as this process knows."""
        if row.sid not in self._watch.revoked:
            return
        found = await self._store.read(row.key)
        why = "revoked" if found is None else why_inactive(found, now)
        if why is None:
            _log.warning("session %s lives again in a store that was put back: it is ended again", row.sid)
            await self._store.revoke(now, "revoked", self._watch.dead_until(now), sid=row.sid)
        raise _refused(why or "revoked")

    def _found_reuse(self, row: SessionRow, after: SessionRow, now: float, ip: str, user_agent: str) -> None:
        self._watch.add_revocations([(after.sid, self._watch.dead_until(now))])
        age = None if row.rotated_at is None else int((now - row.rotated_at) * 1000)
        _log.warning("refresh token reuse: session %s of %s was ended (%s)", after.sid, after.subject, after.evidence)
        self._listeners.notify(ReuseDetected(after.sid, after.subject, after.evidence or "", age, ip, user_agent))

    def _tell_refreshed(self, row: SessionRow, verdict: Verdict, seq: int) -> None:
        if self._listeners:
            self._listeners.notify(SessionRefreshed(row.sid, row.subject, verdict.value, seq))


def too_contended(what: str) -> TryLater:
    """For whoever was slower than others, ``TRIES`` times."""
    return TryLater(what, retry_after=0.1)


def _effective_scope(row: SessionRow, client_id: str | None, scope: str | None) -> str:
    """The scope of the next access token. Raises InvalidGrant for another client's token, InvalidScope for too much."""
    if client_id is not None and client_id != row.client_id:
        raise InvalidGrant("the refresh token belongs to another client", reason="wrong_client")
    if scope is None:
        return row.scope
    wanted = dict.fromkeys(scope.split())
    if not wanted.keys() <= set(row.scope.split()):
        raise InvalidScope("more scope was asked for than the session has")
    return " ".join(wanted) or row.scope


def _hashed(attempt: str | None) -> bytes | None:
    """What a row keeps of an attempt id; one that is unreasonably long counts as none."""
    if not attempt or len(attempt) > MAX_IDEMPOTENCY_KEY_CHARS:
        return None
    return hashlib.sha256(attempt.encode("utf-8", "replace")).digest()[:16]


def _unknown() -> InvalidGrant:
    return InvalidGrant("there is no such session", reason="unknown")


def _refused(reason: str) -> InvalidGrant:
    return InvalidGrant(WHY_REFUSED.get(reason, "the session was revoked"), reason=reason)
