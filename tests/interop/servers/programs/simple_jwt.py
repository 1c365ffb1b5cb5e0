"""djangorestframework-simplejwt with rotation and its blacklist: signed tokens that nobody can take back."""

from __future__ import annotations

from datetime import timedelta

import django_setup
from loopback import LIFETIME, arguments, serve

django_setup.set_up(
    arguments()[1],
    ["rest_framework_simplejwt", "rest_framework_simplejwt.token_blacklist"],
    SIMPLE_JWT={
        "ACCESS_TOKEN_LIFETIME": timedelta(seconds=LIFETIME),
        "ROTATE_REFRESH_TOKENS": True,
        "BLACKLIST_AFTER_ROTATION": True,
    },
    REST_FRAMEWORK={"DEFAULT_AUTHENTICATION_CLASSES": ["rest_framework_simplejwt.authentication.JWTAuthentication"]},
)

from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.urls import path  # noqa: E402
from rest_framework.decorators import api_view, permission_classes  # noqa: E402
from rest_framework.permissions import IsAuthenticated  # noqa: E402
from rest_framework.request import Request  # noqa: E402
from rest_framework.response import Response  # noqa: E402
from rest_framework_simplejwt.views import TokenBlacklistView, TokenObtainPairView, TokenRefreshView  # noqa: E402


@api_view()
@permission_classes([IsAuthenticated])
def me(request: Request) -> Response:
    return Response({"sub": request.user.get_username()})


urlpatterns = [
    path("api/token/", TokenObtainPairView.as_view()),
    path("api/token/refresh/", TokenRefreshView.as_view()),
    path("api/token/blacklist/", TokenBlacklistView.as_view()),
    path("me", me),
]

serve(get_wsgi_application(), "/api/token/refresh/")
