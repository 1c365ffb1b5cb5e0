"""django-oauth-toolkit with rotation and reuse protection, for a public client: a confidential one's secret would be
hashed at each refresh.
"""

from __future__ import annotations

import json
from typing import Any

from bench.server.apps import django_setup, store

urlpatterns: list[Any] = []


def app() -> Any:
    django_setup.set_up(
        __name__,
        ["oauth2_provider"],
        store(),
        OAUTH2_PROVIDER={
            "ACCESS_TOKEN_EXPIRE_SECONDS": 1800,
            "ROTATE_REFRESH_TOKEN": True,
            "REFRESH_TOKEN_REUSE_PROTECTION": True,
            "REFRESH_TOKEN_GRACE_PERIOD_SECONDS": 0,
            "SCOPES": {"read": "read"},
        },
    )
    from django.core.wsgi import get_wsgi_application
    from django.urls import include, path

    urlpatterns.append(path("o/", include("oauth2_provider.urls", namespace="oauth2_provider")))
    return get_wsgi_application()


def tokens(n: int) -> list[str]:
    app()
    from django.contrib.auth.models import User
    from django.core.management import call_command
    from django.test import Client
    from oauth2_provider.models import Application

    call_command("migrate", verbosity=0)
    kind, grant = Application.CLIENT_PUBLIC, Application.GRANT_PASSWORD
    Application.objects.create(client_id="bench", client_type=kind, authorization_grant_type=grant)
    made, browser = [], Client(headers={"host": "127.0.0.1"})
    for number in range(n):
        User.objects.create_user(f"user-{number}", password="x")
        login = {"grant_type": "password", "username": f"user-{number}", "password": "x", "client_id": "bench"}
        made.append(json.loads(browser.post("/o/token/", login).content)["refresh_token"])
    return made
