"""REST framework beside another kind of bearer tokens, and the bodies of its errors."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.test import Client
from django.urls import path
from rest_framework.permissions import AllowAny, IsAuthenticated
from rest_framework.response import Response
from rest_framework.views import APIView

from tests.support import django_project
from tests.support.django_project import chosen

django_project.set_up()

from rest_framework_simplejwt.authentication import JWTAuthentication  # noqa: E402  # needs the settings
from rest_framework_simplejwt.tokens import AccessToken  # noqa: E402

from unbroken.django import sessions  # noqa: E402
from unbroken.django.rest import AccessTokenAuthentication, requires_scope  # noqa: E402

User: Any = get_user_model()


class OursFirst(APIView):
    authentication_classes = (AccessTokenAuthentication, JWTAuthentication)
    permission_classes = (IsAuthenticated,)

    def get(self, request: Any) -> Response:
        return Response({"user": request.user.get_username(), "by": type(request.successful_authenticator).__name__})


class OursLast(OursFirst):
    authentication_classes = (JWTAuthentication, AccessTokenAuthentication)


class OursOnly(OursFirst):
    authentication_classes = (AccessTokenAuthentication,)


class Open(APIView):
    authentication_classes = (AccessTokenAuthentication,)
    permission_classes = (AllowAny,)

    def get(self, request: Any) -> Response:
        return Response({"anonymous": request.user.is_anonymous})


class Writing(OursOnly):
    permission_classes = (requires_scope("write"),)


VIEWS = {"first": OursFirst, "last": OursLast, "only": OursOnly, "open": Open, "writing": Writing}


@pytest.fixture(autouse=True)
def ada() -> Iterator[Any]:
    pages = [path(name, view.as_view()) for name, view in VIEWS.items()]
    with chosen(*pages, STORE="memory:", ISSUER="https://shop.example"):
        yield User.objects.create_user("ada", password="correct horse")
        User.objects.all().delete()


def get(page: str, token: str) -> Any:
    return Client().get(f"/{page}", headers={"authorization": f"Bearer {token}"})


def jwt(header: dict[str, Any], payload: dict[str, Any]) -> str:
    parts = (base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in (header, payload))
    return ".".join((*parts, "c2lnbmF0dXJl"))


@pytest.mark.parametrize("page", ["first", "last"])
def test_two_kinds_of_tokens_work_side_by_side_for_those_who_have_one_of_simplejwts(page: str, ada: Any) -> None:
    answer = get(page, str(AccessToken.for_user(ada)))
    assert (answer.status_code, answer.json()) == (200, {"user": "ada", "by": "JWTAuthentication"})


def test_ours_passes_beside_simplejwt_where_it_is_asked_first(ada: Any) -> None:
    answer = get("first", sessions().create(str(ada.pk)).access_token)
    assert (answer.status_code, answer.json()) == (200, {"user": "ada", "by": "AccessTokenAuthentication"})


@pytest.mark.parametrize(
    "token",
    [
        jwt({"alg": "HS256", "typ": "JWT"}, {"iss": "https://shop.example"}),
        jwt({"alg": "HS256"}, {"iss": "https://shop.example"}),
        jwt({"alg": "EdDSA", "typ": "at+jwt"}, {"iss": "https://other.example"}),
        jwt({"alg": "EdDSA", "typ": "at+jwt"}, {}),
    ],
    ids=["another typ", "no typ", "another issuer", "no issuer"],
)
def test_another_issuers_token_is_left_to_the_next_class_and_opens_nothing(token: str) -> None:
    assert get("open", token).json() == {"anonymous": True}
    refused = get("only", token)
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"] == 'Bearer realm="unbroken", DPoP algs="ES256 Ed25519 EdDSA"'


@pytest.mark.parametrize("page", ["first", "only", "open"])
@pytest.mark.parametrize(
    "token",
    ["junk", "a.b.c", jwt({"alg": "EdDSA", "typ": "at+jwt"}, {"iss": "https://shop.example"})],
    ids=["no token", "no JSON", "a forged one"],
)
def test_a_token_that_may_be_ours_and_is_no_good_is_an_error(page: str, token: str) -> None:
    answer = get(page, token)
    assert answer.status_code == 401
    assert answer.json() == {
        "detail": "this is not an access token of this server",
        "error": "invalid_token",
        "reason": "malformed",
    }
    assert 'error="invalid_token"' in answer.headers["www-authenticate"]


def test_too_little_scope_is_an_error_in_the_same_shape(ada: Any) -> None:
    answer = get("writing", sessions().create(str(ada.pk), scope="read").access_token)
    assert (answer.status_code, answer.json()) == (
        403,
        {"detail": "the access token lacks scope", "error": "insufficient_scope", "scope": "write"},
    )


def test_a_user_who_is_gone_is_an_error_in_the_same_shape() -> None:
    answer = get("only", sessions().create("999").access_token)
    assert answer.status_code == 401
    assert answer.json() == {
        "detail": "the user is gone, or not active",
        "error": "invalid_token",
        "reason": "revoked",
    }
