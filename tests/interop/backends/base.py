"""What the five backends share: a refresh token is good once, an alarm ends its family, faults come on request.

1. Whoever presents a refresh token for the second time sets off the alarm: the whole family of tokens is revoked.
2. A fault answers one refresh in the backend's place. It uses the token up only if it says so.
3. What happened is counted here, so that tests look at the server's side of it.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import secrets
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from unbroken import Dialect

PASSWORD = "correct horse"


@dataclass(frozen=True)
class Pair:
    """The tokens of one answer. ``refresh`` is None when the answer names none."""

    access: str
    refresh: str | None
    user: str


@dataclass(frozen=True)
class Seen:
    """One request to the API as it arrived. ``value`` is that of the header that carries the token."""

    method: str
    path: str
    value: str
    sha256: str
    headers: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one refresh: it takes ``seconds``, then comes another response, or none if ``lost``.

    One that is ``held`` waits until the backend's ``go_on`` is set. Without a status the backend's own response comes.
    ``used``: the refresh was carried out all the same.
    """

    seconds: float = 0.0
    held: bool = False
    status: int = 0
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    lost: bool = False
    used: bool = False


class Torn(Response):
    """An answer that breaks off, and its connection with it."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"100")]}
        await send(start)
        await send({"type": "http.response.body", "body": b"{", "more_body": True})


class Backend(ABC):
    """One backend. A shape says where it carries tokens and what its answers look like; the rest is here.

    ``lifetime``: seconds, readable in the access token as in a JWT; None makes tokens that tell nothing. ``rotates``:
    whether a refresh brings a new refresh token. ``tail`` stands at the end of each refresh token.
    """

    header: ClassVar[str] = "authorization"
    refresh: ClassVar[tuple[str, str]]  # method and path
    dialect: ClassVar[Callable[[str], Dialect]]

    def __init__(self, *, lifetime: float | None = None, rotates: bool = True, tail: str = "") -> None:
        self._lifetime, self._rotates, self._tail = lifetime, rotates, tail
        self._users: dict[str, str] = {}  # of each access token that is good
        self._families: dict[str, tuple[str, str]] = {}  # family and user of each refresh token there ever was
        self._used: set[str] = set()
        self._revoked: set[str] = set()
        self.url = ""
        self.faults: deque[Fault] = deque()
        self.go_on = threading.Event()  # for faults that are held
        self.held = False  # answers of /api/late wait while it is true
        self.refreshes = self.alarms = 0
        self.presented: list[str] = []  # refresh tokens, in the order they came
        self.beside: list[Mapping[str, str]] = []  # headers of the refreshes
        self.issued: list[Pair] = []
        self.seen: list[Seen] = []

    # ---- what a shape says ---------------------------------------------------------------------------------------

    @abstractmethod
    def token_of(self, value: str) -> str:
        """The access token in the header's value."""

    @abstractmethod
    async def presented_by(self, request: Request) -> str:
        """The refresh token in the request for a refresh."""

    @abstractmethod
    def granted(self, pair: Pair) -> Response:
        """The answer that carries tokens."""

    @abstractmethod
    def challenge(self) -> Response:
        """The answer to an access token that is no good."""

    @abstractmethod
    def refused(self) -> Response:
        """The answer to a refresh token that is no good."""

    @abstractmethod
    def error(self, status: int) -> Response:
        """An ordinary error, which is about no token."""

    # ---- what tests do -------------------------------------------------------------------------------------------

    def expire(self) -> None:
        """All access tokens die now."""
        self._users.clear()

    def end_sessions(self) -> None:
        """All refresh tokens die now too."""
        self._revoked |= {family for family, _ in self._families.values()}
        self.expire()

    def spoil(self, fault: Fault, *, times: int = 1) -> None:
        """The next refreshes go wrong."""
        self.faults.extend([fault] * times)

    def requests_to(self, path: str) -> list[Seen]:
        return [seen for seen in self.seen if seen.path == path]

    # ---- tokens --------------------------------------------------------------------------------------------------

    def issue(self, user: str, family: str, kept: str | None = None) -> Pair:
        """New tokens; with *kept* the refresh token stays what it was, and the answer names none."""
        pair = Pair(_access_token(self._lifetime), None if kept else secrets.token_hex(12) + self._tail, user)
        self._users[pair.access] = user
        if pair.refresh:
            self._families[pair.refresh] = (family, user)
        self.issued.append(pair)
        return pair

    def refreshed(self, token: str) -> Response:
        """What a refresh of *token* brings."""
        family, user = self._families.get(token, ("", ""))
        if not family or family in self._revoked:
            return self.refused()
        if not self._rotates:
            return self.granted(self.issue(user, family, token))
        if token in self._used:
            self.alarms += 1
            self._revoked.add(family)
            return self.refused()
        self._used.add(token)
        return self.granted(self.issue(user, family))

    # ---- endpoints -----------------------------------------------------------------------------------------------

    async def _login(self, request: Request) -> Response:
        asked = await request.json()
        if asked["password"] != PASSWORD:
            return self.error(401)
        return self.granted(self.issue(asked["username"], secrets.token_hex(8)))

    async def _refresh(self, request: Request) -> Response:
        self.refreshes += 1
        self.beside.append(dict(request.headers))
        token = await self.presented_by(request)
        self.presented.append(token)
        fault = self.faults.popleft() if self.faults else Fault()
        await asyncio.sleep(fault.seconds)
        if fault.held:
            await asyncio.to_thread(self.go_on.wait, 20)
        own = self.refreshed(token) if fault.used or not (fault.status or fault.lost) else Response()
        if fault.lost:
            return Torn()
        if fault.status:
            return Response(fault.body, fault.status, dict(fault.headers), "application/json")
        return own

    async def _note(self, request: Request) -> str | None:
        """Takes note of a request to the API: whose access token it carries, None if the token is no good."""
        value = request.headers.get(self.header, "")
        body = await request.body()
        digest = hashlib.sha256(body).hexdigest()
        self.seen.append(Seen(request.method, request.url.path, value, digest, dict(request.headers)))
        return self._users.get(self.token_of(value))

    async def _echo(self, request: Request) -> Response:
        user = await self._note(request)
        if user is None:
            return self.challenge()
        return JSONResponse({"code": 200, "user": user, "sha256": self.seen[-1].sha256})

    async def _late(self, request: Request) -> Response:
        """As echo, but the answer, which is settled at once, waits."""
        answer = await self._echo(request)
        for _ in range(2000):
            if not self.held:
                break
            await asyncio.sleep(0.002)
        return answer

    async def _never(self, request: Request) -> Response:
        await self._note(request)
        return self.challenge()

    async def _error(self, request: Request) -> Response:
        await self._note(request)
        return self.error(request.path_params["status"])

    async def _raw(self, request: Request) -> Response:
        """Answers as the query says: ``body``, of media type ``type``."""
        await self._note(request)
        asked = request.query_params
        return Response(asked.get("body", ""), request.path_params["status"], media_type=asked.get("type"))

    async def _torn(self, request: Request) -> Response:
        await self._note(request)
        return Torn()

    async def _redirect(self, request: Request) -> Response:
        await self._note(request)
        return RedirectResponse(request.query_params["to"])

    def app(self) -> Starlette:
        """The backend as an ASGI application."""
        method, path = self.refresh
        methods = ["GET", "POST", "PUT"]
        return Starlette(
            routes=[
                Route("/login", self._login, methods=["POST"]),
                Route(path, self._refresh, methods=[method]),
                Route(f"/x{path}er", self._echo, methods=methods),  # its name holds that of the refresh
                Route("/api/echo", self._echo, methods=methods),
                Route("/api/late", self._late, methods=methods),
                Route("/api/never", self._never, methods=methods),
                Route("/api/error/{status:int}", self._error, methods=methods),
                Route("/api/raw/{status:int}", self._raw, methods=methods),
                Route("/api/torn", self._torn, methods=methods),
                Route("/api/redirect", self._redirect, methods=methods),
            ]
        )


def _access_token(lifetime: float | None) -> str:
    if lifetime is None:
        return secrets.token_hex(12)
    now = int(time.time())
    claims = base64.urlsafe_b64encode(json.dumps({"iat": now, "exp": now + lifetime}).encode()).decode()
    return f"e30.{claims.rstrip('=')}.{secrets.token_hex(12)}"
