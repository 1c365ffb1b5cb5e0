"""``oauth2``: the dialect of an OAuth 2.0 server, from its endpoints, from its name, or from the API that it serves.

1. No token, no cookie and no secret goes out with a request of discovery.
2. A response is read up to 1 MiB and for at most *timeout* seconds. A redirect is followed within its origin only.
3. Metadata is checked before it is used (``core/metadata.py``). Nothing is kept: a program discovers once.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import TypeVar
from urllib.parse import urljoin

from unbroken._arguments import checked
from unbroken._http import (
    HttpRequest,
    HttpResponse,
    NotSent,
    ResponseLost,
    ResponseTooLong,
    Send,
    is_loopback,
    is_secure,
    may_be_loopback,
    origin_of,
    retry_after_seconds,
)
from unbroken._single_flight import SingleFlight
from unbroken._time import Duration, to_seconds
from unbroken.client.core import known_servers
from unbroken.client.core.backends import OAuth2Endpoints
from unbroken.client.core.metadata import (
    AuthorizationServer,
    ProtectedResource,
    read_authorization_server,
    read_protected_resource,
    resource_metadata_url,
    server_metadata_urls,
    well_known_urls_of_resource,
)
from unbroken.errors import BadResponse, ConfigurationError, TryLater

__all__ = ["OAuth2", "oauth2"]

T = TypeVar("T")
MAX_REDIRECTS = 3
REDIRECTS = frozenset({301, 302, 303, 307, 308})
HEADERS = {"accept": "application/json"}


class OAuth2(OAuth2Endpoints):
    """``oauth2(token_endpoint)`` is the dialect of a server; ``oauth2.discover(issuer)`` asks the server for it.

    ``oauth2.google(client_id, …)``, ``github``, ``microsoft`` and ``keycloak`` know how these servers differ.
    """

    github, google = staticmethod(known_servers.github), staticmethod(known_servers.google)
    keycloak, microsoft = staticmethod(known_servers.keycloak), staticmethod(known_servers.microsoft)

    @checked()
    def discover(
        self,
        issuer: str,
        *,
        timeout: Duration = 10.0,
        tls: ssl.SSLContext | None = None,
        send: Send | None = None,
        allow_plain_http: bool = False,
    ) -> AuthorizationServer:
        """Return what the authorization server *issuer* says about itself (RFC 8414, or OpenID Connect).

        ``.dialect(client_id=…, origins=…)`` of it is what a ``Session`` takes. *issuer* is the exact name of the
        server. *timeout* bounds one request, in seconds. Raise ConfigurationError for a name that cannot be one,
        BadResponse for metadata that cannot be trusted, TryLater if the server does not respond.
        """
        return _Discovery(timeout, tls, send, allow_plain_http).server(issuer)

    @checked()
    def discover_resource(
        self,
        url: str,
        *,
        issuer: str = "",
        timeout: Duration = 10.0,
        tls: ssl.SSLContext | None = None,
        send: Send | None = None,
        allow_plain_http: bool = False,
    ) -> ProtectedResource:
        """Return what the API at *url* says about itself (RFC 9728), with its authorization server.

        It gets one request without a token, and its challenge names the metadata; without one, the well-known URLs are
        tried. *issuer* chooses among several authorization servers; the default is the first. Raise as ``discover``.
        """
        return _Discovery(timeout, tls, send, allow_plain_http).resource(url, issuer)

    @checked()
    async def adiscover(
        self,
        issuer: str,
        *,
        timeout: Duration = 10.0,
        tls: ssl.SSLContext | None = None,
        send: Send | None = None,
        allow_plain_http: bool = False,
    ) -> AuthorizationServer:
        """Return what ``discover`` returns, without blocking."""
        discovery = _Discovery(timeout, tls, send, allow_plain_http)
        return await discovery.in_thread(lambda: discovery.server(issuer))

    @checked()
    async def adiscover_resource(
        self,
        url: str,
        *,
        issuer: str = "",
        timeout: Duration = 10.0,
        tls: ssl.SSLContext | None = None,
        send: Send | None = None,
        allow_plain_http: bool = False,
    ) -> ProtectedResource:
        """Return what ``discover_resource`` returns, without blocking."""
        discovery = _Discovery(timeout, tls, send, allow_plain_http)
        return await discovery.in_thread(lambda: discovery.resource(url, issuer))


oauth2 = OAuth2()


class _Discovery:
    """The requests of one discovery."""

    def __init__(
        self, timeout: Duration, tls: ssl.SSLContext | None, send: Send | None, allow_plain_http: bool
    ) -> None:
        self._seconds = to_seconds("timeout", timeout, above_zero=True)
        self._given, self._tls, self._plain = send, tls, allow_plain_http

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Return the result of *work*, which blocks, while the event loop goes on."""
        flight = SingleFlight(work, 12 * self._seconds)
        flight.start()
        return await flight.wait_async()

    def server(self, issuer: str) -> AuthorizationServer:
        urls = server_metadata_urls(issuer)
        self._require_secure(issuer)
        response = self._first(urls)
        if response is None:
            raise ConfigurationError(
                f"{issuer} publishes no metadata (tried {', '.join(urls)}): name its endpoints, oauth2(token_endpoint)"
            )
        return read_authorization_server(response.json(), issuer, allow_plain_http=self._plain)

    def resource(self, url: str, issuer: str) -> ProtectedResource:
        self._require_secure(url)
        named = resource_metadata_url(self._get(url).headers.get("www-authenticate", ""))
        if named:
            self._require_secure(named, url)
        response = self._first([named] if named else well_known_urls_of_resource(url))
        if response is None:
            raise ConfigurationError(f"{url.partition('?')[0]} publishes no metadata: use oauth2.discover(issuer)")
        resource, servers, scopes, metadata = read_protected_resource(
            response.json(), url, allow_plain_http=self._plain
        )
        if issuer and issuer not in servers:
            raise ConfigurationError(f"{issuer} issues no tokens for {resource}; these do: {', '.join(servers)}")
        return ProtectedResource(resource, self.server(issuer or servers[0]), servers, scopes, metadata)

    def _first(self, urls: list[str]) -> HttpResponse | None:
        """Return the first response that has metadata; None if the server has none. Raise TryLater, BadResponse."""
        for url in urls:
            response = self._get(url)
            if response.status == 429 or response.status >= 500:
                raise TryLater(f"{url} responded with {response.status}", retry_after=retry_after_seconds(response))
            if response.status == 200 and response.json() is not None:
                return response
        return None

    def _get(self, url: str) -> HttpResponse:
        """Return the response at *url*, behind redirects within its origin (rule 2)."""
        first = origin_of(url)
        for _ in range(MAX_REDIRECTS + 1):
            response = self._send(HttpRequest("GET", url, HEADERS))  # rule 1
            target = response.headers.get("location", "") if response.status in REDIRECTS else ""
            if not target:
                return response
            url = urljoin(url, target)
            try:
                is_same = origin_of(url) == first
            except ConfigurationError:
                is_same = False
            if not is_same:
                raise BadResponse(f"{first} redirects discovery to another origin, which is not followed")
        raise BadResponse(f"{first} redirects discovery more than {MAX_REDIRECTS} times")

    def _send(self, request: HttpRequest) -> HttpResponse:
        try:
            return self._sender()(request, self._seconds)
        except ResponseTooLong as error:
            raise BadResponse(str(error)) from error
        except (NotSent, ResponseLost) as error:
            raise TryLater(str(error)) from error

    def _sender(self) -> Send:
        if self._given is None:
            from unbroken._transport import http_sender  # noqa: PLC0415  # slow to import, and few programs discover

            self._given = http_sender(self._tls)
        return self._given

    def _require_secure(self, url: str, asked: str = "") -> None:
        """Raise ConfigurationError if *url* is not https; plain http is for this machine. *asked*: who named it."""
        origin = origin_of(url)
        is_allowed = is_secure(origin) or self._plain
        if asked and may_be_loopback(origin.host) and not is_loopback(origin_of(asked).host):
            raise BadResponse(f"{origin_of(asked)} names metadata on this machine: {origin}", field="resource_metadata")
        if not is_allowed:
            raise ConfigurationError(f"use https for {origin.host}, or say allow_plain_http=True")
