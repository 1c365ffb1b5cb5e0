"""What an authorization server and a protected resource publish about themselves: RFC 8414, OpenID Connect, RFC 9728.

1. The metadata must name the issuer that was asked for, to the letter (RFC 8414 §3.3); that of a resource must name the
   resource, or a part of its origin that the URL is in (RFC 9728 §3.3). Otherwise one server could speak for another.
2. Every URL in it is https. Plain http is for this machine. A URL of this machine, https too, is for a server that is
   on it: one elsewhere cannot point at what runs here.
3. A field that is absent is empty; one that is wrong is an error that names it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal
from urllib.parse import urlsplit

from unbroken._http import Origin, is_loopback, is_secure, may_be_loopback, origin_of, parse_challenges
from unbroken.client.core.backends import oauth2 as oauth2_dialect
from unbroken.client.core.dialect import Dialect, RepeatedRefresh
from unbroken.errors import BadResponse, ConfigurationError

__all__ = [
    "AuthorizationServer",
    "ProtectedResource",
    "read_authorization_server",
    "read_protected_resource",
    "resource_metadata_url",
    "server_metadata_urls",
    "well_known_urls_of_resource",
]

AUTHORIZATION_SERVER = "/.well-known/oauth-authorization-server"
OPENID_CONFIGURATION = "/.well-known/openid-configuration"
PROTECTED_RESOURCE = "/.well-known/oauth-protected-resource"
MAX_VALUES = 1000  # of a list in the metadata
ClientAuth = Literal["basic", "post"]


@dataclass(frozen=True, slots=True)
class AuthorizationServer:
    """What an authorization server says about itself (RFC 8414 §2). An endpoint that it does not have is empty text.

    ``metadata`` is all of it, as it came.
    """

    issuer: str
    token_endpoint: str
    authorization_endpoint: str = ""
    device_authorization_endpoint: str = ""
    revocation_endpoint: str = ""
    introspection_endpoint: str = ""
    registration_endpoint: str = ""
    userinfo_endpoint: str = ""
    end_session_endpoint: str = ""
    jwks_uri: str = ""
    scopes: tuple[str, ...] = ()
    grant_types: tuple[str, ...] = ()
    response_types: tuple[str, ...] = ()
    code_challenge_methods: tuple[str, ...] = ()
    client_auth_methods: tuple[str, ...] = ()
    returns_issuer: bool = False  # RFC 9207
    proof_algorithms: tuple[str, ...] = ()  # RFC 9449 §5.1
    metadata: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def dialect(
        self,
        *,
        client_id: str = "",
        client_secret: str = "",
        origins: tuple[str, ...] = (),
        resource: str = "",
        over: tuple[str, ...] = (),
        repeated_refresh: RepeatedRefresh = "learn",
    ) -> Dialect:
        """Return the dialect of this server, for a ``Session``. *origins* are those of the API.

        *resource* goes along with each refresh (RFC 8707); the others are those of ``unbroken.oauth2``. Raise
        ConfigurationError if the server does not take the client's secret in any way that is known here.
        """
        dialect = oauth2_dialect(
            self.token_endpoint,
            client_id=client_id,
            client_secret=client_secret,
            client_auth=self.client_auth() if client_secret else "basic",
            revocation_endpoint=self.revocation_endpoint,
            resource=resource,
            origins=origins,
            over=over,
            repeated_refresh=repeated_refresh,
            authorization_endpoint=self.authorization_endpoint,
            device_authorization_endpoint=self.device_authorization_endpoint,
            issuer=self.issuer,
        )
        if dialect.login_endpoints is None or not self.returns_issuer:
            return dialect
        return replace(dialect, login_endpoints=replace(dialect.login_endpoints, returns_issuer=True))

    def client_auth(self) -> ClientAuth:
        """Return how a client sends its secret: HTTP Basic is the default (RFC 8414 §2)."""
        methods = self.client_auth_methods or ("client_secret_basic",)
        if "client_secret_basic" in methods:
            return "basic"
        if "client_secret_post" in methods:
            return "post"
        raise ConfigurationError(f"{self.issuer} takes no client secret; it knows {', '.join(methods)}")


@dataclass(frozen=True, slots=True)
class ProtectedResource:
    """What an API says about itself (RFC 9728 §2), and the authorization server that issues tokens for it."""

    resource: str
    server: AuthorizationServer
    authorization_servers: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def dialect(
        self,
        *,
        client_id: str = "",
        client_secret: str = "",
        over: tuple[str, ...] = (),
        repeated_refresh: RepeatedRefresh = "learn",
    ) -> Dialect:
        """Return the dialect of its server, whose tokens go to the origin of this resource."""
        return self.server.dialect(
            client_id=client_id,
            client_secret=client_secret,
            origins=(str(origin_of(self.resource)),),
            resource=self.resource,
            over=over,
            repeated_refresh=repeated_refresh,
        )


# ---- where it is -----------------------------------------------------------------------------------------------------


def server_metadata_urls(issuer: str) -> list[str]:
    """Return where *issuer* may publish its metadata, the likeliest first. Raise ConfigurationError for a wrong one.

    RFC 8414 inserts the well-known path before that of the issuer (§3.1); OpenID Connect appends it.
    """
    host, path = _identifier(issuer, "the issuer")
    urls = [host + AUTHORIZATION_SERVER + path, host + OPENID_CONFIGURATION + path, host + path + OPENID_CONFIGURATION]
    return list(dict.fromkeys(urls))


def well_known_urls_of_resource(url: str) -> list[str]:
    """Return where the API at *url* may publish its metadata (RFC 9728 §3.1)."""
    parts = urlsplit(url)
    host, path = f"{parts.scheme}://{parts.netloc}", parts.path.rstrip("/")
    return list(dict.fromkeys([host + PROTECTED_RESOURCE + path, host + PROTECTED_RESOURCE]))


def resource_metadata_url(header: str) -> str:
    """Return the URL in a ``WWW-Authenticate`` value (RFC 9728 §5.1); empty text without one."""
    found = (parameters.get("resource_metadata", "") for _, parameters in parse_challenges(header))
    return next(filter(None, found), "")


def _identifier(url: str, what: str) -> tuple[str, str]:
    """Return scheme and host, and the path, of an identifier, which has no query and no fragment (RFC 8414 §2)."""
    origin_of(url)
    parts = urlsplit(url)
    if parts.query or parts.fragment or "?" in url or "#" in url:
        raise ConfigurationError(f"{what} has neither a query nor a fragment: {url.partition('?')[0]}")
    return f"{parts.scheme}://{parts.netloc}", parts.path.rstrip("/")


# ---- what it says ----------------------------------------------------------------------------------------------------


def read_authorization_server(body: object, issuer: str, *, allow_plain_http: bool = False) -> AuthorizationServer:
    """Return the metadata in the parsed JSON *body*. Raise BadResponse, which names the field (rules 1 to 3)."""
    reader = _Reader(body, f"the metadata of {issuer}", origin_of(issuer), allow_plain_http)
    claimed = reader.text("issuer")
    if not claimed:
        raise BadResponse(f"the metadata of {issuer} has no issuer", field="issuer")
    if claimed != issuer:  # rule 1
        raise BadResponse(f"{issuer} calls itself {claimed[:200]!r}: pass exactly the name that it has", field="issuer")
    names = ("authorization", "device_authorization", "revocation", "introspection", "registration", "userinfo")
    endpoints = {f"{name}_endpoint": reader.url(f"{name}_endpoint") for name in (*names, "end_session")}
    token_endpoint = reader.url("token_endpoint")
    if not token_endpoint:
        raise BadResponse(f"the metadata of {issuer} has no token_endpoint", field="token_endpoint")
    return AuthorizationServer(
        issuer=issuer,
        token_endpoint=token_endpoint,
        jwks_uri=reader.url("jwks_uri"),
        scopes=reader.texts("scopes_supported"),
        grant_types=reader.texts("grant_types_supported") or ("authorization_code", "implicit"),  # RFC 8414 §2
        response_types=reader.texts("response_types_supported"),
        code_challenge_methods=reader.texts("code_challenge_methods_supported"),
        client_auth_methods=reader.texts("token_endpoint_auth_methods_supported"),
        proof_algorithms=reader.texts("dpop_signing_alg_values_supported"),
        returns_issuer=reader.body.get("authorization_response_iss_parameter_supported") is True,
        metadata=reader.body,
        **endpoints,
    )


def read_protected_resource(
    body: object, url: str, *, allow_plain_http: bool = False
) -> tuple[str, tuple[str, ...], tuple[str, ...], Mapping[str, Any]]:
    """Return resource, authorization servers, scopes and all metadata of the API at *url*. Raise BadResponse."""
    reader = _Reader(body, f"the metadata of {url.partition('?')[0]}", origin_of(url), allow_plain_http)
    resource = reader.url("resource")
    if not resource or not _is_within(url, resource):  # rule 1
        raise BadResponse(
            f"the metadata is that of {resource[:200]!r}, not of {url.partition('?')[0]}", field="resource"
        )
    servers = reader.texts("authorization_servers")
    for server in servers:
        reader.check_url(server, "authorization_servers")
    if not servers:
        raise BadResponse(f"{reader.where} names no authorization server", field="authorization_servers")
    return resource, servers, reader.texts("scopes_supported"), reader.body


def _is_within(url: str, resource: str) -> bool:
    """Return whether *url* is *resource*, or below it."""
    if origin_of(url) != origin_of(resource):
        return False
    path, base = (urlsplit(one).path.rstrip("/") + "/" for one in (url, resource))
    return path.startswith(base) and ".." not in path.split("/")


class _Reader:
    """Reads fields of metadata that *where* names, and that the server at *asked* has sent."""

    def __init__(self, body: object, where: str, asked: Origin, allow_plain_http: bool) -> None:
        if not isinstance(body, Mapping):
            raise BadResponse(f"{where} is not a JSON object")
        self.body: Mapping[str, Any] = body
        self.where, self._asked, self._plain = where, asked, allow_plain_http

    def text(self, name: str) -> str:
        """Return the text *name*; empty if it is absent."""
        value = self.body.get(name)
        if value is None:
            return ""
        if not isinstance(value, str) or not value.isprintable():
            raise BadResponse(f"{self.where}: {name} is not text", field=name)
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """Return the list of texts *name*; empty if it is absent."""
        value = self.body.get(name)
        if value is None:
            return ()
        if not isinstance(value, list) or len(value) > MAX_VALUES or not all(isinstance(one, str) for one in value):
            raise BadResponse(f"{self.where}: {name} is not a list of texts", field=name)
        return tuple(one for one in value if one.isprintable())

    def url(self, name: str) -> str:
        """Return the URL *name*; empty if it is absent."""
        value = self.text(name)
        if value:
            self.check_url(value, name)
        return value

    def check_url(self, value: str, name: str) -> None:
        """Raise BadResponse if *value* is no URL that the server may name (rule 2)."""
        try:
            origin = origin_of(value)
        except ConfigurationError as error:
            raise BadResponse(f"{self.where}: {name}: {error}", field=name) from error
        if may_be_loopback(origin.host) and not is_loopback(self._asked.host):
            raise BadResponse(f"{self.where}: {name} is on this machine: {origin}", field=name)
        if not (is_secure(origin) or self._plain):
            raise BadResponse(f"{self.where}: {name} is not https: {origin}", field=name)
