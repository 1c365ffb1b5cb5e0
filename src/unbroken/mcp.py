"""For the MCP Python SDK: its clients of one user share one login, and with it the command line and other programs.

    client = http_client(SessionAuth(Session.open("api")))            a session that is logged in
    client = http_client(OAuthProvider("tools", url, metadata, …))    one that the SDK logs in, in a browser
    streamable_http_client(url, http_client=client)

1. Tokens are in the profile of a name (``client/profiles.py``), and refreshed by the rules of a ``Session``: one
   refresh for all processes. The SDK never sees a refresh token that is stored, so it cannot spend one.
2. The SDK logs in: it discovers, registers, opens the browser. One process does so at a time; the others wait, and
   then use its login.
3. A name belongs to its server: to the resource that its tokens are for (RFC 8707), or to the URL that it was logged in
   with, and what is below. Another server, also one at the same origin, gets none of its tokens, and a login there is
   not stored under the name. All is checked before anything is stored.
4. Only a request to the MCP server is one to log in for: the SDK sends its token wherever its request goes.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Literal

try:
    import anyio
    import httpx2
    from anyio.to_thread import run_sync as in_thread
    from mcp.client.auth import AuthorizationCodeResult, OAuthClientProvider
    from mcp.client.auth.oauth2 import OAuthContext
    from mcp.shared.auth import OAuthClientInformationFull, OAuthClientMetadata, OAuthToken
except ImportError as error:
    raise ImportError("unbroken.mcp needs the MCP SDK: pip install 'unbroken[mcp]'") from error

from unbroken._arguments import checked, checked_class
from unbroken._http import origin_of, parse_challenges
from unbroken.client.core.metadata import is_within
from unbroken.client.profile_session import ProfileSession
from unbroken.client.profiles import (
    Profile,
    delete_profile,
    find_profile,
    login_lock,
    save_profile,
    token_store,
    valid_name,
)
from unbroken.errors import ConfigurationError, InvalidRequest, SessionOver, StoreBusy
from unbroken.httpx2 import SessionAuth
from unbroken.tokens import TokenResponse

__all__ = ["OAuthProvider", "ProfileTokenStorage", "SessionAuth", "http_client"]

TIMEOUT_SECONDS, STREAM_SECONDS = 30.0, 300.0  # the SDK's own: a server may hold a stream open
LOGIN_POLL_SECONDS = 0.2


@checked()
def http_client(auth: httpx2.Auth, **settings: Any) -> httpx2.AsyncClient:
    """Return an HTTP client for ``streamable_http_client(url, http_client=…)``, with the timeouts of the SDK.

    *settings* are those of ``httpx2.AsyncClient``.
    """
    timeout = httpx2.Timeout(TIMEOUT_SECONDS, read=STREAM_SECONDS)
    return httpx2.AsyncClient(auth=auth, **{"timeout": timeout, **settings})


@checked_class()
class ProfileTokenStorage:
    """The ``TokenStorage`` of the SDK over the profile *name* (rule 1). ``OAuthProvider`` makes its own.

    A provider of the SDK's alone cannot share tokens between processes: it keeps what it has read. This storage gives
    it no refresh token, so that it spends none; when the access token has expired, such a provider logs in anew.
    """

    def __init__(self, name: str, *, store: Literal["file", "encrypted", "keyring"] = "file") -> None:
        self.name, self._store = valid_name(name), store
        self.context: OAuthContext | None = None  # of the provider, which knows the endpoints

    async def get_tokens(self) -> OAuthToken | None:
        """Return an access token that is good now; None if no one is logged in."""
        session = await in_thread(self.open)
        if session is None:
            return None
        try:
            active = await session._aauthorize()
        except SessionOver:
            return None
        return OAuthToken(access_token=active.tokens.access_token, scope=active.tokens.scope or None)

    async def set_tokens(self, tokens: OAuthToken) -> None:
        """Store *tokens* as a new login. Raise ConfigurationError if the name belongs to another server (rule 3)."""
        await in_thread(self._log_in, tokens)

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        """Return the client that is registered at the server; None without one."""
        profile = await in_thread(self.profile)
        if profile is None or not profile.client_id:
            return None
        method = {"basic": "client_secret_basic", "post": "client_secret_post"}[profile.client_auth]
        return OAuthClientInformationFull(
            client_id=profile.client_id,
            client_secret=profile.client_secret or None,
            token_endpoint_auth_method=method if profile.client_secret else "none",
            issuer=profile.issuer or None,
        )

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        """Do nothing: a registration is stored with the login that it is for."""

    def profile(self) -> Profile | None:
        """Return the profile; None if there is none. Raise ConfigurationError if it is that of another server."""
        try:
            profile = find_profile(self.name)
        except InvalidRequest:
            return None
        if self.context is not None and not is_within(self.context.server_url, _place_of(profile)):
            raise ConfigurationError(f"{self.name} is a session at {_place_of(profile)}: use another name")  # rule 3
        return profile

    def open(self, settings: dict[str, Any] | None = None) -> ProfileSession | None:
        """Return the session of the profile; None if no one is logged in."""
        if self.profile() is None:
            return None
        session = ProfileSession.of_name(self.name, settings or {})
        return None if session.status.state == "over" else session

    def _log_in(self, tokens: OAuthToken) -> None:
        before = self.profile()
        profile = before if self.context is None else _new_profile(self.name, self.context, self._store)
        if profile is None:
            raise ConfigurationError(f"there is no session {self.name}: log in with unbroken.mcp.OAuthProvider")
        if before is not None and before.server != profile.server:
            raise ConfigurationError(f"{self.name} is a session at {before.url}: log it out first, or use another name")
        session = ProfileSession(profile, token_store(profile.name, profile.store))  # it checks the endpoints
        granted = TokenResponse.from_response(tokens.model_dump())  # it checks the tokens
        if before is None:
            delete_profile(profile.name, profile.store)  # tokens without a profile: whose they are is unknown
        save_profile(profile)
        session.import_tokens(granted)


@checked_class()
class OAuthProvider(OAuthClientProvider):
    """The SDK's ``OAuthClientProvider`` with its tokens in the profile *name*, shared by all processes of this user.

    *server_url*, *client_metadata* and the handlers are those of the SDK. *store* says where the tokens of a new login
    are kept; *settings* are those of ``Session.open``. A request raises what the SDK raises if the login fails, and
    TryLater if a refresh does not work now.
    """

    def __init__(
        self,
        name: str,
        server_url: str,
        client_metadata: OAuthClientMetadata,
        redirect_handler: Callable[[str], Awaitable[None]] | None = None,
        callback_handler: Callable[[], Awaitable[AuthorizationCodeResult]] | None = None,
        *,
        store: Literal["file", "encrypted", "keyring"] = "file",
        client_metadata_url: str | None = None,
        **settings: Any,
    ) -> None:
        self._storage = ProfileTokenStorage(name, store=store)
        super().__init__(
            server_url, client_metadata, self._storage, redirect_handler, callback_handler, client_metadata_url
        )
        self._storage.context = self.context
        self._session: ProfileSession | None = None
        self._session_settings = settings

    async def async_auth_flow(self, request: httpx2.Request) -> AsyncGenerator[httpx2.Request, httpx2.Response]:
        """Send *request* with a good token; log in first if the server wants one and there is none, or more scope."""
        session = await self._open()
        flow = _without_token(request) if session is None else SessionAuth(session).async_auth_flow(request)
        response: httpx2.Response | None = None
        try:
            outgoing = await anext(flow)
            while True:
                response = yield outgoing
                outgoing = await flow.asend(response)
        except StopAsyncIteration:
            is_ours = self._is_to_server(request)  # rule 4
            if response is None or not is_ours or not _asks_for_login(response, has_token=session is not None):
                return
        except SessionOver:
            if not self._is_to_server(request):
                raise
            self._session = None
        finally:
            await flow.aclose()
        async with _one_login(self._storage.name):
            await self._load()
            login = super().async_auth_flow(request)
            try:
                outgoing = await anext(login)
                while True:
                    outgoing = await login.asend((yield outgoing))
            except StopAsyncIteration:
                return
            finally:
                await login.aclose()

    async def _open(self) -> ProfileSession | None:
        if self._session is None:
            self._session = await in_thread(self._storage.open, self._session_settings)
        return self._session

    def _is_to_server(self, request: httpx2.Request) -> bool:
        return origin_of(str(request.url)) == origin_of(str(httpx2.URL(self.context.server_url)))

    async def _load(self) -> None:
        """Give the SDK what is stored: another process may have logged in meanwhile (rule 2)."""
        self.context.clear_tokens()
        self.context.current_tokens = await self._storage.get_tokens()
        self.context.client_info = await self._storage.get_client_info() or self.context.client_info


async def _without_token(request: httpx2.Request) -> AsyncGenerator[httpx2.Request, httpx2.Response]:
    yield request


def _asks_for_login(response: httpx2.Response, *, has_token: bool) -> bool:
    """Return whether *response* wants a login, or one with more scope (RFC 6750 §3.1). A session has refreshed."""
    if response.status_code == 401:
        return not has_token
    challenges = parse_challenges(response.headers.get("www-authenticate", ""))
    return response.status_code == 403 and any(each.get("error") == "insufficient_scope" for _, each in challenges)


@asynccontextmanager
async def _one_login(name: str) -> AsyncGenerator[None, None]:
    """Wait until no other process logs in to *name* (rule 2)."""
    lock = login_lock(name)
    while True:
        try:
            lock.__enter__()
            break
        except StoreBusy:
            await anyio.sleep(LOGIN_POLL_SECONDS)
            lock = login_lock(name)
    try:
        yield
    finally:
        lock.__exit__(None, None, None)


def _place_of(profile: Profile) -> str:
    """Return the URL below which the server of *profile* is (rule 3)."""
    try:
        is_here = bool(profile.resource) and origin_of(profile.resource) == origin_of(profile.url)
    except ConfigurationError:  # the name of an audience that is no URL
        is_here = False
    return profile.resource if is_here else profile.url


def _new_profile(name: str, context: OAuthContext, store: str) -> Profile:
    """Return the profile of a login that the SDK has just made."""
    metadata, client = context.oauth_metadata, context.client_info
    if client is None:
        raise ConfigurationError(f"the MCP client has no registration at {context.server_url}")
    base = context.get_authorization_base_url(context.server_url)
    with_secret = client.token_endpoint_auth_method in ("client_secret_basic", "client_secret_post")
    with_resource = context.should_include_resource_param(context.protocol_version)
    return Profile(
        name=name,
        url=context.server_url,
        kind="oauth2",
        token_endpoint=base + "/token" if metadata is None else str(metadata.token_endpoint),
        revocation_endpoint=str(metadata.revocation_endpoint or "") if metadata else "",
        client_id=client.client_id,
        client_secret=(client.client_secret or "") if with_secret else "",
        client_auth="post" if client.token_endpoint_auth_method == "client_secret_post" else "basic",
        resource=context.get_resource_url() if with_resource else "",
        issuer=str(metadata.issuer) if metadata else "",
        program=context.client_metadata.client_name or "its MCP client",
        store=store,
    )
