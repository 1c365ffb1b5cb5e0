"""Tokens that our own keys sign and that no reader may take: odd numbers, odd texts, odd JSON (RFC 7519, RFC 8725)."""

from __future__ import annotations

import hmac
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.support.attacks import Attacks
from unbroken._base64 import decode, encode
from unbroken._concurrency import run_sync
from unbroken._time import Clock
from unbroken.errors import ConfigurationError, InvalidToken, LoginRefused, TryLater
from unbroken.server import MemorySessionStore, Sessions
from unbroken.server.core.session_info import NewSession
from unbroken.server.grants.tickets import TICKET_TOKEN
from unbroken.server.login.authenticator import MfaRequired
from unbroken.server.login.mfa import MFA_TOKEN, MfaTokens
from unbroken.verifier import Verifier

NOW = 1_700_000_000.0
FIXED = Clock(lambda: NOW, lambda: NOW)  # it stands still
URL = "https://id.example.com"
ODD_TIMES = [
    "NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1e300", "9" * 400, "9" * 5000, "253402300800", "-1", "-0.5",
    "true", "false", "null", '"1999999999"', '""', "[1999999999]", "{}", '"NaN"',
]  # fmt: skip
ODD_COUNTS = ["NaN", "1e999", "-1", "1.5", "true", "null", '"1"', "9" * 30]
ODD_TEXTS = ["null", "1", "true", '["ada"]', "{}", '"\\ud800"']
ODD_PAYLOADS = ["[]", '"text"', "1", "null", "", "{", "{}", '\ufeff{"a":1}', "[" * 100_000, '{"a":NaN}']


@pytest.fixture
def sessions() -> Sessions:
    return Sessions(MemorySessionStore(), issuer=URL, audience="shop", clock=lambda: NOW)


@pytest.fixture
def verifier(sessions: Sessions) -> Iterator[Verifier]:
    with published(sessions) as url:
        yield Verifier(url, issuer=URL, audience="shop", clock=FIXED, leeway=5.0)


@contextmanager
def published(sessions: Sessions) -> Iterator[str]:
    """The URL of the public keys, on loopback."""
    body = json.dumps(sessions.jwks()).encode()

    class Keys(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Keys)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


def signed(sessions: Sessions, payload: bytes) -> str:
    """An access token of our newest key with this payload, whatever it is."""
    return sessions.keyring().signer(NOW).sign(payload)


def changed(payload: bytes, name: str, value: str) -> bytes:
    """*payload* with the JSON text *value* in place of the member *name*, or without it."""
    members = [f"{json.dumps(key)}:{json.dumps(old)}" for key, old in json.loads(payload).items() if key != name]
    return ("{" + ",".join([*members, *([f"{json.dumps(name)}:{value}"] if value else [])]) + "}").encode(
        "utf-8", "surrogatepass"
    )


def odd_payloads(good: bytes) -> Iterator[bytes]:
    for name in ("exp", "iat"):
        yield from (changed(good, name, odd) for odd in (*ODD_TIMES, ""))
    yield from (changed(good, "nbf", odd) for odd in (*ODD_TIMES, str(NOW + 60), "1e11"))
    for name in ("seq", "br"):
        yield from (changed(good, name, odd) for odd in (*ODD_COUNTS, ""))
    for name in ("iss", "aud", "sub", "sid", "client_id", "scope", "jti"):
        yield from (changed(good, name, odd) for odd in (*ODD_TEXTS, ""))
    yield changed(good, "aud", '["shop"]')
    yield changed(good, "aud", '["shop", "admin"]')
    yield changed(good, "aud", '"shop "')
    yield changed(good, "level", "NaN")
    yield changed(good, "level", '{"deep":[1e999]}')
    for name in ("sub", "exp", "level"):  # twice: two readers, two meanings
        yield good[:-1] + f',"{name}":"a","{name}":"b"}}'.encode()
        yield b'{"%s":"a",' % name.encode() + good[1:]
    yield from (odd.encode("utf-8", "surrogatepass") for odd in ODD_PAYLOADS)
    yield good.decode().encode("utf-16")
    yield good.replace(b"ada", b"ad\xff")


def test_no_access_token_with_odd_claims_is_accepted_or_breaks_a_reader(
    sessions: Sessions, verifier: Verifier, attacks: Attacks
) -> None:
    good = decode(sessions.create("ada", scope="read").access_token.split(".")[1])
    assert sessions.verify(signed(sessions, good)).subject == verifier.verify(signed(sessions, good)).subject == "ada"
    for payload in odd_payloads(good):
        if (
            b'"level"' in payload
            and payload.count(b'"level"') == 1
            and b"NaN" not in payload
            and b"1e999" not in payload
        ):
            continue
        token = signed(sessions, payload)
        for verify in (sessions.verify, verifier.verify):
            attacks.try_one()
            with pytest.raises(InvalidToken):
                verify(token)
        attacks.try_one()
        if len(payload) < 5000 and b'"nbf"' not in payload:
            assert sessions.logout(access_token=token) is False, payload
    assert [info.revoked_at for info in sessions.list_sessions("ada")] == [None]


@pytest.mark.parametrize(
    "header",
    [
        {"crit": ["exp"]},
        {"crit": []},
        {"crit": ["b64"], "b64": False},
        {"typ": "JWT"},
        {"typ": "AT+JWT"},
        {"typ": None},
        {"alg": "none"},
        {"alg": "HS256"},
        {"alg": ["EdDSA"]},
        {"kid": None},
        {"kid": ["x"]},
        {"kid": {}},
        {"kid": True},
    ],
)
def test_no_odd_header_is_accepted(sessions: Sessions, attacks: Attacks, header: dict[str, Any]) -> None:
    good = sessions.create("ada").access_token
    shown, payload, signature = good.split(".")
    forged = encode(json.dumps({**json.loads(decode(shown)), **header}).encode())
    twice = encode(decode(shown)[:-1] + b',"typ":"at+jwt"}')
    for token in (f"{forged}.{payload}.{signature}", f"{twice}.{payload}.{signature}"):
        attacks.try_one()
        with pytest.raises(InvalidToken):
            sessions.verify(token)


def test_a_token_that_is_not_valid_yet_becomes_valid(verifier: Verifier, sessions: Sessions, attacks: Attacks) -> None:
    good = decode(sessions.create("ada").access_token.split(".")[1])
    for ahead, server, elsewhere in ((0.0, True, True), (4.0, False, True), (6.0, False, False)):
        token = signed(sessions, changed(good, "nbf", str(NOW + ahead)))
        for verify, is_good in ((sessions.verify, server), (verifier.verify, elsewhere)):
            attacks.try_one()
            if is_good:
                assert "nbf" not in verify(token).extra
                continue
            with pytest.raises(InvalidToken):
                verify(token)
    sessions.clock = lambda: NOW + 7
    assert sessions.verify(token).subject == "ada"


@pytest.mark.parametrize(
    "claims",
    [
        {"level": float("nan")},
        {"level": [float("-inf")]},
        {1: "a", "1": "b"},
        {"exp": 4_000_000_000},
        {"nbf": 4_000_000_000},
        {"scope": "admin"},
        {"sub": "root"},
        {"aud": ["shop", "admin"]},
        {"client_id": "first-party"},
        {"level": object()},
        "text",
        7,
    ],
)
def test_the_application_writes_no_claim_that_is_not_its_own(attacks: Attacks, claims: Any) -> None:
    attacks.try_one()
    with pytest.raises(ConfigurationError, match="claims hook"):
        Sessions(MemorySessionStore(), claims=lambda _: claims).create("ada")


# ---- tokens for one purpose, made with the right key -----------------------------------------------------------------


def purpose_token(sessions: Sessions, purpose: Any, payload: bytes, **header: Any) -> str:
    mac = sessions.keyring().mac(NOW)
    shown = json.dumps({"alg": "HS256", "typ": purpose.typ, "kid": str(mac.number), **header})
    message = f"{encode(shown.encode())}.{encode(payload)}"
    return f"{message}.{encode(hmac.digest(purpose.key(mac.secret).raw_value, message.encode(), 'sha256'))}"


def odd_purpose_payloads(good: bytes, texts: tuple[str, ...]) -> Iterator[bytes]:
    for name in ("exp", "iat"):
        yield from (changed(good, name, odd) for odd in (*ODD_TIMES, ""))
    yield changed(good, "exp", str(NOW + 1e9))
    yield changed(good, "exp", str(NOW + 301))
    for name in texts:
        yield from (changed(good, name, odd) for odd in (*ODD_TEXTS, ""))
    yield good[:-1] + b',"exp":1700000020}'
    yield from (odd.encode("utf-8", "surrogatepass") for odd in ODD_PAYLOADS)


def test_no_odd_ticket_is_redeemed(sessions: Sessions, attacks: Attacks) -> None:
    access = sessions.create("ada").access_token
    good = decode(sessions.ticket(access).text.split(".")[1])
    assert sessions.redeem(purpose_token(sessions, TICKET_TOKEN, good)).subject == "ada"
    inside = json.loads(good)["access"]
    payloads = [*odd_purpose_payloads(good, ("iss", "aud", "jti"))]
    for name in inside:
        odd = ODD_TEXTS if isinstance(inside[name], str) else ["NaN", "-1", "true", '"1"', "null", "1e999"]
        payloads += [
            changed(good, "access", changed(json.dumps(inside).encode(), name, one).decode("utf-8", "surrogatepass"))
            for one in odd
        ]
    for name, value in (("issuer", '"https://other.example"'), ("audience", '"admin"'), ("more", "1")):
        payloads.append(changed(good, "access", changed(json.dumps(inside).encode(), name, value).decode()))
    for number, payload in enumerate(payloads):
        fresh = payload.replace(json.loads(good)["jti"].encode(), f"jti{number}".encode())
        attacks.try_one()
        with pytest.raises(InvalidToken):
            sessions.redeem(purpose_token(sessions, TICKET_TOKEN, fresh))


ODD_KIDS = ["+1", "01", " 1", "1_0", "\u0661", 1, True, None, ["1"], {}]
ODD_HEADERS = [{"crit": ["exp"]}, {"crit": []}, {"alg": "HS384"}, {"alg": "none"}, {"typ": "at+jwt"}]


@pytest.mark.parametrize("header", [*({"kid": kid} for kid in ODD_KIDS), *ODD_HEADERS])
def test_no_ticket_with_an_odd_header_is_redeemed(sessions: Sessions, attacks: Attacks, header: dict[str, Any]) -> None:
    good = decode(sessions.ticket(sessions.create("ada").access_token).text.split(".")[1])
    attacks.try_one()
    with pytest.raises(InvalidToken):
        sessions.redeem(purpose_token(sessions, TICKET_TOKEN, good, **header))


def test_no_odd_mfa_token_is_read(sessions: Sessions, attacks: Attacks, size: Callable[[int, int], int]) -> None:
    tokens = MfaTokens(sessions)
    issued = run_sync(tokens.issue(MfaRequired("ada"), b"a", b"s", NewSession(scope="read")))
    assert run_sync(tokens.read(issued)).subject == "ada"
    good = decode(issued.split(".")[1])
    about = json.loads(good)["about"]
    odd_abouts = [
        json.dumps({**about, **wrong}) for wrong in ({"scope": 1}, {"coordinated": 1}, {"admin": True}, {"label": None})
    ]
    payloads = [*odd_purpose_payloads(good, ("iss", "aud", "sub", "kind", "jti", "account", "spelling"))]
    payloads += [changed(good, "about", odd) for odd in (*odd_abouts, "[]", "null", '"x"')]
    payloads += [good, changed(good, "kind", '"mail"'), changed(good, "about", json.dumps({**about, "scope": "admin"}))]
    for payload in payloads:
        forged = purpose_token(sessions, MFA_TOKEN, payload, x="another text")  # the key alone makes no MFA token
        attacks.try_one()
        with pytest.raises((LoginRefused, TryLater)):
            run_sync(tokens.read(forged))
