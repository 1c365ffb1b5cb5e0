"""The dialects of well-known OAuth 2.0 servers, with what each does differently. Pure.

The endpoints are those that these servers document.
"""

from __future__ import annotations

from dataclasses import replace

from unbroken._arguments import checked
from unbroken.client.core.backends import oauth2
from unbroken.client.core.dialect import Dialect
from unbroken.client.core.login_endpoints import LoginEndpoints
from unbroken.tokens import TokenFields

__all__ = ["github", "google", "keycloak", "microsoft"]


@checked()
def google(
    client_id: str, *, client_secret: str, origins: tuple[str, ...] = ("https://www.googleapis.com",)
) -> Dialect:
    """Return the dialect of Google, for a client of the kind "Desktop app", or "TVs and Limited Input devices".

    Refresh tokens do not rotate, and a refresh brings no new one. Google issues one for offline access only, and
    reliably only if the user is asked each time. A program on the user's machine cannot keep its secret, but Google
    requires it.
    """
    dialect = oauth2(
        "https://oauth2.googleapis.com/token",
        client_id=client_id,
        client_secret=client_secret,
        client_auth="post",
        revocation_endpoint="https://oauth2.googleapis.com/revoke",
        origins=origins,
        repeated_refresh="forgiving",
    )
    endpoints = LoginEndpoints(
        client_id,
        "https://accounts.google.com/o/oauth2/v2/auth",
        "https://oauth2.googleapis.com/device/code",
        "https://accounts.google.com",
        authorization_parameters={"access_type": "offline", "prompt": "consent"},
    )
    return replace(dialect, login_endpoints=endpoints)


@checked()
def github(
    client_id: str, *, client_secret: str = "", origins: tuple[str, ...] = ("https://api.github.com",)
) -> Dialect:
    """Return the dialect of GitHub, for a GitHub App or an OAuth app.

    Errors come in a 200. Refresh tokens rotate, and a used one is dead at once; an OAuth app has none, and its access
    token does not expire. A login with a browser takes the *client_secret*; one with a code does not.
    """
    dialect = oauth2(
        "https://github.com/login/oauth/access_token",
        client_id=client_id,
        client_secret=client_secret,
        client_auth="post",
        origins=origins,
        repeated_refresh="strict",
    )
    endpoints = LoginEndpoints(
        client_id, "https://github.com/login/oauth/authorize", "https://github.com/login/device/code"
    )
    fields = TokenFields(refresh_expires_in="refresh_token_expires_in")
    return replace(dialect, login_endpoints=endpoints, tokens=fields)


@checked()
def microsoft(
    client_id: str,
    *,
    tenant: str = "common",
    client_secret: str = "",
    origins: tuple[str, ...] = ("https://graph.microsoft.com",),
) -> Dialect:
    """Return the dialect of Microsoft Entra, for a client of the kind "mobile and desktop applications".

    A refresh token comes with the scope ``offline_access``, which is added; each refresh brings another, and the old
    ones stay valid. The redirect URI on record is ``http://localhost``.
    """
    base = f"https://login.microsoftonline.com/{tenant}/oauth2/v2.0"
    dialect = oauth2(
        f"{base}/token",
        client_id=client_id,
        client_secret=client_secret,
        client_auth="post",
        origins=origins,
        repeated_refresh="forgiving",
    )
    endpoints = LoginEndpoints(
        client_id,
        f"{base}/authorize",
        f"{base}/devicecode",
        scope="offline_access",
        redirect_uri="http://localhost",
    )
    return replace(dialect, login_endpoints=endpoints)


@checked()
def keycloak(
    url: str, realm: str, client_id: str, *, client_secret: str = "", origins: tuple[str, ...] = ()
) -> Dialect:
    """Return the dialect of the Keycloak at *url*. *origins* are those of the API, by default that of *url*.

    By default refresh tokens do not rotate. Where "Revoke Refresh Token" is on, use ``oauth2.discover`` with
    ``repeated_refresh="strict"``.
    """
    issuer = f"{url.rstrip('/')}/realms/{realm}"
    base = f"{issuer}/protocol/openid-connect"
    return oauth2(
        f"{base}/token",
        client_id=client_id,
        client_secret=client_secret,
        revocation_endpoint=f"{base}/revoke",
        origins=origins,
        repeated_refresh="forgiving",
        authorization_endpoint=f"{base}/auth",
        device_authorization_endpoint=f"{base}/auth/device",
        issuer=issuer,
    )
