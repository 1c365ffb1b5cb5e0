"""``AccessTokenMiddleware``: sets the claims and the user of every request. It refuses no request by itself.

    request.auth     the ``Claims`` of a good access token; None without one
    request.user     its user, loaded when it is first used (``await request.auser()`` in async views)

1. Without a token ``request.user`` stays what Django's own AuthenticationMiddleware has set: the admin works as before.
2. With a bad token it is the ``AnonymousUser``.
3. ``current_claims`` in a view refuses a request by an exception, which becomes a 401 or 403 with a challenge here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.utils.functional import SimpleLazyObject

from unbroken.django.claims import AccessTokenRequired, claims_or_refusal, claims_or_refusal_blocking, with_nonce
from unbroken.django.convert import to_response
from unbroken.django.lazy_user import request_user
from unbroken.server.http.messages import Response
from unbroken.server.keys.access_token import Claims

__all__ = ["AccessTokenMiddleware"]


class AccessTokenMiddleware:
    """Put it after ``django.contrib.auth.middleware.AuthenticationMiddleware``, if the project has that one."""

    sync_capable = async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self._get_response = get_response
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        if self._is_async:
            return self._call_async(request)
        _set_claims_and_user(request, claims_or_refusal_blocking(request))
        response: HttpResponseBase = with_nonce(request, self._get_response(request))
        return response

    async def _call_async(self, request: HttpRequest) -> HttpResponseBase:
        _set_claims_and_user(request, await claims_or_refusal(request))
        response: HttpResponseBase = with_nonce(request, await self._get_response(request))
        return response

    def process_exception(self, _request: HttpRequest, exception: Exception) -> HttpResponse | None:
        """Return the challenge for a view that has called ``current_claims`` (rule 3)."""
        return to_response(exception.response) if isinstance(exception, AccessTokenRequired) else None


def _set_claims_and_user(request: Any, claims: Claims | Response | None) -> None:
    request.auth = claims if isinstance(claims, Claims) else None
    if claims is None and hasattr(request, "user"):  # rule 1
        return
    user = request_user(request, claims.subject if isinstance(claims, Claims) else None)
    request.user, request.auser = SimpleLazyObject(user.get), user.aget
