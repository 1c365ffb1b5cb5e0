"""Whether this server is alive, and whether it can work now: for load balancers and for those who watch.

    GET {prefix}/health          200 as long as the process answers: who does not is to be started again
    GET {prefix}/health/ready    200 if the store answers in time and its keys can be used, else 503: send nobody here

The answers say nothing else. Why a server is not ready is in its log, at most once in ten seconds.

What was revoked lately, for services that verify tokens by themselves: they ask every half second or so.

    GET /auth/revocations?after=N     {"cursor": M, "revoked": [{"sid": …, "until": seconds since the epoch}, …]}

1. The caller's token must have the scope ``introspect``: the list names sessions of all subjects.
2. ``after`` is the cursor of the answer before; 0, or none, asks for everything that still matters. A cursor means
   nothing to anybody but the store that gave it.
3. An access token of the session may live until ``until``; then the entry is forgotten.

Authorization server metadata (RFC 8414): where the endpoints are and what they can do. Pure.
"""

from __future__ import annotations

import logging
import time
from urllib.parse import parse_qsl, urlsplit

from unbroken._sync import in_sync_context
from unbroken.errors import ConfigurationError, InvalidRequest, TryLater
from unbroken.server.http.authentication import RequestAuthenticator
from unbroken.server.http.messages import NO_STORE, Request, Response, Route, challenge, json_response
from unbroken.server.keys.keyring import ALGORITHMS
from unbroken.server.sessions import Sessions
from unbroken.server.worker_pool import run_inline

__all__ = ["WELL_KNOWN", "HealthEndpoints", "RevocationsEndpoint", "metadata", "path_inserted_url"]

WELL_KNOWN = "/.well-known/oauth-authorization-server"


def metadata(issuer: str, prefix: str, *, password_grant: bool) -> dict[str, object]:
    """The metadata of the server *issuer*, whose endpoints are below *prefix* at the same host."""
    here = "{0.scheme}://{0.netloc}".format(urlsplit(issuer))
    return {
        "issuer": issuer,
        "token_endpoint": f"{here}{prefix}/token",
        "revocation_endpoint": f"{here}{prefix}/revoke",
        "introspection_endpoint": f"{here}{prefix}/introspect",
        "jwks_uri": f"{here}/.well-known/jwks.json",
        "grant_types_supported": ["refresh_token", *(["password"] if password_grant else [])],
        "response_types_supported": [],
        "token_endpoint_auth_methods_supported": ["none"],
        "revocation_endpoint_auth_methods_supported": ["none"],
        "introspection_endpoint_auth_methods_supported": ["Bearer"],
        "access_token_signing_alg_values_supported": list(ALGORITHMS),
    }


def path_inserted_url(issuer: str) -> str:
    """Where clients look for the metadata of an issuer with a path (RFC 8414 §3.1); empty for one without."""
    path = urlsplit(issuer).path.rstrip("/")
    return WELL_KNOWN + path if path else ""


_log = logging.getLogger("unbroken")
IN_TIME = 2.0  # seconds for the store to answer, where it can be interrupted
AGAIN = "5"  # seconds, for who asks at no rate of its own
QUIET = 10.0  # seconds between two lines in the log


class HealthEndpoints:
    """The routes of health. *in_time*: how long the store may take, in seconds."""

    def __init__(self, sessions: Sessions, *, in_time: float = IN_TIME) -> None:
        self._sessions, self._in_time = sessions, in_time
        self._said = float("-inf")
        self.routes = (Route("GET", "/health", self._health), Route("GET", "/health/ready", self._health_ready))

    async def _health(self, _request: Request, _: str) -> Response:
        return json_response({"status": "ok"})

    async def _health_ready(self, _request: Request, _: str) -> Response:
        why = await self._why_not()
        if not why:
            return json_response({"status": "ok"})
        if time.monotonic() - self._said > QUIET:
            self._said = time.monotonic()
            _log.warning("not ready: %s", why)
        return json_response({"status": "unavailable"}, 503, {**NO_STORE, "retry-after": AGAIN})

    async def _why_not(self) -> str:
        """What keeps this server from working now; empty if nothing does."""
        if in_sync_context() or self._sessions.store.blocking:
            return await self._ask()  # each operation of a store has an end of its own
        import anyio  # noqa: PLC0415  # blocking use needs no event loop library

        with anyio.move_on_after(self._in_time):
            return await self._ask()
        return "the store does not answer in time"

    async def _ask(self) -> str:
        try:
            await run_inline(self._sessions.store, self._sessions.store.health)
            await self._sessions.ajwks()
        except (TryLater, ConfigurationError) as error:
            return str(error)
        return ""


INTROSPECT = "introspect"
LARGEST = (1 << 63) - 1


class RevocationsEndpoint:
    """Lists the revoked sessions."""

    def __init__(self, sessions: Sessions, callers: RequestAuthenticator) -> None:
        self._sessions, self._callers = sessions, callers
        self.routes = (Route("GET", "/revocations", self._revocations),)

    async def _revocations(self, request: Request, _: str) -> Response:
        caller = await self._callers.require(request)
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
