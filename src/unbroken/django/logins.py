"""Logins and logouts of the project's own: social login, a link in a mail, a sign-up, a passkey.

    def callback(request):                         # somebody else has authenticated the user
        return log_in(redirect("/"), user, request=request)

    def sign_out(request):
        return log_out(None, request=request, everywhere="everywhere" in request.POST)

A refusal is returned as the response, as the endpoints return it. ``alog_in`` and ``alog_out`` are for async views.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, Unpack

from django.contrib import auth
from django.http import HttpRequest, HttpResponse

from unbroken._concurrency import run_sync
from unbroken.django.convert import add_cookie, to_request, to_response
from unbroken.django.runtime import runtime
from unbroken.errors import ConfigurationError, Refused, TryLater
from unbroken.server.http.messages import NO_STORE, Response, error_response
from unbroken.server.http.own_logins import LoginOptions

__all__ = ["alog_in", "alog_out", "log_in", "log_out"]


def log_in(
    response: HttpResponse | None,
    subject: Any,
    *,
    request: HttpRequest,
    **options: Unpack[LoginOptions],
) -> HttpResponse:
    """Return *response* with the cookies of a new session of *subject*, a user or a text, whom you have authenticated.

    Without a *response* it is that of ``/login``: tokens in cookies if the request asks for them, or in the body.
    """
    return run_sync(alog_in(response, subject, request=request, **options))


async def alog_in(
    response: HttpResponse | None,
    subject: Any,
    *,
    request: HttpRequest,
    **options: Unpack[LoginOptions],
) -> HttpResponse:
    """``log_in`` for async views."""
    is_user = isinstance(subject, auth.get_user_model())
    text = runtime().users.subject_of(subject) if is_user else subject
    logins = runtime().endpoints.own_logins
    work = logins.log_in(to_request(request), text, **options, may_have_body=response is None)
    return await _response_of(response, work)


def log_out(response: HttpResponse | None, *, request: HttpRequest, everywhere: bool = False) -> HttpResponse:
    """End the session of *request*, with *everywhere* all sessions of its subject; return *response*, or a 204."""
    return run_sync(alog_out(response, request=request, everywhere=everywhere))


async def alog_out(response: HttpResponse | None, *, request: HttpRequest, everywhere: bool = False) -> HttpResponse:
    """``log_out`` for async views."""
    work = runtime().endpoints.own_logins.log_out(to_request(request), everywhere=everywhere)
    return await _response_of(response, work)


async def _response_of(response: Any, work: Awaitable[Response]) -> HttpResponse:
    """Return *response* with the cookies of what *work* makes, or this where there is none; a refusal as it is."""
    try:
        made = await work
    except (Refused, TryLater, ConfigurationError) as error:
        return to_response(error_response(error))
    if response is None:
        return to_response(made)
    for name, text in NO_STORE.items():
        response[name] = text
    for cookie in made.cookies:
        add_cookie(response, cookie)
    return response  # type: ignore[no-any-return]  # it is an HttpResponse, or one like it
