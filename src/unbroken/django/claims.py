"""The claims of a request's access token. They are looked up once, and kept on the request.

1. ``current_claims`` does no I/O: the middleware or the decorator has verified the token before.
2. It refuses a request by an exception. The middleware turns this into a challenge; without the middleware Django
   responds with 403.
3. Claims are what the token says. That its user exists and is active is checked by ``access_token_required`` and by
   ``request.user``.
"""

from __future__ import annotations

from typing import Any, cast

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest

from unbroken._concurrency import run_sync
from unbroken.django.convert import to_request
from unbroken.django.runtime import runtime
from unbroken.errors import ConfigurationError, Refused, TryLater
from unbroken.server.http.authentication import Needs, require_scope
from unbroken.server.http.messages import Request, Response, challenge, error_response
from unbroken.server.keys.access_token import Claims

__all__ = [
    "AccessTokenRequired",
    "claims_or_refusal",
    "claims_or_refusal_blocking",
    "current_claims",
    "refuse_claims",
    "require_claims",
    "with_nonce",
]

VERIFIED = "_unbroken_verified"  # attribute of a request: Claims, the Response that refuses it, or None without a token


class AccessTokenRequired(PermissionDenied):
    """The request has no good access token, or too little scope; ``response`` is the challenge (RFC 6750 §3)."""

    def __init__(self, response: Response) -> None:
        self.response = response
        super().__init__("an access token is required" if response.status == 401 else "the access token is refused")


def current_claims(request: HttpRequest, *, scope: str = "", claims: Needs | None = None) -> Claims:
    """Return the claims of the request's access token.

    Raise AccessTokenRequired without a good token, and for one without *scope* or *claims*; the client gets a 401 or
    403 with a challenge. Raise RuntimeError if neither the middleware nor ``access_token_required`` has seen the
    request.
    """
    if not hasattr(request, VERIFIED):
        raise RuntimeError(
            "current_claims needs unbroken.django.middleware.AccessTokenMiddleware in MIDDLEWARE, or a view with "
            "access_token_required"
        )
    found = require_claims(cast("Claims | Response | None", getattr(request, VERIFIED)), scope, claims)
    if isinstance(found, Response):
        raise AccessTokenRequired(found)  # rule 2
    return found


async def claims_or_refusal(request: HttpRequest) -> Claims | Response | None:
    """Return the claims of the request's access token, or the response that refuses it; None without a token."""
    if not hasattr(request, VERIFIED):
        setattr(request, VERIFIED, await _verified(to_request(request)))
    return cast("Claims | Response | None", getattr(request, VERIFIED))


def claims_or_refusal_blocking(request: HttpRequest) -> Claims | Response | None:
    """Return what ``claims_or_refusal`` returns, without an event loop."""
    return run_sync(claims_or_refusal(request))


def require_claims(found: Claims | Response | None, scope: str = "", claims: Needs | None = None) -> Claims | Response:
    """Return *found* if there is a token with *scope* and *claims*; otherwise the response that refuses the request."""
    return challenge(None) if found is None else require_scope(found, scope, claims)


def with_nonce(request: HttpRequest, response: Any) -> Any:
    """Return *response* with the nonce for the client's next proof, if the request had a good one."""
    is_good = "dpop" in request.headers and isinstance(getattr(request, VERIFIED, None), Claims)
    if is_good and (nonce := runtime().authenticator.next_nonce(to_request(request))):
        response["dpop-nonce"] = nonce
    return response


def refuse_claims(request: HttpRequest, refusal: Response) -> None:
    """Replace the claims of *request* by a refusal that was found out later."""
    setattr(request, VERIFIED, refusal)


async def _verified(request: Request) -> Claims | Response | None:
    try:
        return await runtime().authenticator.claims(request)
    except (Refused, TryLater, ConfigurationError) as error:
        return error_response(error)
