"""How five servers that never heard of unbroken speak, in a few lines each."""

from __future__ import annotations

from unbroken import Dialect, RequestTemplate, ResponseMatch, TokenFields, oauth2


def oauth_toolkit(url: str) -> Dialect:
    """django-oauth-toolkit: OAuth 2.0 as it is written, with a confidential client."""
    return oauth2(
        url + "/o/token/",
        client_id="app",
        client_secret="a secret with: signs & spaces",
        revocation_endpoint=url + "/o/revoke_token/",
    )


def simple_jwt(url: str) -> Dialect:
    """djangorestframework-simplejwt: JSON, names of its own, and a refusal that is a 401 with a code."""
    names = {"refresh_token": "refresh"}
    return Dialect(
        refresh=RequestTemplate(url + "/api/token/refresh/", rename=names),
        login=RequestTemplate(url + "/api/token/"),
        logout=RequestTemplate(url + "/api/token/blacklist/", rename=names),
        tokens=TokenFields(access_token="access", refresh_token="refresh"),
        ends_session=ResponseMatch.of(401, field="code", values=("token_not_valid", "no_active_account")),
    )


def authlib(url: str) -> Dialect:
    """Authlib's server: OAuth 2.0 with a public client."""
    return oauth2(url + "/oauth/token", client_id="app", revocation_endpoint=url + "/oauth/revoke")


def flask_jwt(url: str) -> Dialect:
    """flask-jwt-extended: the refresh token travels where an access token would, as a Bearer header."""
    bearer = {"refresh_token": "Authorization"}
    return Dialect(
        refresh=RequestTemplate(url + "/refresh", encoding="header", rename=bearer, scheme="Bearer"),
        login=RequestTemplate(url + "/login"),
        logout=RequestTemplate(url + "/logout", "DELETE", encoding="header", rename=bearer, scheme="Bearer"),
        ends_session=ResponseMatch.of(401, 422),  # expired or blocked; not a token of this server
    )


def oidc_provider(url: str) -> Dialect:
    """oidc-provider: OpenID Connect; the first tokens come from its authorization code flow."""
    return oauth2(url + "/token", client_id="app", revocation_endpoint=url + "/token/revocation")
