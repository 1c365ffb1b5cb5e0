"""The endpoints as a URLconf: ``path("", include("unbroken.django.urls"))``.

Every endpoint has a name, ``reverse("unbroken:login")``. A request is answered where it is: by an async view in an
event loop (ASGI), by a plain one in the request's own thread (WSGI). Django chooses by the kind of a view, before it
knows the request; so a place here has one of each.

A body above 64 KiB is refused. Under WSGI no more than that is read; under ASGI Django itself takes every body to disk
before it looks for a view, so limit bodies in the server in front of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from django.db import connections, transaction
from django.http import HttpRequest, HttpResponse
from django.urls import ResolverMatch, URLPattern
from django.urls.resolvers import RoutePattern

from unbroken._sync import run_sync
from unbroken.django.convert import to_request_with_body, to_response
from unbroken.django.runtime import route_table, runtime
from unbroken.django.users import asking
from unbroken.server.http.messages import NO_STORE, Response, json_response

__all__ = ["app_name", "urlpatterns"]

app_name = "unbroken"


class EndpointPattern(URLPattern):
    """One path with its endpoints: *routes* gives, for each method, which of the endpoints' routes it is."""

    def __init__(self, path: str, name: str, routes: Mapping[str, int]) -> None:
        route = path.removeprefix("/").replace("{sid}", "<str:sid>")
        self._inside = _open(inside_of(routes))
        super().__init__(RoutePattern(route, name=name, is_endpoint=True), _open(outside_of(routes)), None, name)

    def resolve(self, path: str) -> ResolverMatch | None:
        """The view for a request to *path* that is answered here and now."""
        match: ResolverMatch | None = super().resolve(path)
        if match is not None and _is_in_event_loop():
            match.func = self._inside
        return match


def inside_of(routes: Mapping[str, int]) -> Callable[..., Awaitable[HttpResponse]]:
    """The view for event loops."""

    async def endpoint(request: HttpRequest, sid: str = "") -> HttpResponse:
        with asking(request):
            return to_response(await _answer(request, routes, sid))

    return endpoint


def outside_of(routes: Mapping[str, int]) -> Callable[..., HttpResponse]:
    """The view for threads."""

    def endpoint(request: HttpRequest, sid: str = "") -> HttpResponse:
        with asking(request):
            return to_response(run_sync(_answer(request, routes, sid)))

    return endpoint


async def _answer(request: HttpRequest, routes: Mapping[str, int], sid: str) -> Response:
    method = "GET" if request.method == "HEAD" else str(request.method)
    if method not in routes:
        allow = ", ".join([*routes, "HEAD"] if "GET" in routes else routes)
        return json_response({"error": "method_not_allowed"}, 405, {**NO_STORE, "allow": allow})
    value = to_request_with_body(request)
    if value is None:
        return Response(400)  # nobody is left to read it
    endpoints = runtime().endpoints
    return await endpoints.answer(endpoints.routes[routes[method]], value, sid)


def _open(view: Any) -> Any:
    """*view* without what Django would put before it: they look after themselves, and each write stands alone."""
    view.csrf_exempt, view.login_required = True, False
    for alias in connections:
        view = transaction.non_atomic_requests(using=alias)(view)
    return view


def _is_in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _places() -> list[URLPattern]:
    endpoints = route_table()
    there: dict[str, dict[str, int]] = {}
    for number, route in enumerate(endpoints.routes):
        there.setdefault(endpoints.path(route), {})[route.method] = number
    # A path has a place for each of its names: the first one answers, the others are for ``reverse``.
    return [
        EndpointPattern(endpoints.path(route), route.name, there[endpoints.path(route)]) for route in endpoints.routes
    ]


urlpatterns = _places()
