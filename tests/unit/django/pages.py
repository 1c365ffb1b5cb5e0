"""Views that need a session, or ask whose request it is: plain, async, by class, and REST framework's."""

from __future__ import annotations

from typing import Any

from django.http import JsonResponse
from django.urls import path
from django.utils.decorators import method_decorator
from django.views import View
from rest_framework.permissions import IsAuthenticated
from rest_framework.response import Response
from rest_framework.views import APIView

from unbroken.django import access_token_required
from unbroken.django.rest import requires_scope

__all__ = ["PAGES"]


@access_token_required
def orders(request: Any) -> JsonResponse:
    return JsonResponse({"sub": request.auth.subject, "user": request.user.get_username()})


@access_token_required(scope="write")
async def later(request: Any) -> JsonResponse:
    user = await request.auser()
    return JsonResponse({"sub": request.auth.subject, "user": user.get_username()})


@method_decorator(access_token_required, name="dispatch")
class Orders(View):
    def post(self, request: Any) -> JsonResponse:
        return JsonResponse({"sub": request.auth.subject})


def public(request: Any) -> JsonResponse:
    return JsonResponse({"user": str(request.user), "auth": request.auth and request.auth.subject})


async def public_async(request: Any) -> JsonResponse:
    return JsonResponse({"user": str(await request.auser()), "auth": request.auth and request.auth.subject})


class Rest(APIView):
    permission_classes = (IsAuthenticated, requires_scope("read"))

    def get(self, request: Any) -> Response:
        return Response({"user": request.user.get_username(), "sub": request.auth.subject})

    post = get


class EitherScope(Rest):
    permission_classes = (requires_scope("admin") | requires_scope("read"),)


PAGES = [
    path("orders", orders),
    path("later", later),
    path("class", Orders.as_view()),
    path("public", public),
    path("public-async", public_async),
    path("rest", Rest.as_view()),
    path("either", EitherScope.as_view()),
]
