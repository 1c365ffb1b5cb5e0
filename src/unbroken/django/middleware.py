"""``TokenMiddleware``: every request knows whose it is. It refuses nothing by itself.

    request.auth     the ``Claims`` of a good access token; None without one
    request.user     its user, looked up when it is asked for (``await request.auser()`` in async views)

Without a token ``request.user`` stays what Django's own AuthenticationMiddleware found: the one who logged in to the
admin. A bad token is nobody's: then it is the ``AnonymousUser``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils.functional import SimpleLazyObject

from unbroken.django.convert import claims_or_refusal, find
from unbroken.django.lazy_user import request_user
from unbroken.server.http.messages import Response
from unbroken.server.keys.access_token import Claims

__all__ = ["TokenMiddleware"]


class TokenMiddleware:
    """Put it after ``django.contrib.auth.middleware.AuthenticationMiddleware``, if that is there."""

    sync_capable = async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self._get_response = get_response
        self._awaits = iscoroutinefunction(get_response)
        if self._awaits:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        if self._awaits:
            return self._awaited(request)
        _introduce(request, find(request))
        response: HttpResponseBase = self._get_response(request)
        return response

    async def _awaited(self, request: HttpRequest) -> HttpResponseBase:
        _introduce(request, await claims_or_refusal(request))
        response: HttpResponseBase = await self._get_response(request)
        return response


def _introduce(request: Any, who: Claims | Response | None) -> None:
    request.auth = who if isinstance(who, Claims) else None
    if who is None and hasattr(request, "user"):
        return
    person = request_user(request, who.subject if isinstance(who, Claims) else None)
    request.user, request.auser = SimpleLazyObject(person.get), person.aget
