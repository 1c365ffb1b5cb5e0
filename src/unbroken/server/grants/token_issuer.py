"""Where tokens are made: the pair that a login or a refresh returns (RFC 6749 §5.1, RFC 9068).

1. Nothing is written here. All that can fail, the application's claims above all, happens before the rotation is
   written: a refresh that fails has spent nothing. The claims hook may be plain or async; an error of it is TryLater:
   it says nothing about the session.
2. What never changes of a session is cached, so that a refresh need not read its row first.
3. No token is issued that this server itself would refuse.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from unbroken._bounded_cache import BoundedCache
from unbroken.errors import ConfigurationError
from unbroken.server.application import call_application
from unbroken.server.core.refresh_token import RefreshToken
from unbroken.server.core.rotation import FIRST_PARTY, Generation, Policy, SessionBinding, SessionFacts, SessionRow
from unbroken.server.core.scope import TokenScope
from unbroken.server.core.session_info import SessionInfo, session_info
from unbroken.server.freshness import KeyAndRevocationCache
from unbroken.server.keys.access_token import checked_extra, fixed_claims, sign
from unbroken.server.worker_pool import STORE_POOL
from unbroken.tokens import TokenResponse

__all__ = ["ClaimsHook", "TokenIssuer"]

ClaimsHook = Callable[[SessionInfo], Mapping[str, object] | Awaitable[Mapping[str, object]]]
MAX_CACHED_ROWS = 10_000
NO_CLAIMS: Mapping[str, object] = {}
Session = SessionRow | SessionFacts


class TokenIssuer:
    """Issues the tokens of one issuer and one audience, under the keys in *freshness*."""

    def __init__(
        self, freshness: KeyAndRevocationCache, policy: Policy, issuer: str, audience: str, claims: ClaimsHook | None
    ) -> None:
        self._freshness, self._policy, self._claims = freshness, policy, claims
        self.issuer, self.audience = issuer, audience
        self._rows: BoundedCache[bytes, tuple[Session, str]] = BoundedCache(MAX_CACHED_ROWS)
        # Without a claims hook the session's first tokens have proved that its later ones can be made.
        self.has_claims_hook, self.never_fails = claims is not None, claims is None

    def binding(self, client_id: str | None) -> SessionBinding:
        """Return where a session must be good for *client_id* to refresh it here; None: the server's own client."""
        return SessionBinding(client_id or FIRST_PARTY, self.issuer, self.audience)

    def is_own(self, row: SessionRow) -> bool:
        """Return whether *row* is a session of this issuer and this audience."""
        return row.is_of(self.issuer, self.audience)

    def bound(self, row: SessionRow) -> SessionRow:
        """Return *row*, bound to this issuer and this audience if it belongs to none yet."""
        return row.bound(self.issuer, self.audience)

    def cached_row(self, key: bytes) -> Session | None:
        """Return the row with this key as it once was (rule 2): only its immutable fields are valid."""
        cached = self._rows.get(key)
        return cached[0] if cached else None

    def cache_row(self, row: Session) -> None:
        """Cache the immutable fields of *row*, and the claims that follow from them."""
        self._rows.put(row.key, (row, fixed_claims(row, self.issuer, self.audience)))

    async def issue_current(
        self, session_secret: bytes, row: SessionRow, scope: TokenScope, now: float
    ) -> TokenResponse:
        """Return the tokens for the newest generation and branch of *row*."""
        newest = Generation(row.generation, row.branch)
        return await self.issue(session_secret, row, newest, row.used_at, row.idle_expires_at, scope, now)

    async def issue(
        self,
        session_secret: bytes,
        row: Session,
        generation: Generation,
        used_at: float,
        idle_expires_at: float,
        scope: TokenScope,
        now: float,
    ) -> TokenResponse:
        """Return the tokens for *generation*. *used_at* and *idle_expires_at* are those that the row will have."""
        keyring, cached = self._freshness.keyring, self._rows.get(row.key)
        ttl = min(self._policy.access_ttl, row.expires_at - now)
        fixed = cached[1] if cached else fixed_claims(row, self.issuer, self.audience)
        extra = NO_CLAIMS  # rule 1
        if self._claims and isinstance(row, SessionRow):  # with a hook every row is read whole
            extra = await self.extra_claims(session_info(row, used_at, idle_expires_at))
        mac = keyring.mac(now)
        return TokenResponse(
            access_token=sign(fixed, scope, generation, now, ttl, extra, keyring.signer(now)),
            refresh_token=RefreshToken(session_secret, *generation).encode(mac.number, mac.secret),
            expires_in=ttl,
            refresh_expires_in=idle_expires_at - now,
            refresh_seq=generation.number,
            scope=scope.words,
            says_scope=scope.is_decided,
            token_type="Bearer" if row.jkt is None else "DPoP",
        )

    async def extra_claims(self, info: SessionInfo) -> Mapping[str, object]:
        """Return the application's claims. Raise TryLater if the hook fails, ConfigurationError if it gives no JSON."""
        if self._claims is None:
            return NO_CLAIMS
        extra = checked_extra(await call_application("the claims hook", STORE_POOL, self._claims, info))  # rule 3
        if info.jkt and "cnf" in extra:
            raise ConfigurationError("the claims hook must not set cnf: this session is bound to a key of its client")
        return extra
