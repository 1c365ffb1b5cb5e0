"""What others must know about this server: its public keys (RFC 7517) and its metadata (RFC 8414, RFC 9728).

1. The metadata says where the endpoints are, relative to the host of the issuer.
2. For an issuer with a path, clients look for the metadata at the well-known path before that path (RFC 8414 §3.1), so
   it is served there too.
3. The API below the issuer is a protected resource (RFC 9728), and its metadata names this server. A client of the root
   of the host, before the path of an issuer, finds it too.
4. All of it may be cached for five minutes: keys are published longer ahead than that (``keys/keyring.py``).
"""

from __future__ import annotations

from urllib.parse import urlsplit

from unbroken.server.http.messages import Handler, Request, Response, Route, json_response
from unbroken.server.http.settings import EndpointSettings
from unbroken.server.keys.keyring import ALGORITHMS
from unbroken.server.keys.proof_token import PROOF_ALGORITHMS
from unbroken.server.sessions import Sessions

__all__ = ["DiscoveryEndpoints"]

WELL_KNOWN = "/.well-known/oauth-authorization-server"
PROTECTED_RESOURCE = "/.well-known/oauth-protected-resource"
CACHED = {"cache-control": "public, max-age=300"}  # rule 4


class DiscoveryEndpoints:
    """Serves the keys and the metadata, outside the prefix of the other endpoints."""

    def __init__(self, sessions: Sessions, settings: EndpointSettings) -> None:
        self._sessions, self._settings = sessions, settings
        path = _path_of(sessions.issuer)
        self.routes = (
            Route("GET", "/.well-known/jwks.json", self._jwks, rooted=True),
            *_rooted(WELL_KNOWN, path, self._metadata),
            *_rooted(PROTECTED_RESOURCE, path, self._resource),
        )

    async def _jwks(self, _request: Request, _sid: str) -> Response:
        return json_response(await self._sessions.ajwks(), 200, CACHED)

    async def _metadata(self, _request: Request, _sid: str) -> Response:
        issuer = self._sessions.issuer
        host = "{0.scheme}://{0.netloc}".format(urlsplit(issuer))
        below = host + self._settings.prefix  # rule 1
        body: dict[str, object] = {
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
        if not self._sessions.proofs.policy.is_off:
            body["dpop_signing_alg_values_supported"] = list(PROOF_ALGORITHMS)  # RFC 9449 §5.1
        return json_response(body, 200, CACHED)

    async def _resource(self, request: Request, _sid: str) -> Response:
        issuer = self._sessions.issuer
        is_root = request.path == PROTECTED_RESOURCE  # rule 3
        body = {
            "resource": "{0.scheme}://{0.netloc}".format(urlsplit(issuer)) if is_root else issuer,
            "authorization_servers": [issuer],
            "bearer_methods_supported": ["header"],
        }
        return json_response(body, 200, CACHED)


def _path_of(issuer: str) -> str:
    return urlsplit(issuer).path.rstrip("/")


def _rooted(well_known: str, path: str, handler: Handler) -> tuple[Route, ...]:
    """Return the routes of metadata: at the root, and before the *path* of the issuer if it has one (rule 2)."""
    places = dict.fromkeys((well_known, well_known + path))
    return tuple(Route("GET", place, handler, rooted=True) for place in places)
