"""What no honest client sends: never a 5xx, never accepted, and nothing lost by it."""

from __future__ import annotations

import json
import random
import socket
import string
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import jwt
import psycopg
import pytest

from tests.support.faces import FACES, PASSWORD, Wire, authorization, wired
from tests.support.services import new_store
from unbroken.server import MemorySessionStore, open_store

JSON = {"content-type": "application/json"}
FORM = {"content-type": "application/x-www-form-urlencoded"}
one_face = pytest.mark.parametrize("wire", ["starlette"], indirect=True)

STORES = ("sqlite", "postgres", "redis")
BAD_JSON = {
    "nothing": b"",
    "no JSON": b"{",
    "a list": b"[]",
    "a number": b"1",
    "a text": b'"x"',
    "null": b"null",
    "no UTF-8": b'{"username": "\xff"}',
    "UTF-16": '{"username": "ada"}'.encode("utf-16"),
    "deep": b'{"a":' * 10_000,
    "deeper": b"[" * 60_000,
    "a huge number": b'{"username": ' + b"9" * 10_000 + b"}",
    "another number": b'{"username": 1e999}',
    "a NUL": rb'{"username": "a\u0000b", "password": "x", "refresh_token": "a\u0000"}',
    "a surrogate": rb'{"username": "\ud800", "password": "x", "refresh_token": "\udfff"}',
    "wrong types": b'{"username": ["ada"], "password": {}, "refresh_token": true}',
    "nulls": b'{"username": null, "password": null, "refresh_token": null}',
}
BAD_FORMS = {
    "nothing": b"",
    "no pairs": b"x",
    "no UTF-8": b"grant_type=%ff&token=%ff",
    "raw bytes": b"\xff\xfe=\x00",
    "a NUL": b"grant_type=refresh_token&refresh_token=%00&token=%00",
    "many": b"&".join(b"a%d=1" % number for number in range(1000)),
}


@pytest.fixture(params=[*sorted(FACES), *(f"starlette on {kind}" for kind in STORES)], scope="module")
def wire(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wire]:
    """Every face on a store in memory, and every other store below one face."""
    face, _, kind = request.param.partition(" on ")
    with ExitStack() as stack:
        store: Any = MemorySessionStore()
        if kind == "sqlite":
            store = open_store(f"sqlite:///{tmp_path_factory.mktemp('hostile')}/s.db")
        elif kind == "postgres":
            store = open_store(stack.enter_context(database_of(request.getfixturevalue("postgres").url)))
        elif kind == "redis":
            store = open_store(new_store(request.getfixturevalue("redis")))
        yield stack.enter_context(wired(face, store))


@contextmanager
def database_of(url: str) -> Iterator[str]:
    """A database of its own in the PostgreSQL at *url*."""
    with psycopg.connect(url, autocommit=True) as db:
        db.execute("CREATE DATABASE hostile")
    yield url.removesuffix("postgres") + "hostile"
    with psycopg.connect(url, autocommit=True) as db:
        db.execute("DROP DATABASE hostile WITH (FORCE)")


@pytest.mark.parametrize("path", ["/auth/login", "/auth/refresh"])
@pytest.mark.parametrize("body", BAD_JSON.values(), ids=BAD_JSON)
def test_bad_json_is_invalid_request(wire: Wire, path: str, body: bytes) -> None:
    response = wire.http.post(path, content=body, headers=JSON)
    assert (response.status_code, response.json()["error"]) == (400, "invalid_request")
    assert response.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("path", ["/auth/token", "/auth/revoke"])
@pytest.mark.parametrize("body", BAD_FORMS.values(), ids=BAD_FORMS)
def test_a_bad_form_is_invalid_request(wire: Wire, path: str, body: bytes) -> None:
    response = wire.http.post(path, content=body, headers=FORM)
    assert (response.status_code, response.json()["error"]) == (400, "invalid_request")


@pytest.mark.parametrize("kind", ["text/plain", "", "application/json+x", "multipart/form-data; boundary=x"])
@pytest.mark.parametrize("path", ["/auth/login", "/auth/token", "/auth/refresh", "/auth/revoke"])
def test_another_content_type_is_invalid_request_and_says_what_to_send(wire: Wire, path: str, kind: str) -> None:
    response = wire.http.post(path, content=b"{}", headers={"content-type": kind})
    assert (response.status_code, response.json()["error"]) == (400, "invalid_request")
    assert "application/" in response.json()["error_description"]


@pytest.mark.parametrize("path", ["/auth/login", "/auth/token", "/auth/refresh", "/auth/logout", "/auth/revoke"])
def test_a_body_above_64_kib_is_413(wire: Wire, path: str) -> None:
    response = wire.http.post(path, content=b"x" * (64 * 1024 + 1), headers=JSON)
    assert (response.status_code, response.json()["error"]) == (413, "invalid_request")


def head_of(length: int) -> bytes:
    fields = f"host: x\r\ncontent-type: application/json\r\ncontent-length: {length}"
    return f"POST /auth/login HTTP/1.1\r\n{fields}\r\n\r\n".encode()


@one_face
def test_an_endless_body_is_refused_before_its_end(wire: Wire) -> None:
    host, port = wire.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(head_of(length=999_999_999) + b" " * 70_000)
        assert connection.recv(1000).startswith(b"HTTP/1.1 413")


@one_face
def test_a_client_that_hangs_up_is_no_error_of_the_server(wire: Wire, caplog: pytest.LogCaptureFixture) -> None:
    host, port = wire.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(head_of(length=100) + b"{")
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(1000):
            pass
    assert wire.login()
    assert not [record for record in caplog.records if record.exc_info]


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [("GET", "/auth/login", "POST"), ("PUT", "/auth/token", "POST"), ("DELETE", "/auth/session", "GET"),
     ("PUT", "/auth/sessions/x", "DELETE"), ("POST", "/.well-known/jwks.json", "GET"),
     ("BREW", "/auth/login", "POST")],
)  # fmt: skip
def test_another_method_is_405_with_allow(wire: Wire, method: str, path: str, allow: str) -> None:
    response = wire.http.request(method, path)
    assert response.status_code == 405
    assert allow in response.headers["allow"].split(", ")


@pytest.mark.parametrize("key", ["", "x" * 10_000, '"quoted"', "\xe9", "a, b"])
def test_any_idempotency_key_will_do(wire: Wire, key: str) -> None:
    tokens = wire.login()
    headers = [("idempotency-key", key.encode("latin-1"))]
    response = wire.http.post("/auth/refresh", json={"refresh_token": tokens["refresh_token"]}, headers=headers)
    assert response.status_code == 200


# ---- mutated tokens --------------------------------------------------------------------------------------------------


def mutants(token: str, count: int) -> Iterator[str]:
    """*count* texts that are nearly *token*; each can stand in a header."""
    dice = random.Random(token)
    letters = string.ascii_letters + string.digits + "-_.=+/~%"
    special = [
        token + "=", token + "==", "=" + token, token + ".", "." + token, token + "A", token[:-1], token[1:],
        token + token, token + "%00", token.swapcase(), token.upper(), token[::-1], token.replace(".", "", 1),
        token.replace("_", "/").replace("-", "+"), token + "," + token, f'"{token}"', token[: len(token) // 2],
        ".".join(reversed(token.split("."))), token + ".x", "Bearer" + token,
    ]  # fmt: skip
    special += [token[:-1] + letter for letter in letters]  # other spellings of the same bytes are among them
    yielded = 0
    for mutant in special:
        if mutant != token:
            yielded += 1
            yield mutant
    while yielded < count:
        at, kind = dice.randrange(len(token)), dice.randrange(4)
        letter = dice.choice(letters)
        mutant = [
            token[:at] + letter + token[at + 1 :],
            token[:at] + token[at + 1 :],
            token[:at] + letter + token[at:],
            token[:at] + token[at : at + 2][::-1] + token[at + 2 :],
        ][kind]
        if mutant != token:
            yielded += 1
            yield mutant


@one_face
def test_a_thousand_mutated_access_tokens_are_refused(wire: Wire) -> None:
    token = wire.login()["access_token"]
    for mutant in mutants(token, 1000):
        response = wire.whoami(mutant)
        assert (response.status_code, response.json()["reason"]) == (401, "malformed"), mutant
    assert wire.whoami(token).status_code == 200


@one_face
def test_a_thousand_mutated_refresh_tokens_are_refused_and_spend_nothing(wire: Wire) -> None:
    token = wire.login()["refresh_token"]
    for number, mutant in enumerate(mutants(token, 1000)):
        response = wire.refresh(mutant) if number % 2 else wire.form(
            "/auth/token", grant_type="refresh_token", refresh_token=mutant
        )  # fmt: skip
        assert (response.status_code, response.json()["error"]) == (400, "invalid_grant"), mutant
    assert wire.refresh(token).json()["refresh_seq"] == 1


@one_face
def test_mutated_tokens_end_no_session_and_reveal_nothing(wire: Wire) -> None:
    tokens = wire.login()
    for mutant in (*mutants(tokens["access_token"], 150), *mutants(tokens["refresh_token"], 150)):
        assert wire.form("/auth/revoke", token=mutant).status_code == 200
        assert wire.form("/auth/introspect", tokens["access_token"], token=mutant).json() == {"active": False}
    assert wire.whoami(tokens["access_token"]).status_code == 200


# ---- forged tokens (RFC 8725) ----------------------------------------------------------------------------------------


def forgeries(wire: Wire, good: dict[str, Any]) -> dict[str, str]:
    """Tokens an attacker, or a careless issuer next door, would try. ``ours`` are signed by our own key."""
    key = wire.sessions.keyring().signing[-1]
    private, public = key.jwk.private_key, key.jwk.as_pem(private=False).decode()
    body = jwt.decode(good["access_token"], options={"verify_signature": False})
    head = {"kid": key.kid, "typ": "at+jwt"}
    other = jwt.PyJWK.from_dict({"kty": "oct", "k": "A" * 43}).key

    def ours(claims: dict[str, Any], **header: Any) -> str:
        return jwt.encode(claims, private, algorithm="EdDSA", headers={**head, **header})

    unsigned = jwt.encode(body, None, algorithm="none", headers=head)
    _, payload, signature = good["access_token"].split(".")
    confused = jwt.utils.base64url_encode(json.dumps({**head, "alg": "HS256"}).encode()).decode() + f".{payload}"
    mac = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256)
    by_public_key = jwt.utils.base64url_encode(mac.sign(confused.encode(), public.encode())).decode()
    return {
        "alg none": unsigned,
        "alg none, our signature": unsigned + signature,
        "public key as HMAC secret": f"{confused}.{by_public_key}",
        "another key": jwt.encode(body, other, algorithm="HS256", headers=head),
        "its own key in the header": jwt.encode(
            body, other, algorithm="HS256", headers={"typ": "at+jwt", "jwk": {"kty": "oct", "k": "A" * 43}}
        ),
        "kid is a path": ours(body, kid="../../etc/passwd"),
        "kid is SQL": ours(body, kid="' OR 1=1 --"),
        "no kid": ours(body, kid=""),
        "typ JWT": ours(body, typ="JWT"),
        "no typ": ours(body, typ=""),
        "typ id token": ours(body, typ="id+jwt"),
        "crit": ours(body, crit=["exp"]),
        "another issuer": ours({**body, "iss": "https://evil.example"}),
        "another audience": ours({**body, "aud": "bank"}),
        "audiences": ours({**body, "aud": ["shop", "bank"]}),
        **{f"no {name}": ours({k: v for k, v in body.items() if k != name}) for name in ("exp", "sub", "sid", "jti")},
        "scope is a number": ours(body | {"scope": 1}),
        "a refresh token": good["refresh_token"],
    }


@one_face
def test_forged_tokens_are_refused(wire: Wire) -> None:
    good = wire.login()
    for name, forged in forgeries(wire, good).items():
        response = wire.whoami(forged)
        assert (response.status_code, response.json()["reason"]) == (401, "malformed"), name
    assert wire.whoami(good["access_token"]).status_code == 200


@one_face
def test_an_expired_access_token_is_refused_with_the_reason_expired(wire: Wire) -> None:
    good = wire.login()
    key = wire.sessions.keyring().signing[-1]
    body = jwt.decode(good["access_token"], options={"verify_signature": False}) | {"exp": int(time.time()) - 1}
    late = jwt.encode(body, key.jwk.private_key, algorithm="EdDSA", headers={"kid": key.kid, "typ": "at+jwt"})
    assert wire.whoami(late).json()["reason"] == "expired"
    assert wire.http.post("/auth/logout", headers=authorization(late)).status_code == 204, "it still names its session"
    assert wire.whoami(good["access_token"]).json()["reason"] == "revoked"


def test_an_access_token_does_not_refresh(wire: Wire) -> None:
    response = wire.refresh(wire.login()["access_token"])
    assert (response.status_code, response.json()["reason"]) == (400, "malformed")


def test_no_response_repeats_a_secret(wire: Wire) -> None:
    secret = "s3cret-of-mine"
    responses = [
        wire.http.post("/auth/login", json={"username": "ada", "password": secret}),
        wire.http.post("/auth/login", json={"username": "ada", "password": [secret]}),
        wire.form("/auth/token", grant_type="password", username="ada", password=secret),
        wire.refresh(secret),
        wire.whoami(secret),
        wire.http.post("/auth/login", content=f'{{"password": "{PASSWORD}", {secret}', headers=JSON),
    ]
    for response in responses:
        assert response.status_code in (400, 401)
        assert secret not in response.text + str(response.headers)


def test_a_body_that_is_framed_wrongly_is_no_error_of_the_server(wire: Wire) -> None:
    head = "POST /auth/login HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked"
    host, port = wire.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(f"{head}\r\nconnection: close\r\n\r\nzz\r\n".encode())
        assert b" 400 " in connection.recv(1000).partition(b"\r\n")[0]
