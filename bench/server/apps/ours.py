"""Our server in each framework, as its documentation shows it, without tuning."""

from __future__ import annotations

from typing import Any

from bench.server.apps import store
from unbroken.server import Sessions, open_store


def no_login(_name: str, _password: str) -> None:
    """Refuse every password: the sessions are made beforehand."""


def tokens(n: int) -> list[str]:
    sessions = Sessions(open_store(store()))
    made = [sessions.create(f"user-{number}").refresh_token or "" for number in range(n)]
    sessions.close()
    return made


def app() -> Any:
    from starlette.applications import Starlette

    from unbroken.starlette import routes

    return Starlette(routes=routes(Sessions(open_store(store())), no_login))


def fastapi() -> Any:
    from fastapi import FastAPI

    from unbroken.fastapi import Auth

    made = FastAPI()
    made.include_router(Auth(Sessions(open_store(store())), no_login).router)
    return made


def flask() -> Any:
    from flask import Flask

    from unbroken.flask import Auth

    made = Flask(__name__)
    Auth(Sessions(open_store(store())), no_login).init_app(made)
    return made


def django() -> Any:
    from django.core.wsgi import get_wsgi_application
    from django.urls import include, path

    from bench.server.apps import django_setup

    # Django's own table of users is empty here, so subjects are not looked up there.
    settings = {"STORE": store(), "IS_ACTIVE": None}
    django_setup.set_up(__name__, ["unbroken.django"], "sqlite:///:memory:", UNBROKEN=settings)
    globals()["urlpatterns"] = [path("", include("unbroken.django.urls"))]
    return get_wsgi_application()
