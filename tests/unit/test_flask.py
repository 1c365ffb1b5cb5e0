"""The current session in Flask: decorators, ``current_claims``, error handlers, bodies. Endpoints: tests/wire."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import flask
import httpx2
import pytest
from werkzeug.exceptions import HTTPException, NotFound
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix

from tests.support.faces import threaded
from unbroken.errors import StoreUnavailable
from unbroken.flask import Auth, Bearer, current_claims
from unbroken.server import MemorySessionStore, Sessions, SqliteSessionStore
from unbroken.server.http.cookies import Cookies

LOGIN = {"username": "ada", "password": "x"}


def pages(auth: Auth) -> flask.Blueprint:
    page = flask.Blueprint("pages", __name__)

    @page.get("/orders")
    @auth.required
    def orders() -> dict[str, str]:
        return {"sub": current_claims.subject, "same": auth.claims.sid == current_claims.sid}

    @page.get("/write/<thing>")
    @auth.required(scope="write")
    def write(thing: str) -> dict[str, str]:
        return {"sub": current_claims.subject, "thing": thing}

    @page.get("/later")
    @auth.required
    async def later() -> dict[str, str]:
        return {"sub": current_claims.subject}

    @page.get("/undecorated")
    def undecorated() -> dict[str, str]:
        return {"sub": current_claims.subject}

    @page.get("/public")
    def public() -> dict[str, bool]:
        return {"open": True}

    return page


def application(sessions: Sessions, **settings: Any) -> flask.Flask:
    app, auth = flask.Flask(__name__), Auth(sessions, lambda name, _: name, **settings)
    auth.init_app(app)
    app.register_blueprint(pages(auth))
    return app


@pytest.fixture(scope="module")
def sessions() -> Sessions:
    return Sessions(MemorySessionStore())


@pytest.fixture(scope="module")
def http(sessions: Sessions) -> Iterator[httpx2.Client]:
    with (
        threaded(application(sessions)) as port,
        httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client,
    ):
        yield client


def bearer(sessions: Sessions, scope: str = "") -> dict[str, str]:
    return {"authorization": f"Bearer {sessions.create('ada', scope=scope).access_token}"}


@pytest.mark.parametrize("path", ["/orders", "/later", "/undecorated"])
def test_a_good_token_gives_its_session_in_plain_and_async_views(
    http: httpx2.Client, sessions: Sessions, path: str
) -> None:
    answer = http.get(path, headers=bearer(sessions))
    assert (answer.status_code, answer.json()["sub"]) == (200, "ada")
    assert answer.json().get("same", True)


@pytest.mark.parametrize("path", ["/orders", "/later", "/undecorated"])
def test_no_token_and_a_bad_token_are_challenged_with_a_json_body(http: httpx2.Client, path: str) -> None:
    none, bad = http.get(path), http.get(path, headers={"authorization": "Bearer nonsense"})
    assert (none.status_code, none.headers["www-authenticate"]) == (
        401,
        'Bearer realm="unbroken", DPoP algs="ES256 Ed25519 EdDSA"',
    )
    assert (bad.status_code, bad.headers["content-type"]) == (401, "application/json")
    assert (bad.json()["error"], bad.json()["reason"]) == ("invalid_token", "malformed")
    assert 'reason="malformed"' in bad.headers["www-authenticate"]
    assert bad.headers["cache-control"] == "no-store"


def test_a_route_that_needs_no_session_sends_no_challenge(http: httpx2.Client) -> None:
    assert http.get("/public", headers={"authorization": "Bearer nonsense"}).json() == {"open": True}


def test_too_little_scope_is_403_and_says_what_is_missing(http: httpx2.Client, sessions: Sessions) -> None:
    answer = http.get("/write/book", headers=bearer(sessions, "read"))
    assert (answer.status_code, answer.json()["error"]) == (403, "insufficient_scope")
    assert answer.headers["www-authenticate"] == 'Bearer realm="unbroken", error="insufficient_scope", scope="write"'
    assert http.get("/write/book", headers=bearer(sessions, "read write")).json() == {"sub": "ada", "thing": "book"}


def test_a_repeated_authorization_header_is_refused(http: httpx2.Client, sessions: Sessions) -> None:
    good = bearer(sessions)["authorization"]
    for both in ((good, "Bearer x"), ("Bearer x", good)):
        assert http.get("/orders", headers=[("authorization", value) for value in both]).status_code == 401


def test_a_revoked_session_is_refused_at_once(http: httpx2.Client, sessions: Sessions) -> None:
    headers = bearer(sessions)
    assert http.get("/orders", headers=headers).status_code == 200
    sessions.revoke_subject("ada")
    assert http.get("/orders", headers=headers).json()["reason"] == "revoked"


def test_a_store_that_does_not_respond_is_503_and_not_a_logout() -> None:
    sessions = Sessions(MemorySessionStore())
    headers = bearer(sessions)

    async def dead(_: str) -> Any:
        raise StoreUnavailable("the database is locked", retry_after=2)

    sessions.averify = dead  # type: ignore[method-assign]
    answer = application(sessions).test_client().get("/orders", headers=headers)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert answer.json["error"] == "temporarily_unavailable"


def test_a_token_is_looked_at_once_a_request(monkeypatch: pytest.MonkeyPatch) -> None:
    sessions, seen = Sessions(MemorySessionStore()), []
    verify = sessions.averify
    monkeypatch.setattr(sessions, "averify", lambda token: seen.append(token) or verify(token))
    assert application(sessions).test_client().get("/orders", headers=bearer(sessions)).status_code == 200
    assert len(seen) == 1


def test_an_error_handler_of_the_application_may_respond_and_keep_the_challenge(sessions: Sessions) -> None:
    app = application(sessions)

    @app.errorhandler(401)
    def own(error: HTTPException) -> flask.Response:
        response = error.get_response()
        response.data = "who are you?"
        return response

    answer = app.test_client().get("/orders")
    assert (answer.status_code, answer.text) == (401, "who are you?")
    assert answer.headers["www-authenticate"] == 'Bearer realm="unbroken", DPoP algs="ES256 Ed25519 EdDSA"'


def test_a_whole_blueprint_can_be_protected(sessions: Sessions) -> None:
    app, auth = flask.Flask(__name__), Auth(sessions, lambda name, _: name)
    page = flask.Blueprint("private", __name__)
    page.before_request(auth.required(lambda: None))
    page.get("/private")(lambda: {"sub": current_claims.subject})
    app.register_blueprint(page)
    assert app.test_client().get("/private").status_code == 401
    assert app.test_client().get("/private", headers=bearer(sessions)).json == {"sub": "ada"}


def test_two_issuers_in_one_application_do_not_mix(sessions: Sessions) -> None:
    others = Sessions(MemorySessionStore())
    app, second = application(sessions), Auth(others, lambda name, _: name, prefix="/staff")
    app.register_blueprint(second.blueprint, name="staff")
    app.get("/staff-only")(second.required(lambda: {"sub": current_claims.subject}))
    http = app.test_client()
    assert http.get("/staff-only", headers=bearer(others)).json == {"sub": "ada"}
    assert http.get("/staff-only", headers=bearer(sessions)).status_code == 401
    assert http.get("/orders", headers=bearer(others)).status_code == 401


def test_a_bearer_of_another_service_takes_the_cookie_and_knows_the_origins(sessions: Sessions) -> None:
    cookies, app = Cookies("both"), flask.Flask(__name__)
    auth = Bearer(sessions, cookies=cookies, origins=["https://app.example.com"])
    app.post("/orders")(auth.required(lambda: {"sub": auth.claims.subject}))
    client = app.test_client()
    client.set_cookie(cookies.access_name, sessions.create("ada").access_token, secure=False)
    script = {"x-unbroken": "1", "sec-fetch-site": "cross-site"}
    allowed = client.post("/orders", headers={**script, "origin": "https://app.example.com"})
    assert (allowed.status_code, allowed.get_json()) == (200, {"sub": "ada"})
    for headers in ({**script, "origin": "https://evil.example"}, {}):
        assert client.post("/orders", headers=headers).status_code == 403


def test_a_forgotten_init_app_is_named() -> None:
    with flask.Flask(__name__).test_request_context(), pytest.raises(RuntimeError, match="init_app"):
        assert current_claims.subject


def test_the_endpoints_work_below_a_prefix_and_have_names(sessions: Sessions) -> None:
    app = flask.Flask(__name__)
    app.register_blueprint(Auth(sessions, lambda name, _: name).blueprint, url_prefix="/api")
    http = app.test_client()
    token = http.post("/api/auth/login", json=LOGIN).json["access_token"]
    headers = {"authorization": f"Bearer {token}"}
    sid = http.get("/api/auth/session", headers=headers).json["sid"]
    with app.test_request_context():
        assert flask.url_for("unbroken.end_session", sid=sid) == f"/api/auth/sessions/{sid}"
    assert http.delete(f"/api/auth/sessions/{sid}", headers=headers).status_code == 204


def test_the_path_is_the_one_that_browsers_see(caplog: pytest.LogCaptureFixture) -> None:
    app = application(Sessions(MemorySessionStore()), cookies=Cookies(secure=False))
    app.wsgi_app = DispatcherMiddleware(NotFound(), {"/api": app.wsgi_app})  # type: ignore[method-assign]
    answer = app.test_client().post("/api/auth/login", json=LOGIN, headers={"x-unbroken": "1"})
    assert answer.status_code == 503, "a cookie for /auth would never come back to /api/auth"
    assert "/api/auth/login" in caplog.text


def test_the_address_is_the_connections_unless_the_application_trusts_a_proxy() -> None:
    for trusted, expected in ((False, "127.0.0.1"), (True, "203.0.113.9")):
        sessions = Sessions(MemorySessionStore())
        app = application(sessions)
        if trusted:
            app.wsgi_app = ProxyFix(app.wsgi_app, x_for=1)  # type: ignore[method-assign]
        app.test_client().post("/auth/login", json=LOGIN, headers={"x-forwarded-for": "203.0.113.9"})
        assert [info.ip for info in sessions.list_sessions("ada")] == [expected]


def test_many_threads_share_one_store(tmp_path: Path) -> None:
    sessions = Sessions(SqliteSessionStore(str(tmp_path / "sessions.db")))

    def refreshed_ten_times(http: httpx2.Client) -> int:
        tokens = http.post("/auth/login", json=LOGIN).json()
        for _ in range(10):
            tokens = http.post("/auth/refresh", json={"refresh_token": tokens["refresh_token"]}).json()
        return tokens["refresh_seq"]

    with (
        threaded(application(sessions)) as port,
        httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as http,
        ThreadPoolExecutor(8) as pool,
    ):
        assert list(pool.map(refreshed_ten_times, [http] * 8)) == [10] * 8
    sessions.close()


# ---- bodies ----------------------------------------------------------------------------------------------------------


def test_a_body_that_was_looked_at_before_is_there_still(sessions: Sessions) -> None:
    app = application(sessions)
    app.before_request(lambda: flask.request.get_data() and None)
    assert app.test_client().post("/auth/login", json=LOGIN).status_code == 200


def test_a_smaller_limit_of_the_application_holds_too(sessions: Sessions) -> None:
    app = application(sessions)
    app.config["MAX_CONTENT_LENGTH"] = 10
    answer = app.test_client().post("/auth/login", json=LOGIN)
    assert (answer.status_code, answer.json["error"]) == (413, "invalid_request")


def test_a_body_in_pieces_is_read_and_an_endless_one_is_refused(http: httpx2.Client) -> None:
    pieces = iter([b'{"username": "ada",', b'"password": "x"}'])
    headers = {"content-type": "application/json"}
    assert http.post("/auth/login", content=pieces, headers=headers).status_code == 200
    head = b"POST /auth/login HTTP/1.1\r\nhost: x\r\ncontent-length: 999999999\r\n\r\n"
    with socket.create_connection((http.base_url.host, http.base_url.port), timeout=20) as connection:
        connection.sendall(head + b" " * 70_000)
        assert connection.recv(1000).startswith(b"HTTP/1.1 413")


def test_a_client_that_hangs_up_is_no_error_of_the_server(
    http: httpx2.Client, caplog: pytest.LogCaptureFixture
) -> None:
    head = b"POST /auth/login HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{"
    with socket.create_connection((http.base_url.host, http.base_url.port), timeout=20) as connection:
        connection.sendall(head)
        connection.shutdown(socket.SHUT_WR)
        assert b" 400 " in connection.recv(1000)
    assert not [record for record in caplog.records if record.exc_info]
