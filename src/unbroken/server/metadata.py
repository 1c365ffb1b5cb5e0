"""Authorization server metadata (RFC 8414): where the endpoints are and what they can do. Pure."""

from __future__ import annotations

from urllib.parse import urlsplit

from unbroken.server.keys import ALGORITHMS

__all__ = ["WELL_KNOWN", "inserted", "metadata"]

WELL_KNOWN = "/.well-known/oauth-authorization-server"


def metadata(issuer: str, prefix: str, *, password_grant: bool) -> dict[str, object]:
    """The metadata of the server *issuer*, whose endpoints are below *prefix* at the same host."""
    here = "{0.scheme}://{0.netloc}".format(urlsplit(issuer))
    return {
        "issuer": issuer,
        "token_endpoint": f"{here}{prefix}/token",
        "revocation_endpoint": f"{here}{prefix}/revoke",
        "introspection_endpoint": f"{here}{prefix}/introspect",
        "jwks_uri": f"{here}/.well-known/jwks.json",
        "grant_types_supported": ["refresh_token", *(["password"] if password_grant else [])],
        "response_types_supported": [],
        "token_endpoint_auth_methods_supported": ["none"],
        "revocation_endpoint_auth_methods_supported": ["none"],
        "introspection_endpoint_auth_methods_supported": ["Bearer"],
        "access_token_signing_alg_values_supported": list(ALGORITHMS),
    }


def inserted(issuer: str) -> str:
    """Where clients look for the metadata of an issuer with a path (RFC 8414 §3.1); empty for one without."""
    path = urlsplit(issuer).path.rstrip("/")
    return WELL_KNOWN + path if path else ""
