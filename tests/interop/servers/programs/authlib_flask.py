"""Authlib's authorization server on Flask: rotation, and in its token model a small alarm for reused refresh tokens."""

from __future__ import annotations

import os
import time
import uuid
from dataclasses import dataclass, field
from typing import Any

from authlib.integrations.flask_oauth2 import AuthorizationServer, ResourceProtector, current_token
from authlib.oauth2.rfc6749 import ClientMixin, TokenMixin, grants
from authlib.oauth2.rfc6750 import BearerTokenValidator
from authlib.oauth2.rfc7009 import RevocationEndpoint
from flask import Flask, Response, jsonify
from loopback import LIFETIME, serve

os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "1"  # plain http, on loopback


class Client(ClientMixin):
    """The one public client."""

    client_id = "app"

    def get_client_id(self) -> str:
        return self.client_id

    def get_allowed_scope(self, scope: str | None) -> str:
        return scope or ""

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        return method == "none"

    def check_grant_type(self, grant_type: str) -> bool:
        return grant_type in ("password", "refresh_token")


@dataclass
class Token(TokenMixin):
    """One pair of tokens. All pairs of one login share the family."""

    user: str
    family: str
    access_token: str
    refresh_token: str
    expires_in: int
    scope: str = ""
    token_type: str = "Bearer"
    revoked: bool = False
    issued_at: float = field(default_factory=time.time)

    def check_client(self, client: Client) -> bool:
        return True

    def get_scope(self) -> str:
        return self.scope

    def get_expires_in(self) -> int:
        return self.expires_in

    def is_expired(self) -> bool:
        return time.time() >= self.issued_at + self.expires_in

    def is_revoked(self) -> bool:
        return self.revoked

    def end_family(self) -> None:
        for token in TOKENS:
            token.revoked |= token.family == self.family


TOKENS: list[Token] = []


def save_token(token: dict[str, Any], request: Any) -> None:
    before = getattr(request, "refresh_token", None)
    TOKENS.append(Token(request.user, before.family if before else uuid.uuid4().hex, **token))


def find(value: str, kind: str) -> Token | None:
    return next((token for token in TOKENS if getattr(token, kind) == value), None)


class PasswordGrant(grants.ResourceOwnerPasswordCredentialsGrant):
    TOKEN_ENDPOINT_AUTH_METHODS = ("none",)

    def authenticate_user(self, username: str, password: str) -> str | None:
        return username if password == "correct horse" else None


class RefreshTokenGrant(grants.RefreshTokenGrant):
    TOKEN_ENDPOINT_AUTH_METHODS = ("none",)
    INCLUDE_NEW_REFRESH_TOKEN = True

    def authenticate_refresh_token(self, refresh_token: str) -> Token | None:
        token = find(refresh_token, "refresh_token")
        if token is not None and token.revoked:
            token.end_family()
            return None
        return token

    def authenticate_user(self, refresh_token: Token) -> str:
        return refresh_token.user

    def revoke_old_credential(self, refresh_token: Token) -> None:
        refresh_token.revoked = True


class Revocation(RevocationEndpoint):
    CLIENT_AUTH_METHODS = ("none",)

    def query_token(self, token_string: str, token_type_hint: str | None) -> Token | None:
        return find(token_string, "refresh_token") or find(token_string, "access_token")

    def revoke_token(self, token: Token, request: Any) -> None:
        token.end_family()


class Validator(BearerTokenValidator):
    def authenticate_token(self, token_string: str) -> Token | None:
        return find(token_string, "access_token")


app = Flask(__name__)
app.config["OAUTH2_REFRESH_TOKEN_GENERATOR"] = True
app.config["OAUTH2_TOKEN_EXPIRES_IN"] = {"password": LIFETIME, "refresh_token": LIFETIME}
server = AuthorizationServer(app, query_client=lambda client_id: Client(), save_token=save_token)
server.register_grant(PasswordGrant)
server.register_grant(RefreshTokenGrant)
server.register_endpoint(Revocation)
protected = ResourceProtector()
protected.register_token_validator(Validator())


@app.post("/oauth/token")
def issue() -> Response:
    return server.create_token_response()


@app.post("/oauth/revoke")
def revoke() -> Response:
    return server.create_endpoint_response("revocation")


@app.get("/me")
@protected()
def me() -> Response:
    return jsonify(sub=current_token.user)


serve(app, "/oauth/token")
