"""flask-jwt-extended, with refresh tokens made single-use by hand: used ones are on a blocklist in Redis."""

from __future__ import annotations

from typing import Any

import redis
from flask import Flask, Response, abort, jsonify
from flask_jwt_extended import (
    JWTManager,
    create_access_token,
    create_refresh_token,
    get_jwt,
    get_jwt_identity,
    jwt_required,
)

from bench.server.apps import store


def app() -> Flask:
    made = Flask(__name__)
    made.config["JWT_SECRET_KEY"] = "a key for benchmarks, long enough for HMAC"
    blocked = redis.Redis.from_url(store())

    @JWTManager(made).token_in_blocklist_loader
    def is_blocked(_: dict[str, Any], claims: dict[str, Any]) -> bool:
        return blocked.get("spent:" + claims["jti"]) is not None

    @made.post("/refresh")
    @jwt_required(refresh=True)
    def refresh() -> Response:
        claims = get_jwt()
        if not blocked.set("spent:" + claims["jti"], "", nx=True, exat=claims["exp"]):
            abort(401)  # another request with this token has passed the decorator too
        name = get_jwt_identity()
        return jsonify(access_token=create_access_token(name), refresh_token=create_refresh_token(name))

    return made


def tokens(n: int) -> list[str]:
    with app().app_context():
        return [create_refresh_token(f"user-{number}") for number in range(n)]
