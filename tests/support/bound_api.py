"""Our server on loopback, which binds sessions to keys, and an API behind it that keeps what it was sent."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from unbroken import ProofKey, Session
from unbroken.server import MemorySessionStore, Policy, ProofPolicy, Sessions
from unbroken.starlette import AccessTokenMiddleware, current_claims, routes
from unbroken.testing import running

PASSWORD = "correct horse"
ALGORITHMS = ("ES256", "Ed25519", "EdDSA")


def claims_of(proof: str) -> dict[str, Any]:
    return _part(proof, 1)


def header_of(proof: str) -> dict[str, Any]:
    return _part(proof, 0)


def _part(proof: str, number: int) -> dict[str, Any]:
    text = proof.split(".")[number]
    return dict(json.loads(urlsafe_b64decode(text + "=" * (-len(text) % 4))))


@dataclass
class Seen:
    """One request as it arrived. ``proof``: its header ``DPoP``."""

    method: str
    path: str
    authorization: str
    proof: str
    body: bytes = field(repr=False, default=b"")


class BoundApi:
    """A server at ``url``. ``seen`` has its requests, ``alarms()`` the sessions that were revoked for reuse."""

    def __init__(self, more: list[Route] | None = None, **policy: Any) -> None:
        policy.setdefault("binding", "required")
        self.policy = ProofPolicy(policy.pop("binding"), **policy)
        self.url, self.seen = "", list[Seen]()
        self.sessions: Any = None
        self._more = more or []
        self._app: Any = None

    def start(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        made = self.sessions = Sessions(
            MemorySessionStore(), issuer=self.url, proofs=self.policy, policy=Policy(access_ttl=1800.0)
        )
        api = [
            Route("/me", self._me, methods=["GET", "POST"]),
            Route("/open", self._open),
            Route("/redirect", self._redirect, methods=["GET", "POST"]),
            *self._more,
        ]
        auth = routes(made, lambda name, password: name if password == PASSWORD else None, password_grant=True)
        self._app = Starlette(routes=[*auth, *api], middleware=[Middleware(AccessTokenMiddleware, sessions=made)])

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        request = Request(scope, receive)
        body = await request.body()
        proof, authorization = request.headers.get("dpop", ""), request.headers.get("authorization", "")
        self.seen.append(Seen(request.method, request.url.path, authorization, proof, body))
        sent = False

        async def again() -> Any:
            nonlocal sent
            if sent:
                return await receive()
            sent = True
            return {"type": "http.request", "body": body}

        await self._app(scope, again, send)

    def login(self, key: ProofKey | None = None, **settings: Any) -> Session:
        session = Session(self.url, proof_key=key or ProofKey.in_memory(), **settings)
        session.login("ada", PASSWORD)
        return session

    def alarms(self) -> int:
        return sum(info.revoked_why == "reuse" for info in self.sessions.list_sessions(include_revoked=True))

    def of(self, path: str) -> list[Seen]:
        return [one for one in self.seen if one.path == path]

    def all_proofs_differ(self) -> bool:
        ids = [claims_of(one.proof)["jti"] for one in self.seen if one.proof]
        return len(ids) == len(set(ids)) > 0

    def expire(self) -> None:
        """All access tokens are worthless now, whatever the clocks of clients say."""
        [*_, old] = self.sessions.keyring().signing
        self.sessions.rotate_keys(publish_ahead=0.0)
        self.sessions.retire_key(old.kid)

    async def _me(self, request: Request) -> Response:
        claims = current_claims(request)
        body = await request.body()
        return JSONResponse({"sub": claims.subject, "jkt": claims.jkt, "body": body.decode()})

    async def _open(self, request: Request) -> Response:
        return JSONResponse({"open": True})

    async def _redirect(self, request: Request) -> Response:
        current_claims(request)
        return RedirectResponse(request.query_params["to"], int(request.query_params.get("status", "307")))


@contextmanager
def bound_api(more: list[Route] | None = None, **policy: Any) -> Iterator[BoundApi]:
    """A running server with the settings of ProofPolicy in *policy*, which demands proofs, and *more* routes."""
    api = BoundApi(more, **policy)
    with running(api) as port:
        api.start(port)
        yield api
