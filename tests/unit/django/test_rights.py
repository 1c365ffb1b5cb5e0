"""Django's permissions and groups as scope: from the login to the view, and away again."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.contrib.auth.models import Group, Permission
from django.http import HttpRequest, JsonResponse
from django.test import Client
from django.urls import path

from tests.support.django_project import PASSWORD, chosen
from unbroken.django import access_token_required, current_claims, groups_of, permissions_of

LOGIN = {"username": "ada", "password": PASSWORD}


@access_token_required(scope="auth.change_group")
def change(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"scope": current_claims(request).scope})


@access_token_required(scope="auth.change_group", now=True)
def change_now(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"scope": current_claims(request).scope})


PAGES = [path("change", change), path("change-now", change_now)]


def permission(codename: str) -> Permission:
    return Permission.objects.get(codename=codename, content_type__app_label="auth")


def post(where: str, **body: str) -> dict[str, Any]:
    response = Client().post(where, json.dumps(body), content_type="application/json")
    assert response.status_code == 200, response.content
    return response.json()


def statuses(token: str) -> list[int]:
    headers = {"authorization": f"Bearer {token}"}
    return [Client().get(page, headers=headers).status_code for page in ("/change", "/change-now")]


@pytest.mark.parametrize("spelling", [permissions_of, "unbroken.django.permissions_of"], ids=["function", "path"])
def test_a_permission_that_a_group_gives_is_a_scope_while_the_user_is_in_the_group(ada: Any, spelling: Any) -> None:
    group = Group.objects.create(name="order managers")
    group.permissions.add(permission("change_group"))
    ada.groups.add(group)
    with chosen(*PAGES, STORE="memory:", SCOPES_OF=spelling):
        tokens = post("/auth/login", **LOGIN)
        assert tokens["scope"] == "auth.change_group"
        assert statuses(tokens["access_token"]) == [200, 200]
        ada.groups.clear()
        assert statuses(tokens["access_token"]) == [200, 403]
        fresh = post("/auth/refresh", refresh_token=tokens["refresh_token"])
        assert fresh["scope"] == ""
        assert statuses(fresh["access_token"]) == [403, 403]
    group.delete()


def test_the_name_of_a_group_is_one_word(ada: Any) -> None:
    groups = [Group.objects.create(name=name) for name in ("order managers", 'the "best"', "Größe", "a%20b")]
    ada.groups.add(*groups)
    subject = str(ada.pk)
    assert groups_of(subject) == ["Gr%C3%B6%C3%9Fe", "a%2520b", "order%20managers", "the%20%22best%22"]
    with chosen(STORE="memory:", SCOPES_OF=groups_of):
        assert "order%20managers" in post("/auth/login", **LOGIN)["scope"].split()
    for group in groups:
        group.delete()


def test_who_is_gone_or_not_active_has_no_rights(ada: Any) -> None:
    ada.user_permissions.add(permission("change_group"))
    assert permissions_of(str(ada.pk)) == ["auth.change_group"]
    ada.is_active = False
    ada.save()
    for subject in (str(ada.pk), "0", "nobody", ""):
        assert (permissions_of(subject), groups_of(subject)) == ([], [])


def test_claims_may_ask_the_database(ada: Any) -> None:
    def claims(info: Any) -> dict[str, object]:
        return {"staff": type(ada).objects.get(pk=info.subject).is_staff}

    with chosen(*PAGES, STORE="memory:", CLAIMS=claims):
        tokens = post("/auth/login", **LOGIN)
        type(ada).objects.update(is_staff=True)
        fresh = post("/auth/refresh", refresh_token=tokens["refresh_token"])
        from unbroken.django import sessions

        seen = [sessions().verify(one["access_token"]).extra["staff"] for one in (tokens, fresh)]
        assert seen == [False, True]
