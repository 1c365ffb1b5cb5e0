"""A Django project for tests: its users are in a SQLite file, and what is in ``UNBROKEN`` can be replaced.

A process has one Django, with one setting. So whoever uses it holds ``chosen(...)`` for as long as its server runs.
"""

from __future__ import annotations

import atexit
import importlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import django
from django.conf import settings
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.core.management import call_command
from django.test import override_settings
from django.urls import clear_url_caches, include, path

PASSWORD = "correct horse"
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "unbroken.django.middleware.AccessTokenMiddleware",
]
urlpatterns: list[Any] = []  # of the tests; the endpoints are added


def set_up() -> None:
    """Makes Django ready, once a process, with an empty table of users."""
    if settings.configured:
        return
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    settings.configure(
        SECRET_KEY="a key for tests, long enough for HMAC",
        ALLOWED_HOSTS=["*"],
        INSTALLED_APPS=[
            "django.contrib.auth",
            "django.contrib.contenttypes",
            "django.contrib.sessions",
            "rest_framework",
            "unbroken.django",
        ],
        MIDDLEWARE=MIDDLEWARE,
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": folder / "users.sqlite3"}},
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        PASSWORD_HASHERS=[  # slow hashes are not what is tested; one can be refreshed by the other
            "django.contrib.auth.hashers.MD5PasswordHasher",
            "django.contrib.auth.hashers.PBKDF2PasswordHasher",
        ],
        REST_FRAMEWORK={"DEFAULT_AUTHENTICATION_CLASSES": ["unbroken.django.rest.AccessTokenAuthentication"]},
        ROOT_URLCONF=__name__,
        USE_TZ=True,
        LOGGING_CONFIG=None,
        UNBROKEN={"STORE": "memory:"},
    )
    django.setup()
    call_command("migrate", verbosity=0)


@contextmanager
def chosen(*pages: Any, **unbroken: Any) -> Iterator[None]:
    """Within it, ``UNBROKEN`` is what is given, and the project has *pages* beside the endpoints."""
    set_up()
    before = urlpatterns[:]
    with override_settings(UNBROKEN=unbroken):
        endpoints = importlib.reload(importlib.import_module("unbroken.django.urls"))  # the prefix may be another one
        urlpatterns[:] = [*pages, path("", include((endpoints.urlpatterns, endpoints.app_name)))]
        clear_url_caches()
        try:
            yield
        finally:
            urlpatterns[:] = before
            clear_url_caches()


def application(kind: str) -> Any:
    """The project as an application, ``asgi`` or ``wsgi``."""
    return ASGIHandler() if kind == "asgi" else WSGIHandler()
