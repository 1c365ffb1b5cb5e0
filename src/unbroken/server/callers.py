"""Who sends a request, by the access token that it carries."""

from __future__ import annotations

from unbroken.errors import InvalidToken
from unbroken.server.access_token import Claims
from unbroken.server.http import Request, bearer_of
from unbroken.server.sessions import Sessions

__all__ = ["Callers"]


class Callers:
    """Finds the access token of a request, and verifies it."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    async def claims(self, request: Request) -> Claims | None:
        """Who sends *request*; None without a token. Raises InvalidToken."""
        token = bearer_of(request)
        return None if token is None else await self._sessions.averify(token)

    async def demanded(self, request: Request) -> Claims:
        """Who sends *request*. Raises InvalidToken, with the reason ``missing`` if there is no token."""
        caller = await self.claims(request)
        if caller is None:
            raise InvalidToken("this needs an access token", reason="missing")
        return caller
