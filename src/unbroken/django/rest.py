"""Django REST framework: who sends a request, and whether it has the scope.

    REST_FRAMEWORK = {"DEFAULT_AUTHENTICATION_CLASSES": ["unbroken.django.rest.AccessTokenAuthentication"]}

    class Orders(APIView):
        permission_classes = [IsAuthenticated, needs("write")]

        def post(self, request):
            ...                                # request.user is Django's user, request.auth the Claims

Where several authentication classes are set, REST framework takes the challenge from the first of them.
"""

from __future__ import annotations

import json
from typing import Any

from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import APIException, AuthenticationFailed, PermissionDenied
from rest_framework.permissions import BasePermission
from rest_framework.request import Request as RestRequest

from unbroken.django.convert import FOUND, find
from unbroken.django.runtime import runtime
from unbroken.errors import InvalidToken
from unbroken.server.http.messages import Response, challenge
from unbroken.server.keys.access_token import Claims

__all__ = ["AccessTokenAuthentication", "HasScope", "requires_scope"]

CHALLENGE = "www-authenticate"


class AccessTokenAuthentication(BaseAuthentication):
    """The user and the ``Claims`` of a request's access token. Without a token it leaves the request to others."""

    def authenticate(self, request: RestRequest) -> tuple[Any, Claims] | None:
        """Raises AuthenticationFailed for a token that is no good, or whose user is gone or inactive."""
        asked = request._request
        who = find(asked)
        if isinstance(who, Claims):
            user = runtime().users.get(who.subject)
            if user is not None:
                return user, who
            who = challenge(InvalidToken("the user is gone, or not active", reason="revoked"))
            setattr(asked, FOUND, who)
        if who is None:
            return None
        raise _error_of(who)

    def authenticate_header(self, request: RestRequest) -> str:
        """The challenge (RFC 6750 §3): bare without a token, with the reason for a bad one."""
        who = getattr(request._request, FOUND, None)
        return (who if isinstance(who, Response) else challenge(None)).headers.get(CHALLENGE, "Bearer")


class HasScope(BasePermission):
    """Whether a session has the words of ``scope``, or of the view's ``required_scope``. See ``needs``."""

    scope = ""

    def has_permission(self, request: RestRequest, view: Any) -> bool:
        """Whether it has. Raises PermissionDenied, with a challenge, where no other permission could allow it."""
        scope = self.scope or getattr(view, "required_scope", "")
        if not isinstance(request.auth, Claims) or request.auth.has_scope(scope):
            return isinstance(request.auth, Claims)
        # All of ``permission_classes`` must allow it. What is not among them may be part of an expression, as in a | b.
        if type(self) in view.permission_classes:
            raise _error_of(challenge(None, scope=scope))
        return False


def requires_scope(scope: str) -> type[HasScope]:
    """The permission class for *scope*: ``permission_classes = [needs("write")]``. It combines by ``|`` and ``&``."""
    return type("HasScope", (HasScope,), {"scope": scope})


def _error_of(value: Response) -> APIException:
    """*value* as REST framework's error, with the same body and challenge."""
    kind = {401: AuthenticationFailed, 403: PermissionDenied}.get(value.status, APIException)
    error: Any = kind(json.loads(value.body))
    error.status_code, error.auth_header = value.status, value.headers.get(CHALLENGE)
    error.wait = int(value.headers.get("retry-after", 0))
    return error  # type: ignore[no-any-return]  # its kinds are errors all
