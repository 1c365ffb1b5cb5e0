"""Who sends a request, by the access token that it carries: in its Authorization header, or in a cookie.

    callers = Callers(sessions, cookies=Cookies("both"), origins=["https://app.example.com"])
    who = await callers.found(request)      # Claims, or the Response that refuses the request

This is what every framework asks for the application's own routes, and the endpoints for theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from unbroken.errors import ConfigurationError, InvalidToken, Refused, TryLater
from unbroken.server.http.cookies import Cookies, CookieTransport, ambiguous
from unbroken.server.http.messages import Request, Response, bearer_of, challenge, error_response
from unbroken.server.http.origins import AllowedOrigins
from unbroken.server.keys.access_token import Claims

__all__ = ["RequestAuthenticator", "TokenVerifier"]


class TokenVerifier(Protocol):
    """What knows a good access token: ``Sessions``, or a ``Verifier`` where the sessions are elsewhere."""

    def verify_cached(self, access_token: str) -> Claims | None:
        """What a good access token says that was seen before, if nobody has to be asked about it; else None."""

    async def averify(self, access_token: str) -> Claims:
        """What a good access token says. Raises InvalidToken or TryLater. Never suspends within ``run_sync``."""


class RequestAuthenticator:
    """Finds the access token of a request, and verifies it. A token in the Authorization header goes before a cookie.

    *cookies* and *origins* are those of the endpoints. A cookie counts only where ``cookies.py``, rule 3, allows it.
    """

    def __init__(self, sessions: TokenVerifier, *, cookies: Cookies | None = None, origins: Sequence[str] = ()) -> None:
        self._sessions, self._jar = sessions, CookieTransport(cookies, AllowedOrigins(origins))

    async def claims(self, request: Request) -> Claims | None:
        """Who sends *request*; None without a token. Raises InvalidToken, Forbidden for a cookie that does not count,
        InvalidRequest for cookies of several sessions, or TryLater.
        """
        token = bearer_of(request)
        if token is not None:
            return await self._sessions.averify(token)
        tokens = self._jar.access_tokens(request)
        return await self._one_of(tokens) if tokens else None

    async def authenticate(self, request: Request) -> Claims | Response:
        """Who sends *request*, or the response that refuses it: without a token, a bare challenge."""
        try:
            return await self.claims(request) or challenge(None)
        except (Refused, TryLater, ConfigurationError) as error:
            return error_response(error)

    async def require(self, request: Request) -> Claims:
        """Who sends *request*. Raises InvalidToken, with the reason ``missing`` if there is no token."""
        caller = await self.claims(request)
        if caller is None:
            raise InvalidToken("this needs an access token", reason="missing")
        return caller

    async def _one_of(self, tokens: tuple[str, ...]) -> Claims:
        """What the good one of *tokens* says, the latest of one session."""
        good, bad = [], []
        for token in tokens:
            try:
                good.append(await self._sessions.averify(token))
            except InvalidToken as error:
                bad.append(error)
        if not good:
            raise min(bad, key=lambda error: error.reason != "expired")
        if len({claims.sid for claims in good}) > 1:
            raise ambiguous()
        return max(good, key=lambda claims: claims.expires_at)
