"""A server that is not ours, and strict: a refresh token that comes twice ends its session. It has no grace.

1. It speaks OAuth 2.0 and nothing of ours: an idempotency key is a header that it does not know.
2. Every refresh rotates. ``refreshes`` counts those that were accepted, ``reuses`` tokens that came twice.
3. Access tokens live ``lifetime`` seconds. A refresh takes ``delay`` seconds, so that others come meanwhile.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any
from urllib.parse import urlencode

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from tests.support.backend import running

__all__ = ["StrictServer"]


@dataclass
class StrictServer:
    """The state of the server. ``url`` is set while it runs."""

    lifetime: float = 2.0
    delay: float = 0.05
    client_auth: str = "none"
    url: str = ""
    clients: int = 0
    logins: int = 0
    refreshes: int = 0
    reuses: int = 0
    served: int = 0
    rejected: int = 0
    forms: list[dict[str, str]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)  # of the token requests
    _current: dict[str, str] = field(default_factory=dict)  # refresh token → session
    _codes: dict[str, str] = field(default_factory=dict)  # code → PKCE challenge
    _spent: set[str] = field(default_factory=set)
    _access: dict[str, float] = field(default_factory=dict)

    def issue(self, session: str) -> dict[str, object]:
        """Return new tokens of *session*."""
        refresh, access = secrets.token_urlsafe(16), secrets.token_urlsafe(16)
        self._current[refresh], self._access[access] = session, time.monotonic() + self.lifetime
        expires_in = max(int(self.lifetime), 1)
        return {"access_token": access, "refresh_token": refresh, "token_type": "Bearer", "expires_in": expires_in}

    def log_in(self) -> dict[str, object]:
        """Return the tokens of a new session."""
        self.logins += 1
        return self.issue(secrets.token_hex(4))

    def is_good(self, authorization: str) -> bool:
        """Return whether the header has an access token that is good now."""
        return self._access.get(authorization.removeprefix("Bearer "), 0.0) > time.monotonic()

    def expire(self) -> None:
        """Make all access tokens invalid now."""
        self._access.clear()

    def end_all(self) -> None:
        """End all sessions."""
        self._access.clear()
        self._current.clear()

    async def _token(self, request: Request) -> Response:
        form = {name: str(value) for name, value in (await request.form()).items()}
        self.forms.append(form)
        self.headers.append(dict(request.headers))
        if form.get("grant_type") == "password":
            return JSONResponse(self.log_in())
        if form.get("grant_type") == "authorization_code":
            verifier = sha256(form.get("code_verifier", "").encode()).digest()
            challenge = urlsafe_b64encode(verifier).decode().rstrip("=")
            is_right = self._codes.pop(form.get("code", ""), None) == challenge
            return JSONResponse(self.log_in() if is_right else {"error": "invalid_grant"}, 200 if is_right else 400)
        token = form.get("refresh_token", "")
        if token in self._spent:
            self.reuses += 1
            self._current.clear()
            self._access.clear()
        session = self._current.pop(token, None)
        self._spent.add(token)
        await asyncio.sleep(self.delay)
        if session is None:
            return JSONResponse({"error": "invalid_grant"}, 400)
        self.refreshes += 1
        return JSONResponse(self.issue(session))

    async def _api(self, request: Request) -> Response:
        if not self.is_good(request.headers.get("authorization", "")):
            self.rejected += 1
            return Response(status_code=401, headers={"www-authenticate": 'Bearer error="invalid_token"'})
        self.served += 1
        return Response("ok")

    async def _authorize(self, request: Request) -> Response:
        """Agree at once, as a person would who is logged in (RFC 6749 §4.1, RFC 7636, RFC 9207)."""
        asked, code = request.query_params, secrets.token_urlsafe(8)
        self._codes[code] = asked["code_challenge"]
        back = urlencode({"code": code, "state": asked["state"], "iss": self.url})
        return RedirectResponse(f"{asked['redirect_uri']}?{back}", 302)

    async def _register(self, request: Request) -> Response:
        wish = await request.json()
        self.clients += 1
        secret = {"client_secret": "hush"} if self.client_auth != "none" else {}
        client = {"client_id": f"client-{self.clients}", "token_endpoint_auth_method": self.client_auth, **secret}
        return JSONResponse({**client, "redirect_uris": wish["redirect_uris"]}, 201)

    async def _metadata(self, request: Request) -> Response:
        return JSONResponse(
            {
                "issuer": self.url,
                "token_endpoint": self.url + "/token",
                "authorization_endpoint": self.url + "/authorize",
                "registration_endpoint": self.url + "/register",
                "response_types_supported": ["code"],
                "code_challenge_methods_supported": ["S256"],
                "token_endpoint_auth_methods_supported": [self.client_auth],
                "authorization_response_iss_parameter_supported": True,
            }
        )

    def routes(self) -> list[BaseRoute]:
        """Return the routes: ``/token``, ``/api``, and what a client needs to register and to log in."""
        return [
            Route("/token", self._token, methods=["POST"]),
            Route("/api", self._api),
            Route("/authorize", self._authorize),
            Route("/register", self._register, methods=["POST"]),
            Route("/.well-known/oauth-authorization-server", self._metadata),
        ]

    @contextmanager
    def run(self, *more: Any) -> Iterator[StrictServer]:
        """Run until the ``with`` block ends; *more*: routes besides."""
        with running(Starlette(routes=[*self.routes(), *more])) as port:
            self.url = f"http://127.0.0.1:{port}"
            yield self
