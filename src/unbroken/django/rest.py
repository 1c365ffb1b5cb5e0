"""Django REST framework: authentication by access tokens, and permissions by their scope.

    REST_FRAMEWORK = {"DEFAULT_AUTHENTICATION_CLASSES": ["unbroken.django.rest.AccessTokenAuthentication"]}

    class Orders(APIView):
        permission_classes = [IsAuthenticated, requires_scope("write")]

        def post(self, request):
            ...                                # request.user is Django's user, request.auth the Claims

1. A bearer token that is plainly another issuer's is left to the next authentication class, so that two kinds of tokens
   work side by side. A class that refuses our tokens, and is the first, needs ``BesideAccessTokens`` before it.
   Everything else that is wrong with a token is an error here.
2. Error bodies have REST framework's ``detail``, and beside it ``error`` and ``reason`` as everywhere.
3. A token that is bound to a key comes as ``DPoP``, with a proof; the class takes both schemes.
4. Where several classes are set, REST framework takes the challenge from the first of them.
"""

from __future__ import annotations

import json
from typing import Any, ClassVar

try:
    from rest_framework.authentication import BaseAuthentication
except ModuleNotFoundError as error:
    message = "unbroken.django.rest needs Django REST framework: pip install 'unbroken[drf]'"
    raise ModuleNotFoundError(message, name=error.name) from error

from rest_framework.exceptions import APIException, AuthenticationFailed, PermissionDenied
from rest_framework.permissions import BasePermission
from rest_framework.request import Request as RestRequest

from unbroken._arguments import checked
from unbroken._concurrency import run_sync
from unbroken.django.claims import VERIFIED, claims_or_refusal_blocking, refuse_claims
from unbroken.django.convert import to_request
from unbroken.django.runtime import runtime
from unbroken.errors import InvalidToken
from unbroken.server.http.authentication import Needs, is_foreign_token, is_own_token
from unbroken.server.http.messages import NONCE_HEADER, Response, access_token_of, challenge
from unbroken.server.keys.access_token import Claims

__all__ = ["AccessTokenAuthentication", "BesideAccessTokens", "HasScope", "requires_scope"]

CHALLENGE = "www-authenticate"
FORBIDDEN = 403
DETAILS = {"unauthorized": "an access token is required", "insufficient_scope": "the access token lacks scope"}


class AccessTokenAuthentication(BaseAuthentication):
    """Authenticates the user of a request's access token; ``request.auth`` is its ``Claims``."""

    def authenticate(self, request: RestRequest) -> tuple[Any, Claims] | None:
        """Return the user and the claims; None without a token, and for another issuer's (rule 1).

        Raise AuthenticationFailed for a token that is no good, or whose user is gone or inactive.
        """
        django_request = request._request
        claims = claims_or_refusal_blocking(django_request)
        if isinstance(claims, Claims):
            user = runtime().users.get(claims.subject)
            if user is not None:
                _add_nonce(request, runtime().authenticator.next_nonce(to_request(django_request)))
                return user, claims
            claims = challenge(InvalidToken("the user is gone, or not active", reason="revoked"))
            refuse_claims(django_request, claims)
        if claims is None or _has_foreign_token(request):
            return None
        _add_nonce(request, claims.headers.get(NONCE_HEADER, ""))
        raise _to_error(claims)

    def authenticate_header(self, request: RestRequest) -> str:
        """Return the challenge (RFC 6750 §3): bare without a token of ours, with the reason for a bad one."""
        refusal = getattr(request._request, VERIFIED, None)
        if not isinstance(refusal, Response) or _has_foreign_token(request):
            refusal = challenge(None)
        return refusal.headers.get(CHALLENGE, "Bearer")


class BesideAccessTokens:
    """Before another authentication class: leaves the access tokens of this server to the next class (rule 1).

    ``class OldTokens(BesideAccessTokens, JWTAuthentication): pass``, for a list of classes in which it is the first.
    """

    def authenticate(self, request: RestRequest) -> Any:
        """Return None for an access token of this server, for any other what the class behind this one returns."""
        _, token = access_token_of(to_request(request._request))
        if token and is_own_token(token, runtime().verifier.issuer):
            return None
        return super().authenticate(request)  # type: ignore[misc]  # that of the class that it is mixed into


class HasScope(BasePermission):
    """Permits requests whose access token has ``scope``, or the ``required_scope`` of the view, and ``claims``.

    With ``now``, both are what the subject has now, whatever the token says; this costs a query.
    """

    scope = ""
    claims: ClassVar[Needs | None] = None
    now = False

    def has_permission(self, request: RestRequest, view: Any) -> bool:
        """Return whether it has. Raise PermissionDenied, with a challenge, where no other permission could permit."""
        scope = self.scope or getattr(view, "required_scope", "")
        if not isinstance(request.auth, Claims):
            return False
        authenticator = runtime().authenticator
        found = run_sync(authenticator.check(request.auth, scope=scope, claims=self.claims, now=self.now))
        if isinstance(found, Claims):
            return True
        # Each of ``permission_classes`` must permit. A class that is not among them may be part of an ``a | b``.
        if type(self) in view.permission_classes or found.status != FORBIDDEN:
            raise _to_error(found)
        return False


@checked()
def requires_scope(scope: str = "", *, claims: Needs | None = None, now: bool = False) -> type[HasScope]:
    """Return the permission class for *scope* and *claims*, for ``permission_classes``: see ``HasScope``.

    It combines by ``|`` and ``&``.
    """
    return type("HasScope", (HasScope,), {"scope": scope, "claims": claims, "now": now})


def _add_nonce(request: RestRequest, nonce: str) -> None:
    """Give the response the nonce for the client's next proof (RFC 9449 §8.2 and §9)."""
    headers = getattr((request.parser_context or {}).get("view"), "headers", None)  # of the response to come
    if nonce and headers is not None:
        headers["DPoP-Nonce"] = nonce


def _has_foreign_token(request: RestRequest) -> bool:
    _, token = access_token_of(to_request(request._request))
    return token != "" and is_foreign_token(token, runtime().verifier.issuer)


def _to_error(refusal: Response) -> APIException:
    """Return *refusal* as REST framework's error, with the same challenge (rule 2)."""
    body = json.loads(refusal.body)
    text = body.pop("error_description", None) or DETAILS.get(body["error"], body["error"])
    kind = {401: AuthenticationFailed, 403: PermissionDenied}.get(refusal.status, APIException)
    error: Any = kind({"detail": text, **body})
    error.status_code, error.auth_header = refusal.status, refusal.headers.get(CHALLENGE)
    error.wait = int(refusal.headers.get("retry-after", 0))
    return error  # type: ignore[no-any-return]  # every kind is an APIException
