"""An application with routes of its own, in each framework: what they need, and who logs in and out by them.

/write      the scope ``write``              /admin      the claim ``role: admin``
/write-now  the same, of now                 /admin-now  the same, of now
/arrive     a redirect that logs ``ada`` in, by cookies       /tokens   the tokens of ``ada``
/leave      this device signs out            /leave-all  all devices do
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import flask
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.urls import path
from fastapi import Depends, FastAPI, Request, Response, Security
from starlette.applications import Starlette
from starlette.requests import Request as StarletteRequest
from starlette.responses import JSONResponse, RedirectResponse
from starlette.responses import Response as StarletteResponse
from starlette.routing import Route

import unbroken.fastapi
import unbroken.flask
from tests.support import django_project
from tests.support.backend import running
from tests.support.faces import authenticate, threaded
from unbroken.server import Claims, Sessions
from unbroken.starlette import Auth

ADMIN = {"role": "admin"}
NEEDS: dict[str, dict[str, Any]] = {
    "/write": {"scope": "write"},
    "/write-now": {"scope": "write", "now": True},
    "/admin": {"claims": ADMIN},
    "/admin-now": {"claims": ADMIN, "now": True},
}
Shown = dict[str, Any]


def shown(claims: Claims) -> Shown:
    return {"sub": claims.subject, "scope": claims.scope, "role": claims.extra.get("role", "")}


def starlette_app(sessions: Sessions, **settings: Any) -> AbstractContextManager[int]:
    auth = Auth(sessions, authenticate, **settings)

    def page(needs: dict[str, Any]) -> Callable[[StarletteRequest], Any]:
        async def endpoint(request: StarletteRequest) -> JSONResponse:
            return JSONResponse(shown(await auth.claims(request, **needs)))

        return endpoint

    async def arrive(request: StarletteRequest) -> StarletteResponse:
        return await auth.log_in(RedirectResponse("/home", 303), "ada", request=request)

    async def tokens(request: StarletteRequest) -> StarletteResponse:
        return await auth.log_in(None, "ada", request=request, **request.query_params)

    async def leave(request: StarletteRequest) -> StarletteResponse:
        return await auth.log_out(None, request=request)

    async def leave_all(request: StarletteRequest) -> StarletteResponse:
        return await auth.log_out(JSONResponse({"bye": True}), request=request, everywhere=True)

    own = [Route(path, page(needs)) for path, needs in NEEDS.items()]
    own += [Route("/arrive", arrive), Route("/tokens", tokens, methods=["POST"])]
    own += [Route("/leave", leave, methods=["POST"]), Route("/leave-all", leave_all, methods=["POST"])]
    return running(Starlette(routes=[*auth.routes, *own]))


def fastapi_app(sessions: Sessions, **settings: Any) -> AbstractContextManager[int]:
    auth, app = unbroken.fastapi.Auth(sessions, authenticate, **settings), FastAPI()
    app.include_router(auth.router)

    @app.get("/write")
    async def write(claims: Claims = Security(auth.claims, scopes=["write"])) -> Shown:
        return shown(claims)

    for name, needs in NEEDS.items():

        @app.get(name)
        async def page(claims: Claims = Depends(auth.requires(**needs))) -> Shown:
            return shown(claims)

    @app.get("/arrive")
    async def arrive(request: Request) -> Response:
        return await auth.log_in(RedirectResponse("/home", 303), "ada", request=request)

    @app.post("/tokens")
    async def tokens(request: Request) -> Response:
        return await auth.log_in(None, "ada", request=request, **request.query_params)

    @app.post("/leave")
    async def leave(request: Request) -> Response:
        return await auth.log_out(None, request=request)

    @app.post("/leave-all")
    async def leave_all(request: Request) -> Response:
        return await auth.log_out(JSONResponse({"bye": True}), request=request, everywhere=True)

    return running(app)


def flask_app(sessions: Sessions, **settings: Any) -> AbstractContextManager[int]:
    auth, app = unbroken.flask.Auth(sessions, authenticate, **settings), flask.Flask(__name__)
    auth.init_app(app)

    for name, needs in NEEDS.items():

        @app.get(name, endpoint=name)
        @auth.required(**needs)
        def page() -> Shown:
            return shown(unbroken.flask.current_claims)

    @app.get("/arrive")
    def arrive() -> Any:
        return auth.log_in(flask.redirect("/home", 303), "ada")

    @app.post("/tokens")
    def tokens() -> Any:
        return auth.log_in(None, "ada", **flask.request.args)

    @app.post("/leave")
    def leave() -> Any:
        return auth.log_out(None)

    @app.post("/leave-all")
    def leave_all() -> Any:
        return auth.log_out(flask.jsonify({"bye": True}), everywhere=True)

    return threaded(app)


def django_pages(kind: str) -> list[Any]:
    from rest_framework.decorators import api_view, permission_classes

    from unbroken.django import access_token_required, alog_in, alog_out, current_claims, log_in, log_out
    from unbroken.django.rest import requires_scope

    def answer(request: HttpRequest) -> JsonResponse:
        return JsonResponse(shown(current_claims(request)))

    async def async_answer(request: HttpRequest) -> JsonResponse:
        return answer(request)

    def rest_page(needs: dict[str, Any]) -> Any:
        @api_view(["GET"])
        @permission_classes([requires_scope(**needs)])
        def page(request: Any) -> JsonResponse:
            return JsonResponse(shown(request.auth))

        return page

    def exempt(view: Any) -> Any:
        view.csrf_exempt = True
        return view

    if kind == "asgi":

        async def arrive(request: HttpRequest) -> HttpResponse:
            return await alog_in(HttpResponseRedirect("/home", status=303), "ada", request=request)

        async def tokens(request: HttpRequest) -> HttpResponse:
            return await alog_in(None, "ada", request=request, **request.GET.dict())

        async def leave(request: HttpRequest) -> HttpResponse:
            return await alog_out(None, request=request)

        async def leave_all(request: HttpRequest) -> HttpResponse:
            return await alog_out(JsonResponse({"bye": True}), request=request, everywhere=True)

    else:

        def arrive(request: HttpRequest) -> HttpResponse:  # type: ignore[misc]  # the same, plain
            return log_in(HttpResponseRedirect("/home", status=303), "ada", request=request)

        def tokens(request: HttpRequest) -> HttpResponse:  # type: ignore[misc]
            return log_in(None, "ada", request=request, **request.GET.dict())

        def leave(request: HttpRequest) -> HttpResponse:  # type: ignore[misc]
            return log_out(None, request=request)

        def leave_all(request: HttpRequest) -> HttpResponse:  # type: ignore[misc]
            return log_out(JsonResponse({"bye": True}), request=request, everywhere=True)

    view = async_answer if kind == "asgi" else answer
    if kind == "rest":
        pages = [path(name[1:], rest_page(needs)) for name, needs in NEEDS.items()]
    else:
        pages = [path(name[1:], access_token_required(**needs)(view)) for name, needs in NEEDS.items()]
    own = {"arrive": arrive, "tokens": tokens, "leave": leave, "leave-all": leave_all}
    return [*pages, *(path(name, exempt(one)) for name, one in own.items())]


@contextmanager
def django_app(kind: str, sessions: Sessions, **settings: Any) -> Iterator[int]:
    django_project.set_up()
    own = {name.upper(): value for name, value in settings.items()}
    if kind == "rest":  # its authentication loads users
        own.setdefault("SUBJECT_FIELD", "username")
    with django_project.chosen(*django_pages(kind), SESSIONS=sessions, AUTHENTICATE=authenticate, **own):
        serve = running if kind == "asgi" else threaded
        with serve(django_project.application("asgi" if kind == "asgi" else "wsgi")) as port:
            yield port


APPS: dict[str, Callable[..., AbstractContextManager[int]]] = {
    "starlette": starlette_app,
    "fastapi": fastapi_app,
    "flask": flask_app,
    "django-asgi": partial(django_app, "asgi"),
    "django-wsgi": partial(django_app, "wsgi"),
    "django-rest": partial(django_app, "rest"),
}
