"""Django in one file, as fast as its documentation allows: persistent connections, SQLite in WAL mode."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import django
from django.conf import settings


def set_up(urls: str, apps: list[str], url: str, **more: Any) -> None:
    """Set Django up with the database at *url* and the ``urlpatterns`` of the module *urls*."""
    settings.configure(
        SECRET_KEY="a key for benchmarks, long enough for HMAC",
        ALLOWED_HOSTS=["127.0.0.1"],
        INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", *apps],
        MIDDLEWARE=["django.middleware.common.CommonMiddleware"],
        DATABASES={"default": _database(url)},
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],  # no password is checked in a refresh
        ROOT_URLCONF=urls,
        USE_TZ=True,
        **more,
    )
    django.setup()


def _database(url: str) -> dict[str, Any]:
    if url.startswith("sqlite:"):
        return {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": url.removeprefix("sqlite:///"),
            "CONN_MAX_AGE": None,
            "OPTIONS": {
                "transaction_mode": "IMMEDIATE",
                "timeout": 20,
                "init_command": "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;",
            },
        }
    at = urlsplit(url)
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": at.path.lstrip("/"),
        "USER": at.username,
        "HOST": at.hostname,
        "PORT": at.port,
        "CONN_MAX_AGE": None,
    }
