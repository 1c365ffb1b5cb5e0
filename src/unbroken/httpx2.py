"""``SessionAuth`` for httpx2, for its blocking and its async client, under asyncio and trio.

client = httpx2.Client(auth=SessionAuth(session))

For a dialect with a token header of its own: ``httpx2.Client(transport=SessionTransport(session))``.
"""

from __future__ import annotations

import httpx2

from unbroken._adapters.httpx import AuthFlow, TransportFlow, why_not_replayed

__all__ = ["SessionAuth", "SessionTransport", "why_not_replayed"]


class SessionAuth(AuthFlow, httpx2.Auth):
    """Sends each request with a good access token, and again when the server says it was not.

    Requests raise SessionOver when only a new login helps, TryLater when renewal does not work now. A challenged
    request whose body could be sent only once comes back as the server's own answer; ``why_not_replayed(response)``
    tells, and the session is renewed. *instead*: put the token in the place of an ``Authorization`` that is there
    already, for an SDK that insists on a key of its own. Raises ConfigurationError for a dialect with a token header
    of its own.
    """

    _library = httpx2


class SessionTransport(TransportFlow, httpx2.BaseTransport, httpx2.AsyncBaseTransport):
    """The same as a transport, over *transport* (by default the library's own): it sees each hop of a redirect.

    Give each client its own: a transport keeps connections, blocking ones or those of one event loop.
    """

    _library = httpx2
