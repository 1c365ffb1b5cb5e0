"""What was revoked lately, for services that verify tokens by themselves: they ask every half second or so.

    GET /auth/revocations?after=N     {"cursor": M, "revoked": [{"sid": …, "until": seconds since the epoch}, …]}

1. The caller's token must have the scope ``introspect``: the list names sessions of all subjects.
2. ``after`` is the cursor of the answer before; 0, or none, asks for everything that still matters. A cursor means
   nothing to anybody but the store that gave it.
3. An access token of the session may live until ``until``; then the entry is forgotten.
"""

from __future__ import annotations

from urllib.parse import parse_qsl

from unbroken.errors import InvalidRequest
from unbroken.server.callers import Callers
from unbroken.server.http import Request, Response, Route, challenge, json_response
from unbroken.server.sessions import Sessions

__all__ = ["FeedEndpoint"]

INTROSPECT = "introspect"
LARGEST = (1 << 63) - 1


class FeedEndpoint:
    """Lists the revoked sessions."""

    def __init__(self, sessions: Sessions, callers: Callers) -> None:
        self._sessions, self._callers = sessions, callers
        self.routes = (Route("GET", "/revocations", self._revocations),)

    async def _revocations(self, request: Request, _: str) -> Response:
        caller = await self._callers.demanded(request)
        if not caller.has_scope(INTROSPECT):
            return challenge(None, scope=INTROSPECT)
        cursor, revoked = await self._sessions.arevocations(_after(request.query))
        return json_response({"cursor": cursor, "revoked": [{"sid": sid, "until": until} for sid, until in revoked]})


def _after(query: str) -> int:
    """The cursor in *query*. Raises InvalidRequest."""
    values = [value for name, value in parse_qsl(query, keep_blank_values=True) if name == "after"] or ["0"]
    if len(values) > 1:
        raise InvalidRequest("after stands more than once")
    text = values[0]
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(LARGEST)) and int(text) <= LARGEST):
        raise InvalidRequest("after must be the cursor of an answer before, or 0")
    return int(text)
