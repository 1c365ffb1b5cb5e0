"""Members of other libraries, set up as well as their documentation allows, with tokens in a file on one host.

- **Authlib, locked**: its session under a lock file, as a careful user writes it: who finds the token expired takes the
  lock, reads the file again, and refreshes only if nobody else has.
- **MCP SDK**: its ``OAuthClientProvider`` with a ``TokenStorage`` that is a file. It reads its storage once.

msal-extensions is not here: MSAL speaks to authorities of https with the discovery and the accounts of OpenID Connect,
and its lock is held while the file is read or written, not while a token is refreshed.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import tempfile
import time
from collections.abc import Iterator
from typing import Any

from bench.clients.kills.member import FIXED_OF, TIMEOUT, in_loop, pause, timed

PEERS = {"authlib": "Authlib, locked file", "mcp-sdk": "MCP SDK, file"}
LEEWAY_SECONDS = 1  # of Authlib: a third of the lifetime


def read(path: str) -> dict[str, Any]:
    with open(path) as file:
        stored: dict[str, Any] = json.load(file)
        return stored


def write(path: str, token: dict[str, Any]) -> None:
    """Replace the file as a whole."""
    handle, beside = tempfile.mkstemp(dir=os.path.dirname(path))
    with os.fdopen(handle, "w") as file:
        json.dump(token, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)


@contextlib.contextmanager
def locked(path: str) -> Iterator[None]:
    with open(path + ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def authlib(about: dict[str, Any]) -> None:
    from authlib.integrations.requests_client import OAuth2Session
    from authlib.oauth2.rfc6749 import OAuth2Token

    path = about["store"]

    class Locked(OAuth2Session):  # type: ignore[misc]  # not typed there
        def ensure_active_token(self, token: Any = None) -> Any:
            if not self.token.is_expired(leeway=self.leeway):
                return True
            with locked(path):
                self.token = OAuth2Token.from_dict(read(path))
                return super().ensure_active_token(self.token)

    session = Locked(
        "bench",
        token=read(path),
        token_endpoint=about["url"] + "/token",
        token_endpoint_auth_method="none",
        leeway=LEEWAY_SECONDS,
        update_token=lambda token, **_: write(path, dict(token)),
    )
    fixed = {"authorization": f"Bearer {about['fixed']}"}
    timed("warm", lambda: session.get(about["url"] + "/api", timeout=TIMEOUT).status_code)
    for number in range(1, 1_000_000):
        time.sleep(pause(about))
        if number % FIXED_OF:
            timed("ours", lambda: session.get(about["url"] + "/api", timeout=TIMEOUT).status_code)
        else:
            timed("fixed", lambda: session.get(about["url"] + "/api", headers=fixed, withhold_token=True).status_code)


async def mcp_sdk(about: dict[str, Any]) -> None:
    import httpx2
    from mcp.client.auth import OAuthClientProvider
    from mcp.shared.auth import OAuthClientInformationFull, OAuthClientMetadata, OAuthToken

    uris: Any = ["http://127.0.0.1/callback"]
    stored, path = read(about["store"]), about["store"]

    class Storage:
        async def get_tokens(self) -> Any:
            return OAuthToken(access_token=stored["access_token"], refresh_token=stored["refresh_token"])

        async def set_tokens(self, tokens: Any) -> None:
            write(path, {**tokens.model_dump(mode="json"), "expires_at": time.time() + (tokens.expires_in or 0)})

        async def get_client_info(self) -> Any:
            return OAuthClientInformationFull(client_id="bench", redirect_uris=uris)

        async def set_client_info(self, client_info: Any) -> None:
            pass

    async def no_user(*_: object) -> Any:
        raise RuntimeError("there is no user to log in")

    auth = OAuthClientProvider(about["url"], OAuthClientMetadata(redirect_uris=uris), Storage(), no_user, no_user)
    auth.context.token_expiry_time = stored["expires_at"]  # which it does not read from its storage
    async with httpx2.AsyncClient(timeout=TIMEOUT) as client:
        await in_loop(about, client.get, auth)
