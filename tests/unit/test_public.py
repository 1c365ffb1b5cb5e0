"""The public names, and what importing them needs.

Modules: __init__.py, django/__init__.py, server/__init__.py, server/http/__init__.py, server/stores/__init__.py,
testing/__init__.py.
"""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
import typing
from collections.abc import Iterator
from types import GenericAlias
from typing import Any

import pytest

from tests.support.paths import ROOT

NAMES = {
    "unbroken": """
        AuthorizationServer BadResponse ClientCredentials ClientEvent Clock ConfigurationError DeviceCode Dialect
        FileStore GrantRejected HttpRequest HttpResponse Indeterminate InvalidGrant InvalidRequest InvalidScope
        InvalidToken Lease Leeway LoginEndpoints LoginRefused MemoryStore MfaChallenge MfaPrompt NotReplayable NotSent
        PasswordCredentials ProofKey ProtectedResource RefreshStorm RefreshWindow Refused RequestTemplate ResponseLost
        ResponseMatch Send Session
        SessionOver Status StoreBusy StoreUnavailable StoredSession TokenFields TokenResponse TokenStore Tokens
        TooManyAttempts TryLater UnbrokenError oauth2 open_token_store unbroken_server
    """,
    "unbroken.errors": """
        BadResponse ConfigurationError InvalidGrant InvalidProof InvalidRequest InvalidScope InvalidToken LoginRefused
        NonceRequired NotReplayable RefreshStorm Refused SessionOver StoreBusy StoreUnavailable TooManyAttempts TryLater
        UnbrokenError
    """,
    "unbroken.tokens": "TokenFields TokenResponse Tokens",
    "unbroken.events": """
        ClientEvent LateChallenge LateTokensDiscarded LoggedIn LoggedOut RefreshFailed RefreshFinished RefreshJoined
        RefreshStarted RefreshStormStopped RequestNotReplayed RequestReplayed RequestWaited SessionEnded
        TokensAdopted TokensRefreshed
    """,
    "unbroken.server": """
        Accounts Caller Claims Cookies Endpoints EventListener EventLog Identity KeyRecord Keyring
        MemorySessionStore MfaRequired NewSession OldTokens Policy ProofPolicy RateLimitPolicy RefreshInspection
        RequestProof Revocation RevocationPage ServerEvent SessionInfo SessionPage SessionRow SessionStore Sessions
        SqliteSessionStore Ticket VerifiedProof Webhook encrypted_keys open_store
    """,
    "unbroken.server.http": """
        Cookies EndpointOptions EndpointSettings Endpoints LoginOptions MAX_BODY_BYTES Request RequestAuthenticator
        Response Route TokenVerifier challenge error_response is_foreign_token require_scope
    """,
    "unbroken.server.stores": """
        Account DatabaseLocked MAX_TRIMMED_SESSIONS Notifications PresentedToken Schema SchemaVersion SessionBinding
        SessionFacts SessionStore StoreProblem StoreType StoreWrapper Verdict in_sync_context next_page_cursor
        open_store page_position place_of present redact_url register_store store_type store_types why_inactive
    """,
    "unbroken.server.events": """
        EventListener KeyNotProven LoginFailed LoginRateLimited RefreshRejected ReuseDetected ReuseSuspected ServerEvent
        SessionCreated SessionRefreshed SessionRevoked
    """,
    "unbroken.httpx": "SessionAuth SessionTransport why_not_replayed",
    "unbroken.httpx2": "SessionAuth SessionTransport why_not_replayed",
    "unbroken.requests": "SessionAuth no_auth why_not_replayed",
    "unbroken.aiohttp": "SessionMiddleware why_not_replayed",
    "unbroken.mcp": "OAuthProvider ProfileTokenStorage SessionAuth http_client",
    "unbroken.starlette": """
        AccessTokenMiddleware AccessTokenUser Auth BearerBackend claims_from_ticket current_claims routes
    """,
    "unbroken.fastapi": "Auth Bearer TicketAuth",
    "unbroken.verifier": "Claims Introspection ProofPolicy RequestProof RevocationCheck RevocationFeed Verifier",
    "unbroken.flask": "Auth Bearer current_claims",
    "unbroken.django": """
        AccessTokenRequired access_token_required alog_in alog_out authenticate_user current_claims groups_of
        is_active_user log_in log_out permissions_of security_stamp_of sessions user_of
    """,
    "unbroken.django.middleware": "AccessTokenMiddleware",
    "unbroken.django.rest": "AccessTokenAuthentication BesideAccessTokens HasScope requires_scope",
    "unbroken.prometheus": "observe observe_sessions",
    "unbroken.otel": "observe observe_sessions",
    "unbroken.testing": "LoopbackServer ManualClock Network logged_in_as running",
    "unbroken.client.stores.codec": """
        CorruptRecord EncryptionKey SessionCodec key_from_environment key_from_keyring new_key
    """,
    "unbroken.client.stores.keyring": "KeyringStore",
    "unbroken.client.stores.postgres": "PostgresStore",
    "unbroken.client.stores.redis": "RedisStore",
    "unbroken.client.stores.sqlite": "SqliteStore",
    "unbroken.cli": "main",
}


@pytest.mark.parametrize("module", NAMES)
def test_the_public_names_are_these_and_no_others(module: str) -> None:
    exported = importlib.import_module(module).__all__
    assert exported == sorted(exported)
    assert exported == sorted(NAMES[module].split())


@pytest.mark.parametrize("module", NAMES)
def test_every_public_thing_says_what_it_is(module: str) -> None:
    loaded = importlib.import_module(module)
    for name in loaded.__all__:
        if isinstance(getattr(loaded, name), GenericAlias):  # a type alias cannot have a docstring
            continue
        assert (getattr(loaded, name).__doc__ or "").strip(), f"{module}.{name} has no docstring"


# What these show is for the package itself: the keys in a ``Keyring``, and the profile that the SDK's login is kept in.
INNER = {"Keyring", "ProfileTokenStorage"}
PUBLIC = {name for names in NAMES.values() for name in names.split()}


def kinds_in(hint: Any) -> Iterator[type]:
    for argument in typing.get_args(hint):
        for one in argument if isinstance(argument, list) else [argument]:
            yield from kinds_in(one)
    if isinstance(hint, type) and hint.__module__.startswith("unbroken"):
        yield hint


def functions_of(thing: Any) -> Iterator[Any]:
    members = inspect.getmembers(thing) if isinstance(thing, type) else [("__call__", thing)]
    for name, value in members:
        function = inspect.unwrap(value.fget if isinstance(value, property) and value.fget else value)
        if (not name.startswith("_") or name in ("__init__", "__call__")) and inspect.isroutine(function):
            yield function


@pytest.mark.parametrize("module", NAMES)
def test_every_type_that_a_public_signature_shows_is_public(module: str) -> None:
    loaded = importlib.import_module(module)
    for name in set(loaded.__all__) - INNER:
        for function in functions_of(getattr(loaded, name)):
            try:
                hints = typing.get_type_hints(function)
            except (NameError, TypeError):  # a name for type checkers alone, or a function of C
                continue
            shown = {kind.__name__ for hint in hints.values() for kind in kinds_in(hint)}
            assert shown <= PUBLIC, f"{module}.{name}.{function.__name__}"


def test_import_unbroken_needs_the_standard_library_only() -> None:
    code = (
        "import sys; sys.path.insert(0, 'src'); import unbroken; unbroken.Session('https://example.org');"
        "print([n for n in sys.modules if n.partition('.')[0] in {'httpx', 'httpx2', 'anyio', 'trio', 'joserfc'}])"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


def test_the_client_does_not_load_the_server_nor_the_other_way_round() -> None:
    for module, other in (("unbroken.httpx2", "unbroken.server"),):
        code = f"import sys, {module}; print(any(name.startswith('{other}') for name in sys.modules))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.stdout == "False\n", done.stderr
