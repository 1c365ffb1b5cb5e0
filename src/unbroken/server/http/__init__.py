"""The server over HTTP: endpoints, cookies, CORS and the authentication of requests, as values without a framework.

What is exported here is what an integration of a web framework needs (``docs/extend/framework.md``).
"""

from unbroken.server.http.authentication import RequestAuthenticator, TokenVerifier, is_foreign_token, require_scope
from unbroken.server.http.cookies import Cookies
from unbroken.server.http.endpoints import Endpoints
from unbroken.server.http.messages import MAX_BODY_BYTES, Request, Response, Route, challenge, error_response
from unbroken.server.http.own_logins import LoginOptions
from unbroken.server.http.settings import EndpointOptions, EndpointSettings

__all__ = [  # noqa: RUF022  # sorted as text, as everywhere
    "Cookies",
    "EndpointOptions",
    "EndpointSettings",
    "Endpoints",
    "LoginOptions",
    "MAX_BODY_BYTES",
    "Request",
    "RequestAuthenticator",
    "Response",
    "Route",
    "TokenVerifier",
    "challenge",
    "error_response",
    "is_foreign_token",
    "require_scope",
]
