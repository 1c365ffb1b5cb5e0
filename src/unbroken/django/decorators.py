"""``session_required``: a view that only a session may see, and only as long as its user is there and active.

The user is looked up once, for the view and for ``request.user`` together; where the accounts are not Django's users
(``Site.looks_at_users``), not at all.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, overload

from asgiref.sync import iscoroutinefunction
from django.http import HttpRequest

from unbroken._sync import run_sync
from unbroken.django.convert import claims_or_refusal, require_scope, to_response
from unbroken.django.lazy_user import request_user
from unbroken.django.runtime import runtime
from unbroken.errors import InvalidToken, TryLater
from unbroken.server.http.messages import Response, challenge, error_response
from unbroken.server.keys.access_token import Claims

__all__ = ["session_required"]

F = TypeVar("F", bound=Callable[..., Any])


@overload
def session_required(view: F) -> F: ...


@overload
def session_required(*, scope: str = "") -> Callable[[F], F]: ...


def session_required(view: F | None = None, *, scope: str = "") -> F | Callable[[F], F]:
    """A view, plain or async, that only a session may see: with *scope*, only one that has it. ``request.auth`` is its
    ``Claims``. Others get a 401 or 403 with an RFC 6750 challenge. Works without the middleware too.

    For a class-based view: ``@method_decorator(session_required, name="dispatch")``.
    """
    if view is None:
        return functools.partial(_guarded, scope=scope)
    return _guarded(view, scope=scope)


def _guarded(view: F, *, scope: str) -> F:
    guard: Any = _async_guard(view, scope) if iscoroutinefunction(view) else _guard(view, scope)
    # No browser sends a bearer token by itself (cookies are guarded where they are read); no login page would help.
    guard.csrf_exempt, guard.login_required = True, False
    return guard  # type: ignore[no-any-return]  # it is called as *view* is


def _guard(view: Callable[..., Any], scope: str) -> Callable[..., Any]:
    @functools.wraps(view)
    def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        who = run_sync(_admitted(request, scope))
        if not isinstance(who, Claims):
            return to_response(who)
        request.auth = who  # type: ignore[attr-defined]  # it is set here
        return view(request, *args, **kwargs)

    return guarded


def _async_guard(view: Callable[..., Any], scope: str) -> Callable[..., Any]:
    @functools.wraps(view)
    async def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        who = await _admitted(request, scope)
        if not isinstance(who, Claims):
            return to_response(who)
        request.auth = who  # type: ignore[attr-defined]  # it is set here
        return await view(request, *args, **kwargs)

    return guarded


async def _admitted(request: HttpRequest, scope: str) -> Claims | Response:
    """Who may see the view, or the response that refuses it."""
    who = require_scope(await claims_or_refusal(request), scope)
    if not isinstance(who, Claims) or not runtime().looks_at_users:
        return who
    try:
        if await request_user(request, who.subject).is_somebody():
            return who
    except TryLater as error:
        return error_response(error)
    return challenge(InvalidToken("the user is gone, or not active", reason="revoked"))
