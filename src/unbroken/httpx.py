"""``SessionAuth`` for httpx, for its blocking and its async client, under asyncio and trio.

client = httpx.Client(auth=SessionAuth(session))
"""

from __future__ import annotations

import httpx

from unbroken._httpx_auth import AuthFlow

__all__ = ["SessionAuth"]


class SessionAuth(AuthFlow, httpx.Auth):
    """Sends each request with a good access token, and again when the server says it was not.

    Requests raise SessionOver when only a new login helps, TryLater when renewal does not work now. A challenged
    request whose body could be sent only once comes back as the server's own answer, with NotReplayable in
    ``response.extensions["unbroken.error"]``; the session is renewed then.
    """
