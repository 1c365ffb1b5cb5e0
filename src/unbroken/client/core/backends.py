"""The dialects of known backends: unbroken's own server, and servers of OAuth 2.0. Pure."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import replace
from typing import Literal
from urllib.parse import quote_plus

from unbroken._arguments import checked
from unbroken.client.core.dialect import INVALID_GRANT, Dialect, RepeatedRefresh, RequestTemplate
from unbroken.client.core.login_endpoints import LoginEndpoints
from unbroken.errors import ConfigurationError

__all__ = ["OAuth2Endpoints", "oauth2", "unbroken_server"]

OTHER_WORDS_FOR_INVALID_GRANT = ("bad_refresh_token",)  # GitHub


@checked()
def unbroken_server(url: str, *, prefix: str = "/auth") -> Dialect:
    """Return the dialect of unbroken's own server at *url*.

    Sessions are coordinated: the idempotency key does the work of the server's grace period.
    """
    base = url.rstrip("/") + prefix
    return Dialect(
        refresh=RequestTemplate(base + "/refresh"),
        login=RequestTemplate(base + "/login", extra={"coordinated": True}),
        mfa=RequestTemplate(base + "/login/step"),
        logout=RequestTemplate(base + "/logout"),
        repeated_refresh="idempotent",
        origins=(url,),
    )


class OAuth2Endpoints:
    """``oauth2(token_endpoint)``, the dialect of a server by its endpoints."""

    @checked()
    def __call__(
        self,
        token_endpoint: str,
        *,
        client_id: str = "",
        client_secret: str = "",
        client_auth: Literal["basic", "post"] = "basic",
        revocation_endpoint: str = "",
        resource: str = "",
        origins: tuple[str, ...] = (),
        over: tuple[str, ...] = (),
        repeated_refresh: RepeatedRefresh = "learn",
        authorization_endpoint: str = "",
        device_authorization_endpoint: str = "",
        issuer: str = "",
    ) -> Dialect:
        """Return the dialect of an OAuth 2.0 server (RFC 6749; revocation RFC 7009).

        With a *client_secret* the client authenticates by HTTP Basic (§2.3.1), or with *client_auth* "post" in the
        form; without one, *client_id* goes into the form. *resource* goes along with each refresh and login (RFC 8707).
        *origins* are those of the API, by default that of the token endpoint. *over* are the words with which this
        server says, in ``error``, that a refresh token is dead, besides ``invalid_grant`` and GitHub's
        ``bad_refresh_token``. *repeated_refresh* is what it does with a refresh that it gets twice (see ``Dialect``).
        A person logs in at *authorization_endpoint* with a browser, at *device_authorization_endpoint* with a code; a
        redirect that names another *issuer* is refused. Raise ConfigurationError for a value that cannot work.
        """
        if not isinstance(over, (tuple, list)) or not all(isinstance(word, str) for word in over):
            raise ConfigurationError(f"oauth2 takes over as a tuple of words: over=({over!r},)")
        if client_auth not in ("basic", "post"):
            raise ConfigurationError(f'oauth2 takes client_auth "basic" or "post", not {client_auth!r}')
        headers: dict[str, str] = {}
        client: dict[str, object] = {"client_id": client_id} if client_id else {}
        audience: dict[str, object] = {"resource": resource} if resource else {}
        if client_secret and client_auth == "post":
            client["client_secret"] = client_secret
        elif client_secret:
            pair = f"{quote_plus(client_id)}:{quote_plus(client_secret)}"
            headers, client = {"authorization": "Basic " + b64encode(pair.encode()).decode()}, {}

        def form(url: str, extra: dict[str, object], rename: dict[str, str] | None = None) -> RequestTemplate:
            return RequestTemplate(url, "POST", "form", rename or {}, extra, headers)

        return Dialect(
            refresh=form(token_endpoint, {"grant_type": "refresh_token", **client, **audience}),
            login=form(token_endpoint, {"grant_type": "password", **client, **audience}),
            logout=form(revocation_endpoint, client, {"refresh_token": "token"}) if revocation_endpoint else None,
            origins=origins or (token_endpoint,),
            ends_session=replace(INVALID_GRANT, values=INVALID_GRANT.values | {*OTHER_WORDS_FOR_INVALID_GRANT, *over}),
            repeated_refresh=repeated_refresh,
            login_endpoints=LoginEndpoints(client_id, authorization_endpoint, device_authorization_endpoint, issuer)
            if authorization_endpoint or device_authorization_endpoint
            else None,
        )


oauth2 = OAuth2Endpoints()
