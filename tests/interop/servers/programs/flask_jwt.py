"""flask-jwt-extended, its refresh tokens made single-use by hand with a blocklist; they travel as a Bearer header."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

from flask import Flask, Response, abort, jsonify, request
from flask_jwt_extended import (
    JWTManager,
    create_access_token,
    create_refresh_token,
    get_jwt,
    get_jwt_identity,
    jwt_required,
)
from loopback import LIFETIME, serve

app = Flask(__name__)
app.config["JWT_SECRET_KEY"] = "a key for tests, long enough for HMAC"
app.config["JWT_ACCESS_TOKEN_EXPIRES"] = timedelta(seconds=LIFETIME)
blocked: set[str] = set()
once = threading.Lock()


@JWTManager(app).token_in_blocklist_loader
def is_blocked(_: dict[str, Any], claims: dict[str, Any]) -> bool:
    return claims["jti"] in blocked


def pair(name: str) -> Response:
    return jsonify(access_token=create_access_token(name), refresh_token=create_refresh_token(name))


@app.post("/login")
def login() -> Response:
    if request.json["password"] != "correct horse":
        abort(401)
    return pair(request.json["username"])


@app.post("/refresh")
@jwt_required(refresh=True)
def refresh() -> Response:
    with once:  # two requests with one token may both have passed the check of the decorator
        if get_jwt()["jti"] in blocked:
            abort(401)
        blocked.add(get_jwt()["jti"])
    return pair(get_jwt_identity())


@app.delete("/logout")
@jwt_required(refresh=True)
def logout() -> Response:
    blocked.add(get_jwt()["jti"])
    return jsonify(msg="logged out")


@app.get("/me")
@jwt_required()
def me() -> Response:
    return jsonify(sub=get_jwt_identity())


serve(app, "/refresh")
