"""The endpoints as a URLconf: ``path("", include("unbroken.django.urls"))``.

1. Every endpoint has a name: ``reverse("unbroken:login")``.
2. Under ASGI a request is handled by an async view in the event loop, under WSGI by a plain one in the thread of the
   request. Django chooses by the kind of the view before it knows the request, so every path has a view of each kind.
3. A body above 64 KiB is refused. Under WSGI no more than that is read. Under ASGI Django writes every body to disk
   before it looks for a view: limit bodies in the server in front of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from django.db import connections, transaction
from django.http import HttpRequest, HttpResponse
from django.urls import ResolverMatch, URLPattern
from django.urls.resolvers import RoutePattern

from unbroken._concurrency import run_sync
from unbroken.django.convert import to_request_with_body, to_response
from unbroken.django.runtime import route_table, runtime
from unbroken.django.users import login_request
from unbroken.server.http.messages import NO_STORE, Response, json_response

__all__ = ["app_name", "urlpatterns"]

app_name = "unbroken"


class EndpointPattern(URLPattern):
    """One path with its endpoints. *routes* maps each method to the index of its route among the endpoints' routes."""

    def __init__(self, path: str, name: str, routes: Mapping[str, int]) -> None:
        route = path.removeprefix("/").replace("{sid}", "<str:sid>")
        self._async_view = _without_wrappers(async_view(routes))
        plain = _without_wrappers(plain_view(routes))
        super().__init__(RoutePattern(route, name=name, is_endpoint=True), plain, None, name)

    def resolve(self, path: str) -> ResolverMatch | None:
        """Return the match for *path*, with the view for this context (rule 2)."""
        match: ResolverMatch | None = super().resolve(path)
        if match is not None and _in_event_loop():
            match.func = self._async_view
        return match


def async_view(routes: Mapping[str, int]) -> Callable[..., Awaitable[HttpResponse]]:
    """Return the view for event loops."""

    async def endpoint(request: HttpRequest, sid: str = "") -> HttpResponse:
        with login_request(request):
            return to_response(await _respond(request, routes, sid))

    return endpoint


def plain_view(routes: Mapping[str, int]) -> Callable[..., HttpResponse]:
    """Return the view for threads."""

    def endpoint(request: HttpRequest, sid: str = "") -> HttpResponse:
        with login_request(request):
            return to_response(run_sync(_respond(request, routes, sid)))

    return endpoint


async def _respond(request: HttpRequest, routes: Mapping[str, int], sid: str) -> Response:
    method = "GET" if request.method == "HEAD" else str(request.method)
    if method not in routes:
        allow = ", ".join([*routes, "HEAD"] if "GET" in routes else routes)
        return json_response({"error": "method_not_allowed"}, 405, {**NO_STORE, "allow": allow})
    value = to_request_with_body(request)
    if value is None:
        return Response(400)  # the client has disconnected
    endpoints = runtime().endpoints
    return await endpoints.respond(endpoints.routes[routes[method]], value, sid)


def _without_wrappers(view: Any) -> Any:
    """Return *view* without CSRF check, login page and transaction: each write of the endpoints stands alone."""
    view.csrf_exempt, view.login_required = True, False
    for alias in connections:
        view = transaction.non_atomic_requests(using=alias)(view)
    return view


def _in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _patterns() -> list[URLPattern]:
    endpoints = route_table()
    by_path: dict[str, dict[str, int]] = {}
    for index, route in enumerate(endpoints.routes):
        by_path.setdefault(endpoints.path(route), {})[route.method] = index
    # A path has one pattern for each of its names: the first handles requests, the others are for ``reverse``.
    return [
        EndpointPattern(endpoints.path(route), route.name, by_path[endpoints.path(route)]) for route in endpoints.routes
    ]


urlpatterns = _patterns()
