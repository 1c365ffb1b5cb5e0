"""The demo page and its server, as routes below ``/demo``: real endpoints, and a few that make trouble.

1. The sessions, users and keys are the demo's own, in memory: no token of it is good anywhere else, and nothing here
   reaches the store of ``unbroken serve``.
2. The server is strict, as many are: a refresh token works once (``grace`` 0), and who uses the new access token first
   settles which answer counts.
3. A page makes trouble for its own sessions only: it sends the key of its visitor.
4. The pages load nothing from elsewhere, and no script or style that is not a file of the demo.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Awaitable, Callable
from importlib.resources import files

import anyio
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
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
PATIENCE = 5.0  # seconds until the server too gives up an answer that is lost
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
HEADERS = {
    "cache-control": "no-cache",
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
DEVICES = (  # what else the user is logged in with: label, User-Agent, address, seconds since its last use
    ("Phone", "Mozilla/5.0 (iPhone; CPU iPhone OS 19_0 like Mac OS X) Version/19.0 Safari/604.1", "192.0.2.17", 11e3),
    ("Old laptop", "Mozilla/5.0 (Windows NT 10.0; rv:140.0) Gecko/20100101 Firefox/140.0", "198.51.100.8", 5e5),
)


class Site:
    """Everything below ``/demo`` of the server that clients know as *issuer*."""

    def __init__(self, issuer: str) -> None:
        self._visitors, self._run = Visitors(), secrets.token_urlsafe(6)
        self.sessions = Sessions(
            MemorySessionStore(),
            policy=POLICY,
            issuer=f"{issuer}{PREFIX}",
            audience="unbroken-demo",
            on_event=self._visitors.hear,
            confirm_first_use=True,
        )

    def routes(self) -> list[Route]:
        """The pages, the endpoints, an API to call, and the trouble."""
        endpoints = routes(self.sessions, self._visitors.authenticate, prefix=f"{PREFIX}/auth")
        own, refresh = [one for one in endpoints if one.path.startswith(PREFIX)], f"{PREFIX}/auth/refresh"
        return [
            *(one for one in own if one.path != refresh),
            *(Route(refresh, _Lossy(one.app, self._visitors), methods=["POST"]) for one in own if one.path == refresh),
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
        """The API that both clients call. To it a token may have expired before its time."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        try:
            claims = await self.sessions.averify(token if scheme.lower() == "bearer" else "")
            if self._visitors.has_expired(claims):
                raise InvalidToken("the access token has expired", reason="expired")  # noqa: TRY301  # as the other
        except InvalidToken as error:
            refused = challenge(error)
            return Response(refused.body, refused.status, dict(refused.headers))
        return JSONResponse({"user": claims.subject}, headers=NO_STORE)

    async def _tell_run(self, _: Request) -> Response:
        """A word that tells one run of the server from another: what was stored before is worth nothing then."""
        return JSONResponse({"run": self._run}, headers=NO_STORE)

    async def _start(self, _: Request) -> Response:
        """A user for one page, who has two other devices already."""
        try:
            visitor, forgotten = self._visitors.new()
        except TooManyAttempts as error:
            return JSONResponse({"error": error.code}, 429, {**NO_STORE, "retry-after": f"{error.retry_after:.0f}"})
        for one in forgotten:
            await self.sessions.arevoke_subject(one.subject)
        for label, user_agent, ip, ago in DEVICES:
            await self.sessions.store.insert(_row(visitor.subject, label, user_agent, ip, ago))
        return JSONResponse({"username": visitor.subject, "password": visitor.key, "run": self._run}, headers=NO_STORE)

    async def _expire(self, request: Request) -> Response:
        if visitor := self._who(request):
            visitor.expire(request.query_params.get("sid", ""))
        return Response(status_code=204 if visitor else 404, headers=NO_STORE)

    async def _lose(self, request: Request) -> Response:
        if visitor := self._who(request):
            visitor.lose()
        return Response(status_code=204 if visitor else 404, headers=NO_STORE)

    async def _events(self, request: Request) -> Response:
        visitor = self._who(request)
        return JSONResponse({"events": list(visitor.told) if visitor else []}, headers=NO_STORE)

    def _who(self, request: Request) -> Visitor | None:
        return self._visitors.by_key(request.headers.get("demo-key", ""))


class _Lossy:
    """The endpoint for refreshes, whose answer may be lost when all is done."""

    def __init__(self, refresh: ASGIApp, visitors: Visitors) -> None:
        self._refresh, self._visitors = refresh, visitors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer: list[Message] = []

        async def keep(message: Message) -> None:
            answer.append(message)

        await self._refresh(scope, receive, keep)
        claims = _claims_in(answer)
        if claims and self._visitors.loses(claims["sub"], claims["sid"]):
            await _gone(receive)
        for message in answer:
            await send(message)


def _row(subject: str, label: str, user_agent: str, ip: str, ago: float) -> SessionRow:
    """A session that nobody holds a token of."""
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


def _claims_in(answer: list[Message]) -> dict[str, str] | None:
    """What the access token in an answer of the endpoints says; None in a refusal."""
    if not answer or answer[0].get("status") != 200:
        return None
    body = b"".join(message.get("body", b"") for message in answer[1:])
    payload = json.loads(body)["access_token"].split(".")[1]
    claims: dict[str, str] = json.loads(decode(payload))
    return claims


async def _gone(receive: Receive) -> None:
    """Waits until the client has given up."""
    with anyio.move_on_after(PATIENCE):
        while (await receive())["type"] != "http.disconnect":
            pass


def _assets() -> list[str]:
    return sorted(one.name for one in files(__package__).joinpath("page").iterdir() if not one.name.endswith(".html"))


def _file(name: str) -> Callable[[Request], Awaitable[Response]]:
    """The endpoint of one file. The module's URL in it names this release."""
    text = files(__package__).joinpath("page", name).read_text(encoding="utf-8")
    body = text.replace("./auth/unbroken.js", module_url("./auth")).encode()
    headers = {**HEADERS, "content-type": f"{TYPES[name[name.rindex('.') :]]}; charset=utf-8"}

    async def endpoint(_: Request) -> Response:
        return Response(body, headers=headers)

    return endpoint
