"""The demo page and its server, as routes below ``/demo``: real endpoints, and a few that cause faults.

1. The sessions, users and keys belong to the demo, in memory: its tokens are valid nowhere else, and nothing here
   reaches the store of ``unbroken serve``.
2. The server is strict: a refresh token works once (``grace`` 0), and the first use of an access token settles which
   response to a refresh counts.
3. The sessions of the naive client get what many servers do: a used refresh token is refused, and reuse has no other
   consequence.
4. A page causes faults in its own sessions only: it sends the key of its visitor.
5. The pages load nothing from elsewhere, and no script or style that is not a file of the demo.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Awaitable, Callable
from importlib.resources import files

import anyio
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from unbroken._base64 import decode
from unbroken.cli.demo.visitors import Visitor, Visitors
from unbroken.errors import InvalidToken, TooManyAttempts
from unbroken.server import MemorySessionStore, Policy, Sessions
from unbroken.server.core.refresh_token import row_key
from unbroken.server.core.rotation import SessionRow
from unbroken.server.http.messages import NO_STORE, challenge
from unbroken.server.http.static import module_url
from unbroken.starlette import routes

__all__ = ["PREFIX", "Site"]

PREFIX = "/demo"
POLICY = Policy(access_ttl=60.0, refresh_ttl=3600.0, max_age=3600.0, grace=0.0)
LOSS_SECONDS = 5.0  # after which a lost response is sent after all, if the client still waits
NAIVE_LABEL = "This page, by the naive client"
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
HEADERS = {
    "cache-control": "no-cache",
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
DEVICES = (  # the user's other sessions: label, User-Agent, address, seconds since the last use
    ("Phone", "Mozilla/5.0 (iPhone; CPU iPhone OS 19_0 like Mac OS X) Version/19.0 Safari/604.1", "192.0.2.17", 11e3),
    ("Old laptop", "Mozilla/5.0 (Windows NT 10.0; rv:140.0) Gecko/20100101 Firefox/140.0", "198.51.100.8", 5e5),
)


async def _to_page(_: Request) -> Response:
    """Return a redirect to the page: who opens the address of the server wants that."""
    return RedirectResponse(PREFIX)


class Site:
    """Everything below ``/demo`` of the server that clients know as *issuer*."""

    def __init__(self, issuer: str) -> None:
        self.visitors, self._run = Visitors(), secrets.token_urlsafe(6)
        self.sessions = Sessions(
            MemorySessionStore(),
            policy=POLICY,
            issuer=f"{issuer}{PREFIX}",
            audience="unbroken-demo",
            on_event=self.visitors.on_event,
            confirm_first_use=True,
        )

    def routes(self) -> list[Route]:
        """Return the pages, the endpoints, an API to call, and the faults."""
        endpoints = routes(self.sessions, self.visitors.authenticate, prefix=f"{PREFIX}/auth")
        own, refresh = [one for one in endpoints if one.path.startswith(PREFIX)], f"{PREFIX}/auth/refresh"
        return [
            *(one for one in own if one.path != refresh),
            *(Route(refresh, _RefreshEndpoint(one.app, self), methods=["POST"]) for one in own if one.path == refresh),
            Route("/", _to_page),
            Route(PREFIX, _file("index.html")),
            Route(f"{PREFIX}/devices", _file("devices.html")),
            *(Route(f"{PREFIX}/{name}", _file(name)) for name in _assets()),
            Route(f"{PREFIX}/api/{{row:int}}", self._api),
            Route(f"{PREFIX}/run", self._tell_run),
            Route(f"{PREFIX}/start", self._start, methods=["POST"]),
            Route(f"{PREFIX}/expire", self._expire, methods=["POST"]),
            Route(f"{PREFIX}/lose", self._lose, methods=["POST"]),
            Route(f"{PREFIX}/events", self._events),
        ]

    async def _api(self, request: Request) -> Response:
        """The API that both clients call: it also rejects the tokens that the page has expired."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        try:
            claims = await self.sessions.averify(token if scheme.lower() == "bearer" else "")
            if self.visitors.has_expired(claims):
                raise InvalidToken("the access token has expired", reason="expired")  # noqa: TRY301  # as if the token said so
        except InvalidToken as error:
            rejected = challenge(error)
            return Response(rejected.body, rejected.status, dict(rejected.headers))
        return JSONResponse({"user": claims.subject}, headers=NO_STORE)

    async def _tell_run(self, _: Request) -> Response:
        """Return an id of this run of the server: what a browser stored before belongs to another run."""
        return JSONResponse({"run": self._run}, headers=NO_STORE)

    async def _start(self, _: Request) -> Response:
        """Make a user for one page, with sessions on two other devices."""
        try:
            visitor, forgotten = self.visitors.add()
        except TooManyAttempts as error:
            return JSONResponse({"error": error.code}, 429, {**NO_STORE, "retry-after": f"{error.retry_after:.0f}"})
        for one in forgotten:
            await self.sessions.arevoke_subject(one.subject)
        for label, user_agent, ip, ago in DEVICES:
            await self.sessions.store.insert(_row(visitor.subject, label, user_agent, ip, ago))
        return JSONResponse({"username": visitor.subject, "password": visitor.key, "run": self._run}, headers=NO_STORE)

    async def _expire(self, request: Request) -> Response:
        if visitor := self._visitor(request):
            visitor.expire(request.query_params.get("sid", ""))
        return Response(status_code=204 if visitor else 404, headers=NO_STORE)

    async def _lose(self, request: Request) -> Response:
        if visitor := self._visitor(request):
            visitor.lose()
        return Response(status_code=204 if visitor else 404, headers=NO_STORE)

    async def _events(self, request: Request) -> Response:
        visitor = self._visitor(request)
        return JSONResponse({"events": list(visitor.events) if visitor else []}, headers=NO_STORE)

    def _visitor(self, request: Request) -> Visitor | None:
        return self.visitors.by_key(request.headers.get("demo-key", ""))


class _RefreshEndpoint:
    """The endpoint of refreshes: it loses responses on request, and treats the naive client as other servers do."""

    def __init__(self, refresh: ASGIApp, site: Site) -> None:
        self._refresh, self._site = refresh, site
        self._lock = anyio.Lock()  # between looking at a token and using it

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await Request(scope, receive).body()
        response: list[Message] = []

        async def keep(message: Message) -> None:
            response.append(message)

        async with self._lock:
            if await self._is_used_by_naive_client(body):  # rule 3
                error = {"error": "invalid_grant", "error_description": "the refresh token was used", "reason": "used"}
                await JSONResponse(error, 400, NO_STORE)(scope, receive, keep)
            else:
                await self._refresh(scope, _receive_again(body, receive), keep)
        claims = _claims_of(response)
        if claims and self._site.visitors.take_loss(claims["sub"], claims["sid"]):
            await _wait_for_disconnect(receive)
        for message in response:
            await send(message)

    async def _is_used_by_naive_client(self, body: bytes) -> bool:
        try:
            token = json.loads(body)["refresh_token"]
        except (ValueError, KeyError, TypeError):
            return False
        found = await self._site.sessions.ainspect_refresh(token) if isinstance(token, str) else None
        return found is not None and found.session.label == NAIVE_LABEL and not found.is_usable


def _receive_again(body: bytes, receive: Receive) -> Receive:
    """Return a ``receive`` that begins with *body*, which was read already."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> Message:
        return messages.pop() if messages else await receive()

    return receive_again


def _row(subject: str, label: str, user_agent: str, ip: str, ago: float) -> SessionRow:
    """Return a session of which no client has a token."""
    now = time.time()
    return SessionRow(
        key=row_key(secrets.token_bytes(16)),
        sid=secrets.token_urlsafe(16),
        subject=subject,
        created_at=now - 3 * ago,
        used_at=now - ago,
        idle_expires_at=now + POLICY.refresh_ttl,
        expires_at=now + POLICY.max_age,
        client_id="first-party",
        label=label,
        ip=ip,
        user_agent=user_agent,
    )


def _claims_of(response: list[Message]) -> dict[str, str] | None:
    """Return the claims of the access token in *response*; None for an error."""
    if not response or response[0].get("status") != 200:
        return None
    body = b"".join(message.get("body", b"") for message in response[1:])
    payload = json.loads(body)["access_token"].split(".")[1]
    claims: dict[str, str] = json.loads(decode(payload))
    return claims


async def _wait_for_disconnect(receive: Receive) -> None:
    """Wait until the client has given up."""
    with anyio.move_on_after(LOSS_SECONDS):
        while (await receive())["type"] != "http.disconnect":
            pass


def _assets() -> list[str]:
    return sorted(one.name for one in files(__package__).joinpath("page").iterdir() if not one.name.endswith(".html"))


def _file(name: str) -> Callable[[Request], Awaitable[Response]]:
    """Return the endpoint of one file. The URL of the module in it names this release."""
    text = files(__package__).joinpath("page", name).read_text(encoding="utf-8")
    body = text.replace("./auth/unbroken.js", module_url("./auth")).encode()
    headers = {**HEADERS, "content-type": f"{TYPES[name[name.rindex('.') :]]}; charset=utf-8"}

    async def endpoint(_: Request) -> Response:
        return Response(body, headers=headers)

    return endpoint
