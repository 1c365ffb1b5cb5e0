"""Logins of an application's own, and credentials that log in by themselves: other sites, narrow tokens, servers that
want to be told a secret, or repeat one.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from urllib.parse import unquote_plus

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from tests.contract.frameworks.own_routes import APPS
from tests.support.attacks import Attacks
from tests.support.backend import running
from tests.support.faces import authorization
from tests.support.proofs import ClientKey
from unbroken import ClientCredentials, PasswordCredentials, Session, SessionOver, TryLater, UnbrokenError, oauth2
from unbroken.server import Cookies, MemorySessionStore, Sessions

SCRIPT = {"x-unbroken": "1"}
EVIL = {"origin": "https://evil.example"}
SECRETS = ("a client's secret & more", "correct horse")


@contextmanager
def place_of(name: str, **settings: Any) -> Iterator[tuple[httpx2.Client, Sessions]]:
    with ExitStack() as held:
        sessions = held.enter_context(Sessions(MemorySessionStore()))
        port = held.enter_context(APPS[name](sessions, **{"cookies": Cookies("both", secure=False), **settings}))
        yield held.enter_context(httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=30)), sessions


@pytest.fixture(params=sorted(set(APPS) - {"django-rest"}))
def place(request: pytest.FixtureRequest) -> Iterator[tuple[httpx2.Client, Sessions]]:
    with place_of(request.param) as found:
        yield found


def test_another_sites_script_neither_logs_in_nor_out(place: Any, attacks: Attacks) -> None:
    http, sessions = place
    attacks.try_one()
    assert http.post("/tokens", headers=SCRIPT | EVIL).status_code == 403
    assert sessions.list_sessions() == []
    http.get("/arrive")
    for path in ("/leave", "/leave-all"):
        for headers in ({}, EVIL, SCRIPT | EVIL):
            attacks.try_one()
            assert http.post(path, headers=headers).status_code == 403
    assert http.get("/auth/session", headers=SCRIPT).status_code == 200


def test_no_insecure_cookie_leaves_this_machine(place: Any, attacks: Attacks) -> None:
    http, sessions = place
    for path, method in (("/arrive", "GET"), ("/tokens", "POST")):
        attacks.try_one()
        refused = http.request(method, path, headers={"host": "shop.example.com", **SCRIPT})
        assert (refused.status_code, "set-cookie" in refused.headers) == (403, False)
    assert sessions.list_sessions() == []


def test_what_was_given_away_logs_nobody_out_elsewhere(place: Any, attacks: Attacks) -> None:
    http, sessions = place
    own = sessions.create("ada").access_token
    given = {
        "a part": sessions.create("ada", scope="read").access_token,
        "another client's": sessions.create("ada", client_id="third").access_token,
        "another person's": sessions.create("eve").access_token,
        "nothing of ours": "junk",
    }
    for name, token in given.items():
        attacks.try_one()
        status = http.post("/leave-all", headers=authorization(token)).status_code
        assert status == {"another person's": 200, "nothing of ours": 401}.get(name, 403)
        assert sessions.verify(own).subject == "ada", name


def test_a_proof_binds_and_a_wrong_one_logs_nobody_in(attacks: Attacks) -> None:
    for name in sorted(set(APPS) - {"django-rest"}):
        with place_of(name, cookies=None) as (http, sessions):
            prover, url = ClientKey(), f"{http.base_url}".rstrip("/") + "/tokens"
            wrong = [
                prover.proof("GET", url),
                prover.proof("POST", url + "/other"),
                prover.proof("POST", url, iat=time.time() - 3600),
                "junk",
            ]
            for proof in wrong:
                attacks.try_one()
                assert http.post("/tokens", headers={"dpop": proof}).status_code == 400
            assert sessions.list_sessions() == [], name
            good = http.post("/tokens", headers={"dpop": prover.proof("POST", url)}).json()
            assert good["token_type"] == "DPoP"
            attacks.try_one()
            assert http.post("/auth/refresh", json={"refresh_token": good["refresh_token"]}).status_code == 400
            [info] = sessions.list_sessions()
            assert info.jkt == prover.jkt


# ---- credentials of a client -----------------------------------------------------------------------------------------


class Echo:
    """A token endpoint that repeats what it gets, under each status and error that it can think of; or sends it on."""

    def __init__(self) -> None:
        self.status, self.error, self.location, self.heard = 400, "invalid_grant", "", 0

    async def respond(self, request: Request) -> Response:
        self.heard += 1
        if self.location:
            return RedirectResponse(self.location, self.status)
        body = (await request.body()).decode()
        basic = request.headers.get("authorization", "")
        plain = base64.b64decode(basic.removeprefix("Basic ")).decode() if basic else ""
        said = f"you sent {basic} which is {plain} {unquote_plus(plain)} and {body} which is {unquote_plus(body)}"
        return JSONResponse({"error": self.error, "error_description": said}, self.status)


@pytest.fixture
def echo() -> Iterator[tuple[Echo, str]]:
    made = Echo()
    with running(Starlette(routes=[Route("/token", made.respond, methods=["GET", "POST"])])) as port:
        yield made, f"http://127.0.0.1:{port}/token"


def sessions_of(url: str) -> list[Session]:
    made = []
    for auth in ("basic", "post"):
        dialect = oauth2(url, client_id="job", client_secret=SECRETS[0], client_auth=auth)
        made.append(Session(dialect, credentials=ClientCredentials()))
        made.append(Session(dialect, credentials=PasswordCredentials("ada", lambda: SECRETS[1])))
    return made


def test_no_error_repeats_what_a_server_repeats(echo: Any, attacks: Attacks, caplog: Any) -> None:
    caplog.set_level("DEBUG")
    server, url = echo
    forms = [form for secret in SECRETS for form in (secret, secret.replace(" ", "+"), json.dumps(secret)[1:-1])]
    forms += ["a+client%27s+secret", base64.b64encode(b"job:a+client")[:12].decode()]
    errors = ("invalid_grant", "invalid_client", "access_denied", "server_error", "odd")
    for status, error in [(status, error) for status in (200, 400, 401, 403, 500) for error in errors]:
        server.status, server.error = status, error
        for session in sessions_of(url):
            attacks.try_one()
            with pytest.raises(UnbrokenError) as caught:
                session.login_with_credentials()
            shown = f"{caught.value} {caught.value!r} {caplog.text}"
            assert not [form for form in forms if form in shown], (status, error)


def test_credentials_follow_no_redirect(echo: Any, attacks: Attacks) -> None:
    server, url = echo
    thief = Echo()
    with running(Starlette(routes=[Route("/token", thief.respond, methods=["GET", "POST"])])) as port:
        server.location = f"http://127.0.0.1:{port}/token"
        for server.status in (301, 302, 303, 307, 308):
            for session in sessions_of(url):
                attacks.try_one()
                with pytest.raises((TryLater, SessionOver)):
                    session.token()
    assert (thief.heard, server.heard > 0) == (0, True)
