"""What others must know about this server: its public keys (RFC 7517) and its metadata (RFC 8414).

1. The metadata says where the endpoints are, relative to the host of the issuer.
2. For an issuer with a path, clients look for the metadata at the well-known path before that path (RFC 8414 §3.1), so
   it is served there too.
3. Both may be cached for five minutes: keys are published longer ahead than that (``keys/keyring.py``).
"""

from __future__ import annotations

from urllib.parse import urlsplit

from unbroken.server.http.messages import Request, Response, Route, json_response
from unbroken.server.http.settings import EndpointSettings
from unbroken.server.keys.keyring import ALGORITHMS
from unbroken.server.sessions import Sessions

__all__ = ["DiscoveryEndpoints"]

WELL_KNOWN = "/.well-known/oauth-authorization-server"
CACHED = {"cache-control": "public, max-age=300"}  # rule 3


class DiscoveryEndpoints:
    """Serves the keys and the metadata, outside the prefix of the other endpoints."""

    def __init__(self, sessions: Sessions, settings: EndpointSettings) -> None:
        self._sessions, self._settings = sessions, settings
        paths = (WELL_KNOWN, *_path_inserted(sessions.issuer))
        self.routes = (
            Route("GET", "/.well-known/jwks.json", self._jwks, rooted=True),
            *(Route("GET", path, self._metadata, rooted=True) for path in paths),
        )

    async def _jwks(self, _request: Request, _sid: str) -> Response:
        return json_response(await self._sessions.ajwks(), 200, CACHED)

    async def _metadata(self, _request: Request, _sid: str) -> Response:
        issuer = self._sessions.issuer
        host = "{0.scheme}://{0.netloc}".format(urlsplit(issuer))
        below = host + self._settings.prefix  # rule 1
        body = {
            "issuer": issuer,
            "token_endpoint": f"{below}/token",
            "revocation_endpoint": f"{below}/revoke",
            "introspection_endpoint": f"{below}/introspect",
            "jwks_uri": f"{host}/.well-known/jwks.json",
            "grant_types_supported": ["refresh_token", *(["password"] if self._settings.password_grant else [])],
            "response_types_supported": [],
            "token_endpoint_auth_methods_supported": ["none"],
            "revocation_endpoint_auth_methods_supported": ["none"],
            "introspection_endpoint_auth_methods_supported": ["Bearer"],
            "access_token_signing_alg_values_supported": list(ALGORITHMS),
        }
        return json_response(body, 200, CACHED)


def _path_inserted(issuer: str) -> tuple[str, ...]:
    """Return the second path of the metadata, if *issuer* has a path (rule 2)."""
    path = urlsplit(issuer).path.rstrip("/")
    return (WELL_KNOWN + path,) if path else ()
