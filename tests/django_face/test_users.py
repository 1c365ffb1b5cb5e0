"""Django's users as the accounts: who may log in, and what ends their sessions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from django.contrib.auth.hashers import make_password
from django.db import OperationalError, transaction
from django.http import HttpRequest
from django.test import Client, override_settings

from tests.django_face.conftest import JSON, LOGIN, User, alive, login, token_of
from tests.django_face.pages import PAGES
from tests.django_project import PASSWORD, chosen
from unbroken.django import sessions


def test_a_user_logs_in_and_is_known_by_the_primary_key(http: httpx2.Client, ada: Any) -> None:
    headers = login(http, scope="write")
    expected = {"sub": str(ada.pk), "user": "ada"}
    assert http.get("/orders", headers=headers).json() == expected
    assert http.get("/later", headers=headers).json() == expected


@pytest.mark.parametrize(("name", "password"), [("ada", "wrong"), ("nobody", PASSWORD), ("inactive", PASSWORD)])
def test_who_may_not_log_in_gets_one_and_the_same_answer(http: httpx2.Client, name: str, password: str) -> None:
    User.objects.create_user("inactive", password=PASSWORD, is_active=False)
    answer = http.post("/auth/login", json={"username": name, "password": password})
    assert (answer.status_code, answer.json()["error"]) == (401, "access_denied")


def test_a_backend_gets_the_request_that_the_login_came_by(http: httpx2.Client) -> None:
    with override_settings(AUTHENTICATION_BACKENDS=[f"{__name__}.Curious"]):
        Curious.heard = []
        assert http.post("/auth/login", json=LOGIN, headers={"user-agent": "curious"}).status_code == 401
    assert Curious.heard == ["curious"]


class Curious:
    """A backend that needs the request, and lets nobody in."""

    heard: list[str]

    def authenticate(self, request: HttpRequest, username: str = "", password: str = "") -> None:
        self.heard.append(request.headers["user-agent"])


def test_an_old_hash_is_renewed_at_login_and_no_session_ends_by_it(http: httpx2.Client, ada: Any) -> None:
    headers = login(http)
    User.objects.filter(pk=ada.pk).update(password=make_password(PASSWORD, hasher="pbkdf2_sha256"))
    login(http)
    ada.refresh_from_db()
    assert ada.password.startswith("md5$")
    assert http.get("/orders", headers=headers).status_code == 200


def test_another_field_may_name_the_user() -> None:
    with chosen(*PAGES, STORE="memory:", SUBJECT_FIELD="username"):
        token = Client().post("/auth/login", LOGIN, **JSON).json()["access_token"]
        assert Client().get("/orders", headers={"authorization": f"Bearer {token}"}).json()["sub"] == "ada"


def test_something_else_than_the_users_may_be_asked() -> None:
    with chosen(*PAGES, STORE="memory:", AUTHENTICATE=f"{__name__}.anybody"):
        token = Client().post("/auth/login", {"username": "eve", "password": "x"}, **JSON).json()["access_token"]
        answer = Client().get("/orders", headers={"authorization": f"Bearer {token}"})
        assert answer.json() == {"sub": "eve", "user": ""}


def anybody(name: str, password: str) -> str:
    return name


def test_users_that_cannot_be_looked_up_are_try_later_and_named_in_the_log(
    http: httpx2.Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def dead(*_: Any, **__: Any) -> None:
        raise OperationalError("no route to host")

    monkeypatch.setattr("django.contrib.auth.authenticate", dead)
    answer = http.post("/auth/login", json=LOGIN)
    assert (answer.status_code, answer.json()["error"]) == (503, "temporarily_unavailable")
    assert "the users' database does not answer" in caplog.text


def test_connections_are_looked_after_where_django_does_not(
    http: httpx2.Client, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[int] = []
    monkeypatch.setattr("unbroken.django.users.close_old_connections", lambda: closed.append(1))
    login(http)
    assert bool(closed) == (request.node.callspec.params["http"] == "asgi"), "under WSGI the request's own are used"


def test_a_password_that_changes_while_it_is_checked_begins_no_session(
    ada: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = sessions().alogin

    async def meanwhile(*args: Any, **kwargs: Any) -> Any:
        ada.set_password("another")
        ada.save()
        return await begin(*args, **kwargs)

    monkeypatch.setattr(sessions(), "alogin", meanwhile)
    assert Client().post("/auth/login", LOGIN, **JSON).status_code == 401
    assert alive() == 0


# ---- what ends sessions ----------------------------------------------------------------------------------------------


def new_password(user: Any) -> None:
    user.set_password("another")
    user.save()


def new_password_alone(user: Any) -> None:
    user.set_password("another")
    user.save(update_fields=["password"])


def new_hash(user: Any) -> None:
    user.password = make_password("another")
    user.save()


def no_password(user: Any) -> None:
    user.set_unusable_password()
    user.save()


def deactivated(user: Any) -> None:
    user.is_active = False
    user.save()


def deleted(user: Any) -> None:
    user.delete()


def deleted_in_bulk(user: Any) -> None:
    User.objects.filter(pk=user.pk).delete()


@pytest.mark.parametrize(
    "change", [new_password, new_password_alone, new_hash, no_password, deactivated, deleted, deleted_in_bulk]
)
def test_what_takes_a_user_away_ends_all_sessions_of_that_user_alone(ada: Any, change: Callable[[Any], None]) -> None:
    other = User.objects.create_user("grace", password=PASSWORD)
    mine, others = token_of(ada), token_of(other)
    change(ada)
    assert Client().get("/orders", headers=mine).json()["reason"] == "revoked"
    assert Client().get("/orders", headers=others).status_code == 200


def renamed(user: Any) -> None:
    user.first_name = "Ada"
    user.save()


def seen(user: Any) -> None:
    user.save(update_fields=["last_login"])


def activated(user: Any) -> None:
    User.objects.filter(pk=user.pk).update(is_active=False)
    user.is_active = True
    user.save()


@pytest.mark.parametrize("change", [renamed, seen, activated])
def test_other_changes_end_nothing(ada: Any, change: Callable[[Any], None]) -> None:
    headers = token_of(ada)
    change(ada)
    assert Client().get("/orders", headers=headers).status_code == 200


def test_a_user_by_another_name_is_another_user() -> None:
    with chosen(*PAGES, STORE="memory:", SUBJECT_FIELD="username"):
        sessions().login("ada")
        user = User.objects.get(username="ada")
        user.username = "augusta"
        user.save(update_fields=["username"])
        assert alive() == 0


def test_what_is_rolled_back_ends_nothing(ada: Any) -> None:
    headers = token_of(ada)
    with transaction.atomic():
        new_password(ada)
        assert Client().get("/orders", headers=headers).status_code == 200, "it is not committed yet"
        transaction.set_rollback(True)
    assert Client().get("/orders", headers=headers).status_code == 200


def test_a_user_changed_behind_djangos_back_is_nobody(ada: Any) -> None:
    headers = token_of(ada, "read")
    User.objects.filter(pk=ada.pk).update(is_active=False)
    assert Client().get("/public", headers=headers).json()["user"] == "AnonymousUser"
    answer = Client().get("/rest", headers=headers)
    assert (answer.status_code, answer.json()["reason"]) == (401, "revoked")
