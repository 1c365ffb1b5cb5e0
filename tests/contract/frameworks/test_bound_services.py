"""An application's own views, in each framework, with tokens that are bound to a key."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import flask
import httpx2
import pytest
from django.http import HttpRequest, JsonResponse
from django.urls import path
from fastapi import Depends, FastAPI, Security
from starlette.applications import Starlette
from starlette.authentication import requires
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

import unbroken.fastapi
import unbroken.flask
from tests.support import django_project
from tests.support.backend import running
from tests.support.faces import threaded
from tests.support.identity import Identity
from tests.support.proofs import ClientKey
from unbroken.django import access_token_required
from unbroken.django import current_claims as django_claims
from unbroken.errors import ConfigurationError, InvalidProof, InvalidToken
from unbroken.server import Claims, MemorySessionStore, ProofPolicy, RequestProof, Sessions, open_store
from unbroken.starlette import AccessTokenMiddleware, BearerBackend, current_claims

PUBLIC = "https://shop.example.com/api"  # a proxy takes the path /api away
PATHS = ["/orders", "/deep/a%20b/%C3%A9%2Fx", "/deep/~me/it's(1)", "/deep/a:b@c;d=1,2"]
POLICY = ProofPolicy(public_url=PUBLIC, require_nonce=True)


def starlette_service(verifier: Any) -> AbstractContextManager[int]:
    async def orders(request: Request) -> JSONResponse:
        return JSONResponse({"sub": current_claims(request, scope="read").subject})

    middleware = [Middleware(AccessTokenMiddleware, sessions=verifier)]
    deep = Mount("/deep", routes=[Route("/{rest:path}", orders)])
    return running(Starlette(routes=[Route("/orders", orders), deep], middleware=middleware))


def starlettes_own(verifier: Any) -> AbstractContextManager[int]:
    @requires(["authenticated", "read"])
    async def orders(request: Request) -> JSONResponse:
        return JSONResponse({"sub": request.user.identity})

    own = Middleware(AuthenticationMiddleware, backend=BearerBackend(verifier), on_error=BearerBackend.on_error)
    routes = [Route("/orders", orders), Route("/deep/{rest:path}", orders)]
    return running(Starlette(routes=routes, middleware=[own]))


def fastapi_service(verifier: Any) -> AbstractContextManager[int]:
    auth = unbroken.fastapi.Bearer(verifier)
    app = FastAPI(dependencies=[Depends(auth.claims)])  # each request is verified twice, and its proof is good for both

    @app.get("/orders")
    @app.get("/deep/{rest:path}")
    async def orders(claims: Claims = Security(auth.claims, scopes=["read"])) -> dict[str, str]:
        return {"sub": claims.subject}

    return running(app)


def flask_service(verifier: Any) -> AbstractContextManager[int]:
    app, auth, again = flask.Flask(__name__), unbroken.flask.Bearer(verifier), unbroken.flask.Bearer(verifier)
    auth.init_app(app)

    @app.get("/orders")
    @app.get("/deep/<path:rest>")
    @auth.required(scope="read")
    @again.required
    def orders(rest: str = "") -> dict[str, str]:
        return {"sub": unbroken.flask.current_claims.subject}

    return threaded(app)


@access_token_required(scope="read")
def django_view(request: HttpRequest, rest: str = "") -> JsonResponse:
    return JsonResponse({"sub": django_claims(request).subject})


def rest_view(request: HttpRequest, rest: str = "") -> Any:
    from rest_framework.decorators import api_view, permission_classes  # it needs Django's settings
    from rest_framework.permissions import IsAuthenticated

    @api_view(["GET"])
    @permission_classes([IsAuthenticated])
    def view(request: Any) -> JsonResponse:
        return JsonResponse({"sub": request.auth.subject})

    return view(request)


@contextmanager
def django_service(kind: str, view: Any, sessions: Sessions) -> Iterator[int]:
    pages = (path("orders", view), path("deep/<path:rest>", view))
    serve: Any = running if kind == "asgi" else threaded
    own: dict[str, Any] = {"SESSIONS": sessions, "AUTHENTICATE": lambda name, password: name}
    with django_project.chosen(*pages, **own), serve(django_project.application(kind)) as port:
        yield port


SERVICES: dict[str, Callable[[Any], AbstractContextManager[int]]] = {
    "starlette": starlette_service,
    "starlette's own": starlettes_own,
    "fastapi": fastapi_service,
    "flask": flask_service,
}
OF_DJANGO: dict[str, Callable[[Any], AbstractContextManager[int]]] = {
    "django-asgi": partial(django_service, "asgi", django_view),
    "django-wsgi": partial(django_service, "wsgi", django_view),
    "rest framework": partial(django_service, "wsgi", rest_view),
}
BY_SESSIONS = SERVICES | OF_DJANGO
NONCE_IN_RESPONSES = BY_SESSIONS.keys() - {"starlette's own"}  # Starlette's middleware cannot add a header


class Client:
    """A client with a key, a token that is bound to it, and the service's nonce."""

    def __init__(self, http: httpx2.Client, sessions: Sessions, subject: str = "ada") -> None:
        self.http, self.key, self.nonce = http, ClientKey("Ed25519"), ""
        self.token = bound_token(sessions, self.key, subject)

    def get(self, path: str, base: str = PUBLIC, **headers: str) -> httpx2.Response:
        proof = self.key.proof("GET", base + path, self.token, nonce=self.nonce)
        response = self.http.get(path, headers={"authorization": f"DPoP {self.token}", "dpop": proof, **headers})
        self.nonce = response.headers.get("dpop-nonce", self.nonce)
        return response


def bound_token(sessions: Sessions, key: ClientKey, subject: str) -> str:
    own = ProofPolicy()  # this server has no nonces: only the service asks for them
    origin = sessions.issuer
    login = RequestProof(key.proof("POST", origin + "/auth/login"), "POST", "/auth/login")
    with_own = Sessions(sessions.store, issuer=origin, audience=sessions.audience, proofs=own)
    return with_own.create(subject, scope="read", proof=with_own.verify_proof(login)).access_token


def assert_serves(client: Client, subject: str, *, has_nonces: bool) -> None:
    first = client.get(PATHS[0])
    assert first.status_code == 401
    assert 'error="use_dpop_nonce"' in first.headers["www-authenticate"]
    for where in PATHS:
        response = client.get(where)
        assert (response.status_code, response.text) == (200, response.text), (where, response.text)
        assert response.json() == {"sub": subject}
        assert ("dpop-nonce" in response.headers) is has_nonces
    for base in ("https://shop.example.com", "https://evil.example.com/api", "http://shop.example.com/api"):
        wrong = client.get(PATHS[0], base)
        assert (wrong.status_code, 'reason="url"' in wrong.headers["www-authenticate"]) == (401, True), base
    downgraded = client.http.get(PATHS[0], headers={"authorization": f"Bearer {client.token}"})
    assert (downgraded.status_code, 'reason="bound"' in downgraded.headers["www-authenticate"]) == (401, True)


@pytest.mark.parametrize("name", BY_SESSIONS)
def test_views_of_the_server_itself_take_bound_tokens(name: str) -> None:
    sessions = Sessions(MemorySessionStore(), issuer="https://id.example.com", proofs=POLICY)
    subject = "ada"
    if name in OF_DJANGO:
        django_project.set_up()
        subject = str(django_user())
    with BY_SESSIONS[name](sessions) as port, httpx2.Client(base_url=f"http://127.0.0.1:{port}") as http:
        assert_serves(Client(http, sessions, subject), subject, has_nonces=name in NONCE_IN_RESPONSES)


def django_user() -> int:
    from django.contrib.auth.models import User

    return User.objects.get_or_create(username="bound")[0].pk


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_of_its_own_takes_bound_tokens(name: str, identity: Identity) -> None:
    verifier = identity.verifier(proofs=POLICY, nonce_secret=b"n" * 32)
    with SERVICES[name](verifier) as port, httpx2.Client(base_url=f"http://127.0.0.1:{port}") as http:
        assert_serves(Client(http, identity.sessions), "ada", has_nonces=name in NONCE_IN_RESPONSES)


def test_a_verifier_blocks_or_awaits(identity: Identity) -> None:
    key = ClientKey()
    token = bound_token(identity.sessions, key, "ada")
    verifier = identity.verifier(proofs=ProofPolicy(public_url=PUBLIC))
    proof = RequestProof(key.proof("PUT", PUBLIC + "/orders/7", token), "PUT", "/orders/7")
    assert verifier.verify(token, proof).jkt == key.jkt
    with pytest.raises(InvalidProof, match="used before"):
        verifier.verify(token, proof)
    with pytest.raises(InvalidToken, match="bound to a key"):
        verifier.verify(token)


def test_several_processes_of_a_service_share_nonces_and_proofs(identity: Identity, tmp_path: Path) -> None:
    key, policy = ClientKey(), ProofPolicy(public_url=PUBLIC, require_nonce=True, replays="all")
    token = bound_token(identity.sessions, key, "ada")
    shared: dict[str, Any] = {"proofs": policy, "nonce_secret": b"s" * 32}
    one, other = (
        identity.verifier(**shared, replay_store=open_store(f"sqlite:///{tmp_path}/replays.db")) for _ in range(2)
    )
    nonce = one.proofs.newest_nonce()
    proof = RequestProof(key.proof("GET", PUBLIC + "/orders", token, nonce=nonce), "GET", "/orders")
    assert other.verify(token, proof).jkt == key.jkt
    with pytest.raises(InvalidProof, match="used before"):
        one.verify(token, proof)


def test_a_verifier_needs_a_secret_for_nonces(identity: Identity) -> None:
    for secret in (None, b"short"):
        with pytest.raises(ConfigurationError, match="nonce_secret of 32 bytes"):
            identity.verifier(proofs=ProofPolicy(require_nonce=True), nonce_secret=secret)


def test_without_a_public_url_the_log_says_what_is_missing(
    identity: Identity, caplog: pytest.LogCaptureFixture
) -> None:
    verifier = identity.verifier()
    with starlette_service(verifier) as port, httpx2.Client(base_url=f"http://127.0.0.1:{port}") as http:
        client = Client(http, identity.sessions)
        assert client.get("/orders", f"http://127.0.0.1:{port}").status_code == 200, "on loopback, for development"
        for _ in range(3):
            assert client.get("/orders", "https://shop.example.com", host="shop.example.com").status_code == 401
    [line] = [one.getMessage() for one in caplog.records if "proof of possession" in one.getMessage()]
    assert "https://shop.example.com/orders" in line
    assert "set public_url of ProofPolicy" in line


# ---- WebSockets ------------------------------------------------------------------------------------------------------


def test_a_program_may_prove_its_key_with_the_handshake_of_a_websocket() -> None:
    sessions, key = Sessions(MemorySessionStore(), issuer="https://id.example.com"), ClientKey()
    token = bound_token(sessions, key, "ada")

    async def live(socket: WebSocket) -> None:
        claims = current_claims(socket)
        await socket.accept()
        await socket.send_text(claims.subject)
        await socket.close()

    app = Starlette(
        routes=[WebSocketRoute("/live", live)], middleware=[Middleware(AccessTokenMiddleware, sessions=sessions)]
    )
    with running(app) as port:
        for named in ("wss://id.example.com/live", "https://id.example.com/live"):
            headers = {"authorization": f"DPoP {token}", "dpop": key.proof("GET", named, token)}
            with connect(f"ws://127.0.0.1:{port}/live", additional_headers=headers) as socket:
                assert socket.recv(timeout=10) == "ada"
            with pytest.raises(InvalidStatus):  # the same once more
                connect(f"ws://127.0.0.1:{port}/live", additional_headers=headers)
        for headers in (
            {"authorization": f"Bearer {token}"},
            {"authorization": f"DPoP {token}", "dpop": key.proof("GET", "ws://id.example.com/live", token)},
        ):
            with pytest.raises(InvalidStatus):
                connect(f"ws://127.0.0.1:{port}/live", additional_headers=headers)
