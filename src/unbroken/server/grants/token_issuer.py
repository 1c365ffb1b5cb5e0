"""Where tokens are made: the pair that a login or a refresh gives.

1. Nothing is written here. All that can fail, the application's claims above all, happens here, before the rotation
   is written: a refresh that fails has spent nothing. An error of the claims hook is TryLater: it proves nothing.
2. What never changes of a session is remembered, so that a refresh need not read it first.
3. No token is given out that this server itself would refuse.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping

from unbroken._bounded_cache import BoundedCache
from unbroken.errors import ConfigurationError, Refused, TryLater
from unbroken.server.core.refresh_token import RefreshToken
from unbroken.server.core.rotation import Generation, Policy, SessionRow
from unbroken.server.core.session_info import SessionInfo, session_info
from unbroken.server.freshness import KeyAndRevocationCache
from unbroken.server.keys.access_token import fixed_claims, sign
from unbroken.tokens import TokenResponse

__all__ = ["ClaimsHook", "TokenIssuer"]

ClaimsHook = Callable[[SessionInfo], Mapping[str, object]]
MAX_CACHED_ROWS = 10_000
NO_CLAIMS: Mapping[str, object] = {}
_log = logging.getLogger("unbroken")


class TokenIssuer:
    """Makes the tokens of one issuer for one audience, under the keys that *watch* knows."""

    def __init__(
        self, watch: KeyAndRevocationCache, policy: Policy, issuer: str, audience: str, claims: ClaimsHook | None
    ) -> None:
        self._watch, self._policy, self._issuer, self._audience, self._claims = watch, policy, issuer, audience, claims
        self._known: BoundedCache[bytes, tuple[SessionRow, str]] = BoundedCache(MAX_CACHED_ROWS)
        self.never_fails = claims is None  # what a login was given tokens for, a refresh is

    def cached_row(self, key: bytes) -> SessionRow | None:
        """The row with this key as it was once: only what never changes of it may be believed."""
        found = self._known.get(key)
        return found[0] if found else None

    def cache_row(self, row: SessionRow) -> None:
        """Makes *row* known."""
        self._known.put(row.key, (row, fixed_claims(row, self._issuer, self._audience)))

    def issue_current(self, f: bytes, row: SessionRow, scope: str, now: float) -> TokenResponse:
        """The tokens for the newest place of *row*."""
        return self.issue(f, row, Generation(row.generation, row.branch), row.used_at, row.idle_expires_at, scope, now)

    def issue(
        self, f: bytes, row: SessionRow, place: Generation, used_at: float, idle_at: float, scope: str, now: float
    ) -> TokenResponse:
        """The tokens for *place* in the session of *row*; *used_at* and *idle_at* are what the row will say of it."""
        keyring, known = self._watch.keyring, self._known.get(row.key)
        life = min(self._policy.access_ttl, row.expires_at - now)
        fixed = known[1] if known else fixed_claims(row, self._issuer, self._audience)
        extra = self._extra(session_info(row, used_at, idle_at)) if self._claims else NO_CLAIMS
        mac = keyring.mac(now)
        return TokenResponse(
            access_token=sign(fixed, scope, place, now, life, extra, keyring.signer(now)),
            refresh_token=RefreshToken(f, place.number, place.branch).encode(mac.number, mac.secret),
            expires_in=life,
            refresh_expires_in=idle_at - now,
            refresh_seq=place.number,
            scope=scope,
        )

    def _extra(self, about: SessionInfo) -> Mapping[str, object]:
        """The application's claims. Raises TryLater if that fails, ConfigurationError for what is no JSON."""
        try:
            extra = self._claims(about) if self._claims else NO_CLAIMS
        except (Refused, TryLater, ConfigurationError):
            raise
        except Exception as error:
            _log.exception("claims failed: nobody gets tokens")
            raise TryLater("claims failed", retry_after=5.0) from error
        try:
            json.dumps(dict(extra))
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"claims gives an object of JSON, and nothing else: {error}") from error
        return extra
