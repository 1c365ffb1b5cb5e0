"""What could lead the tokens of a profile astray: to a server that the name had before, or that planted the profile."""

from __future__ import annotations

import asyncio
import os
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp.shared.auth import OAuthClientInformationFull, OAuthMetadata, OAuthToken

from tests.support.mcp_visitor import METADATA
from tests.support.strict_server import StrictServer
from unbroken import ConfigurationError, InvalidRequest, Session, SessionOver, TryLater
from unbroken.client.profile_session import ProfileSession
from unbroken.client.profiles import Profile, delete_profile, save_profile, token_store
from unbroken.mcp import OAuthProvider, ProfileTokenStorage


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in os.environ if name.startswith("UNBROKEN_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("UNBROKEN_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def log_in(server: StrictServer) -> dict[str, Any]:
    """Log in at *server* under the name ``api``, and return its tokens."""
    profile = Profile(name="api", url=server.url, kind="oauth2", token_endpoint=server.url + "/token", user="ada")
    save_profile(profile)
    tokens = server.log_in()
    ProfileSession(profile, token_store("api")).import_tokens(tokens)
    return tokens


@pytest.mark.parametrize("name", ["../api", "/tmp/api", "api/../../x", ".api", "a\nb", "api.tokens", "x" * 65, ""])
def test_a_name_leads_out_of_no_folder(folder: Path, attacks: Any, name: str) -> None:
    for act in (
        lambda: save_profile(Profile(name=name, url="https://a.example")),
        lambda: Session.open(name),
        lambda: ProfileTokenStorage(name),
    ):
        attacks.try_one()
        with pytest.raises(InvalidRequest, match="the name of a session has"):
            act()
    assert not folder.exists() or list(folder.iterdir()) == []


@pytest.mark.parametrize("moment", ["good", "expired", "over"])
def test_a_program_that_runs_on_takes_no_tokens_of_another_server_to_the_old_one(
    folder: Path, attacks: Any, moment: str
) -> None:
    with StrictServer(lifetime=3600).run() as old, StrictServer(lifetime=3600).run() as new:
        log_in(old)
        session = Session.open("api")
        if moment == "good":
            session.token()
        if moment == "over":
            delete_profile("api")
            with pytest.raises(SessionOver):
                session.newer_token(session.token())
        attacks.try_one()
        delete_profile("api")
        tokens = log_in(new)
        got = []
        for _ in range(3):
            for ask in (session.token, lambda: asyncio.run(session.atoken())):
                try:
                    got.append(session.newer_token(ask()))
                except (SessionOver, TryLater):
                    continue
        assert not {tokens["access_token"], tokens["refresh_token"]} & set(got)
        assert tokens["refresh_token"] not in [form.get("refresh_token") for form in old.forms]
        assert new.forms == []
        assert Session.open("api").token() == tokens["access_token"], "the other login is untouched"


FOREIGN_ANSWERS = {
    "more scope": (403, 'Bearer error="insufficient_scope", scope="all"'),
    "a login": (401, 'Bearer resource_metadata="https://evil.example/metadata"'),
    "nothing": (401, ""),
}


@pytest.mark.parametrize("wanted", FOREIGN_ANSWERS)
@pytest.mark.parametrize("is_logged_in", [True, False])
def test_another_server_than_that_of_mcp_gets_neither_token_nor_login(
    folder: Path, attacks: Any, wanted: str, is_logged_in: bool
) -> None:
    came: list[httpx2.Request] = []

    def respond(request: httpx2.Request) -> httpx2.Response:
        came.append(request)
        status, header = FOREIGN_ANSWERS[wanted]
        return httpx2.Response(status, headers={"www-authenticate": header})

    async def visit() -> None:
        auth = OAuthProvider("api", "https://mcp.example/mcp", METADATA)
        async with httpx2.AsyncClient(auth=auth, transport=httpx2.MockTransport(respond)) as client:
            await client.get("https://evil.example/a")

    if is_logged_in:
        profile = Profile("api", "https://mcp.example/mcp", kind="oauth2", token_endpoint="https://mcp.example/token")
        save_profile(profile)
        tokens = {"access_token": "a", "refresh_token": "r", "expires_in": 3600}
        ProfileSession(profile, token_store("api")).import_tokens(tokens)
    attacks.try_one()
    asyncio.run(visit())
    assert [(str(one.url), one.headers.get("authorization")) for one in came] == [("https://evil.example/a", None)]


NEIGHBOURS = {  # of servers at one origin: where the name was logged in, its resource, where it is used, whether it may
    "another path": ("https://mcp.example/a", "", "https://mcp.example/b", False),
    "a longer name": ("https://mcp.example/a", "", "https://mcp.example/ab", False),
    "above": ("https://mcp.example/a", "", "https://mcp.example/", False),
    "dots": ("https://mcp.example/a", "", "https://mcp.example/a/../b", False),
    "another port": ("https://mcp.example/a", "", "https://mcp.example:8443/a", False),
    "another resource": ("https://mcp.example", "https://mcp.example/a", "https://mcp.example/b", False),
    "itself": ("https://mcp.example/a", "", "https://mcp.example/a/", True),
    "below": ("https://mcp.example/", "", "https://mcp.example/a", True),
    "one resource": ("https://mcp.example/a", "https://mcp.example/", "https://mcp.example/b", True),
    "an audience": ("https://mcp.example/a", "urn:tools", "https://mcp.example/a", True),
}


@pytest.mark.parametrize(("url", "resource", "used_at", "may"), NEIGHBOURS.values(), ids=NEIGHBOURS)
def test_a_neighbour_at_the_same_origin_gets_no_token(
    folder: Path, attacks: Any, url: str, resource: str, used_at: str, may: bool
) -> None:
    profile = Profile("api", url, kind="oauth2", token_endpoint="https://mcp.example/token", resource=resource)
    save_profile(profile)
    ProfileSession(profile, token_store("api")).import_tokens({"access_token": "secret", "expires_in": 3600})
    came: list[httpx2.Request] = []

    def respond(request: httpx2.Request) -> httpx2.Response:
        came.append(request)
        return httpx2.Response(200)

    async def visit() -> None:
        auth = OAuthProvider("api", used_at, METADATA)
        async with httpx2.AsyncClient(auth=auth, transport=httpx2.MockTransport(respond)) as client:
            await client.get(used_at)

    attacks.try_one()
    with nullcontext() if may else pytest.raises(ConfigurationError, match=r"api is a session at .*: use another name"):
        asyncio.run(visit())
    assert [one.headers.get("authorization") for one in came] == (["Bearer secret"] if may else [])


BAD_LOGINS = {
    "a token with a line break": ("https://mcp.example/token", "a\r\nx: y"),
    "a token that is not ASCII": ("https://mcp.example/token", "\u212a"),
    "an endpoint in the clear": ("http://mcp.example/token", "a"),
}


@pytest.mark.parametrize(("endpoint", "token"), BAD_LOGINS.values(), ids=BAD_LOGINS)
def test_a_login_that_cannot_be_used_leaves_nothing(folder: Path, attacks: Any, endpoint: str, token: str) -> None:
    auth = OAuthProvider("api", "https://mcp.example/mcp", METADATA)
    auth.context.client_info = OAuthClientInformationFull(client_id="c", redirect_uris=METADATA.redirect_uris)
    auth.context.oauth_metadata = OAuthMetadata(
        issuer="https://mcp.example", authorization_endpoint="https://mcp.example/authorize", token_endpoint=endpoint
    )
    attacks.try_one()
    with pytest.raises(ConfigurationError):
        asyncio.run(auth.context.storage.set_tokens(OAuthToken(access_token=token)))
    assert not folder.exists() or [path.name for path in folder.iterdir() if "json" in path.name] == []
