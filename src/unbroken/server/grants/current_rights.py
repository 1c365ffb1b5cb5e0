"""The claims of a token as they would be if it were made now: for routes that must not wait for the next refresh.

1. One read of the session, one call of ``scopes_of``, one of the claims hook. Nothing is written or cached.
2. A full token (``core/scope.py`` rule 6) has all that its subject may have now; any other one no more than it says.
3. A session that is over is InvalidToken ``revoked``, whatever this process has heard of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from unbroken.errors import InvalidToken
from unbroken.server.core.rotation import why_inactive
from unbroken.server.core.scope import remaining_scope, token_scope
from unbroken.server.core.session_info import session_info
from unbroken.server.grants.rights import Allowed
from unbroken.server.grants.token_issuer import TokenIssuer
from unbroken.server.keys.access_token import Claims, frozen
from unbroken.server.stores import SessionStore
from unbroken.server.stores.base import run_inline

__all__ = ["CurrentRights"]


class CurrentRights:
    """Looks up what a token would say now."""

    def __init__(self, store: SessionStore, issuer: TokenIssuer, clock: Callable[[], float]) -> None:
        self._store, self._issuer, self._clock = store, issuer, clock

    async def of(self, claims: Claims, rights: Allowed | None) -> Claims:
        """Return *claims* with the scope and the application's claims of now. Raise InvalidToken or TryLater."""
        rows = await run_inline(self._store, lambda: self._store.sessions(sid=claims.sid))
        if not rows or why_inactive(rows[0], self._clock()):  # rule 3
            raise InvalidToken("the session of this access token is over", reason="revoked")
        allowed = await rights(claims.subject) if rights else None
        scope = claims.scope
        if allowed is not None:  # rule 2
            full = token_scope("", allowed, claims.client_id).words
            scope = full if claims.is_full else remaining_scope(claims.scope, allowed)
        extra = claims.extra
        if self._issuer.has_claims_hook:
            extra = frozen(dict(await self._issuer.extra_claims(session_info(rows[0]))))
        return replace(claims, scope=scope, extra=extra)
