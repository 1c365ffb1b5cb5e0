"""Secrets in what is shown: reprs of all that holds one, logs of the finest level, errors and what hangs on them."""

from __future__ import annotations

import ast
import gc
import json
import logging
import re
import traceback
from base64 import b64encode
from collections.abc import Iterator
from itertools import product
from typing import Any
from urllib.parse import quote

import pytest

from tests.support.attacks import Attacks
from tests.support.paths import ROOT
from unbroken import MemoryStore, Session, oauth2
from unbroken._bounded_cache import BoundedCache
from unbroken._http import HttpRequest, HttpResponse
from unbroken.cli.client.fetch_transfer import FetchRequest
from unbroken.client.core.content_coding import DecodedBody
from unbroken.client.core.dialect import Dialect
from unbroken.client.core.refresh_rules import GrantRejected
from unbroken.client.core.token_request import read_token_response
from unbroken.client.core.token_store import StoredSession
from unbroken.errors import SessionOver, UnbrokenError
from unbroken.server import Endpoints, EventLog, MemorySessionStore, MfaRequired, RequestProof, Sessions
from unbroken.server.http.messages import Request, Response
from unbroken.server.proofs.nonces import OwnNonceKey
from unbroken.tokens import Tokens

SECRET = "s3cr3t-c4n4ry"
JSON, FORM = {"content-type": "application/json"}, {"content-type": "application/x-www-form-urlencoded"}

# ---- reprs -----------------------------------------------------------------------------------------------------------


def full_cache() -> BoundedCache[str, str]:
    cache: BoundedCache[str, str] = BoundedCache(2)
    cache.put(SECRET, SECRET)
    return cache


HOLDERS: list[Any] = [
    full_cache(),
    Tokens(SECRET, SECRET),
    StoredSession(1, 1, Tokens(SECRET, SECRET), idempotency_key=SECRET, device_token=SECRET),
    FetchRequest("GET", f"https://x/?{SECRET}", (("x", SECRET),), (SECRET,), (SECRET,), "-", False, False, False),
    DecodedBody(SECRET.encode(), True),
    RequestProof(SECRET, "GET", "/"),
    OwnNonceKey(SECRET.encode()).mac(0.0),
    Request("POST", "/", {"authorization": SECRET}, SECRET.encode(), query=SECRET),
    HttpRequest("GET", f"https://x/?t={SECRET}", {"authorization": SECRET}, SECRET.encode()),
    HttpResponse(200, {"x": SECRET}, SECRET.encode()),
]  # fmt: skip


@pytest.mark.parametrize("holder", HOLDERS, ids=lambda holder: type(holder).__name__)
def test_what_holds_a_secret_does_not_show_it(holder: Any, attacks: Attacks) -> None:
    for text in (repr(holder), str(holder), f"{holder}", repr([holder]), repr({"a": (holder,)})):
        attacks.try_one()
        assert SECRET not in text


WORD = re.compile(r"password|secret|(?:access|refresh|device|mfa)_token$|^code$|idempotency_key$|^body$", re.IGNORECASE)
HARMLESS = {
    ("Settings", "webhook_secret_file"),  # a path
    ("TokenFields", "access_token"), ("TokenFields", "refresh_token"),  # paths in JSON
    ("StoreProblem", "code"), ("Problem", "code"),  # words for programs
    ("_Representation", "body"),  # the browser module
}  # fmt: skip


def shown_fields() -> Iterator[tuple[str, str]]:
    """The class and the name of each field that a generated repr shows."""
    for path in (ROOT / "src").rglob("*.py"):
        for one in ast.walk(ast.parse(path.read_text())):
            if not isinstance(one, ast.ClassDef):
                continue
            above = ast.unparse(ast.List([*one.bases, *one.decorator_list], ast.Load()))
            has_own = any(isinstance(part, ast.FunctionDef) and part.name == "__repr__" for part in one.body)
            if has_own or not ("NamedTuple" in above or "dataclass(" in above):
                continue
            for part in one.body:
                text = ast.unparse(part)
                is_hidden = any(sign in text for sign in ("repr=False", "secret=True", ": bool", "ClassVar"))
                if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name) and not is_hidden:
                    yield one.name, part.target.id


def test_no_class_shows_a_field_that_is_called_a_secret(attacks: Attacks) -> None:
    fields = set(shown_fields())
    attacks.try_many(len(fields))
    assert len(fields) > 300
    assert {(kind, name) for kind, name in fields if WORD.search(name)} == HARMLESS


# ---- logs and responses of a server ----------------------------------------------------------------------------------


def test_no_log_no_event_and_no_error_of_a_server_has_a_secret(
    attacks: Attacks, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(1)
    events: list[Any] = []
    sessions = Sessions(MemorySessionStore(), issuer="https://id.example", on_event=[EventLog(), events.append])

    def authenticate(name: str, password: str) -> Any:
        return (MfaRequired(name) if name == "mfa" else name) if password == SECRET else None

    settings: Any = {"cookies": "both", "rate_limit": None, "verify_mfa": lambda *_: True}
    endpoints = Endpoints(sessions, authenticate, **settings)
    secrets = {SECRET}

    def call(method: str, path: str, headers: dict[str, str], body: bytes) -> Response:
        attacks.try_one()
        response = endpoints.handle_blocking(Request(method, path, headers, body, "192.0.2.1"))
        assert response is not None
        return response

    def granted(path: str, **fields: str) -> dict[str, str]:
        found = json.loads(call("POST", path, JSON, json.dumps(fields).encode()).body)
        secrets.update(found[name] for name in found if name.endswith("_token"))
        return dict(found)

    tokens = granted("/auth/login", username="ada", password=SECRET)
    waiting = granted("/auth/login", username="mfa", password=SECRET)
    granted("/auth/login/step", mfa_token=waiting["mfa_token"], code=SECRET)
    newer = granted("/auth/refresh", refresh_token=tokens["refresh_token"])
    refresh, access = newer["refresh_token"], newer["access_token"]
    bodies = (
        json.dumps({"refresh_token": refresh + "x", "username": "ada", "password": SECRET + "x"}).encode(),
        f"token={refresh}&token=2".encode(),
        b"{" + access.encode(),
        b"\xff" + refresh.encode(),
    )
    callers: tuple[dict[str, str], ...] = (
        {"authorization": f"Bearer {access}x"},
        {"authorization": f"DPoP {access}", "dpop": f"{SECRET}.a.b"},
        {"authorization": f"Basic {access}"},
        {"x-unbroken": "1", "cookie": f"__Secure-unbroken-refresh={refresh}x; __Host-unbroken-access={access}y"},
    )
    for route, kind, body, caller in product(endpoints.routes, (JSON, FORM, {}), bodies, callers):
        path = endpoints.path(route).replace("{sid}", "x")
        response = call(route.method, path, {**kind, **caller}, body)
        shown = repr(response) + response.body.decode() + str(dict(response.headers))
        assert not [secret for secret in secrets if secret in shown], (route.path, response.status)
    shown = "\n".join([caplog.text, *map(repr, events), *(repr(record.__dict__) for record in caplog.records)])
    assert not [secret for secret in secrets if secret in shown]
    ours = [one for one in gc.get_objects() if str(type(one).__module__).startswith("unbroken")]
    assert len(ours) > 50
    assert not [type(one).__name__ for one in ours if any(secret in shown_by(one) for secret in secrets)]


def shown_by(one: object) -> str:
    try:
        return repr(one)
    except AttributeError:  # another test has left an object that was not completely made
        return ""


# ---- errors of a client ----------------------------------------------------------------------------------------------

BODIES = [
    f'{{"access_token": "{SECRET}\\u0000"', f'{{"access_token": 5, "refresh_token": "{SECRET}"}}',
    f'{{"access_token": "{SECRET}\\n"}}', f'["{SECRET}"]', f'{{"error": "{SECRET}"}}', f"\xff\xfe{SECRET}",
    f'{{"error": "invalid_grant", "error_description": "{SECRET} is bad"}}', f'"{SECRET}', f"{SECRET}: 1e999",
]  # fmt: skip


@pytest.mark.parametrize("status", [200, 400, 401, 500])
@pytest.mark.parametrize("body", BODIES)
def test_no_error_of_a_client_has_a_token_anywhere(body: str, status: int, attacks: Attacks) -> None:
    response = HttpResponse(status, {"content-type": "application/json"}, body.encode("latin-1"))
    attacks.try_one()
    assert not [text for text in told(oauth2("https://as.example/token"), response, (SECRET,)) if SECRET in text]


def test_no_error_and_no_log_of_a_session_has_a_token(attacks: Attacks, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    body = f'{{"error": "invalid_grant", "reason": "{SECRET}", "error_description": "{SECRET}"}}'.encode()
    session = Session(oauth2("https://as.example/token"), MemoryStore(), send=lambda *_: HttpResponse(400, {}, body))
    session.import_tokens({"access_token": SECRET, "refresh_token": SECRET, "expires_in": 3600})
    rejected = session.token()
    attacks.try_one()
    with pytest.raises(UnbrokenError) as caught:
        session.newer_token(rejected)
    assert not [text for text in everything_of(caught.value) if SECRET in text]
    assert SECRET not in repr(session) + caplog.text


ECHOES = [
    {"error": "invalid_client", "error_description": f"wrong secret: {SECRET}"},
    {"error": "invalid_grant", "error_description": f"Basic {b64encode(f'c:{SECRET}'.encode()).decode()} is wrong"},
    {"error": SECRET}, {"error": f"no_{SECRET}_here"}, {"error": "invalid_grant", "reason": SECRET},
    {"error": "server_error", "error_description": quote(SECRET)}, {"error": "slow_down", "reason": SECRET},
]  # fmt: skip


@pytest.mark.parametrize("echo", ECHOES)
@pytest.mark.parametrize("auth", ["basic", "post"])
@pytest.mark.parametrize("secret", [SECRET, "s3cr3t_c4n4ry", "s3cr3t/c4+n4ry%"])
def test_a_secret_of_the_client_is_in_no_error(echo: dict[str, str], auth: Any, secret: str, attacks: Attacks) -> None:
    sent = {name: value.replace(SECRET, secret) for name, value in echo.items()}
    device = "https://as.example/device"
    dialect = oauth2(
        "https://as.example/token",
        client_id="c",
        client_secret=secret,
        client_auth=auth,
        device_authorization_endpoint=device,
    )
    for status in (200, 400, 401, 500):
        attacks.try_one()
        response = HttpResponse(status, {}, json.dumps(sent).encode())
        assert not [text for text in told(dialect, response, ()) if secret in text or quote(secret) in text]


def told(dialect: Dialect, response: HttpResponse, secrets: tuple[str, ...]) -> Iterator[str]:
    """All that *dialect* makes of *response* to a refresh or a login."""
    outcome = dialect.read_refresh_response(response, secrets=secrets)
    yield repr(outcome)
    yield from everything_of(getattr(outcome, "cause", None))
    if isinstance(outcome, GrantRejected):
        yield from everything_of(SessionOver(outcome.reason, outcome.said))
    for read in (
        lambda: dialect.read_login_response(response, secrets=secrets),
        lambda: read_token_response(dialect, response, secrets=secrets),
    ):
        with pytest.raises(UnbrokenError) as caught:
            read()
        yield from everything_of(caught.value)


def everything_of(error: BaseException | None) -> Iterator[str]:
    """All texts that hang on *error*: of its causes, and what those remember of what they have read."""
    while error is not None:
        yield "".join(traceback.format_exception_only(error))
        yield repr([error, error.args, vars(error), getattr(error, "doc", ""), getattr(error, "object", "")])
        error = error.__cause__ or error.__context__
