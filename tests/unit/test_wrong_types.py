"""Arguments of wrong types: every public function, constructor and method says which argument is wrong.

1. The public names are those of ``test_public.py``. What is left out here is named, with the reason.
2. One argument is wrong at a time; the others are good.

Modules: _arguments.py, client/session_arguments.py.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.unit.test_public import NAMES
from unbroken import FileStore, MemoryStore, Session, oauth2
from unbroken.errors import ConfigurationError, UnbrokenError
from unbroken.server import Accounts, EventLog, MemorySessionStore, RateLimitPolicy, RequestProof, Sessions, Webhook
from unbroken.testing import ManualClock

WRONG = {"None": None, "a number": 1, "bytes": b"", "a list": [], "an object": object(), "a text": "x"}
ALLOWED = {
    "None": ("None", "EncryptionKey |", "object", "Any"),
    "a number": ("int", "float", "Duration", "object", "Any"),
    "bytes": ("bytes", "EncryptionKey", "object", "Any"),
    "a list": ("Collection", "Sequence", "Iterable", "list", "tuple", "EncryptionKey", "object", "Any"),
    "an object": ("object", "Any"),
    "a text": ("str", "EncryptionKey", "object", "Any", "Encoding", "Literal"),
}
VALUES = """
    AccessTokenUser AuthorizationServer Caller Claims ClientEvent DeviceCode GrantRejected HttpRequest HttpResponse
    Indeterminate KeyNotProven KeyRecord LateChallenge LateTokensDiscarded LoggedIn LoggedOut LoginFailed
    LoginRateLimited MfaChallenge NewSession
    ProtectedResource RefreshFailed RefreshFinished RefreshInspection RefreshJoined RefreshRejected RefreshStarted
    RefreshStormStopped Request RequestNotReplayed RequestProof RequestReplayed RequestWaited Response ReuseDetected
    ReuseSuspected Revocation RevocationPage Route ServerEvent SessionCreated SessionEnded SessionInfo SessionPage
    SessionRefreshed SessionRevoked SessionRow Status StoredSession Ticket TokenResponse Tokens TokensAdopted
    TokensRefreshed VerifiedProof
"""  # made by the library, or checked by the one that they are given to
PROTOCOLS = "Clock Lease TokenStore SessionStore TokenVerifier RevocationCheck EndpointOptions MfaPrompt Send"
PROTOCOLS += " LoginOptions"
OF_FRAMEWORKS = """
    why_not_replayed no_auth challenge error_response current_claims claims_from_ticket require_scope running observe
    AccessTokenMiddleware BearerBackend EventListener Keyring is_foreign_token MemorySessionStore main CorruptRecord
    EndpointSettings Identity MfaRequired Account DatabaseLocked Notifications PresentedToken Schema SchemaVersion
    SessionBinding SessionFacts StoreProblem StoreType StoreWrapper redact_url register_store store_type store_types
    Verdict in_sync_context next_page_cursor page_position place_of present why_inactive
"""  # called by a framework, or with its objects; the inner side of a store; checked where they are used
LEFT_OUT = frozenset(f"{VALUES} {PROTOCOLS} {OF_FRAMEWORKS}".split())
HOT = {"allows_origin", "verify_cached", "notify", "acached_keyring", "acreate_unless", "arefresh_within"}
HOT |= {"alook_up_within", "look_up", "alook_up"}  # of claims that were verified
GOOD: dict[str, Any] = {
    "subject": "ada", "sid": "s", "label": "l", "keep": "k", "username": "ada", "password": "a password", "name": "ada",
    "kid": "k", "client_id": "app", "access": "a", "access_token": "a", "refresh_token": "r", "rejected_token": "r",
    "ticket": "t",
    "secret": "a secret of more than 24 bytes", "issuer": "https://id.example.com", "audience": "shop",
    "token_endpoint": "https://id.example.com/token", "location": "memory:", "service": "s", "store_name": "s",
    "jwks_url": "https://id.example.com/jwks", "credential": str, "upstream": 1, "seconds": 1.0, "status": 500,
    "authenticate": lambda name, password: None, "listener": print, "after": 0, "publish_ahead": 1.0, "holder": "h",
    "dialect": "https://example.org", "on_unavailable": "reject",
    "count": 1, "body": b"", "timeout": 1.0, "event": None, "app": None,
    "prefix": "/auth", "server_url": "https://example.org", "client_metadata": Path(), "auth": Path(),
    "logger": "x", "tokens": {"access_token": "a"}, "account_burst": 5, "path": "x",
    "proof": RequestProof("p", "GET", "/"), "scopes": ["read"],
    "method": "GET", "private_key": Ed25519PrivateKey.generate(),
}  # fmt: skip


def instances(folder: Path) -> dict[str, Any]:
    """An object of each class whose methods are tried."""
    sessions = Sessions(MemorySessionStore(), issuer="https://id.example.com")
    return {
        "Session": Session("https://example.org"),
        "Sessions": sessions,
        "Accounts": Accounts(sessions),
        "Webhook": Webhook("https://example.org", GOOD["secret"]),
        "EventLog": EventLog(),
        "FileStore": FileStore(folder / "tokens.json"),
        "MemoryStore": MemoryStore(),
        "ManualClock": ManualClock(),
        "Dialect": oauth2("https://example.org/token"),
    }


def targets() -> Iterator[tuple[str, Callable[..., Any], bool]]:
    """The name of each function, the function, and whether it is a method of an instance."""
    seen = set()
    for module in NAMES:
        if module.startswith("unbroken.django"):
            continue  # its settings are checked by Django's own checks
        for name in NAMES[module].split():
            found = getattr(importlib.import_module(module), name)
            is_left_out = name in LEFT_OUT
            if id(found) in seen or is_left_out or (not inspect.isroutine(found) and not isinstance(found, type)):
                continue
            seen.add(id(found))
            if not isinstance(found, type):
                yield f"{module}.{name}", found, False
            elif not issubclass(found, Exception):
                yield f"{module}.{name}", found, False
                for method, function in inspect.getmembers(found):
                    if (
                        name in TRIED
                        and not method.startswith("_")
                        and inspect.isfunction(function)
                        and method not in HOT
                    ):
                        yield f"{name}.{method}", function, True


TRIED = ("Session", "Sessions", "Accounts", "Webhook")
CASES = [
    pytest.param(function, is_method, parameter, kind, id=f"{name}({parameter.name}={kind})")
    for name, function, is_method in targets()
    for parameter in inspect.signature(function).parameters.values()
    if parameter.name != "self" and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    for kind in WRONG
    if not any(word in str(parameter.annotation) for word in ALLOWED[kind])
]


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return instances(tmp_path_factory.mktemp("wrong"))


@pytest.mark.parametrize(("function", "is_method", "parameter", "kind"), CASES)
def test_an_argument_of_a_wrong_type_is_named(
    objects: dict[str, Any],
    function: Callable[..., Any],
    is_method: bool,
    parameter: inspect.Parameter,
    kind: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    required = [
        one.name
        for one in inspect.signature(function).parameters.values()
        if one.default is one.empty and one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY) and one.name != "self"
    ]
    arguments = {name: good(name, function, objects) for name in required} | {parameter.name: WRONG[kind]}
    owner = [owner_of(function, objects)] if is_method else []
    with pytest.raises(UnbrokenError) as caught:
        call(function, owner, arguments)
    message = str(caught.value).lower()
    assert parameter.name in message or parameter.name.replace("_", " ") in message
    assert "\n" not in str(caught.value)


def owner_of(function: Callable[..., Any], objects: dict[str, Any]) -> Any:
    """Return the object whose method *function* is, inherited or its own."""
    name = function.__qualname__.partition(".")[0]
    return next(one for one in objects.values() if name in {cls.__name__ for cls in type(one).__mro__})


def call(function: Callable[..., Any], owner: list[Any], arguments: dict[str, Any]) -> None:
    result = function(*owner, **arguments)
    if inspect.iscoroutine(result):
        asyncio.run(result)


def good(name: str, function: Callable[..., Any], objects: dict[str, Any]) -> Any:
    if name in ("session", "sessions", "verifier", "store"):
        return {"session": objects["Session"], "store": MemorySessionStore()}.get(name, objects["Sessions"])
    if name == "url":
        return "memory:" if function.__name__ == "open_store" else "https://example.org"
    if name == "key":
        return "x"
    if name == "refresh":
        return objects["Dialect"].refresh
    return GOOD[name]


def test_a_wrong_word_is_shown_beside_the_right_ones_and_a_text_elsewhere_is_not() -> None:
    with pytest.raises(ConfigurationError, match=r"must be 'learn', .* or 'strict', not 'sometimes'$"):
        oauth2("https://example.org/token", repeated_refresh="sometimes")  # type: ignore[arg-type]  # the mistake
    with pytest.raises(ConfigurationError, match=r"account_burst must be a whole number, not str$"):
        RateLimitPolicy(account_burst="a secret")  # type: ignore[arg-type]  # the mistake


@pytest.mark.parametrize(
    ("proof", "named"),
    [
        (RequestProof(None, "GET", "/"), "text of the proof must be a text, not NoneType"),  # type: ignore[arg-type]
        (RequestProof("p", b"GET", "/"), "method of the proof must be a text, not bytes"),  # type: ignore[arg-type]
        (RequestProof("p", "GET", 1), "path of the proof must be a text, not int"),  # type: ignore[arg-type]
        (RequestProof("p", "GET", "/", None), "host of the proof must be a text, not NoneType"),  # type: ignore[arg-type]
        (RequestProof("p", "GET", "/", spent=[]), "spent of the proof must be a set or None, not list"),  # type: ignore[arg-type]
    ],
    ids=["text", "method", "path", "host", "spent"],
)
def test_a_wrong_field_of_a_proof_is_named(objects: dict[str, Any], proof: RequestProof, named: str) -> None:
    sessions = objects["Sessions"]
    with pytest.raises(ConfigurationError, match=named):
        sessions.verify("a", proof)
    with pytest.raises(ConfigurationError, match=named):
        sessions.verify_proof(proof)
