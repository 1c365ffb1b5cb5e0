"""The MCP Python SDK with our tokens: its real clients and servers, in several processes, at our server and others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from mcp import Client
from mcp.client.auth import OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.server.auth.provider import AccessToken
from mcp.shared.auth import OAuthClientInformationFull, OAuthToken

from tests.support.backend import PASSWORD, Backend
from tests.support.mcp_server import mcp_server, whoever
from tests.support.mcp_visitor import METADATA, Person
from tests.support.paths import ROOT
from tests.support.strict_server import StrictServer
from unbroken import ConfigurationError, Session
from unbroken.client.profile_session import ProfileSession
from unbroken.client.profiles import Profile, delete_profile, find_profile, save_profile, token_store
from unbroken.errors import InvalidToken
from unbroken.mcp import OAuthProvider, ProfileTokenStorage, SessionAuth, http_client

pytestmark = pytest.mark.anyio
PROGRAM = ROOT / "tests" / "support" / "mcp_visitor.py"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in os.environ if name.startswith("UNBROKEN_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("UNBROKEN_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def strict() -> Iterator[StrictServer]:
    with StrictServer(lifetime=3600).run() as server:
        yield server


@pytest.fixture
def tools(strict: StrictServer) -> Iterator[str]:
    """The URL of an MCP server whose tokens the strict server issues."""

    async def verify(token: str) -> AccessToken | None:
        return whoever(token) if strict.is_good(token) else None

    with mcp_server(strict.url, verify) as url:
        yield url


async def add(auth: httpx2.Auth, url: str) -> str:
    async with http_client(auth) as http, Client(streamable_http_client(url, http_client=http)) as client:
        result: Any = await client.call_tool("add", {"a": 20, "b": 22})
        return result.content[0].text


def provider(person: Person, url: str, name: str = "sums", **settings: Any) -> OAuthProvider:
    return OAuthProvider(name, url, METADATA, person.open, person.result, **settings)


# ---- a session that is logged in -------------------------------------------------------------------------------------


async def test_a_client_uses_a_session_of_our_own_server(server: Backend) -> None:
    async def verify(token: str) -> AccessToken | None:
        try:
            return whoever(token, server.sessions.verify(token).subject)
        except InvalidToken:
            return None

    with mcp_server(server.url, verify) as url:
        session = Session(server.url, origins=[url])
        session.login("ada", PASSWORD)
        assert await add(SessionAuth(session), url) == "42"
        server.expire()
        assert await add(SessionAuth(session), url) == "42"
    assert (server.refreshes, server.alarms()) == (1, 0)


# ---- a login by the SDK ----------------------------------------------------------------------------------------------


async def test_the_sdk_logs_in_once_and_the_next_process_and_program_use_its_login(
    strict: StrictServer, tools: str, folder: Path
) -> None:
    person = Person()
    assert await add(provider(person, tools), tools) == "42"
    assert (person.logins, strict.clients, strict.logins) == (1, 1, 1)
    profile = find_profile("sums")
    assert (profile.client_id, profile.resource, profile.issuer) == ("client-1", tools, strict.url)
    assert await add(provider(person, tools), tools) == "42"
    assert await add(SessionAuth(Session.open("sums")), tools) == "42"
    token = await anyio.run_process([sys.executable, "-m", "unbroken.cli", "token", "sums"])
    assert strict.is_good(token.stdout.decode().strip())
    assert (person.logins, strict.refreshes) == (1, 0)


async def test_a_rejected_token_is_refreshed_by_our_rules_with_the_resource(strict: StrictServer, tools: str) -> None:
    person = Person()
    auth = provider(person, tools)
    assert await add(auth, tools) == "42"
    strict.expire()
    assert await add(auth, tools) == "42"
    assert (person.logins, strict.refreshes, strict.reuses) == (1, 1, 0)
    assert strict.forms[-1]["resource"] == tools
    assert strict.forms[-1]["client_id"] == "client-1"


@pytest.mark.parametrize("method", ["client_secret_post", "client_secret_basic"])
async def test_a_client_with_a_secret_refreshes_as_it_was_registered(method: str, tools: str, strict: Any) -> None:
    strict.client_auth = method
    person = Person()
    assert await add(provider(person, tools), tools) == "42"
    strict.expire()
    assert await add(provider(person, tools), tools) == "42"
    assert ("client_secret" in strict.forms[-1]) is (method == "client_secret_post")
    assert strict.headers[-1].get("authorization", "").startswith("Basic ") is (method == "client_secret_basic")
    assert (person.logins, strict.refreshes) == (1, 1)


async def test_a_session_that_is_over_is_logged_in_again_with_the_same_registration(
    strict: StrictServer, tools: str
) -> None:
    person = Person()
    auth = provider(person, tools)
    assert await add(auth, tools) == "42"
    strict.end_all()
    with pytest.raises(BaseException) as over:  # noqa: PT011  # the SDK wraps it into a group
        await add(SessionAuth(Session.open("sums")), tools)
    assert "the server no longer accepts the refresh token: log in again with sums" in everything_said(over.value)
    assert await add(auth, tools) == "42"
    assert (person.logins, strict.clients) == (2, 1)


async def test_a_name_of_another_server_is_not_replaced(tools: str, strict: StrictServer) -> None:
    profile = Profile(name="sums", url="https://api.example.com", user="ada")
    save_profile(profile)
    ProfileSession(profile, token_store("sums")).import_tokens({"access_token": "theirs", "refresh_token": "r"})
    person = Person()
    with pytest.raises(BaseException) as refused:  # noqa: PT011  # the SDK wraps it into a group
        await add(provider(person, tools), tools)
    assert "sums is a session at https://api.example.com: use another name" in everything_said(refused.value)
    assert Session.open("sums").token() == "theirs"
    assert (person.logins, strict.logins) == (0, 0)


def everything_said(error: BaseException) -> str:
    """The messages of *error*, and of all errors in its groups."""
    return " ".join([str(error), *map(everything_said, getattr(error, "exceptions", ()))])


async def test_a_server_that_wants_no_login_gets_none() -> None:
    came: list[str] = []

    async def respond(request: httpx2.Request) -> httpx2.Response:
        came.append(request.headers.get("authorization", ""))
        return httpx2.Response(200)

    auth = provider(Person(), "http://127.0.0.1:9/mcp")
    async with httpx2.AsyncClient(auth=auth, transport=httpx2.MockTransport(respond)) as client:
        assert (await client.get("http://127.0.0.1:9/mcp")).status_code == 200
    assert came == [""]


# ---- the storage -----------------------------------------------------------------------------------------------------


async def test_the_storage_gives_the_sdk_no_refresh_token(strict: StrictServer, tools: str) -> None:
    storage = ProfileTokenStorage("sums")
    assert await storage.get_tokens() is None
    assert await storage.get_client_info() is None
    with pytest.raises(ConfigurationError, match=r"log in with unbroken\.mcp\.OAuthProvider"):
        await storage.set_tokens(OAuthToken(access_token="a"))
    assert await add(provider(Person(), tools), tools) == "42"
    tokens, client = await storage.get_tokens(), await storage.get_client_info()
    assert tokens is not None
    assert tokens.refresh_token is None
    assert strict.is_good(tokens.access_token)
    assert isinstance(client, OAuthClientInformationFull)
    assert (client.client_id, client.issuer) == ("client-1", strict.url)
    person = Person()
    plain = OAuthClientProvider(tools, METADATA, storage, person.open, person.result)
    assert await add(plain, tools) == "42"
    assert (person.logins, strict.refreshes) == (0, 0)
    delete_profile("sums")
    assert await storage.get_tokens() is None


# ---- several processes -----------------------------------------------------------------------------------------------


def test_processes_of_three_kinds_share_the_login_of_the_first(folder: Path) -> None:
    """The SDK's login, a session and commands: one of the first logs in, and nobody spends a token twice."""
    with StrictServer(lifetime=3.0).run() as strict:

        async def verify(token: str) -> AccessToken | None:
            return whoever(token) if strict.is_good(token) else None

        with mcp_server(strict.url, verify) as url:
            programs = [started("provider", url) for _ in range(3)]
            ends = time.monotonic() + 30
            while strict.logins == 0 and time.monotonic() < ends:
                time.sleep(0.05)
            time.sleep(0.5)
            programs.append(started("session", url))
            for _ in range(3):
                command = [sys.executable, "-m", "unbroken.cli", "token", "sums"]
                subprocess.run(command, check=True, capture_output=True, timeout=30)
            said = [program.communicate(timeout=120) for program in programs]
        assert [program.returncode for program in programs] == [0] * len(programs), [error for _, error in said]
        seen = sum((Counter(json.loads(output)) for output, _ in said), Counter[str]())
        assert set(seen) <= {"42", "logins"}
        assert seen["logins"] == strict.logins == 1
        assert strict.reuses == 0
        refreshes = [form for form in strict.forms if form["grant_type"] == "refresh_token"]
        assert len(refreshes) == strict.refreshes >= 1


def started(kind: str, url: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(PROGRAM), kind, "sums", url, "5"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
