"""Authlib's authorization server on Flask: opaque tokens in SQLite, written by hand without an ORM; reuse revokes
the family.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import threading
import time
from types import SimpleNamespace
from typing import Any

from authlib.integrations.flask_oauth2 import AuthorizationServer
from authlib.oauth2.rfc6749 import ClientMixin, TokenMixin, grants
from flask import Flask, Response

from bench.server.apps import store

os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "1"  # plain http, on loopback
TABLE = """
CREATE TABLE token (
    access_token TEXT PRIMARY KEY, refresh_token TEXT UNIQUE, user TEXT, family TEXT, scope TEXT,
    issued_at REAL, expires_in INTEGER, revoked INTEGER DEFAULT 0
)
"""
INSERT = "INSERT INTO token VALUES (?, ?, ?, ?, '', ?, 1800, 0)"
_here = threading.local()


class Client(ClientMixin):
    """The one public client."""

    client_id = "bench"

    def get_client_id(self) -> str:
        return self.client_id

    def get_allowed_scope(self, scope: str | None) -> str:
        return scope or ""

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        return method == "none"

    def check_grant_type(self, grant_type: str) -> bool:
        return grant_type == "refresh_token"


class Token(SimpleNamespace, TokenMixin):
    """One row."""

    def check_client(self, client: Client) -> bool:
        return True

    def get_scope(self) -> str:
        return str(self.scope)


def database() -> sqlite3.Connection:
    """Return the connection of this thread."""
    if not hasattr(_here, "db"):
        _here.db = sqlite3.connect(store().removeprefix("sqlite:///"), timeout=20, isolation_level=None)
        _here.db.row_factory = sqlite3.Row
        _here.db.execute("PRAGMA journal_mode = WAL")
        _here.db.execute("PRAGMA synchronous = NORMAL")
    found: sqlite3.Connection = _here.db
    return found


def save_token(token: dict[str, Any], request: Any) -> None:
    values = (token["access_token"], token["refresh_token"], request.user, request.refresh_token.family, time.time())
    database().execute(INSERT, values)


class RefreshTokenGrant(grants.RefreshTokenGrant):
    TOKEN_ENDPOINT_AUTH_METHODS = ("none",)
    INCLUDE_NEW_REFRESH_TOKEN = True

    def authenticate_refresh_token(self, refresh_token: str) -> Token | None:
        found = database().execute("SELECT * FROM token WHERE refresh_token = ?", (refresh_token,)).fetchone()
        if found is None:
            return None
        if found["revoked"]:
            database().execute("UPDATE token SET revoked = 1 WHERE family = ?", (found["family"],))
            return None
        return Token(**dict(found))

    def authenticate_user(self, refresh_token: Token) -> str:
        return str(refresh_token.user)

    def revoke_old_credential(self, refresh_token: Token) -> None:
        database().execute("UPDATE token SET revoked = 1 WHERE refresh_token = ?", (refresh_token.refresh_token,))


def app() -> Flask:
    made = Flask(__name__)
    made.config["OAUTH2_REFRESH_TOKEN_GENERATOR"] = True
    server = AuthorizationServer(made, query_client=lambda client_id: Client(), save_token=save_token)
    server.register_grant(RefreshTokenGrant)

    @made.post("/oauth/token")
    def issue() -> Response:
        response: Response = server.create_token_response()
        return response

    return made


def tokens(n: int) -> list[str]:
    database().execute(TABLE)
    made = [secrets.token_urlsafe(32) for _ in range(n)]
    for number, token in enumerate(made):
        database().execute(
            INSERT, (secrets.token_urlsafe(32), token, f"user-{number}", f"family-{number}", time.time())
        )
    return made
