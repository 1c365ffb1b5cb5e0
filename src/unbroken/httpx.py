"""``SessionAuth`` for httpx: for its sync and its async client, under asyncio and trio.

client = httpx.Client(auth=SessionAuth(session))

For a dialect with a token header of its own: ``httpx.Client(transport=SessionTransport(session))``.
"""

from __future__ import annotations

try:
    import httpx
except ImportError as error:
    raise ImportError("unbroken.httpx needs httpx: pip install 'unbroken[httpx]'") from error

from unbroken._adapters.httpx import AuthFlow, TransportFlow, why_not_replayed

__all__ = ["SessionAuth", "SessionTransport", "why_not_replayed"]


class SessionAuth(AuthFlow, httpx.Auth):
    """Attaches a good access token to each request, and sends a challenged request again with a newer one.

    A request raises SessionOver if only a new login helps, TryLater if a refresh does not work now. A challenged
    request whose body could be sent only once returns the response of the server, and ``why_not_replayed(response)``
    says why; the session is refreshed. *override_authorization* replaces an ``Authorization`` that the request has
    already, for an SDK that insists on a key of its own.

    Raises ConfigurationError for a dialect with a token header of its own.
    """

    _library = httpx


class SessionTransport(TransportFlow, httpx.BaseTransport, httpx.AsyncBaseTransport):
    """The same as a transport, over *transport* (default: the library's own): it sees each hop of a redirect.

    Give each client its own: a transport keeps connections, sync ones or those of one event loop.
    """

    _library = httpx
