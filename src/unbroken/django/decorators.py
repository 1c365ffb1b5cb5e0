"""``access_token_required``: a view that needs a good access token whose user exists and is active.

The user is loaded once, for the view and for ``request.user`` together. Where the accounts are not Django's users
(``Runtime.checks_users``), no user is loaded.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, overload

from asgiref.sync import iscoroutinefunction
from django.http import HttpRequest

from unbroken._arguments import checked
from unbroken._concurrency import run_sync
from unbroken.django.claims import claims_or_refusal, require_claims, with_nonce
from unbroken.django.convert import to_response
from unbroken.django.lazy_user import request_user
from unbroken.django.runtime import runtime
from unbroken.errors import InvalidToken, TryLater
from unbroken.server.http.authentication import Needs
from unbroken.server.http.messages import Response, challenge, error_response
from unbroken.server.keys.access_token import Claims

__all__ = ["access_token_required"]

View = TypeVar("View", bound=Callable[..., Any])


@overload
def access_token_required(view: View) -> View: ...


@overload
def access_token_required(
    *, scope: str = "", claims: Needs | None = None, now: bool = False
) -> Callable[[View], View]: ...


@checked()
def access_token_required(
    view: View | None = None, *, scope: str = "", claims: Needs | None = None, now: bool = False
) -> View | Callable[[View], View]:
    """Decorate a plain or async view that needs a good access token, one with *scope* and *claims*.

    *claims*: ``{"role": "admin"}``. With *now*, both are what the subject has now, whatever the token says; this costs
    a query.

    ``request.auth``, and ``current_claims(request)``, are its ``Claims``. Other requests get a 401 or 403 with an
    RFC 6750 challenge. The middleware is not needed. For a class-based view:
    ``@method_decorator(access_token_required, name="dispatch")``.
    """
    if view is None:
        return functools.partial(_decorated, needs=_Needs(scope, claims, now))
    return _decorated(view, needs=_Needs(scope, claims, now))


class _Needs(NamedTuple):
    scope: str
    claims: Needs | None
    now: bool


def _decorated(view: View, *, needs: _Needs) -> View:
    decorated: Any = _async_view(view, needs) if iscoroutinefunction(view) else _plain_view(view, needs)
    # CSRF: no browser sends a bearer token by itself, and cookies are checked where they are read. And a login page
    # (LoginRequiredMiddleware) would not help an API.
    decorated.csrf_exempt, decorated.login_required = True, False
    return decorated  # type: ignore[no-any-return]  # it is called as *view* is


def _plain_view(view: Callable[..., Any], needs: _Needs) -> Callable[..., Any]:
    @functools.wraps(view)
    def decorated(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        claims = run_sync(_claims_of_active_user(request, needs))
        if not isinstance(claims, Claims):
            return to_response(claims)
        request.auth = claims  # type: ignore[attr-defined]  # it is set here
        return with_nonce(request, view(request, *args, **kwargs))

    return decorated


def _async_view(view: Callable[..., Any], needs: _Needs) -> Callable[..., Any]:
    @functools.wraps(view)
    async def decorated(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        claims = await _claims_of_active_user(request, needs)
        if not isinstance(claims, Claims):
            return to_response(claims)
        request.auth = claims  # type: ignore[attr-defined]  # it is set here
        return with_nonce(request, await view(request, *args, **kwargs))

    return decorated


async def _claims_of_active_user(request: HttpRequest, needs: _Needs) -> Claims | Response:
    """Return the claims with which the view is called, or the response that refuses the request."""
    found = require_claims(await claims_or_refusal(request))
    claims = await runtime().authenticator.check(found, scope=needs.scope, claims=needs.claims, now=needs.now)
    if not isinstance(claims, Claims) or not runtime().checks_users:
        return claims
    try:
        if await request_user(request, claims.subject).exists():
            return claims
    except TryLater as error:
        return error_response(error)
    return challenge(InvalidToken("the user is gone, or not active", reason="revoked"))
