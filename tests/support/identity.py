"""A real server that issues tokens, for services that only verify them: it counts requests, and has faults."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from typing import Any, Self

import anyio
from starlette.applications import Starlette
from starlette.responses import RedirectResponse, Response

from tests.support.backend import PASSWORD, running
from unbroken import Session
from unbroken._concurrency import run_sync
from unbroken.server import MemorySessionStore, Sessions
from unbroken.server.keys.keyring import new_mac_key, new_signing_key
from unbroken.starlette import routes
from unbroken.verifier import Verifier

JWKS, INTROSPECT, FEED = "/.well-known/jwks.json", "/auth/introspect", "/auth/revocations"
AUDIENCE = "shop"
Fault = Callable[[], Awaitable[Response | None]]


class Identity:
    """``with Identity() as identity:`` it runs at ``url``. ``faults`` answer in place of it, by path, until they are
    taken away; one that gives None lets the request through.
    """

    def __init__(self, alg: str = "EdDSA") -> None:
        self.store = MemorySessionStore()
        run_sync(self.store.save_keys([new_signing_key(alg, 0.0, 0.0), new_mac_key(1, 0.0, 0.0)]))
        self.hits: Counter[str] = Counter()
        self.asked: list[str] = []  # path and query of each request
        self.faults: dict[str, Fault] = {}
        self.url, self._open = "", ExitStack()

    def __enter__(self) -> Self:
        apps: list[Starlette] = []

        async def with_faults(scope: Any, receive: Any, send: Any) -> None:
            path = scope["path"]
            self.hits[path] += 1
            self.asked.append(f"{path}?{scope['query_string'].decode()}")
            answer = await self.faults[path]() if path in self.faults else None
            await (answer or apps[0])(scope, receive, send)

        self.url = f"http://127.0.0.1:{self._open.enter_context(running(with_faults))}"
        self.sessions = Sessions(self.store, issuer=self.url, audience=AUDIENCE)
        auth = routes(self.sessions, authenticate, scopes_of=lambda subject: ("introspect", "read"))
        apps.append(Starlette(routes=auth))
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def stop(self) -> None:
        """Nobody listens there any more."""
        self._open.close()

    def verifier(self, **settings: Any) -> Verifier:
        return Verifier(self.url + JWKS, issuer=self.url, audience=AUDIENCE, **settings)

    def service(self, scope: str = "introspect") -> Session:
        """The session of a service that asks about the tokens of others."""
        session = Session(self.url)
        session.login("service", PASSWORD, scope=scope)
        return session

    def token(self, subject: str = "ada", **about: Any) -> str:
        return self.sessions.create(subject, **about).access_token

    def responds(self, path: str, status: int = 200, body: bytes = b"", **headers: str) -> None:
        """From now on *path* answers this."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}

        async def fault() -> Response:
            return Response(body, status, named, media_type="application/json")

        self.faults[path] = fault

    def redirects(self, path: str, to: str) -> None:
        async def fault() -> Response:
            return RedirectResponse(to, 307)

        self.faults[path] = fault

    def hangs(self, path: str, seconds: float = 20.0) -> None:
        """From now on *path* answers so many seconds late; at once when the fault is taken away."""

        async def fault() -> None:
            ends = anyio.current_time() + seconds
            while self.faults.get(path) is fault and anyio.current_time() < ends:  # noqa: ASYNC110  # set in a thread
                await anyio.sleep(0.005)

        self.faults[path] = fault

    def well(self) -> None:
        """No more faults."""
        self.faults.clear()


def authenticate(name: str, password: str) -> str | None:
    return name if password == PASSWORD else None
