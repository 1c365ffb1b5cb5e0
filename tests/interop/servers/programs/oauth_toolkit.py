"""django-oauth-toolkit with rotation and reuse protection, without grace; its API by Django REST framework."""

from __future__ import annotations

import django_setup
from loopback import LIFETIME, arguments, serve

django_setup.set_up(
    arguments()[1],
    ["oauth2_provider"],
    OAUTH2_PROVIDER={
        "ACCESS_TOKEN_EXPIRE_SECONDS": LIFETIME,
        "ROTATE_REFRESH_TOKEN": True,
        "REFRESH_TOKEN_REUSE_PROTECTION": True,
        "REFRESH_TOKEN_GRACE_PERIOD_SECONDS": 0,
        "SCOPES": {"read": "read"},
    },
    REST_FRAMEWORK={"DEFAULT_AUTHENTICATION_CLASSES": ["oauth2_provider.contrib.rest_framework.OAuth2Authentication"]},
)

from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.urls import include, path  # noqa: E402
from oauth2_provider.models import Application  # noqa: E402
from rest_framework.decorators import api_view, permission_classes  # noqa: E402
from rest_framework.permissions import IsAuthenticated  # noqa: E402
from rest_framework.request import Request  # noqa: E402
from rest_framework.response import Response  # noqa: E402


@api_view()
@permission_classes([IsAuthenticated])
def me(request: Request) -> Response:
    return Response({"sub": request.user.get_username()})


urlpatterns = [path("o/", include("oauth2_provider.urls", namespace="oauth2_provider")), path("me", me)]

Application.objects.create(
    client_id="app",
    client_secret="a secret with: signs & spaces",
    client_type=Application.CLIENT_CONFIDENTIAL,
    authorization_grant_type=Application.GRANT_PASSWORD,
)

serve(get_wsgi_application(), "/o/token/")
