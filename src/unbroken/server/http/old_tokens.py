"""Tokens of the system that an application had before: served beside ours for a while, and taken over once.

    old = OldTokens(sessions, read_access=old_subject, read_refresh=old_refresh_subject)
    Middleware(AccessTokenMiddleware, sessions=old)     # or Bearer(old): both kinds of access tokens are good
    tokens = old.refresh(refresh_token)                 # of either kind: a session of ours from now on

1. An access token of ours is verified by ``Sessions``, and never by the application: the header and the issuer of a JWT
   say whose it is. The application verifies any other: ``read_access`` returns its subject, or None.
2. An old refresh token begins one session. It comes again only if its response was lost, so it is accepted once more
   within the grace of the policy, and then never again.
3. What ``read_access`` and ``read_refresh`` raise means that they could not tell now: 503, and nothing is lost. They
   may be plain or async; a plain one runs in a thread, and gets the token alone.
4. Nothing here is needed when the last old refresh token has expired. Until then the old system may go on issuing them:
   an application that goes back has lost nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from unbroken._arguments import checked_class
from unbroken._concurrency import run_sync
from unbroken._time import Duration, to_seconds
from unbroken.errors import ConfigurationError, InvalidGrant, InvalidToken
from unbroken.server.application import call_application
from unbroken.server.core.proof import RequestProof
from unbroken.server.core.session_info import Caller
from unbroken.server.http.authentication import is_own_token
from unbroken.server.keys.access_token import Claims
from unbroken.server.sessions import Sessions
from unbroken.server.stores.base import run_in_worker
from unbroken.server.stores.markers import marker_key
from unbroken.server.worker_pool import STORE_POOL
from unbroken.tokens import TokenResponse

__all__ = ["OldTokens"]

OLD_CLIENT_ID = "old"  # of the claims of an old access token
ASSUMED_SECONDS = 60.0  # how long the claims of an old access token count: its expiry is not known here
ReadToken = Callable[[str], str | Awaitable[str | None] | None]


@checked_class("refresh", "arefresh", own=("sessions", "read_access", "read_refresh"))
class OldTokens:
    """The tokens of an old system beside those of *sessions*, whose place it takes where tokens are verified.

    *read_access* returns the subject of a good old access token, *read_refresh* that of a good old refresh token; None
    for any other. *lifetime* is how long the old system's refresh tokens live at most, in seconds or as a
    ``timedelta``. Raise ConfigurationError for a wrong value.
    """

    def __init__(
        self,
        sessions: Sessions,
        *,
        read_access: ReadToken | None = None,
        read_refresh: ReadToken | None = None,
        lifetime: Duration = 90 * 86400.0,
    ) -> None:
        if not isinstance(sessions, Sessions):
            raise ConfigurationError(f"OldTokens stands beside a Sessions, not a {type(sessions).__name__}")
        for name, function in (("read_access", read_access), ("read_refresh", read_refresh)):
            if function is not None and not callable(function):
                raise ConfigurationError(f"{name} must be a function that returns the subject of a token, or None")
        self.sessions, self.issuer, self.proofs = sessions, sessions.issuer, sessions.proofs
        self._read_access, self._read_refresh = read_access, read_refresh
        self._lifetime = to_seconds("lifetime", lifetime, above_zero=True)

    # ---- access tokens ---------------------------------------------------------------------------------------------

    def verify_cached(self, access_token: str) -> Claims | None:
        """Return the claims of a token of ours that was verified before, if no I/O is due; else None."""
        return self.sessions.verify_cached(access_token)

    def verify(self, access_token: str, proof: RequestProof | None = None, certificate: str = "") -> Claims:
        """Return the claims of a good access token of either kind. Raise InvalidToken, InvalidProof or TryLater.

        Those of an old one have the ``client_id`` ``old``, no scope and no ``sid``.
        """
        return run_sync(self.averify(access_token, proof, certificate))

    async def averify(self, access_token: str, proof: RequestProof | None = None, certificate: str = "") -> Claims:
        """``verify`` for event loops."""
        if self._read_access is None or proof is not None or is_own_token(access_token, self.issuer):  # rule 1
            return await self.sessions.averify(access_token, proof, certificate)
        subject = await _subject("read_access", self._read_access, access_token)
        if subject is None:
            raise InvalidToken("this is neither an access token of this server nor an old one", reason="malformed")
        now = self.sessions.clock()
        audience, until = self.sessions.audience, now + ASSUMED_SECONDS
        return Claims(subject, "", OLD_CLIENT_ID, "", self.issuer, audience, now, until, "")

    # ---- refresh tokens --------------------------------------------------------------------------------------------

    def refresh(self, refresh_token: str, *, caller: Caller = Caller()) -> TokenResponse:
        """Return new tokens for a refresh token of either kind. Raise InvalidGrant, TryLater or ConfigurationError.

        An old one begins a session of its subject (rule 2). The reason of an old one that came before is ``used``.
        """
        return run_sync(self.arefresh(refresh_token, caller=caller))

    async def arefresh(self, refresh_token: str, *, caller: Caller = Caller()) -> TokenResponse:
        """``refresh`` for event loops."""
        if self._read_refresh is None or await self.sessions.ainspect_refresh(refresh_token) is not None:
            return await self.sessions.arefresh(refresh_token, caller=caller)
        subject = await _subject("read_refresh", self._read_refresh, refresh_token)
        if subject is None:
            message = "this is neither a refresh token of this server nor an old one"
            raise InvalidGrant(message, reason="malformed")
        key = marker_key(b"old refresh token", refresh_token.encode("utf-8", "replace"))
        await run_in_worker(self.sessions.store, lambda: self._spend(key))
        return await self.sessions.acreate(subject, caller=caller)

    async def _spend(self, key: bytes) -> None:
        """Note the first use of an old refresh token. Raise InvalidGrant after the grace (rule 2)."""
        store, now = self.sessions.store, self.sessions.clock()
        [until] = await store.read_markers([key])
        if until == 0.0:
            await store.advance_marker(key, now, self._lifetime, self._lifetime)
        elif now - (until - self._lifetime) > self.sessions.policy.grace:
            raise InvalidGrant("this old refresh token was used before: log in again", reason="used")


async def _subject(what: str, function: ReadToken, token: str) -> str | None:
    """Return the subject that the application's *function* finds in *token*. Raise TryLater (rule 3)."""
    found = await call_application(what, STORE_POOL, function, token)
    if found is not None and not (isinstance(found, str) and found):
        raise ConfigurationError(f"{what} must return a subject or None, not {type(found).__name__}")
    return found
