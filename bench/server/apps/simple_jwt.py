"""djangorestframework-simplejwt with rotation and its blacklist."""

from __future__ import annotations

from typing import Any

from bench.server.apps import django_setup, store

urlpatterns: list[Any] = []


def app() -> Any:
    django_setup.set_up(
        __name__,
        ["rest_framework", "rest_framework_simplejwt", "rest_framework_simplejwt.token_blacklist"],
        store(),
        SIMPLE_JWT={"ROTATE_REFRESH_TOKENS": True, "BLACKLIST_AFTER_ROTATION": True},
        REST_FRAMEWORK={"DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"]},
    )
    from django.core.wsgi import get_wsgi_application
    from django.urls import path
    from rest_framework_simplejwt.views import TokenRefreshView

    urlpatterns.append(path("refresh", TokenRefreshView.as_view()))
    return get_wsgi_application()


def tokens(n: int) -> list[str]:
    app()
    from django.contrib.auth.models import User
    from django.core.management import call_command
    from rest_framework_simplejwt.tokens import RefreshToken

    call_command("migrate", verbosity=0)
    users = [User.objects.create_user(f"user-{number}", password="x") for number in range(n)]
    return [str(RefreshToken.for_user(user)) for user in users]
