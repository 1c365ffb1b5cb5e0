"""A small OpenID provider on loopback: discovery, the code flow with PKCE, ID tokens. Whoever comes is its one user."""

from __future__ import annotations

import secrets
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any
from urllib.parse import urlencode

from joserfc import jwt
from joserfc.jwk import ECKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from tests.support.backend import running

__all__ = ["OpenIdProvider"]


@dataclass
class OpenIdProvider:
    """``refuses``: the user says no. ``nonce``: what its ID tokens have in place of the nonce that was asked for."""

    user: str = "ada-at-provider"
    refuses: bool = False
    nonce: str = ""
    url: str = ""
    _key: ECKey = field(default_factory=lambda: ECKey.generate_key("P-256", {"kid": "one"}))
    _codes: dict[str, dict[str, str]] = field(default_factory=dict)

    @contextmanager
    def run(self) -> Iterator[OpenIdProvider]:
        app = Starlette(
            routes=[
                Route("/.well-known/openid-configuration", self._metadata),
                Route("/jwks", self._jwks),
                Route("/authorize", self._authorize),
                Route("/token", self._token, methods=["POST"]),
            ]
        )
        with running(app) as port:
            self.url = f"http://127.0.0.1:{port}"
            yield self

    async def _metadata(self, _: Request) -> Response:
        facts: dict[str, Any] = {"issuer": self.url, "response_types_supported": ["code"]}
        facts["id_token_signing_alg_values_supported"] = ["ES256"]
        for name, path in (("authorization", "/authorize"), ("token", "/token")):
            facts[f"{name}_endpoint"] = self.url + path
        return JSONResponse({**facts, "jwks_uri": self.url + "/jwks"})

    async def _jwks(self, _: Request) -> Response:
        return JSONResponse({"keys": [self._key.as_dict(private=False, use="sig", alg="ES256")]})

    async def _authorize(self, request: Request) -> Response:
        asked = dict(request.query_params)
        if self.refuses:
            answer = {"error": "access_denied", "state": asked["state"]}
        else:
            code = secrets.token_urlsafe()
            self._codes[code] = asked
            answer = {"code": code, "state": asked["state"]}
        return RedirectResponse(f"{asked['redirect_uri']}?{urlencode(answer)}", 303)

    async def _token(self, request: Request) -> Response:
        form = await request.form()
        asked = self._codes.pop(str(form["code"]), None)
        verifier = sha256(str(form.get("code_verifier", "")).encode()).digest()
        if asked is None or asked["code_challenge"] != urlsafe_b64encode(verifier).decode().rstrip("="):
            return JSONResponse({"error": "invalid_grant"}, 400)
        now = int(time.time())
        claims = {"iss": self.url, "sub": self.user, "aud": asked["client_id"], "iat": now, "exp": now + 60}
        claims["nonce"] = self.nonce or asked["nonce"]
        id_token = jwt.encode({"alg": "ES256", "kid": "one"}, claims, self._key)
        return JSONResponse({"access_token": secrets.token_urlsafe(), "token_type": "Bearer", "id_token": id_token})
